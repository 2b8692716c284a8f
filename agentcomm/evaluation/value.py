"""Value: what every edge and every agent of a team is worth, next to what it costs.

    ablation     the whole team against the team without one part, for each part, on the same items and
                 seeds. What a part is worth to *this* team.
    regression   random sub-teams, a few for each item, and the average effect of each part on them
                 (:mod:`agentcomm.evaluation.effects`). Fewer episodes; what a part is worth on average
                 in teams from which others are missing too.

What a part is, and what goes with it, says :mod:`agentcomm.evaluation.parts`.

Every team is an ordinary run (:func:`agentcomm.evaluate`) in a directory of its own, so the same call
again goes on where it was::

    DIR/whole/            the whole team
    DIR/without-NAME-ID/  ablation: the team without a part; parts whose loss leaves the same share one
    DIR/teams-K-ID/       regression: the K-th random sub-team of every item
    DIR/replies.sqlite    replies by request: all runs read and fill it
    DIR/ablation.json, DIR/regression.json   the result, also as value.json in DIR/whole for the report

Seeds belong to the turn (item, sample, agent, round), so whoever reads the same as in the whole team
says the same, from the replies kept: only what lies downstream of the missing part is paid.

Two prices of a part stand side by side. *Tokens* are its own: what the reader pays for an edge's
messages, what an agent's calls take. *Saved* is what an item costs less without it: its own tokens, those
of agents who go with it, and whatever changes downstream; it can be negative. Both count replies from
the file as what they cost when they were made.

Failed episodes are no wrong answers: their pairs are left out and counted.

**One at a time.** Two ways of a fact to the decision agent are each worth nothing to a team that has
both, and everything to one that has lost the other. Ablation can't see that, so make one cut, then find
values again with that cut made (``topology``); regression, whose teams lack other parts too, sees a
share of it.

This room is beside learning, not in it: it makes no policy, needs no torch and works on any graph.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentcomm.backends.base import Backend
from agentcomm.calls import derive_seed
from agentcomm.errors import ConfigError, GraphError
from agentcomm.evaluation.effects import Design, Effect, masked, paired
from agentcomm.evaluation.held import held
from agentcomm.evaluation.parts import Part, is_alone, parts, useful, without
from agentcomm.evaluation.run import TopologyOf
from agentcomm.evaluation.rundir import write_json
from agentcomm.evaluation.sharing import (
    REPLIES,
    OnRun,
    Runs,
    Side,
    directory_for,
    keeping,
    phase_of,
    saved_tokens,
    slug,
)
from agentcomm.evaluation.stats import holm, mean_interval
from agentcomm.evaluation.worth import Method, Value, Worth, next_cut, order, verdict_of
from agentcomm.graph import AgentGraph, Topology
from agentcomm.ledger.rows import Phase
from agentcomm.ledger.usage import ARROW
from agentcomm.message import content_id
from agentcomm.options import RunOptions
from agentcomm.task import Item, Task

METHODS: tuple[Method, ...] = ("ablation", "regression")
KEEP = 0.8
"""How likely each part is kept in a random sub-team."""
VALUE = "value.json"


# ------------------------------------------------------------------------------------ measuring


async def value(
    graph: AgentGraph,
    task: Task,
    model: str | Backend | None = None,
    *,
    method: Method = "ablation",
    out: Path | str | None = None,
    topology: Topology | None = None,
    only: Sequence[str] | None = None,
    samples: int | None = None,
    keep: float = KEEP,
    margin: float = 0.02,
    level: float = 0.95,
    name: str | None = None,
    phase: Phase | None = None,
    on_run: OnRun | None = None,
    options: RunOptions | None = None,
    **overrides: Any,
) -> Value:
    """What each edge and agent of ``graph`` is worth on ``task``.

    Parameters
    ----------
    method:
        ``"ablation"`` or ``"regression"`` (see the module).
    out:
        Where the runs are; the same call again continues. ``None`` keeps nothing.
    topology:
        What of the graph is the whole team: with cuts already made, say.
    only:
        Names of agents and edges (``"a->b"``) to find out about; all by default.
    samples:
        Ablation: how often each item is run under each team (1). Regression: random sub-teams for
        each item (4).
    keep:
        Regression: how likely each part is kept in a sub-team.
    margin, level:
        Loss of score that doesn't matter, and confidence of intervals and verdicts.
    phase:
        Of the ledger's rows; ``"learn"`` where all items are of split learn, else ``"evaluate"``.
    on_run:
        Hears of the next run's title; what it returns hears of its progress.
    options, overrides:
        As for :func:`agentcomm.evaluate`. Limits hold for all runs together; without ``cache`` the
        replies are kept in ``out``.

    Raises
    ------
    GraphError
        If there is nothing to leave out, or ``only`` names something else.
    UserError
        As :func:`agentcomm.evaluate`.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}; choose {' or '.join(METHODS)}")
    if not 0 < keep < 1:
        raise ConfigError(f"keep={keep}; it must lie between 0 and 1")
    samples = samples if samples is not None else 1 if method == "ablation" else 4
    if samples < 1:
        raise ConfigError(f"samples={samples}; it must be at least 1")
    if not 0 < level < 1:
        raise ConfigError(f"level={level}; confidence lies between 0 and 1")
    if not 0 <= margin < 1:
        raise ConfigError(f"margin={margin}; a loss of score that doesn't matter lies in 0..1, and below 1")
    whole = useful(graph, topology)
    chosen = _chosen(parts(graph, whole), only)
    where = directory_for(out, "values")
    opts = RunOptions.of(options, **overrides)
    with contextlib.ExitStack() as stack:
        kept = where if where is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        async with held(model, opts), keeping(model, opts, kept / REPLIES) as (asked, opts):
            runs = Runs(task, asked, where, phase or phase_of(task), opts, on_run)
            runner = _Runner(graph, whole, name or "graph", runs)
            if method == "ablation":
                found = await _ablate(runner, chosen, samples, margin, level)
            else:
                found = await _regress(runner, chosen, samples, keep, margin, level)
    if where is not None:
        write_json(where / f"{method}.json", found.to_dict())
        if runner.whole_path is not None:
            write_json(runner.whole_path / VALUE, found.drawn())
    return found


def _chosen(all_parts: Sequence[Part], only: Sequence[str] | None) -> tuple[Part, ...]:
    wanted = tuple(all_parts)
    if only is not None:
        asked = {ARROW.join(end.strip() for end in word.split(ARROW)) for word in only}
        if strange := sorted(asked - {p.name for p in all_parts}):
            raise GraphError(
                f"no agent or edge {strange[0]!r} in the team; there are: {', '.join(p.name for p in all_parts)}"
            )
        wanted = tuple(p for p in all_parts if p.name in asked)
    if not any(p.left is not None for p in wanted):
        why = "; ".join(f"{p.name}: {p.note}" for p in wanted) or "nothing was named"
        raise GraphError(f"nothing can be left out, so nothing has a value to find: {why}")
    return wanted


@dataclass
class _Runner:
    """The runs of one team and of what is left of it."""

    graph: AgentGraph
    whole: Topology
    name: str
    runs: Runs
    whole_path: Path | None = None

    @property
    def stopped(self) -> str | None:
        return self.runs.stopped

    async def whole_team(self, samples: int) -> Side:
        label = "whole" if samples == 1 else f"whole-x{samples}"
        topology = None if self.whole == useful(self.graph) else self.whole
        if self.runs.where is not None:
            self.whole_path = self.runs.where / label
        return await self.run(label, "the whole team", topology, samples)

    async def run(self, label: str, title: str, topology: TopologyOf, samples: int) -> Side:
        name = self.name if label.startswith("whole") else f"{self.name}, {title}"
        run = await self.runs.run(self.graph, label, title, name=name, topology=topology, samples=samples)
        return Side.of(run)


# ------------------------------------------------------------------------------------ ablation


async def _ablate(
    runner: _Runner, chosen: Sequence[Part], samples: int, margin: float, level: float
) -> Value:
    whole = await runner.whole_team(samples)
    sides: dict[str, Side] = {}
    effects: dict[str, Effect] = {}
    saved: dict[str, Effect] = {}
    rng = np.random.default_rng(runner.runs.options.seed)
    for part in chosen:
        if part.left is None or runner.stopped:
            continue
        team = _id(part.left)
        if team in sides:  # another part whose loss leaves the same team
            continue
        side = await runner.run(
            f"without-{slug(part.name)}-{team}", f"without {part.name}", part.left, samples
        )
        if runner.stopped:  # a part of the items would be compared with others
            break
        sides[team] = side
        keys = [k for k in whole.scores if k in side.scores]
        effects[team] = paired(
            [whole.scores[k] for k in keys],
            [side.scores[k] for k in keys],
            [k[0] for k in keys],
            rng=rng,
            margin=margin,
            level=level,
        )
        saved[team] = saved_tokens(whole, side, level)
    adjusted = dict(zip(effects, holm([_p(e) for e in effects.values()]), strict=True))
    rows = []
    for part in chosen:
        team = _id(part.left) if part.left is not None else ""
        if team not in sides:
            rows.append(_row(part, whole, Effect(level=level), None, Effect(), 0, margin, 1))
            continue
        failed = len(whole.failed | sides[team].failed)
        rows.append(
            _row(part, whole, effects[team], adjusted[team], saved[team], failed, margin, len(effects))
        )
    return _value("ablation", runner, rows, whole, margin, level)


def _id(topology: Topology) -> str:
    return content_id(topology.to_dict())[:8]


# ---------------------------------------------------------------------------------- regression


@dataclass(frozen=True)
class RandomTeams:
    """item -> a random sub-team of ``whole``: the ``draw``-th of that item.

    Each part of ``varied`` is kept with probability ``keep``, independently; an agent's edges go
    with it. Where the decision agent is a function it must have something to read, so draws that leave
    it nothing are drawn again.
    """

    graph: AgentGraph
    whole: Topology
    varied: tuple[Part, ...]
    keep: float
    seed: int
    draw: int

    def kept(self, item: Item) -> tuple[bool, ...]:
        """Which parts of ``varied`` were kept for an item."""
        rng = np.random.default_rng(derive_seed("random team", self.seed, self.draw, item.content_hash))
        decider = self.graph.by_name[self.graph.decision]
        while True:
            kept = tuple((rng.random(len(self.varied)) < self.keep).tolist())
            if decider.act is None or not is_alone(self.graph, self._left(kept)):
                return kept

    def __call__(self, item: Item) -> Topology:
        return self._left(self.kept(item))

    def _left(self, kept: Sequence[bool]) -> Topology:
        out = [part for part, stays in zip(self.varied, kept, strict=True) if not stays]
        return without(
            self.graph,
            self.whole,
            agents=[p.name for p in out if p.kind == "agent"],
            pairs=tuple(p.ends for p in out if p.kind == "edge"),
        )

    def spec(self) -> dict[str, Any]:
        """What it depends on beside the graph, for the run's configuration."""
        return {
            "random_teams": self.draw,
            "seed": self.seed,
            "keep": self.keep,
            "varied": [p.name for p in self.varied],
            "whole": self.whole.to_dict(),
        }


async def _regress(
    runner: _Runner, chosen: Sequence[Part], samples: int, keep: float, margin: float, level: float
) -> Value:
    whole = await runner.whole_team(1)
    varied = tuple(p for p in chosen if p.left is not None)
    place = {p.name: i for i, p in enumerate(varied)}
    needs = tuple(
        tuple(place[end] for end in p.ends if end in place) if p.kind == "edge" else () for p in varied
    )
    masks: list[Sequence[bool]] = []
    scores, tokens, base, base_tokens = list[float](), list[float](), list[float](), list[float]()
    items: list[str] = []
    failed = len(whole.failed)
    for draw in range(samples):
        if runner.stopped:
            break
        teams = RandomTeams(runner.graph, runner.whole, varied, keep, runner.runs.options.seed, draw)
        label = f"teams-{draw + 1}-{content_id(teams.spec())[:8]}"
        side = await runner.run(label, f"random sub-teams {draw + 1} of {samples}", teams, 1)
        for item in runner.runs.task.items:
            key = (item.id, 0)
            failed += key in side.failed
            if key not in side.tokens:
                continue
            masks.append(teams.kept(item))
            items.append(item.id)
            scores.append(side.scores.get(key, math.nan))
            tokens.append(side.tokens[key])
            base.append(whole.scores.get(key, math.nan))
            base_tokens.append(whole.tokens.get(key, math.nan))
    rng = np.random.default_rng(runner.runs.options.seed)
    design = Design(
        np.array(masks, dtype=np.bool_).reshape(len(masks), len(varied)),
        np.full(len(varied), keep),
        needs,
        tuple(items),
    )
    effects = masked(scores, design, rng=rng, whole=base, margin=margin, level=level)
    saved = masked(tokens, design, rng=rng, whole=base_tokens, margin=1.0, level=level)
    measured = [p.name for p, e in zip(varied, effects, strict=True) if e.mean is not None]
    known = dict(zip((p.name for p in varied), zip(effects, saved, strict=True), strict=True))
    adjusted = dict(zip(measured, holm([_p(known[n][0]) for n in measured]), strict=True))
    rows = []
    for part in chosen:
        effect, less = known.get(part.name, (Effect(level=level), Effect()))
        rows.append(
            _row(part, whole, effect, adjusted.get(part.name), less, failed, margin, max(1, len(measured)))
        )
    return _value("regression", runner, rows, whole, margin, level)


def _p(effect: Effect) -> float:
    return 1.0 if effect.p_value is None else effect.p_value


def _row(
    part: Part,
    whole: Side,
    effect: Effect,
    p_holm: float | None,
    saved: Effect,
    left_out: int,
    margin: float,
    tests: int,
) -> Worth:
    verdict, needed = verdict_of(effect, p_holm, margin, tests)
    if part.left is None:
        verdict = "can't be left out"
    own = whole.parts.get(part.name)
    return Worth(
        part.kind,
        part.name,
        effect,
        p_holm,
        verdict,
        needed,
        own if own is None or math.isfinite(own) else None,
        saved.mean,
        saved.low,
        saved.high,
        left_out,
        part.gone,
        part.cut if part.left is not None else (),
        part.note,
    )


def _value(
    method: Method, runner: _Runner, rows: Sequence[Worth], whole: Side, margin: float, level: float
) -> Value:
    spent = [t for t in whole.tokens.values() if math.isfinite(t)]
    tokens = sum(spent) / len(spent) if spent else None
    ordered = tuple(sorted(rows, key=order))
    return Value(
        method,
        ordered,
        mean_interval(list(whole.scores.values()), clusters=[k[0] for k in whole.scores], level=level),
        tokens,
        len(runner.runs.task.items),
        len(whole.failed),
        margin,
        level,
        runner.runs.paid,
        next_cut(ordered, tokens, margin),
        runner.stopped,
        runner.runs.where,
    )
