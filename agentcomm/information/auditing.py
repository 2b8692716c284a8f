"""Auditing a graph: the four arms as runs, so that limits, resumption, seeds and the ledger are theirs.

::

    DIR/true/                 the graph as it is
    DIR/mismatched-NAME-ID/   its readers read another item's messages, from the ledger of the true run
    DIR/empty-NAME/           they read nothing
    DIR/full-NAME[-ID]/       they read what the messages were made from (:mod:`agentcomm.information.arms`)
    DIR/replies.sqlite        replies by request: all runs read and fill it
    DIR/audit.json            the result

NAME is ``all`` for the messages on all audited edges together, or one edge. The same call again goes on
where it was. Who gets whose message depends on the true run alone and the seed, and its hash is in the
directory's name; so does what an interrupted audit finds when it goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcomm.backends.base import Backend
from agentcomm.channels.swap import Swap
from agentcomm.errors import ConfigError, UserError
from agentcomm.evaluation.effects import Effect
from agentcomm.evaluation.held import held
from agentcomm.evaluation.parts import Pairs
from agentcomm.evaluation.rundir import RunDir, write_json
from agentcomm.evaluation.sharing import (
    REPLIES,
    Key,
    OnRun,
    Runs,
    Side,
    directory_for,
    keeping,
    phase_of,
    saved_tokens,
    slug,
)
from agentcomm.evaluation.stats import Interval, mean_interval
from agentcomm.evaluation.worth import Paid
from agentcomm.graph import AgentGraph, Topology
from agentcomm.information.arms import (
    Full,
    document_of,
    exchanged,
    full_kind,
    keys_of,
    others,
    pairs_of,
    sources,
)
from agentcomm.information.audit import MARGIN, Arms, Audit, audit_all
from agentcomm.information.donors import donors
from agentcomm.information.order import OrderCheck, check_order
from agentcomm.information.said import Said, lengths, said_in
from agentcomm.ledger.usage import ARROW
from agentcomm.message import EdgeKey
from agentcomm.options import RunOptions
from agentcomm.schedule import Schedule
from agentcomm.task import Task

if TYPE_CHECKING:
    from agentcomm.information.scorers import Scorer

ALL = "all messages"
AUDIT = "audit.json"


@dataclass(frozen=True)
class GraphAudit:
    """What messages of a graph do for its score.

    Attributes
    ----------
    audits:
        First of all audited edges together, then of each alone where that was asked for.
    edges:
        The audited pairs, ``"sender->reader"``.
    scores:
        The arms of the first audit: mean score with its interval, by arm.
    failed:
        Episodes that failed, by arm (the first audit's).
    no_donor:
        Items left out because no other document had a message for them.
    length_difference:
        Mean of |own length − the other's| in characters, in the mismatched arm.
    full, full_means:
        What the full arm is, and in words; ``"none"`` with the reason.
    saved:
        Tokens an item that the true arm takes less than the full one; negative where it takes more.
    order:
        Whether conversations make more sense in their order, before and after channels.
    """

    audits: tuple[Audit, ...]
    edges: tuple[str, ...]
    items: int
    scores: dict[str, Interval]
    failed: dict[str, int]
    no_donor: int
    length_difference: float | None
    full: Full
    full_means: str
    saved: Effect | None
    margin: float
    level: float
    paid: Paid
    order: OrderCheck | None = None
    stopped: str | None = None
    path: Path | None = None

    @property
    def sentence(self) -> str:
        return self.audits[0].sentence if self.audits else "not measured"

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what ``agentcomm audit --json`` prints."""
        saved = self.saved
        return {
            "sentence": self.sentence,
            "verdict": self.audits[0].verdict if self.audits else None,
            "edges": list(self.edges),
            "items": self.items,
            "scores": {
                arm: {"mean": s.mean, "low": s.low, "high": s.high, "level": s.level}
                for arm, s in self.scores.items()
            },
            "failed": self.failed,
            "no_donor": self.no_donor,
            "length_difference": self.length_difference,
            "full": self.full,
            "full_means": self.full_means,
            "tokens_saved": None
            if saved is None
            else {"mean": saved.mean, "low": saved.low, "high": saved.high, "items": saved.items},
            "margin": self.margin,
            "level": self.level,
            "audits": [a.to_dict() for a in self.audits],
            "order": None if self.order is None else self.order.to_dict(),
            "paid": self.paid.to_dict(),
            "stopped": self.stopped,
            "run": str(self.path) if self.path else None,
        }


async def audit_graph(
    graph: AgentGraph,
    task: Task,
    model: str | Backend | None = None,
    *,
    edges: Sequence[str] | None = None,
    each: bool = False,
    full: Full = "auto",
    out: Path | str | None = None,
    topology: Topology | None = None,
    samples: int = 1,
    margin: float = MARGIN,
    level: float = 0.95,
    name: str | None = None,
    order: Scorer | None = None,
    permutations: int = 8,
    on_run: OnRun | None = None,
    note: Callable[[str], None] | None = None,
    options: RunOptions | None = None,
    **overrides: Any,
) -> GraphAudit:
    """Whether the content of a graph's messages matters to its score on ``task``.

    Parameters
    ----------
    edges:
        ``"sender->reader"``: whose messages are audited; all from one agent to another by default.
    each:
        Also audit every edge alone.
    full:
        What the full arm is: ``"verbatim"``, ``"context"``, ``"none"``, or ``"auto"``: verbatim where
        a channel shortens something, else context where senders see what readers don't.
    out:
        Where the runs are; the same call again continues. ``None`` keeps nothing.
    topology:
        What of the graph is alive.
    order, permutations:
        A scorer that tells whether conversations make more sense in their order, and against how many
        other orders of each (:mod:`agentcomm.information.order`).
    margin, level:
        Difference that doesn't matter, and confidence.
    on_run:
        Hears of the next run's title; what it returns hears of its progress.
    options, overrides:
        As for :func:`agentcomm.evaluate`. Limits hold for all runs together.

    Raises
    ------
    GraphError
        If an edge isn't there, or there is none.
    UserError
        If all items are of one document, or as :func:`agentcomm.evaluate`.
    """
    if not 0 < margin < 1:
        raise ConfigError(f"margin={margin}; it must lie between 0 and 1 (0.02 is two points)")
    pairs = pairs_of(graph, topology, edges)
    keys = keys_of(graph, pairs)
    kind, words = full_kind(graph, keys, full, task.items)
    if len({document_of(item) for item in task.items}) < 2:
        raise UserError(
            f"the {len(task.items)} items of task {task.name!r} are of one document: nobody has another's "
            "message to read; take more items"
        )
    if order is not None:
        order.check()
    where = directory_for(out, "audits")
    opts = RunOptions.of(options, **overrides)
    with contextlib.ExitStack() as stack:
        kept = where if where is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        async with held(model, opts), keeping(model, opts, kept / REPLIES) as (asked, opts):
            runs = Runs(task, asked, kept, phase_of(task), opts, on_run)
            work = _Audit(runs, graph, topology, samples, name or "graph", kind)
            found = await work.all(pairs, each and len(pairs) > 1, words, margin, level, order, permutations)
        found = dataclasses.replace(found, path=where)
    if where is not None:
        write_json(where / AUDIT, found.to_dict())
    return found


@dataclass
class _Audit:
    runs: Runs
    graph: AgentGraph
    topology: Topology | None
    samples: int
    name: str
    full: Full

    async def all(
        self,
        pairs: Pairs,
        each: bool,
        words: str,
        margin: float,
        level: float,
        order: Scorer | None,
        permutations: int,
    ) -> GraphAudit:
        said, true = await self.true(keys_of(self.graph, pairs))
        subjects: dict[str, Pairs] = {ALL if len(pairs) > 1 else ARROW.join(pairs[0]): pairs}
        subjects |= {ARROW.join(pair): (pair,) for pair in pairs} if each else {}
        measured: dict[str, _Sides] = {}
        for subject, some in subjects.items():
            if self.runs.stopped:
                break
            sides = await self.arms(subject, some, said, true)
            if not self.runs.stopped:  # a part of the items would be compared with others
                measured[subject] = sides
        audits: tuple[Audit, ...] = ()
        if measured and any(s.donors for s in measured.values()):
            arms = {subject: self._arrays(sides) for subject, sides in measured.items()}
            audits = audit_all(arms, margin=margin, level=level, seed=self.runs.options.seed)
        first = next(iter(measured.values()), None)
        checked = None
        if order is not None and not self.runs.stopped:
            checked = self.ordered(said, pairs, order, permutations, level)
        shown = {} if first is None else first.by_arm()
        return GraphAudit(
            audits,
            tuple(map(ARROW.join, pairs)),
            len(self.runs.task.items),
            {
                arm: mean_interval(
                    list(side.scores.values()), clusters=[k[0] for k in side.scores], level=level
                )
                for arm, side in shown.items()
            },
            {arm: len(side.failed) for arm, side in shown.items()} or {"true": len(true.failed)},
            0 if first is None else sum(d is None for d in first.donors.values()),
            None if first is None else first.length_difference,
            self.full,
            words,
            None if first is None or first.full is None else saved_tokens(first.full, true, level),
            margin,
            level,
            self.runs.paid,
            checked,
            self.runs.stopped,
        )

    async def true(self, keys: Sequence[EdgeKey]) -> tuple[dict[Key, Said], Side]:
        """The true run: what was said in it, and what came of it."""
        run = await self.runs.run(
            self.graph,
            "true",
            "the messages as they are",
            name=self.name,
            topology=self.topology,
            samples=self.samples,
        )
        if run.path is None or self.runs.stopped:
            return {}, Side.of(run)
        with RunDir.open(run.path).ledger() as ledger:
            return said_in(ledger, self.graph, keys, self.topology), Side.of(run)

    async def arms(self, subject: str, pairs: Pairs, said: Mapping[Key, Said], true: Side) -> _Sides:
        """The other arms, on the items whose true episodes are there."""
        keys = keys_of(self.graph, pairs)
        own = lengths(said, keys)
        chosen = self.donors(said, own)
        here = [k for k, d in chosen.items() if d is not None]
        label = "all" if subject == ALL else slug(subject)
        if not here:
            return _Sides(chosen, None, true, None, None, None)
        table = others(said, chosen, keys)
        mismatched = await self.swapped(
            f"mismatched-{label}", f"{subject}: another item's", pairs, Swap("mismatched", table), said, here
        )
        empty = await self.swapped(
            f"empty-{label}", f"{subject}: none", pairs, Swap("empty"), said, list(said)
        )
        whole = None
        if self.full == "verbatim":
            whole = await self.run(
                self.graph.with_channel(None, keys), f"full-{label}", f"{subject}: verbatim", list(said)
            )
        elif self.full == "context":
            items = {item.id: item for item in self.runs.task.items}
            given = Swap("full", sources(self.graph, keys, said, items))
            whole = await self.swapped(
                f"full-{label}", f"{subject}: what they were made from", pairs, given, said, list(said)
            )
        apart = float(np.mean([abs(own[k] - own[d]) for k in here if (d := chosen[k]) is not None]))
        return _Sides(chosen, apart, true, mismatched, empty, whole)

    def donors(self, said: Mapping[Key, Said], own: Mapping[Key, int]) -> dict[Key, Key | None]:
        """Whose message each episode reads: another document's, of the same sample."""
        document = {item.id: document_of(item) for item in self.runs.task.items}
        rank = {item.id: i for i, item in enumerate(self.runs.task.items)}
        chosen: dict[Key, Key | None] = {}
        for sample in range(self.samples):
            keys = sorted((k for k in said if k[1] == sample), key=lambda k: rank[k[0]])
            if len({document[k[0]] for k in keys}) < 2:
                chosen.update(dict.fromkeys(keys))
                continue
            found = donors(
                [own[k] for k in keys], [document[k[0]] for k in keys], seed=self.runs.options.seed + sample
            )
            chosen.update({k: None if j is None else keys[j] for k, j in zip(keys, found, strict=True)})
        return chosen

    async def swapped(
        self,
        label: str,
        title: str,
        pairs: Pairs,
        channel: Swap,
        said: Mapping[Key, Said],
        here: Sequence[Key],
    ) -> Side:
        graph = exchanged(self.graph, pairs, channel, said, self.topology)
        label = f"{label}-{channel.digest[:8]}" if channel.table else label
        return await self.run(graph, label, title, here)

    async def run(self, graph: AgentGraph, label: str, title: str, here: Sequence[Key]) -> Side:
        """One arm on the items of ``here``; episodes of others among their samples don't count."""
        if self.runs.stopped:
            return Side({}, {}, frozenset(), {})
        wanted = {item for item, _ in here}
        task = self.runs.task
        items = [item for item in task.items if item.id in wanted]
        run = await self.runs.run(
            graph,
            label,
            title,
            name=f"{self.name}, {title}",
            topology=self.topology,
            samples=self.samples,
            task=dataclasses.replace(task, items=items),
        )
        side, kept = Side.of(run), set(here)
        return Side(
            {k: v for k, v in side.scores.items() if k in kept},
            {k: v for k, v in side.tokens.items() if k in kept},
            side.failed & kept,
            side.parts,
        )

    def _arrays(self, sides: _Sides) -> Arms:
        rows = [(item, sample) for item in self.runs.task.items for sample in range(self.samples)]

        def scores(side: Side | None) -> list[float]:
            return [math.nan if side is None else side.scores.get((i.id, s), math.nan) for i, s in rows]

        return Arms(
            scores(sides.true),
            scores(sides.mismatched),
            scores(sides.empty),
            None if sides.full is None else scores(sides.full),
            [document_of(item) for item, _ in rows],
            [item.id for item, _ in rows],
        )

    def ordered(
        self, said: Mapping[Key, Said], pairs: Pairs, scorer: Scorer, permutations: int, level: float
    ) -> OrderCheck:
        """Conversations as they were said, and as they were read where a channel is."""
        schedule = Schedule.of(self.graph, self.topology)
        keys = keys_of(self.graph, pairs)
        channels = any(self.graph.by_key[key].channel is not None for key in keys)
        before, after = [], []
        for episode in said.values():
            places = episode.in_order(schedule)
            before.append([(agent, episode.spoken[r, agent]) for r, agent in places])
            after.append([(agent, episode.read((r, agent), keys)) for r, agent in places])
        return check_order(
            before,
            scorer,
            after=after if channels else None,
            permutations=permutations,
            seed=self.runs.options.seed,
            level=level,
        )


@dataclass(frozen=True)
class _Sides:
    """What the arms came to, and who read whose message."""

    donors: dict[Key, Key | None]
    length_difference: float | None
    true: Side
    mismatched: Side | None
    empty: Side | None
    full: Side | None

    def by_arm(self) -> dict[str, Side]:
        sides = {"true": self.true, "mismatched": self.mismatched, "empty": self.empty, "full": self.full}
        return {arm: side for arm, side in sides.items() if side is not None}
