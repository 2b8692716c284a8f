"""Mining: graphs that are good for an item, found by trying; the labels of stage I of AGP.

For every item, in every round (``pruning.md`` section 3.4, ``mode="paper"``):

1. draw M different candidates: team sizes from a truncated normal, from the second round on most of
   them from the network that the last round's labels made;
2. run each once and keep the best 4k, *discarding these scores*: the luckiest of many tries look
   better than they are;
3. run those on the v1 nearest other items, keep the best 2k by their mean;
4. run these on the next v2 nearest; the top k by the mean over v1 + v2 become labels, weight 1/k.

``rule="cheapest"`` is the negative control: of the graphs that were right once, those with the
fewest tokens. It finds cheap graphs that guessed right.

Paper: Adaptive Graph Pruning (arXiv 2506.02951), whose sigma, scores and training per size are not
known; the verification across items is ours. Deliberately absent: the network, and its training.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from agentcomm.errors import ConfigError, LimitExceeded, TaskError
from agentcomm.evaluation.splits import hash_of, split_of
from agentcomm.pruning.batches import mean_known, rollout_seed
from agentcomm.pruning.environment import Environment, Outcome, Trial, run_trials
from agentcomm.pruning.pool import FloatArray, IntArray, Pool
from agentcomm.pruning.realise import EdgeProbabilities, Realisation, realise
from agentcomm.pruning.records import SCHEMA, Collector, Record, prompt_hash
from agentcomm.task import Item

Rule = Literal["verified", "cheapest"]
Proposer = Callable[[Item], EdgeProbabilities]

CANDIDATES = 31
"""Number of this module's generators among those of a seed."""
FROM_NETWORK, LOWEST = 0.8, 0.05
"""Share of candidates from the network in later rounds; its q and p are clamped to [0.05, 0.95]."""


@dataclass(frozen=True)
class Plan:
    """How much is tried.

    Parameters
    ----------
    items, rounds, candidates:
        n, R, and M graphs for each item and round.
    first, second:
        v1 and v2: on how many other items the better ones are verified.
    best:
        k labels an item.
    """

    items: int
    rounds: int = 6
    candidates: int = 16
    first: int = 4
    second: int = 12
    best: int = 2

    def __post_init__(self) -> None:
        if min(self.items, self.rounds, self.candidates, self.best) < 1 or min(self.first, self.second) < 0:
            raise ConfigError(
                f"a mining plan of {self}; items, rounds, candidates and best must be at least 1, "
                f"first and second at least 0"
            )

    @property
    def rollouts(self) -> int:
        """At most n R (M + 4k v1 + 2k v2): fewer where candidates repeat or fail."""
        return self.items * self.rounds * self.each

    @property
    def each(self) -> int:
        """Of one item in one round."""
        started = min(4 * self.best, self.candidates)
        return self.candidates + started * self.first + min(2 * self.best, started) * self.second

    def within(self, rollouts: int | None) -> Plan:
        """The first of :meth:`smaller` that fits ``rollouts``; ``None`` is no limit.

        Raises
        ------
        LimitExceeded
            If not even one graph can be tried.
        """
        for plan in self.smaller():
            if rollouts is None or plan.rollouts <= rollouts:
                return plan
        raise LimitExceeded(
            f"{rollouts} rollouts are left in the budget, too few to try a single graph; raise it",
            scope="learn",
            limit="rollouts",
        )

    def smaller(self) -> Iterator[Plan]:
        """This plan, and ever smaller ones, down to a single rollout.

        In the order in which planted worlds bore it: fewer candidates and verifying items, down to
        half; then one label an item, and fewer rounds; then fewer items; what is left after that finds
        nothing good, but runs.
        """

        def but(plan: Plan, **changes: int) -> Plan:
            smaller = dataclasses.replace(plan, **changes)
            first = min(smaller.first, smaller.items - 1)  # verified on other items than its own
            return dataclasses.replace(
                smaller, first=first, second=min(smaller.second, smaller.items - 1 - first)
            )

        def scaled(plan: Plan, share: float) -> Plan:
            sizes = {name: round(share * getattr(plan, name)) for name in ("candidates", "first", "second")}
            return but(plan, **{**sizes, "candidates": max(1, sizes["candidates"])})

        yield but(self)
        yield from (scaled(self, k / 20) for k in range(19, 9, -1))
        for rounds in range(self.rounds, min(self.rounds, 3) - 1, -1):
            plan = but(self, rounds=rounds, best=1)
            yield plan
        for items in range(self.items - 1, min(self.items, 20) - 1, -1):
            plan = but(plan, items=items)
            yield plan
        for rounds in range(plan.rounds - 1, 0, -1):
            plan = but(plan, rounds=rounds)
            yield plan
        yield from (scaled(plan, k / 20) for k in range(19, 4, -1))
        plan = but(scaled(plan, 0.25), second=0)
        for items in range(plan.items, 0, -1):
            yield but(plan, items=items)
        yield but(plan, items=1, candidates=1)


class Label(NamedTuple):
    """A graph that should be imitated on an item.

    ``utility`` is the mean of ``utility_n`` rollouts on the items it was verified on, ``correct``
    and prompt and completion tokens likewise (``None`` where unknown).
    """

    item: Item
    realisation: Realisation
    weight: float
    utility: float
    utility_n: int
    correct: float | None
    prompt: float | None
    completion: float | None


class Tried(NamedTuple):
    """A candidate and what is known of it."""

    at: int
    realisation: Realisation
    probabilities: EdgeProbabilities
    outcomes: list[Outcome]

    @property
    def known(self) -> list[Outcome]:
        """Failed rollouts tell nothing."""
        return [o for o in self.outcomes if o.utility is not None]

    @property
    def rank(self) -> tuple[float, float]:
        """Better ones first: by mean utility, ties by fewer tokens."""
        mean = mean_known([o.utility for o in self.known])
        tokens = mean_known([o.total_tokens for o in self.known])
        return (math.inf if mean is None else -mean, math.inf if tokens is None else tokens)


async def mine(
    environment: Environment,
    items: Sequence[Item],
    vectors: FloatArray,
    plan: Plan,
    *,
    seed: int,
    stage_round: int,
    proposer: Proposer | None = None,
    rule: Rule = "verified",
    learn_nodes: bool = True,
) -> list[Label]:
    """One round of mining: labels for ``items``, in their order.

    Parameters
    ----------
    vectors:
        [items, d], of the items' questions: which items are near each other.
    stage_round:
        From 1.
    proposer:
        What the last round's network proposes; ``None`` draws all candidates by size.
    learn_nodes:
        ``False`` keeps all agents in every candidate.

    Returns
    -------
    list[Label]
        At most ``plan.best`` for each item; none for an item on which every rollout failed.

    Raises
    ------
    TaskError
        If no label was found at all.
    """
    pool = environment.pool
    collector = find_collector(environment)
    if collector is not None:
        collector.stage_round = stage_round
    candidates: list[Tried] = []
    for at, item in enumerate(items):
        rng = np.random.default_rng([seed, CANDIDATES, stage_round, at])
        proposal = proposer(item) if proposer is not None else None
        drawn = draw_candidates(
            pool,
            plan.candidates if rule == "verified" else plan.each,
            rng,
            proposal,
            learn_nodes=learn_nodes,
        )
        candidates += [Tried(at, realisation, how, []) for realisation, how in drawn]

    seeds = _Seeds(seed, stage_round)
    await _try(environment, [(c, items[c.at]) for c in candidates], seeds)
    if rule == "cheapest":
        right = [c for c in candidates if any(o.correct is not None and o.correct >= 1 for o in c.known)]
        chosen = _best(right, plan.best, key=lambda c: c.rank[1])
    else:
        near = nearest(vectors)
        chosen = [c for c in candidates if c.known]
        chosen = [c._replace(outcomes=[]) for c in _best(chosen, 4 * plan.best)]
        for count, start, most in ((plan.first, 0, 2), (plan.second, plan.first, 1)):
            pairs = [(c, items[j]) for c in chosen for j in near[c.at, start : start + count].tolist()]
            await _try(environment, pairs, seeds)
            chosen = _best([c for c in chosen if c.known or not pairs], most * plan.best)
    found = [_label(c, items[c.at], 1.0 / plan.best) for c in chosen]
    if not found:
        failed = sum(not c.known for c in candidates)
        raise TaskError(
            f"nothing to learn from: mining tried {len(candidates)} graphs on {len(items)} items, "
            f"{failed} failed and none was good enough for a label; use more candidates, or see why "
            f"rollouts fail"
        )
    if collector is not None:
        _record(collector, found, stage_round)
    return found


class _Seeds:
    """Seeds of a round's rollouts, in order."""

    def __init__(self, seed: int, stage_round: int) -> None:
        self._seed, self._round, self._next = seed, stage_round, 0

    def take(self) -> int:
        self._next += 1
        return rollout_seed(self._seed, self._round, self._next)


async def _try(environment: Environment, pairs: Sequence[tuple[Tried, Item]], seeds: _Seeds) -> None:
    trials = [
        Trial(i, c.realisation.topology, seeds.take(), c.realisation, c.probabilities) for c, i in pairs
    ]
    for (candidate, _), outcome in zip(pairs, await run_trials(environment, trials), strict=True):
        candidate.outcomes.append(outcome)


def _best(
    candidates: Sequence[Tried], most: int, key: Callable[[Tried], Any] = lambda c: c.rank
) -> list[Tried]:
    """The ``most`` best of each item, items in order; equal ones in the order in which they were drawn."""
    of_item: dict[int, list[Tried]] = {}
    for candidate in candidates:
        of_item.setdefault(candidate.at, []).append(candidate)
    return [c for at in sorted(of_item) for c in sorted(of_item[at], key=key)[:most]]


def _label(candidate: Tried, item: Item, weight: float) -> Label:
    known = candidate.known
    return Label(
        item,
        candidate.realisation,
        weight,
        mean_known([o.utility for o in known]) or 0.0,
        len(known),
        mean_known([o.correct for o in known]),
        mean_known([o.tokens.input_tokens for o in known]),
        mean_known([o.tokens.output_tokens for o in known]),
    )


# ------------------------------------------------------------------------------- candidates


def draw_candidates(
    pool: Pool,
    count: int,
    rng: np.random.Generator,
    proposal: EdgeProbabilities | None = None,
    *,
    learn_nodes: bool = True,
) -> list[tuple[Realisation, EdgeProbabilities]]:
    """``count`` different graphs and how they were drawn; fewer where the pool doesn't have as many.

    With a ``proposal`` 80 % come from it, clamped, the others from :func:`sized`; where it is so sure
    that it hardly proposes different ones, fewer.
    """
    from_network = round(FROM_NETWORK * count) if proposal is not None else 0
    found: dict[bytes, tuple[Realisation, EdgeProbabilities]] = {}
    for tries in range(6 * count + 16):
        if len(found) == count:
            break
        if proposal is not None and len(found) < from_network and tries < 3 * count:
            how = clamped(proposal, learn_nodes=learn_nodes)
        else:
            how = sized(pool, rng, learn_nodes=learn_nodes)
        drawn = realise(how, pool, mode="bernoulli", rng=rng)
        key = drawn.keep.tobytes() + drawn.spatial.tobytes() + drawn.temporal.tobytes()
        found.setdefault(key, (drawn, how))
    return list(found.values())


def sized(pool: Pool, rng: np.random.Generator, *, learn_nodes: bool = True) -> EdgeProbabilities:
    """A uniform subset of agents (q is 0 or 1) and every edge with 0.5.

    Its size is round(N(N/2, (N/4)^2)), drawn again outside [2, N]; of two agents one may be alone, or
    nothing could be pruned.
    """
    n = len(pool)
    size = n
    if learn_nodes and n > 1:
        size = 0
        while not min(2, n - 1) <= size <= n:
            size = round(float(rng.normal(n / 2, n / 4)))
    keep = np.zeros(n)
    keep[rng.permutation(n)[:size]] = 1.0
    half = np.full((n, n), 0.5)
    return EdgeProbabilities.of(keep, half, half, pool.spatial_allowed, pool.temporal_allowed)


def clamped(proposal: EdgeProbabilities, *, learn_nodes: bool = True) -> EdgeProbabilities:
    """``proposal`` within [0.05, 0.95], so that nothing is ever out of the question."""
    keep, spatial, temporal = (
        np.clip(p, LOWEST, 1.0 - LOWEST) for p in (proposal.keep, proposal.spatial, proposal.temporal)
    )
    return EdgeProbabilities.of(
        keep if learn_nodes else np.ones_like(keep),
        spatial,
        temporal,
        proposal.spatial_mask,
        proposal.temporal_mask,
    )


def nearest(vectors: FloatArray) -> IntArray:
    """[items, items - 1]: the others, most similar (cosine) first, ties by position."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1.0)
    alike = np.round(unit @ unit.T, 12)  # or rounding of the product would decide ties
    np.fill_diagonal(alike, -np.inf)
    return np.asarray(np.argsort(-alike, axis=1, kind="stable")[:, :-1], dtype=np.int64)


# ---------------------------------------------------------------------------------- records


def find_collector(environment: Any) -> Collector | None:
    """The collector among the environments that wrap each other, if there is one."""
    while environment is not None and not isinstance(environment, Collector):
        environment = getattr(environment, "environment", None)
    return environment


def _record(collector: Collector, found: Sequence[Label], stage_round: int) -> None:
    """Append labels to the records, once.

    They are means of several rollouts, so their seed is that of none: minus the round.
    """
    pool, origin = collector.pool, collector.origin
    for label in found:
        r = label.realisation
        record = Record(
            run_id=origin.run_id,
            method=origin.method,
            profile=origin.profile,
            stage_round=stage_round,
            item=label.item.id,
            item_hash=hash_of(label.item),
            dataset=origin.dataset,
            split=split_of(label.item),
            query=label.item.question,
            roles=[a.role for a in pool.agents],
            pool_hash=pool.id,
            prompt_hash=prompt_hash(pool),
            model=origin.model,
            decoding=dict(origin.decoding),
            decision=pool.decision,
            keep=r.keep.astype(int).tolist(),
            spatial=r.spatial.astype(int).tolist(),
            temporal=r.temporal.astype(int).tolist(),
            seed=-stage_round,
            correct=label.correct,
            utility=label.utility,
            utility_n=label.utility_n,
            tokens={
                "prompt": _whole(label.prompt),
                "completion": _whole(label.completion),
                "cached": None,
            },
            status="ok",
            schema=SCHEMA,
            weight=label.weight,
        )
        if collector.records.known(record.key) is None:
            collector.records.append(record)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
