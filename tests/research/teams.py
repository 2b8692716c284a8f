"""Models that play the parts of a deep research, and a corpus with planted facts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Line, Scripted

QUESTION = "What does Ada's goat eat, and where does it live?"
FILLER = "Nothing of interest happened on that day, and nobody wrote anything down about it. " * 3
CORPUS = {
    "goat.md": f"# Ada's goat\n{FILLER}Ada's goat eats thistles.",
    "house.txt": f"Where it lives\n{FILLER}Ada's goat lives behind the mill.",
    "ships.txt": f"Ships\n{FILLER}The ship of Ada's uncle lives on in songs.",
    "tax.txt": f"Taxes\n{FILLER}Taxes are paid in May.",
}
FACTS = {"thistles": "Ada's goat eats thistles.", "behind the mill": "Ada's goat lives behind the mill."}
PLAN = json.dumps(
    {
        "queries": [
            {"query": "Ada goat eats", "task": "What it eats."},
            {"query": "goat lives", "task": "Where it lives."},
        ],
        "strategy": "First food, then place.",
    }
)


def write_corpus(folder: Path, texts: Mapping[str, str] = CORPUS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def prompt_of(request: ChatRequest) -> str:
    return "\n".join(m.content for m in request.messages)


def part_of(request: ChatRequest) -> str:
    """Which part of the team is asked: plan, compress or write."""
    prompt = prompt_of(request)
    if "sees only your notes" in prompt:
        return "compress"
    return "plan" if "Do not answer the question yet" in prompt else "write"


def source_of(request: ChatRequest) -> str:
    """The source of the chunk that a compressor is asked about."""
    found = re.search(r"Text from (\S+):", prompt_of(request))
    assert found is not None
    return found[1]


def notes(request: ChatRequest) -> Line:
    """A compressor that finds the planted facts and nothing else."""
    found = [fact for words, fact in FACTS.items() if words in prompt_of(request)]
    return json.dumps({"explanation": " ".join(found), "relevant": bool(found)})


def writes(request: ChatRequest) -> Line:
    """A writer that cites each note that stands before it."""
    cited = re.findall(r"\[(\d+)\][^\n]*\n- ([^\n]*)", prompt_of(request))
    return " ".join(f"{text} [{n}]" for n, text in cited) or "The notes do not say."


def team(
    plan: Line | Callable[[ChatRequest], Line] = PLAN,
    compress: Line | Callable[[ChatRequest], Line] = notes,
    write: Line | Callable[[ChatRequest], Line] = writes,
    latency_s: float = 0.0,
) -> Scripted:
    parts = {"plan": plan, "compress": compress, "write": write}

    def say(request: ChatRequest) -> Line:
        line = parts[part_of(request)]
        return line(request) if callable(line) else line

    return Scripted(say, latency_s=latency_s)
