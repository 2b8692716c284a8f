"""Dropout: agents are dropped round by round, then edges among those that are left.

Every round has logits of its own, so an agent may be absent in one round and speak in another.
What an absent agent would have said doesn't exist: it makes no call, sends nothing, and nobody
reads a stand-in for it.

Deliberately absent: deciding by item; the result is one schedule of rounds for all items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from agentcomm.errors import ConfigError, LimitExceeded
from agentcomm.pruning.batches import (
    Baseline,
    Comparison,
    Passes,
    Spending,
    check_items,
    metered,
    plan,
    stream,
)
from agentcomm.pruning.environment import Budget, Environment, Metered
from agentcomm.pruning.policy import Policy, StaticPolicy
from agentcomm.pruning.pool import BoolArray, FloatArray, Pool
from agentcomm.pruning.realise import CLAMP, LogitGradient, Order, logit_gradient, realise
from agentcomm.pruning.static import (
    DRAWS,
    ITEMS,
    Climb,
    Draw,
    Drawn,
    Logits,
    Sparse,
    card_of,
    check_groups,
    check_initial,
    check_settings,
    check_sparse,
    draw_edges,
    prune_edges,
)
from agentcomm.task import Item


@dataclass(frozen=True)
class AgentDropout:
    """Agents, then edges, per round (Wang et al. 2025, arXiv 2503.18891).

    *Agents*: for each graph one agent of each round is dropped, with a probability that falls with
    the sum of its edges' probabilities; graphs that did well without an agent make its edges less
    likely. Then each round loses its ``drop`` share of agents, those with the smallest mean logit.
    *Edges*: fresh logits among the agents that are left, learned with AgentPrune's loss, and the
    weakest ``prune`` share of each round cut.

    What differs: weakly connected agents are dropped more often instead of strongly connected ones,
    and the gradient is that of the graph drawn; a moving-average baseline instead of none; zeta 0.1
    on probabilities instead of 1 on logits; any number of agents and rounds. An absent agent sends
    nothing; the released code sends a placeholder. :meth:`as_released` has the released settings.

    Parameters
    ----------
    node_iterations, edge_iterations, batch, lr:
        Of Adam on the logits of each stage. A budget shrinks both in proportion.
    drop, prune:
        Shares of agents and of edges that each round loses. At least one agent is left in each.
    chosen:
        Who is dropped while agents are learned: the ``"weakest"`` or the ``"strongest"`` connected,
        by softmax.
    incident:
        c: weight of log(1 - p) of the dropped agents' edges.
    others:
        Of the other pairs ``"drawn"`` takes log pi, ``"likely"`` log p whatever was drawn.
    baseline, group, zeta, delta, reg_on, initial, temperature, order:
        As :class:`~agentcomm.pruning.static.AgentPrune`.
    """

    name: ClassVar[str] = "agentdropout"
    paper: ClassVar[str] = "Wang et al. 2025, AgentDropout, arXiv 2503.18891"

    node_iterations: int = 150
    edge_iterations: int = 150
    batch: int = 16
    lr: float = 0.1
    drop: float = 0.2
    prune: float = 0.1
    chosen: Literal["weakest", "strongest"] = "weakest"
    incident: float = 1.0
    others: Literal["drawn", "likely"] = "drawn"
    baseline: Baseline = "moving_average"
    group: int = 4
    zeta: float = 0.1
    delta: float = 0.1
    reg_on: Literal["probabilities", "logits"] = "probabilities"
    initial: float = 0.5
    temperature: float = 1.0
    order: Order = "random"
    profile: str = "corrected"
    seed: int = 0

    def __post_init__(self) -> None:
        above = ("node_iterations", "edge_iterations", "batch", "lr", "temperature", "group", "incident")
        check_settings(self, above=above, shares=("drop", "prune"))
        check_initial(self)
        check_groups(self)
        check_sparse(self)
        if self.chosen not in ("weakest", "strongest") or self.others not in ("drawn", "likely"):
            raise ConfigError(
                f"agentdropout with chosen={self.chosen!r}, others={self.others!r}; use 'weakest' or "
                f"'strongest', and 'drawn' or 'likely'"
            )

    @classmethod
    def as_released(cls, seed: int = 0) -> AgentDropout:
        """2 batches of 20 and 4 of 10 (here 4 and 4 of 10), no baseline, the strongest dropped, c = 4."""
        return cls(
            4,
            4,
            10,
            chosen="strongest",
            incident=4.0,
            others="likely",
            baseline="none",
            zeta=1.0,
            reg_on="logits",
            order="row_major",
            profile="as_released",
            seed=seed,
        )

    async def fit(self, items: Sequence[Item], environment: Environment, budget: Budget) -> Policy:
        """A static policy with a mask for every round.

        Raises
        ------
        TaskError, ConfigError, LimitExceeded
            As :func:`agentcomm.pruning.reinforce.train_network`; also if the budget doesn't allow
            two batches, one for each stage.
        """
        meter = metered(environment, budget)
        spending = Spending.start(meter)
        pool = meter.pool
        passes = Passes(check_items(items), stream(self.seed, ITEMS))
        rng = stream(self.seed, DRAWS)
        group = self.group if Comparison(self.baseline).grouped else 1
        sizes = plan(self.node_iterations + self.edge_iterations, self.batch, meter, unit=group)
        if len(sizes) < 2:
            raise LimitExceeded(
                f"the budget allows {sum(sizes)} rollouts, and agentdropout needs two batches of {self.batch}, "
                f"one for agents and one for edges; raise it or lower batch",
                scope="learn",
                limit="rollouts",
            )
        share = self.node_iterations / (self.node_iterations + self.edge_iterations)
        first = min(max(1, round(share * len(sizes))), len(sizes) - 1)

        everyone = np.ones((pool.rounds, len(pool)), np.bool_)
        agents = self._climb(pool, everyone, meter, passes, rng, group, _draw_without_one(self, pool))
        for t, size in enumerate(sizes[:first]):
            await agents.step(t, size)
        present = survivors(agents.logits, self.drop)
        edges = self._climb(pool, present, meter, passes, rng, group, draw_edges(pool, self.order))
        edges.regulariser = Sparse(self.zeta, self.delta, self.reg_on)
        edges.log, edges.seen = agents.log, agents.seen
        for t, size in enumerate(sizes[first:], start=first):
            await edges.step(t, size)
        prune_edges(edges.logits, self.prune)
        return StaticPolicy(pool, card_of(self, edges, spending), edges.logits.probabilities())

    def _climb(
        self,
        pool: Pool,
        present: BoolArray,
        meter: Metered,
        passes: Passes,
        rng: np.random.Generator,
        group: int,
        draw: Draw,
    ) -> Climb:
        logits = Logits.even(
            *candidates(pool, present),
            initial=self.initial,
            present=present,
            temperature=self.temperature,
        )
        return Climb(logits, meter, passes, rng, self.lr, Comparison(self.baseline), draw, self.seed, group)


def candidates(pool: Pool, present: BoolArray) -> tuple[BoolArray, BoolArray]:
    """The pairs [K, N, N] that may be spatial and temporal edges where ``present`` [K, N] are there.

    A temporal edge of a round carries what its sender said in the round before, so the first
    round has none.
    """
    before = np.vstack([np.zeros_like(present[:1]), present[:-1]])
    spatial = pool.spatial_allowed & present[:, :, None] & present[:, None, :]
    temporal = pool.temporal_allowed & before[:, :, None] & present[:, None, :]
    return spatial, temporal


def survivors(logits: Logits, share: float) -> BoolArray:
    """[K, N]: who is left when each round loses the ``share`` of agents with the smallest mean logit.

    The mean is over an agent's candidate edges, spatial and temporal, to and from it. Halves are
    rounded up, ties go to the lowest index, and at least one agent is left in each round.
    """
    present = logits.present.copy()
    for r, left in enumerate(present):
        strength = _incident(logits, logits.spatial, logits.temporal, r)
        count = _incident(logits, np.ones_like(logits.spatial), np.ones_like(logits.temporal), r)
        mean = strength / np.maximum(count, 1)
        weakest = np.argsort(np.where(left, mean, np.inf), kind="stable")
        there = int(left.sum())
        left[weakest[: min(math.floor(share * there + 0.5), there - 1)]] = False
    return present


def _incident(logits: Logits, spatial: FloatArray, temporal: FloatArray, r: int) -> FloatArray:
    """[N]: sums over the candidate edges of each agent in round ``r``: it reads, is read, is read later."""
    s = np.where(logits.spatial_mask, spatial, 0.0)
    t = np.where(logits.temporal_mask, temporal, 0.0)
    found = s[r].sum(axis=0) + s[r].sum(axis=1) + t[r].sum(axis=0)
    return np.asarray(found + t[r + 1].sum(axis=1) if r + 1 < len(t) else found, dtype=np.float64)


def _draw_without_one(settings: AgentDropout, pool: Pool) -> Draw:
    """Draws graphs in which each round lacks one agent, and that credit its edges for its absence."""
    sign = -1.0 if settings.chosen == "weakest" else 1.0

    def draw(logits: Logits, rng: np.random.Generator) -> Drawn:
        everyone = logits.probabilities()
        p, pt = everyone.spatial, everyone.temporal
        present = logits.present.copy()
        if len(pool) > 1:
            for r, there in enumerate(present):
                degree = sign * _incident(logits, p, pt, r)
                odds = np.exp(degree - degree.max())
                there[rng.choice(len(pool), p=odds / odds.sum())] = False
        probabilities = logits.probabilities(present)
        realisation = realise(probabilities, pool, mode="bernoulli", rng=rng, order=settings.order)
        drawn = logit_gradient(realisation, probabilities)
        log_prob = realisation.log_prob or 0.0
        spatial, temporal = candidates(pool, present)
        gone, gone_t = logits.spatial_mask & ~spatial, logits.temporal_mask & ~temporal
        if settings.others == "likely":
            drawn = LogitGradient(
                drawn.keep, *(np.where(m, 1.0 - x, 0.0) for m, x in ((spatial, p), (temporal, pt)))
            )
            log_prob = _log(p[spatial]) + _log(pt[temporal])
        c = settings.incident
        gradient = LogitGradient(
            drawn.keep,
            drawn.spatial - np.where(gone, c * p, 0.0),
            drawn.temporal - np.where(gone_t, c * pt, 0.0),
        )
        log_prob += c * (_log(1.0 - p[gone]) + _log(1.0 - pt[gone_t]))
        return Drawn(realisation, probabilities, gradient, log_prob)

    return draw


def _log(p: FloatArray) -> float:
    return float(np.log(np.clip(p, CLAMP, 1.0)).sum())
