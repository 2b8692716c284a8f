"""Frugal: a learner for when a rollout costs seconds and money.

1. *Kinds of question* are found in the embeddings alone (:mod:`agentcomm.pruning.clusters`); where
   there are none, all questions are one kind.
2. For each kind a *value model* over teams (:mod:`agentcomm.pruning.team_value`) learns from every
   rollout there is, those of other methods included, and says how sure it is.
3. *What to try next* is drawn by Thompson sampling (Thompson 1933; batched): of many candidates,
   random teams and neighbours of the best so far, each draw from the posterior names the one that
   would be best if it were true. Promising and unknown teams get rollouts, others none.
4. The tried team with the best lower bound on its *gain over the complete team* is taken, then
   *cut*: agents and edges go one after the other as long as what is left may be worth as much,
   since their tokens are certain and their use isn't. Once a team is surely better than the
   complete one, a share of every batch tries such cuts, some bolder than what would be decided
   now, so they are measured before they are believed.
5. A kind of question for which no tried team has a positive bound starts from the complete team:
   it loses only parts of which nothing shows that they are worth their tokens.

Tokens are nearly linear in who is kept and who reads whom; they are learned by regression, and
only scores have to be found out by trying.

What is tried next depends on what was seen, never on the budget: a larger budget goes on where a
smaller one ended, and with recorded rollouts it pays for the difference alone.

Ours; no paper. Relatives: Thompson sampling over combinatorial arms, Bayesian optimisation of
graphs (Oh et al. 2019).

Deliberately absent: torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from scipy.special import ndtr  # type: ignore[import-untyped]

from agentcomm.errors import ConfigError, TaskError
from agentcomm.evaluation.splits import hash_of
from agentcomm.pruning.batches import Log, Spending, check_items, metered, rollout_seed, stream, trace
from agentcomm.pruning.clusters import Clusters, find_clusters
from agentcomm.pruning.embeddings import Embedder, notes_of, or_hashed
from agentcomm.pruning.environment import Budget, Environment, Metered, Outcome, Trial, run_trials
from agentcomm.pruning.policy import Arrays, Card, Policy, embedder_for
from agentcomm.pruning.pool import FloatArray, Pool
from agentcomm.pruning.realise import EdgeProbabilities
from agentcomm.pruning.records import Record
from agentcomm.pruning.team_value import Observations, TeamValue
from agentcomm.pruning.teams import Space, Team, Teams, smaller
from agentcomm.task import Item

KINDS, TEAMS, ITEMS = 1, 2, 3
"""Numbers of the generators among those of a seed."""

CUTS = (0.5, 1.0, 1.5, 2.0)
"""Boldnesses of the cuts that are tried."""


@dataclass(frozen=True)
class Frugal:
    """Few rollouts: a value model over teams chooses what to try next.

    Parameters
    ----------
    seed:
        Of everything that is drawn.
    embedder:
        Of questions; ``None``: the built-in hashed words, which the policy's card then says.
    rollouts:
        How many at most; a smaller budget ends it earlier.
    first:
        Random teams tried on each kind of question before anything is believed.
    growth:
        Each further batch is this share of what was seen before.
    candidates:
        Teams among which each batch is chosen, for each kind of question.
    reference:
        Rollouts of the complete team on each kind of question.
    caution:
        Standard deviations that a team's gain over the complete team has to lie above what is claimed
        for it, when a tried team is chosen.
    boldness:
        Standard deviations by which a smaller team may seem worse than the chosen one and be taken
        instead: what a part is worth has to be shown, what it costs is known.
    trim:
        Share of each batch that goes to such smaller teams, once a team is surely better than the
        complete one.
    most_kinds, separation:
        Of :func:`~agentcomm.pruning.clusters.find_clusters`.
    records:
        Rollouts made before, by any method, on ``learn`` items of the same team.
    """

    name: ClassVar[str] = "frugal"
    paper: ClassVar[str] = "none: this package's own"

    seed: int = 0
    embedder: Embedder | None = None
    rollouts: int = 3000
    first: int = 40
    growth: float = 0.1
    candidates: int = 400
    reference: int = 6
    caution: float = 0.5
    boldness: float = 1.0
    trim: float = 0.25
    most_kinds: int = 12
    separation: float = 0.15
    records: Iterable[Record] = ()

    def __post_init__(self) -> None:
        for name, least in (
            ("rollouts", 1),
            ("first", 1),
            ("candidates", 2),
            ("reference", 0),
            ("most_kinds", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}; it must be at least {least}")
        if not self.growth > 0:
            raise ConfigError(f"growth={self.growth}; it must be above 0")
        for name in ("caution", "boldness"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)}; it must be at least 0")
        if not 0 <= self.trim < 1:
            raise ConfigError(f"trim={self.trim}; it must be at least 0 and below 1")

    async def fit(self, items: Sequence[Item], environment: Environment, budget: Budget) -> FrugalPolicy:
        """Learn on ``items`` within ``budget``.

        Raises
        ------
        TaskError
            If there are no items, one isn't a ``learn`` item, or every rollout failed.
        LimitExceeded
            If a budget of tokens or cost is spent, or there is none; what was recorded can be used
            again.
        """
        items = check_items(items)
        meter = metered(environment, budget)
        study = _Study(self, items, meter)
        study.recall(self.records)
        spending = Spending.start(meter)
        log = Log()
        left = self.rollouts if meter.rollouts_left is None else min(self.rollouts, meter.rollouts_left)
        done = 0
        while left > 0:
            trials = study.next(done)[:left]
            outcomes = await run_trials(meter, [t.trial for t in trials])
            left -= len(trials)
            done += 1
            study.note(trials, outcomes)
            log.add(done, outcomes, 0.0, 0.0)
        if not len(study.seen):
            if done:
                log.finish()  # says what failed
            raise TaskError("nothing to learn from: no rollouts and no records; give a budget or records")
        return study.policy(spending.since(), trace(log.batches))


class Planned(NamedTuple):
    """A trial, with what it is to the study."""

    trial: Trial
    kind: int
    item: int
    team: Team


class Choice(NamedTuple):
    """What a kind of question gets: the team, its gain over the complete one, and how sure that is."""

    team: Team
    gain: float
    sd: float
    keep: FloatArray
    spatial: FloatArray
    temporal: FloatArray


class _Study:
    """What has been seen, and what follows from it."""

    def __init__(self, learner: Frugal, items: tuple[Item, ...], environment: Metered) -> None:
        self.learner = learner
        self.items = items
        self.pool: Pool = environment.pool
        self.space = Space(self.pool)
        self.embedder: Embedder = or_hashed(learner.embedder)
        vectors = self.embedder.embed([i.question for i in items])
        self.clusters = find_clusters(
            vectors, stream(learner.seed, KINDS), most=learner.most_kinds, separation=learner.separation
        )
        kinds = self.clusters.of(vectors)
        self.members = [np.flatnonzero(kinds == c) for c in range(len(self.clusters.centres))]
        self.value = TeamValue(self.space)
        self.seen = Observations.none()
        self.costs: list[float] = []
        self.hashes = {hash_of(i): n for n, i in enumerate(items)}
        self.learned_from = set(self.hashes)
        self.used: dict[tuple[int, bytes], dict[int, int]] = {}
        self.recalled: set[tuple[int, bytes, int]] = set()
        self.price: FloatArray | None = None
        self.rng = stream(learner.seed, TEAMS)
        self.item_rng = stream(learner.seed, ITEMS)
        self.visits = np.zeros(len(items), dtype=np.int64)

    # -- what was seen -----------------------------------------------------------------------

    def recall(self, records: Iterable[Record]) -> None:
        """Take in rollouts made before."""
        for record in records:
            if record.split != "learn":
                raise TaskError(
                    f"the record of item {record.item!r} says split {record.split!r}; learn from split 'learn' only"
                )
            record.topology(self.pool)  # refuses another team
            if record.utility_n > 1 or record.seed < 0:
                continue  # a label of another method: a mean over items, each of which has its own record
            arrays = record.arrays
            if arrays.keep.ndim == 2:
                if not all((a == a[0]).all() for a in arrays):
                    continue  # another team in each round: not among those that are searched
                arrays = type(arrays)(*(a[0] for a in arrays))
            kind = int(self.clusters.of(self.embedder.embed([record.query]))[0])
            number = self.hashes.setdefault(record.item_hash, len(self.hashes))
            self.learned_from.add(record.item_hash)
            team = Team(*arrays)
            key = Teams.of([team]).keys[0]
            if (number, key, record.seed) in self.recalled:
                continue
            self.recalled.add((number, key, record.seed))
            self._see(kind, number, team, record.outcome())
            if number < len(self.items):  # tried on it already: other items say more
                met = self.used.setdefault((kind, key), {})
                met[number] = met.get(number, 0) + 1
                self.visits[number] += 1

    def note(self, trials: Sequence[Planned], outcomes: Sequence[Outcome]) -> None:
        """Take in what came of trials; failed ones tell nothing."""
        for planned, outcome in zip(trials, outcomes, strict=True):
            self._see(planned.kind, planned.item, planned.team, outcome)

    def _see(self, kind: int, item: int, team: Team, outcome: Outcome) -> None:
        if outcome.utility is None or outcome.correct is None:
            return
        self.seen.add(kind, item, team, outcome.correct)
        self.costs.append(outcome.correct - outcome.utility)

    # -- what is tried next ------------------------------------------------------------------

    def next(self, iteration: int) -> list[Planned]:
        """The next batch: of each kind of question its share."""
        learner = self.learner
        if iteration == 0 or not len(self.seen):
            whole = [self.space.complete] * learner.reference
            drawn = [self.space.random(learner.first, self.rng) for _ in self.members]
            plans = [_mixed(whole, [teams.one(i) for i in range(teams.size)]) for teams in drawn]
        else:
            self._learn()
            total = max(len(self.members) * 3, int(learner.growth * len(self.seen)))
            counts = _shares(total, [len(m) for m in self.members])
            plans = [self._promising(c, count) for c, count in enumerate(counts)]
        # Kinds in turn, so that a batch that is cut short has something of each.
        found: list[Planned] = []
        for place in range(max(map(len, plans))):
            for c, plan in enumerate(plans):
                if place < len(plan):
                    found.append(self._planned(c, plan[place], iteration, len(found)))
        return found

    def _planned(self, kind: int, team: Team, iteration: int, position: int) -> Planned:
        """On the item of the kind that this team has met least, and among those the least used one."""
        key = Teams.of([team]).keys[0]
        met = self.used.setdefault((kind, key), {})
        choices = self.members[kind]
        load = np.array([met.get(i, 0) for i in choices.tolist()]) * 1e6 + self.visits[choices]
        least = choices[load == load.min()]
        item = int(self.item_rng.choice(least))
        met[item] = met.get(item, 0) + 1
        self.visits[item] += 1
        seed = rollout_seed(self.learner.seed, iteration, position)
        while (item, key, seed) in self.recalled:
            # Answered from the records it would be the same rollout once more, and no second observation.
            seed = (seed + 1) % 2**31
        return Planned(Trial(self.items[item], self.space.topology(team), seed), kind, item, team)

    def _learn(self) -> None:
        self.value.fit(self.seen)
        x = self.space.cost_features(Teams.of(self.seen.teams))[self.seen.team]
        ridge = 1e-3 * np.eye(x.shape[1])
        self.price = np.linalg.solve(x.T @ x + ridge, x.T @ np.array(self.costs))

    def _cost(self, teams: Teams) -> FloatArray:
        """[teams]: what their tokens cost, in points of score."""
        assert self.price is not None
        found: FloatArray = self.space.cost_features(teams) @ self.price
        return found

    def _tried(self, kind: int) -> Teams:
        """Teams tried on a kind of question, the best first; all teams where kinds are one."""
        together = self.value.hyper.shared > 0.0
        numbers = {t for t, k in zip(self.seen.team, self.seen.kind, strict=True) if together or k == kind}
        if not numbers:
            return Teams.of([self.space.complete])
        teams = Teams.of([self.seen.teams[t] for t in sorted(numbers)])
        worth = self.value.mean(teams, kind) - self._cost(teams)
        return teams.take(np.argsort(-worth, kind="stable"))

    def _promising(self, kind: int, count: int) -> list[Team]:
        """Of many candidates those that draws from the posterior name."""
        rng, learner = self.rng, self.learner
        most = learner.candidates
        best = self._tried(kind)
        best = best.take(np.arange(min(40, best.size)))
        starts = np.minimum(rng.exponential(10.0, size=most).astype(np.int64), best.size - 1)
        near = self.space.neighbours(best.take(starts), 1 + rng.geometric(0.5, size=most), rng)
        teams = best.and_(self.space.random(most // 6, rng)).and_(near).distinct
        joint = self.value.joint(teams, kind)
        found: list[Team] = []
        start = self._best(kind)
        (gain,), (sd,) = self._gains(kind, Teams.of([start]))
        if gain > 2.0 * sd:  # surely better than the complete team: now what of it is needed?
            cuts = [self._cut(kind, start, b) for b in CUTS]
            found = [cuts[i % len(cuts)] for i in range(round(learner.trim * count))]
        trimmed = len(found)
        distinct = min(count - trimmed, 40)
        drawn = joint.draw(rng, distinct) - self._cost(teams)
        chosen = [teams.one(int(i)) for i in drawn.argmax(axis=1)]
        return found + [chosen[i % distinct] for i in range(count - trimmed)]

    # -- what is decided ---------------------------------------------------------------------

    def policy(self, spent: Mapping[str, float | None], story: Mapping[str, Any]) -> FrugalPolicy:
        self._learn()
        choices = [self.choose(c) for c in range(len(self.members))]
        settings = {
            f.name: getattr(self.learner, f.name)
            for f in dataclasses.fields(self.learner)
            if f.name not in ("seed", "embedder", "records")
        }
        whole = Teams.of([self.space.complete]).keys[0]
        kept = Teams.of([c.team for c in choices]).keys.count(whole)
        notes = (
            f"{len(choices)} kinds of question (silhouette {self.clusters.silhouette:.2f}), "
            f"{self.value.hyper.shared:g} in common",
            *([f"no team is surely better than the complete one for {kept} of them"] if kept else []),
            *notes_of(self.embedder),
        )
        card = Card(
            method=Frugal.name,
            seed=self.learner.seed,
            settings={**settings, "embedder": self.embedder.id},
            learned_from=frozenset(self.learned_from),
            spent=spent,
            paper=Frugal.paper,
            notes=notes,
            trace={
                **story,
                "seen": len(self.seen),
                "silhouette": round(self.clusters.silhouette, 4),
                "hyper": dataclasses.asdict(self.value.hyper),
                "gain": [round(c.gain, 4) for c in choices],
                "gain_sd": [round(c.sd, 4) for c in choices],
            },
        )
        stacked = [
            np.stack(arrays)
            for arrays in zip(*((c.keep, c.spatial, c.temporal) for c in choices), strict=True)
        ]
        return FrugalPolicy(self.pool, card, self.embedder, self.clusters.centres, *stacked)

    def choose(self, kind: int) -> Choice:
        """The best team for a kind of question, cut."""
        team = self._cut(kind, self._best(kind), self.learner.boldness, safe=True)
        gain, sd = self._gains(kind, Teams.of([team]))
        return Choice(team, float(gain[0]), float(sd[0]), *self._confidence(kind, team))

    def _best(self, kind: int) -> Team:
        """The tried team with the best lower bound on its gain over the complete one, if that is above 0."""
        tried = self._tried(kind)
        team, bound = self.space.complete, 0.0
        for start in range(0, min(tried.size, 600), 200):
            some = tried.take(np.arange(start, min(start + 200, tried.size)))
            gain, sd = self._gains(kind, some)
            bounds = gain - self.learner.caution * sd
            if bounds.max() > bound:
                team, bound = some.one(int(bounds.argmax())), float(bounds.max())
        return team

    def _cut(self, kind: int, team: Team, boldness: float, *, safe: bool = False) -> Team:
        """``team`` without what isn't shown to be worth its tokens.

        One part after the other goes, as long as what is left may be worth as much as ``team``: as long
        as the difference is within ``boldness`` standard deviations of 0. ``safe`` keeps the lower
        bound on the gain over the complete team above 0, too.
        """
        left = team
        while (fewer := smaller(left)) is not None:
            hope = self._hope(kind, fewer, team, boldness, safe)
            order = np.argsort(-hope, kind="stable")
            many = int((hope > 0.0).sum()) // 8
            if many > 1:  # a large team: several at once, if that is as hopeful
                both = self._common(fewer.take(order[:many]))
                if self._hope(kind, both, team, boldness, safe)[0] > 0.0:
                    left = self.space.executed(both).one(0)
                    continue
            if hope[order[0]] <= 0.0:
                break
            left = self.space.executed(fewer).one(int(order[0]))
        return left

    def _hope(self, kind: int, fewer: Teams, team: Team, boldness: float, safe: bool) -> FloatArray:
        """How much more than ``team`` each may be worth; minus infinity where it isn't safe."""
        fewer = self.space.executed(fewer)
        gain, sd = self._gains(kind, fewer, team)
        hope: FloatArray = gain + boldness * sd
        if safe:
            gain, sd = self._gains(kind, fewer)
            hope[gain - self.learner.caution * sd <= 0.0] = -np.inf
        return hope

    def _common(self, teams: Teams) -> Teams:
        """What all of them have, as one team, with the first one's agents if they have none in common."""
        keep, spatial, temporal = (np.logical_and.reduce(a, axis=0) for a in teams)
        if not keep.any():
            keep = teams.keep[0]
        both = keep[:, None] & keep
        return Teams.of([Team(keep, spatial & both, temporal & both)])

    def _gains(self, kind: int, teams: Teams, base: Team | None = None) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the utility of ``teams`` above that of ``base``, the complete one."""
        base = self.space.complete if base is None else base
        gain, sd = self.value.above(teams, base, kind)
        return gain - self._cost(teams) + self._cost(Teams.of([base])), sd

    def _confidence(self, kind: int, team: Team) -> tuple[FloatArray, FloatArray, FloatArray]:
        """How likely it is that the team is worth more with each of its parts than without; 0 for others'.

        What is in the team is above 1/2, so that the thresholds realise it; above that a threshold
        cuts what is least sure first.
        """
        keep, spatial, temporal = (np.zeros(a.shape) for a in team)
        fewer = smaller(team)
        if fewer is not None:
            gain, sd = self._gains(kind, fewer, team)
            sure = np.clip(ndtr(-gain / sd), 0.51, 0.99)
        else:
            sure = np.array([])
        parts = iter(sure.tolist())
        kept = np.flatnonzero(team.keep)
        for i in kept.tolist():
            keep[i] = next(parts) if len(kept) > 1 else 0.99
        for array, edges in ((spatial, team.spatial), (temporal, team.temporal)):
            for i, j in np.argwhere(edges).tolist():
                array[i, j] = next(parts)
        return keep, spatial, temporal


def _mixed(some: list[Team], others: list[Team]) -> list[Team]:
    """``others`` with ``some`` spread among the first of them."""
    found: list[Team] = []
    for i, team in enumerate(others):
        if i % 3 == 0 and i // 3 < len(some):
            found.append(some[i // 3])
        found.append(team)
    return found + some[(len(others) + 2) // 3 :]


def _shares(total: int, sizes: Sequence[int]) -> list[int]:
    """``total`` in proportion to ``sizes``, at least 1 each."""
    return [max(1, round(total * s / sum(sizes))) for s in sizes]


class FrugalPolicy(Policy):
    """A team for each kind of question."""

    kind = "frugal"

    def __init__(
        self,
        pool: Pool,
        card: Card,
        embedder: Embedder,
        centres: FloatArray,
        keep: FloatArray,
        spatial: FloatArray,
        temporal: FloatArray,
        *,
        node_threshold: float = 0.5,
        edge_threshold: float = 0.5,
    ) -> None:
        super().__init__(pool, card, node_threshold=node_threshold, edge_threshold=edge_threshold)
        self.embedder = embedder
        self.clusters = Clusters(centres, 0.0)
        self.probabilities = tuple(
            EdgeProbabilities.of(*arrays, pool.spatial_allowed, pool.temporal_allowed)
            for arrays in zip(keep, spatial, temporal, strict=True)
        )

    def kind_of(self, item: Item) -> int:
        """Which kind of question it is."""
        if len(self.probabilities) == 1:
            return 0
        return int(self.clusters.of(self.embedder.embed([item.question]))[0])

    def propose(self, item: Item) -> EdgeProbabilities:
        return self.probabilities[self.kind_of(item)]

    def state(self) -> tuple[dict[str, Any], Arrays]:
        arrays = {"centres": self.clusters.centres}
        for name in ("keep", "spatial", "temporal"):
            arrays[name] = np.stack([getattr(p, name) for p in self.probabilities])
        return {"embedder": self.embedder.id}, arrays

    @classmethod
    def restore(
        cls,
        pool: Pool,
        card: Card,
        thresholds: tuple[float, float],
        data: Mapping[str, Any],
        arrays: Arrays,
        embedder: Embedder | None,
    ) -> Self:
        embedder = embedder_for(str(data["embedder"]), embedder)
        n, c = len(pool), len(arrays["centres"])
        for name, shape in (("keep", (c, n)), ("spatial", (c, n, n)), ("temporal", (c, n, n))):
            if arrays[name].shape != shape:
                raise ConfigError(
                    f"{name} of shape {arrays[name].shape} for {c} kinds of question and {n} agents"
                )
        return cls(
            pool,
            card,
            embedder,
            *(arrays[k] for k in ("centres", "keep", "spatial", "temporal")),
            node_threshold=thresholds[0],
            edge_threshold=thresholds[1],
        )
