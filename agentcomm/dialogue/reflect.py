"""Reflect: a model reads what a format's dialogues came to and rewrites the format's example.

The search is GEPA's (Agrawal et al., arXiv 2507.19457; extra ``gepa``): candidates are examples of one
format, mutated one at a time by a model that reads dialogues and what they were worth; a mutation that
does better on a few items is played on a fixed set of them, and the frontier keeps who is best in each
objective: task, tokens, readability. All of that is on ``learn`` items. What it finds then meets natural
language on held-out ones, and "keep natural language" is a result.

Only the example changes, never the instruction, and tokens count with prompts: examples grow, and here
a longer one pays for itself or loses (``dialogue.md`` section 7). No mutation is tried twice, no item is
played twice under one candidate. A dialogue that fails is no zero: it counts as the mean of those beside
it. Models of about 0.5 B and less are too weak to reflect.

Deliberately absent: a reflection model's prompts of GEPA's own, its files (they are pickles) and its
merging of candidates.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import anyio.from_thread
import anyio.to_thread
import numpy as np

from agentcomm.dialogue.formats import NATURAL, POOL, Format
from agentcomm.dialogue.reward import Dialogue, RewardConfig, count, quantile, reward
from agentcomm.dialogue.search import Arena, FormatSearch, SearchPlan, SearchResult
from agentcomm.errors import ConfigError, MissingExtraError, TaskError, UserError
from agentcomm.message import content_id

EXAMPLE = "example"
LONGEST = 400
"""Characters of an example: more is no example of a terse message."""

_ANSWER = re.compile(r"<example>(.*?)</example>", re.DOTALL | re.IGNORECASE)


class Ask(Protocol):
    """A model that writes; ``None`` where the call failed."""

    def __call__(self, prompt: str) -> Coroutine[Any, Any, str | None]: ...


@dataclass(frozen=True)
class ReflectPlan:
    """How much a reflective search may do.

    Parameters
    ----------
    calibrate:
        Items for the normaliser, with natural language.
    train:
        Items that mutations are tried on, ``minibatch`` at a time.
    watch:
        Items that every accepted candidate is played on.
    dialogues:
        At most, calibration and final comparison left out.
    reflections:
        Calls of the model that writes, at most.
    accept:
        ``validate`` items of the final comparison.
    """

    calibrate: int = 16
    train: int = 24
    watch: int = 12
    minibatch: int = 3
    dialogues: int = 150
    reflections: int = 12
    accept: int = 32

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1 or self.minibatch > self.train:
            raise ConfigError(f"a reflective search needs items in every step, not {self}")
        if self.dialogues < self.watch + self.a_step:
            raise ConfigError(
                f"{self.dialogues} dialogues don't last for one mutation: the beginning takes {self.watch}, a "
                f"mutation up to {self.a_step}"
            )

    @property
    def a_step(self) -> int:
        """Dialogues of one mutation at most: parent and child on a few items, then the child on all."""
        return 2 * self.minibatch + self.watch

    @property
    def learn_items(self) -> int:
        return self.calibrate + self.train + self.watch

    @property
    def most(self) -> int:
        """Dialogues at most, all told."""
        return self.calibrate + self.dialogues + 2 * self.accept


@dataclass
class ReflectiveSearch:
    """GEPA over the example of one format.

    Parameters
    ----------
    start:
        The format whose example is rewritten; not natural language, which has none.
    config:
        What is rewarded; tokens with prompts (``count="total"``).
    """

    start: Format = POOL["natural_terse"]
    plan: ReflectPlan = field(default_factory=ReflectPlan)
    config: RewardConfig = field(default_factory=lambda: RewardConfig(count="total", loss_weight=0.0))
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.start.instruction:
            raise ConfigError(f"format {self.start.id!r} has no instruction, so it has no example to rewrite")
        if self.config.count != "total":
            raise ConfigError(
                f"count={self.config.count!r}; examples stand in prompts, so count total tokens"
            )
        self.candidates: dict[str, Format] = {}
        self.reflections = self.useless = 0

    def format_of(self, example: str) -> Format:
        """The format with another example."""
        if example == self.start.example:
            return self.start
        return replace(self.start, id=f"{self.start.id}-{content_id(example)[:8]}", example=example)

    async def run(self, arena: Arena, ask: Ask) -> SearchResult:
        """Search, and compare the best candidate with natural language.

        Raises
        ------
        MissingExtraError
            If gepa is not installed.
        UserError
            For what arena and model raise: what would fail every item, or a spent limit.
        TaskError
            If every dialogue of a step failed.
        """
        optimize = _gepa()
        plan, played = self.plan, list[Dialogue | None]()

        async def play(format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
            found = await arena.play(format, items, purpose)
            played.extend(found)
            return found

        natural = await play(POOL[NATURAL], range(plan.calibrate), "calibrate")
        known = [count(d, self.config.count) for d in natural if d is not None]
        if not known:
            raise TaskError("every dialogue in natural language failed, so nothing can be calibrated")
        normaliser = quantile(known)
        adapter = _Adapter(self, normaliser, play, ask)
        first = plan.calibrate + plan.train
        watch = list(range(first, first + plan.watch))

        def search() -> Any:
            return optimize(
                seed_candidate={EXAMPLE: self.start.example},
                trainset=list(range(plan.calibrate, first)),
                valset=watch,
                adapter=adapter,
                frontier_type="objective",
                reflection_minibatch_size=plan.minibatch,
                skip_perfect_score=False,
                stop_callbacks=adapter.done,
                logger=_Silent(),
                track_best_outputs=False,
                seed=self.seed,
            )

        found = await anyio.to_thread.run_sync(search)
        if adapter.error is not None:
            raise adapter.error
        self.reflections, self.useless = adapter.reflections, adapter.useless
        formats = [self.format_of(c[EXAMPLE]) for c in found.candidates]
        self.candidates = {f.id: f for f in formats}
        best = formats[int(np.argmax(found.val_aggregate_scores))]
        compare = FormatSearch(self.candidates, SearchPlan(accept=plan.accept), self.config, self.seed)
        rows = [
            compare.standing(f.id, 1, [adapter.cache[f.id, i] for i in watch], normaliser) for f in formats
        ]
        rows.sort(key=lambda s: -math.inf if s.reward is None else s.reward, reverse=True)
        standings = [replace(s, kept=s.format == best.id) for s in rows]
        everything = {NATURAL: POOL[NATURAL], **self.candidates}

        async def by_id(id: str, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
            return await play(everything[id], items, purpose)

        return await compare.final(best.id, normaliser, standings, by_id, played)


class _Silent:
    def log(self, message: str) -> None:
        """GEPA's own log would go to stdout."""


class _Adapter:
    """What GEPA asks of a system: play a candidate, say what came of it, and write a better one."""

    def __init__(
        self,
        search: ReflectiveSearch,
        normaliser: float,
        play: Callable[[Format, Sequence[int], str], Coroutine[Any, Any, list[Dialogue | None]]],
        ask: Ask,
    ) -> None:
        self.search, self.normaliser, self.play, self.ask = search, normaliser, play, ask
        self.cache: dict[tuple[str, int], Dialogue | None] = {}
        self.tried = {search.start.example}
        self.used = self.reflections = self.useless = 0
        self.error: UserError | None = None

    def done(self, state: Any) -> bool:
        """Whether the next mutation might not be paid for any more."""
        plan = self.search.plan
        spent = self.used + plan.a_step > plan.dialogues
        return spent or self.reflections >= plan.reflections or self.error is not None

    def evaluate(self, batch: list[int], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        from gepa.core.adapter import EvaluationBatch

        format = self.search.format_of(candidate[EXAMPLE])
        fresh = [i for i in batch if (format.id, i) not in self.cache]
        if fresh:
            self.used += len(fresh)
            found: list[Dialogue | None] = anyio.from_thread.run(self.play, format, fresh, "reflect")
            self.cache.update({(format.id, i): d for i, d in zip(fresh, found, strict=True)})
        dialogues = [self.cache[format.id, i] for i in batch]
        terms = [None if d is None else reward(d, self.normaliser, self.search.config) for d in dialogues]
        there = [t for t in terms if t is not None and math.isfinite(t.total)]
        readable = bool(there) and all(t.nll is not None for t in there)
        scores, objectives = [], []
        for t in terms:
            beside = there if t is None or not math.isfinite(t.total) else [t]
            # Nothing came of any: worse than any dialogue that guards have punished.
            scores.append(float(np.mean([x.total for x in beside])) if beside else -3.0)
            aims = {
                "task": float(np.mean([x.task for x in beside])) if beside else 0.0,
                "tokens": -float(np.mean([x.ratio for x in beside])) if beside else -3.0,
            }
            if readable:
                aims["readability"] = -float(np.mean([x.nll for x in beside if x.nll is not None]))
            objectives.append(aims)
        return EvaluationBatch(
            outputs=list(batch),
            scores=scores,
            trajectories=[(d, t) for d, t in zip(dialogues, terms, strict=True)] if capture_traces else None,
            objective_scores=objectives,
            num_metric_calls=len(fresh),
        )

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        records = []
        for dialogue, terms in eval_batch.trajectories:
            if dialogue is None or terms is None:
                records.append({"Dialogue": "", "Feedback": "The call failed; nothing is known of it."})
                continue
            said = "\n".join(f"{m.agent}: {m.text}" for m in dialogue.messages)
            punished = f" Faults: {', '.join(terms.guards)}." if terms.guards else ""
            records.append(
                {
                    "Dialogue": said,
                    "Feedback": f"Score {terms.task:.2f} of 1, {terms.tokens} tokens.{punished}",
                }
            )
        return dict.fromkeys(components_to_update, records)

    def propose_new_texts(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """Another example, or nothing where the model wrote none of use. GEPA would swallow what is raised here."""
        if self.error is not None or self.reflections >= self.search.plan.reflections:
            return {}
        self.reflections += 1
        prompt = reflection(self.search.start, candidate[EXAMPLE], reflective_dataset[EXAMPLE], self.tried)
        try:
            reply = anyio.from_thread.run(self.ask, prompt)
        except UserError as error:
            self.error = error
            return {}
        text = example_in(reply or "")
        if text is None or text in self.tried:
            self.useless += 1
            return {}
        self.tried.add(text)
        return {EXAMPLE: text}


def reflection(
    format: Format, example: str, records: Sequence[Mapping[str, Any]], tried: Sequence[str] | set[str]
) -> str:
    """What the writing model is asked; equal searches ask equal bytes."""
    told = "\n\n".join(f"{r['Dialogue']}\n({r['Feedback']})" for r in records)
    others = "".join(f"\n- {t}" for t in sorted(tried) if t != example)
    return (
        "Two agents solve questions by writing to each other. They are told:\n\n"
        f"{format.instruction} Example: {example}\n\n"
        f"This is what they wrote, and what came of it:\n\n{told}\n\n"
        "Write a better example message for them: right answers count most, then few tokens. It must fit the "
        "instruction, be about something else than these questions, and be short."
        + (f" These were tried before:{others}" if others else "")
        + "\n\nWrite it as <example>...</example> and nothing else."
    )


def example_in(reply: str) -> str | None:
    """The example in a reply; ``None`` where there is none of use: empty, too long, or no readable text."""
    found = [text.strip() for text in _ANSWER.findall(reply) if text.strip()]
    if not found or len(found[-1]) > LONGEST:
        return None
    text = found[-1]
    letters = sum(c.isalnum() for c in text)
    return (
        text
        if letters >= 0.4 * len(text.replace(" ", "")) and text.replace("\n", " ").isprintable()
        else None
    )


def _gepa() -> Any:
    try:
        from gepa.api import optimize
    except ImportError as error:
        raise MissingExtraError("a reflective search needs pip install 'agentcomm[gepa]'") from error
    return optimize
