"""Sharing: several runs on the same items that pay for each reply once, under limits for all together.

Runs that are to be compared differ in one thing (a part left out, a message exchanged); whoever reads
the same in two of them is asked once. The replies are kept in a file beside the runs, and seeds belong
to the turn, so that equal turns make equal requests.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats as scipy_stats  # type: ignore[import-untyped]

from agentcomm.backends.base import Backend
from agentcomm.errors import ConfigError
from agentcomm.evaluation.effects import Effect
from agentcomm.evaluation.run import Progress, Run, TopologyOf, evaluate
from agentcomm.evaluation.worth import Paid
from agentcomm.graph import AgentGraph
from agentcomm.ledger.limits import Limits
from agentcomm.ledger.rows import Phase
from agentcomm.ledger.usage import ARROW, is_edge
from agentcomm.options import RunOptions
from agentcomm.task import Task

REPLIES = "replies.sqlite"

Key = tuple[str, int]
"""Item and sample."""
OnRun = Callable[[str], Callable[[Progress], None] | None]


class Side(NamedTuple):
    """What a run comes down to. Tokens of an episode are NaN where a call didn't tell them.

    Replies from the file count as what they cost when they were made.
    """

    scores: dict[Key, float]
    tokens: dict[Key, float]
    failed: frozenset[Key]
    parts: dict[str, float]
    """Mean tokens of an episode by edge and by agent."""

    @classmethod
    def of(cls, run: Run) -> Side:
        ok = {(e.item, e.sample) for e in run.episodes if e.status == "ok"}
        tokens = dict.fromkeys(ok, 0.0)
        by_part: dict[str, float] = {}
        for row in run.usage.rows:
            key = (row.item, row.sample)
            if key not in tokens or row.error_kind is not None:
                continue
            spent = (
                math.nan
                if row.input_tokens is None or row.output_tokens is None
                else float(row.input_tokens + row.output_tokens)
            )
            tokens[key] += spent
            if row.edge is not None:
                by_part[row.edge] = by_part.get(row.edge, 0.0) + spent
                continue
            by_part[row.agent] = by_part.get(row.agent, 0.0) + spent
            for part, share in (row.parts or {}).items():
                if is_edge(part):
                    by_part[part] = by_part.get(part, 0.0) + share
        return cls(
            {
                (e.item, e.sample): float(e.score)
                for e in run.episodes
                if e.status == "ok" and e.score is not None
            },
            tokens,
            frozenset((e.item, e.sample) for e in run.episodes if e.status == "failed"),
            {part: total / len(ok) for part, total in by_part.items()} if ok else {},
        )


@dataclass
class Runs:
    """Makes runs in ``where``, adds up what they took, and keeps the limits over all of them."""

    task: Task
    model: str | Backend | None
    where: Path | None
    phase: Phase
    options: RunOptions
    on_run: OnRun | None = None
    paid: Paid = field(default_factory=Paid)
    calls: int = 0
    known_cost: float = 0.0
    began: float = field(default_factory=time.monotonic)
    stopped: str | None = None
    """The run that ended early, and why."""

    async def run(
        self,
        graph: AgentGraph,
        label: str,
        title: str,
        *,
        name: str,
        topology: TopologyOf = None,
        samples: int = 1,
        task: Task | None = None,
    ) -> Run:
        """One run, in the directory ``label``; of ``task`` where it isn't all items."""
        run = await evaluate(
            graph,
            task or self.task,
            self.model,
            out=self.where / label if self.where is not None else None,
            topology=topology,
            samples=samples,
            name=name,
            phase=self.phase,
            on_progress=self.on_run(title) if self.on_run else None,
            options=dataclasses.replace(self.options, limits=self._limits_left()),
        )
        usage, paid = run.usage, self.paid
        self.calls += usage.calls
        self.known_cost += usage.known_cost
        cost = usage.cost if usage.calls else 0.0
        self.paid = Paid(
            paid.runs + 1,
            paid.episodes + len(run.episodes),
            paid.tokens + usage.input_tokens + usage.output_tokens,
            paid.replayed + usage.hit_input_tokens + usage.hit_output_tokens,
            None if cost is None or paid.cost is None else paid.cost + cost,
        )
        if run.stopped:
            self.stopped = f"{title}: {run.stopped}"
        return run

    def _limits_left(self) -> Limits:
        limits = self.options.limits

        def left(most: float | None, spent: float) -> Any:
            return None if most is None else max(0, most - spent)

        return Limits(
            left(limits.tokens, self.paid.tokens),
            left(limits.calls, self.calls),
            left(limits.cost, self.known_cost),
            left(limits.seconds, time.monotonic() - self.began),
        )


@asynccontextmanager
async def keeping(
    model: str | Backend | None, options: RunOptions, file: Path
) -> AsyncIterator[tuple[str | Backend | None, RunOptions]]:
    """The model with its replies kept in ``file``; as it is where it already keeps or replays them."""
    if isinstance(model, str | None):
        yield model, options if options.cache is not None else dataclasses.replace(options, cache=file)
        return
    from agentcomm.backends.replay import Replay

    if isinstance(model, Replay):
        yield model, options
        return
    kept = Replay(model, file, close_inner=False)
    kept.answers_for_all = bool(getattr(model, "answers_for_all", False))
    try:
        yield kept, options
    finally:
        await kept.aclose()


def phase_of(task: Task) -> Phase:
    """``"learn"`` where all items are of split learn, else ``"evaluate"``."""
    return "learn" if all(i.metadata.get("split") == "learn" for i in task.items) else "evaluate"


def directory_for(out: Path | str | None, what: str) -> Path | None:
    """The directory of several runs, made if need be; ``what`` they find out is in the message.

    Raises
    ------
    ConfigError
        If it can't be made or is a run itself.
    """
    if out is None:
        return None
    path = Path(out)
    if (path / "config.json").exists():
        raise ConfigError(
            f"{path} is a run; {what} are found in a directory of their own, so name another --out"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"can't make {path}: {error.strerror}; choose another --out") from error
    return path


def saved_tokens(before: Side, after: Side, level: float) -> Effect:
    """Tokens an item less in ``after``, with a t interval over items; negative where more are used."""
    by_item: dict[str, list[float]] = {}
    for key, spent in before.tokens.items():
        if key in after.tokens and math.isfinite(difference := spent - after.tokens[key]):
            by_item.setdefault(key[0], []).append(difference)
    means = np.array([np.mean(v) for v in by_item.values()])
    if not len(means):
        return Effect(level=level)
    mean = float(means.mean())
    if len(means) < 2:
        return Effect(mean, level=level, items=1)
    wide = float(
        scipy_stats.t.ppf((1 + level) / 2, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means))
    )
    return Effect(mean, mean - wide, mean + wide, level=level, items=len(means))


def slug(name: str) -> str:
    """The name of a part as one of a directory."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name.replace(ARROW, "-to-"))[:60]
