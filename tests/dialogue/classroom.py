"""A world in which learning can be watched without a model: scripted agents that say less once they are trained.

What an untrained agent writes is long, but short when told to write telegraphically; a trained one
writes shorter with every adapter. Whether it is right depends on its seed alone.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentcomm.backends.adapters import ModelRef
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.dialogue.export import TrainConfig
from agentcomm.dialogue.learning import Learned, Learning
from agentcomm.dialogue.plan import LearnConfig
from agentcomm.dialogue.readability import Read, Readability
from agentcomm.dialogue.reward import RewardConfig
from agentcomm.dialogue.rows import PreferenceRow, Row
from agentcomm.graph import AgentGraph
from agentcomm.loading import load_graph, load_task
from agentcomm.task import Task

LONG, SHORT = 30, 4
WORDS = [
    "well",
    "so",
    "then",
    "the",
    "pump",
    "may",
    "leak",
    "near",
    "that",
    "valve",
    "since",
    "it",
    "was",
    "shut",
    "on",
    "monday",
    "by",
    "us",
    "all",
    "here",
    "now",
    "again",
]


def items(split: str, limit: int) -> Task:
    return load_task(
        "records", {"split": split, "limit": limit, "specialists": 2, "by": "attribute", "hops": 2}
    )


LEARN, VALIDATE = items("learn", 6), items("validate", 8)
ANSWERS = {i.question: i.answer for i in (*LEARN.items, *VALIDATE.items)}


def speak(request: ChatRequest, level: int) -> str:
    """A message of so many words by an agent trained ``level`` times; right in two of three seeds."""
    prompt = "\n".join(m.content for m in request.messages)
    question = next(q for q in ANSWERS if q in prompt)
    seed = request.seed or 0
    length = SHORT if "content, no grammar" in prompt else LONG // (1 + level)
    words = " ".join(WORDS[(seed + k) % len(WORDS)] for k in range(length + seed % 3))
    right = request.temperature == 0 or seed % 3
    return f"{words} <A>{ANSWERS[question] if right else 'zebra'}</A>"


class Classroom:
    """A workshop whose trainings are files: how often a model was trained says how short it writes."""

    def __init__(self, log: Path | None = None, *, kill_at: int = 0, die_in_training: bool = False) -> None:
        self.asked: list[str] = []
        self.trained: list[tuple[str, ModelRef, TrainConfig, int]] = []
        self.log, self.kill_at, self.die_in_training = log, kill_at, die_in_training
        self.worse = False

    def serve(self, ref: ModelRef) -> Scripted:
        level = sum(int((Path(a) / "level").read_text()) for a in ref.adapters)

        def say(request: ChatRequest) -> str:
            self.asked.append(request.id)
            if self.log is not None:
                with self.log.open("a") as file:
                    file.write(request.id + "\n")
            if self.kill_at and len(self.asked) == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return speak(request, level)

        return Scripted(say, name=f"scripted/level{level}", max_concurrency=4)

    def train(
        self, found: Sequence[Row] | Sequence[PreferenceRow], base: ModelRef, config: TrainConfig, out: Path
    ) -> ModelRef:
        if self.die_in_training:
            os.kill(os.getpid(), signal.SIGKILL)
        self.trained.append((config.method, base, config, len(found)))
        adapter = out / "adapter"
        adapter.mkdir(parents=True, exist_ok=True)
        (adapter / "level").write_text("-0" if self.worse else "1")
        (out / "report.json").write_text(json.dumps({"steps": 3, "tokens_seen": 100 * len(found)}))
        return ModelRef(base.base, (*base.adapters, str(adapter)))

    def publish(self, ref: ModelRef, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "level").write_text(str(sum(int((Path(a) / "level").read_text()) for a in ref.adapters)))

    def report(self, out: Path) -> Mapping[str, Any]:
        return {**json.loads((out / "report.json").read_text()), "device_seconds": 1.5, "device": "none"}


class Letters:
    """Readability by length: an eighth of a nat a character, 1 to 3; counts what it read."""

    name = "letters"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def read(self, texts: Sequence[str]) -> Read:
        self.texts += texts
        return Read([min(3.0, 1.0 + len(t) / 80) for t in texts], sum(len(t.split()) for t in texts))

    def close(self) -> None:
        pass


def team(instruction: str) -> AgentGraph:
    return load_graph("information_exchange", {"instruction": instruction, "rounds": 2})


REWARD = RewardConfig(min_tokens=2)
SMALL: dict[str, Any] = {
    "samples": 3,
    "formats": ("natural", "telegraphic"),
    "reward": REWARD,
    "calibrate": 4,
    "expansions": 3,
    "rollouts": 2,
}


def lesson(
    out: Path, classroom: Classroom, *, readability: Readability | None = None, **config: Any
) -> Learning:
    return Learning(
        team,
        LEARN,
        LEARN.items,
        VALIDATE.items,
        ModelRef("base"),
        classroom,
        out,
        LearnConfig(**{**SMALL, **config}),
        readability or Letters(),
    )


def manifests(out: Path) -> list[dict[str, Any]]:
    found = sorted((out / "learn").glob("iteration-*/manifest.json"))
    return [json.loads(path.read_text()) for path in found]


async def taught(out: Path, classroom: Classroom | None = None, iterations: int = 2, **more: Any) -> Learned:
    return await lesson(out, classroom or Classroom(), **more).run(iterations)
