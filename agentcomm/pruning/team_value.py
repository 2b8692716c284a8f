"""Team value: a Gaussian process that says what a team scores on a kind of question, and how sure it is.

Scores of tried teams go in; for any team, tried or not, a mean and a variance come out, and joint
draws for Thompson sampling. The covariance of two teams x, x' on kinds c, c' of question is

    [s0 + sl <x, x'> / scale + sh exp(-|x - x'|^2 / l)] (rho + (1 - rho) [c = c'])

over :meth:`~agentcomm.pruning.teams.Space.features`: a *linear* part, in which every agent, edge
and path has an effect of its own, learned from all teams at once, and a *local* one, in which
teams that differ in little score alike, whatever the reason (who needs whom). ``rho`` says how much kinds of
question have in common: at 0 each is learned by itself, at 1 they are one. All of it is chosen by
the marginal likelihood of the scores (Rasmussen and Williams 2006, chapters 2 and 5).

Items differ in difficulty; an item's effect is estimated from all teams that met it and taken
off, so teams that met different items can be compared (the paired comparison, without pairs).
Noise follows the mean, phi p (1 - p), as for right and wrong answers; phi < 1 for graded scores.

Deliberately absent: tokens, which are no secret (a regression in :mod:`agentcomm.pruning.frugal`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import (  # type: ignore[import-untyped]
    LinAlgError,
    cho_solve,
    cholesky,
    solve_triangular,
)

from agentcomm.pruning.pool import FloatArray, IntArray
from agentcomm.pruning.teams import Space, Team, Teams

LEAST_NOISE = 0.04
"""Variance of one score at least: nobody is that sure of p = 0 or 1."""

MANY = 800
"""Tried teams (by kind of question) beyond which kinds are learned apart or as one, not in between: a
process over all of them takes too long."""

_GRID: dict[str, tuple[float, ...]] = {
    "linear": (0.05, 0.1, 0.2, 0.4),
    "local": (0.01, 0.02, 0.04, 0.08, 0.16),
    "length": (4.0, 8.0, 16.0, 32.0, 64.0),
    "shared": (0.0, 0.5, 1.0),
}
"""Values that are tried. Little data can't tell little spread from none, and a learner that believes in
none stops looking: hence the lower ends."""


@dataclass(frozen=True)
class Hyper:
    """The covariance: see the module. ``length`` is l; ``edges`` what an edge counts beside a path."""

    constant: float = 0.03
    linear: float = 0.1
    local: float = 0.02
    length: float = 4.0
    shared: float = 0.0
    edges: float = 0.5

    @property
    def neighbours(self) -> list[tuple[str, float]]:
        """One step up or down the grid in each parameter."""
        found = []
        for name, grid in _GRID.items():
            at = min(range(len(grid)), key=lambda i: abs(grid[i] - getattr(self, name)))
            found += [(name, grid[i]) for i in (at - 1, at + 1) if 0 <= i < len(grid)]
        return found


@dataclass
class Observations:
    """Scores by kind of question, item and team, as they came."""

    teams: list[Team]
    kind: list[int]
    item: list[int]
    team: list[int]
    score: list[float]

    @classmethod
    def none(cls) -> Observations:
        return cls([], [], [], [], [])

    def __post_init__(self) -> None:
        self._known = {Teams.of([t]).keys[0]: i for i, t in enumerate(self.teams)}

    def __len__(self) -> int:
        return len(self.score)

    def add(self, kind: int, item: int, team: Team, score: float) -> int:
        """Note one score; the number of the team is returned."""
        number = self._known.setdefault(Teams.of([team]).keys[0], len(self.teams))
        if number == len(self.teams):
            self.teams.append(team)
        for column, value in ((self.kind, kind), (self.item, item), (self.team, number)):
            column.append(value)
        self.score.append(score)
        return number


class Joint(NamedTuple):
    """Mean [B] and covariance [B, B] of what teams score, without the noise of single items."""

    mean: FloatArray
    covariance: FloatArray

    @property
    def sd(self) -> FloatArray:
        found: FloatArray = np.sqrt(np.maximum(np.diag(self.covariance), 1e-12))
        return found

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        """[count, B] functions from the posterior."""
        jitter = 1e-6 * np.eye(len(self.mean))
        try:
            root = cholesky(self.covariance + jitter, lower=True)
        except LinAlgError:
            values, vectors = np.linalg.eigh(self.covariance)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
        found: FloatArray = self.mean + rng.standard_normal((count, len(self.mean))) @ root.T
        return found


class _Cells(NamedTuple):
    """One row for each kind and team that was tried: features, mean score, its noise variance."""

    kind: IntArray
    team: IntArray
    x: FloatArray
    mean: FloatArray
    noise: FloatArray


class _Process(NamedTuple):
    """A fitted Gaussian process over some cells."""

    cells: _Cells
    centre: float
    root: FloatArray
    weights: FloatArray
    evidence: float


class TeamValue:
    """The model; :meth:`fit` anew whenever there are more scores."""

    def __init__(self, space: Space, hyper: Hyper | None = None) -> None:
        self.space = space
        self.hyper = hyper or Hyper()
        whole = self.features(Teams.of([space.complete]))[0]
        self._scale = max(1.0, float(whole @ whole))
        self._processes: dict[int, _Process] = {}
        self._looked_at = 0

    def features(self, teams: Teams) -> FloatArray:
        """[teams, F]."""
        return self.space.features(teams, self.hyper.edges)

    # -- fitting -----------------------------------------------------------------------------

    def fit(self, seen: Observations) -> None:
        """Learn from all scores; hyperparameters are reconsidered when there are half as many again."""
        x = self.features(Teams.of(seen.teams))
        cells = self._cells(seen, x, self._effects(seen, x))
        if len(seen) >= 1.5 * self._looked_at:
            self._looked_at = len(seen)
            self._choose(cells)
        self._processes = self._fit(cells, self.hyper)

    def _effects(self, seen: Observations, x: FloatArray) -> FloatArray:
        """[scores]: how much easier than others of its kind its item is, shrunk to nothing without evidence."""
        score, item = np.array(seen.score), np.array(seen.item)
        expected = np.clip(self._expected(seen, x), 0.0, 1.0)
        residual = score - expected
        count = np.bincount(item).astype(np.float64)
        sums = np.bincount(item, residual)
        met = count > 0
        mean = np.divide(sums, count, out=np.zeros_like(sums), where=met)
        noise = (
            float(np.mean((residual - mean[item]) ** 2)) * len(score) / max(1, len(score) - int(met.sum()))
        )
        # Method of moments: the spread of item means beyond what noise alone gives.
        spread = (
            float(np.average(mean[met] ** 2 - noise / count[met], weights=count[met])) if met.any() else 0.0
        )
        if spread <= 0.0 or len(score) <= met.sum():
            return np.zeros(len(score))
        effect = np.divide(mean * count, count + noise / spread, out=np.zeros_like(mean), where=met)
        found: FloatArray = effect[item]
        return found

    def _expected(self, seen: Observations, x: FloatArray) -> FloatArray:
        """What the last fit says of each score; each kind's mean where there is none."""
        kind, team, score = np.array(seen.kind), np.array(seen.team), np.array(seen.score)
        found = np.full(len(score), float(score.mean()))
        for c in np.unique(kind).tolist():
            here = kind == c
            if not self._processes:
                found[here] = score[here].mean()
                continue
            teams, back = np.unique(team[here], return_inverse=True)
            found[here] = self._mean(x[teams], c)[back]
        return found

    def _cells(self, seen: Observations, x: FloatArray, effects: FloatArray) -> _Cells:
        kind, team = np.array(seen.kind), np.array(seen.team)
        adjusted = np.array(seen.score) - effects
        expected = np.clip(self._expected(seen, x), 0.05, 0.95)
        binomial = expected * (1.0 - expected)
        phi = float(np.clip(np.mean((adjusted - expected) ** 2) / binomial.mean(), 0.02, 1.0))
        noise = phi * np.maximum(binomial, LEAST_NOISE)
        pairs, at = np.unique(np.stack([kind, team]), axis=1, return_inverse=True)
        at = at.ravel()
        count = np.bincount(at).astype(np.float64)
        return _Cells(
            pairs[0].astype(np.int64),
            pairs[1].astype(np.int64),
            x[pairs[1]],
            np.bincount(at, adjusted) / count,
            np.bincount(at, noise) / count**2,
        )

    def _choose(self, cells: _Cells) -> None:
        """Walk the grid uphill in the marginal likelihood, a few steps."""
        many = len(cells.mean) > MANY
        if many and self.hyper.shared not in (0.0, 1.0):
            apart, one = (replace(self.hyper, shared=value) for value in (0.0, 1.0))
            self.hyper = apart if self._evidence(cells, apart) >= self._evidence(cells, one) else one
        best = self._evidence(cells, self.hyper)
        for _ in range(2):
            start = self.hyper
            for name, value in start.neighbours:
                if many and name == "shared" and value not in (0.0, 1.0):
                    value = 1.0 - start.shared
                candidate = replace(self.hyper, **{name: value})
                if (evidence := self._evidence(cells, candidate)) > best:
                    best, self.hyper = evidence, candidate
            if self.hyper == start:
                break

    def _evidence(self, cells: _Cells, hyper: Hyper) -> float:
        return sum(p.evidence for p in self._fit(cells, hyper).values())

    def _fit(self, cells: _Cells, hyper: Hyper) -> dict[int, _Process]:
        """By kind of question; one process under -1 where they have something in common."""
        kinds = np.unique(cells.kind).tolist()
        if hyper.shared == 0.0 or len(kinds) == 1:
            parts = {c: _Cells(*(a[cells.kind == c] for a in cells)) for c in kinds}
            return {c: self._process(part, hyper) for c, part in parts.items()}
        return {-1: self._process(cells, hyper)}

    def _process(self, cells: _Cells, hyper: Hyper) -> _Process:
        weight = 1.0 / cells.noise
        centre = float(cells.mean @ weight / weight.sum())
        covariance = self._covariance(cells.x, cells.x, cells.kind, cells.kind, hyper)
        root = cholesky(covariance + np.diag(cells.noise + 1e-6), lower=True, check_finite=False)
        residual = cells.mean - centre
        weights = cho_solve((root, True), residual, check_finite=False)
        evidence = (
            -0.5 * float(residual @ weights)
            - float(np.log(np.diag(root)).sum())
            - 0.5 * len(residual) * float(np.log(2 * np.pi))
        )
        return _Process(cells, centre, root, weights, evidence)

    def _covariance(
        self, a: FloatArray, b: FloatArray, kinds_a: IntArray, kinds_b: IntArray, hyper: Hyper
    ) -> FloatArray:
        inner = a @ b.T
        apart = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2.0 * inner
        found: FloatArray = (
            hyper.constant
            + hyper.linear / self._scale * inner
            + hyper.local * np.exp(-np.maximum(apart, 0.0) / hyper.length)
        )
        if hyper.shared < 1.0:
            found *= hyper.shared + (1.0 - hyper.shared) * (kinds_a[:, None] == kinds_b)
        return found

    # -- asking ------------------------------------------------------------------------------

    def _at(self, kind: int) -> _Process | None:
        return self._processes.get(-1) or self._processes.get(kind)

    def _across(self, process: _Process, x: FloatArray, kind: int) -> FloatArray:
        kinds = np.full(len(x), kind)
        return self._covariance(x, process.cells.x, kinds, process.cells.kind, self.hyper)

    def _mean(self, x: FloatArray, kind: int) -> FloatArray:
        process = self._at(kind)
        if process is None:
            return np.full(len(x), float(np.mean([p.centre for p in self._processes.values()])))
        found: FloatArray = process.centre + self._across(process, x, kind) @ process.weights
        return found

    def mean(self, teams: Teams, kind: int) -> FloatArray:
        """[teams]: what they score on a kind of question."""
        return self._mean(self.features(teams), kind)

    def joint(self, teams: Teams, kind: int) -> Joint:
        """What ``teams`` score on a kind of question."""
        x = self.features(teams)
        kinds = np.full(len(x), kind)
        prior = self._covariance(x, x, kinds, kinds, self.hyper)
        process = self._at(kind)
        if process is None:
            return Joint(self._mean(x, kind), prior)
        across = self._across(process, x, kind)
        half = solve_triangular(process.root, across.T, lower=True, check_finite=False)
        return Joint(process.centre + across @ process.weights, prior - half.T @ half)

    def above(self, teams: Teams, base: Team, kind: int) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation [teams] of what they score above ``base``; quick for many."""
        x = self.features(teams.and_(Teams.of([base])))
        kinds = np.full(len(x), kind)
        prior_base = self._covariance(x, x[-1:], kinds, kinds[-1:], self.hyper)[:, 0]
        prior = self.hyper.constant + self.hyper.linear / self._scale * (x * x).sum(axis=1) + self.hyper.local
        process = self._at(kind)
        mean = np.zeros(len(x))
        if process is not None:
            across = self._across(process, x, kind)
            half = solve_triangular(process.root, across.T, lower=True, check_finite=False)
            mean = across @ process.weights
            prior = prior - (half * half).sum(axis=0)
            prior_base = prior_base - half.T @ half[:, -1]
        variance = prior + prior[-1] - 2.0 * prior_base
        sd: FloatArray = np.sqrt(np.maximum(variance[:-1], 1e-9))
        return mean[:-1] - mean[-1], sd
