"""Routing: send a short summary where it says enough, a larger compressor's where not, else everything.

    local summary → informative enough? → send it
      → larger compressor → informative enough? → send that
        → the full context

*Informative* is one number a message, the same kind everywhere: the pointwise g against K − 1 fixed
reference contexts (``MIEstimate.row_nats``), PMI a token, or the margin to the best negative. The two
thresholds are learned on a calibration half of the *documents* and everything that is reported comes from
the other half:

* over a grid of threshold pairs, the cheapest one is taken whose score is not worse than the full
  context's by ``margin``: the one-sided 95 % lower limit, resampling documents, must be above −margin.
  If there is none, the full context is always sent;
* it is *enabled* only if on the test half it scores higher, paired and one-sided, than (a) routing at
  random and (b) routing by length alone, both sending as many items each way.

Costs are net (scoring included) and those of a path: what sending a larger compression cost holds the
local attempt before it. High information is not correctness: a faithful summary may leave the answer
out. (``../shared/spec/information.md``, section 7: the paper names this as future work.)

This file takes arrays and calls no model; :class:`Router` is what a program holds at run time.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentcomm.errors import AgentCommError, ConfigError, UserError
from agentcomm.evaluation.rundir import read_json, write_json
from agentcomm.evaluation.stats import Interval, NonInferiority, mean_interval, non_inferiority
from agentcomm.information.pictures import Point, Series, score_against_cost
from agentcomm.information.score_matrix import Array

Route = Literal["local", "large", "full"]
ROUTES: tuple[Route, ...] = ("local", "large", "full")
LOCAL, LARGE, FULL = range(3)
GRID = 24
"""Thresholds tried for each step, at quantiles of what was observed; "never" and "always" beside."""
MARGIN = 0.02
FORMAT = 1
KINDS = ("pointwise", "pmi_per_token", "margin")


@dataclass(frozen=True)
class RoutingData:
    """What happened to n items on every route.

    Parameters
    ----------
    scores:
        Shape (n, 3): in [0, 1], for the local summary, the larger compressor's, the full context.
    costs:
        Shape (n, 3): net cost of an item that ends on a route *through the router*: local attempt and
        its scoring; also the larger one's; also both and the full context.
    alone:
        Shape (n, 3): cost of a route that is always taken, without scoring or earlier attempts.
    straight:
        Shape (n,): net cost of an item that goes from the local attempt to the full context, the larger
        compressor never tried: what a router does whose second threshold is infinite.
    information:
        Shape (n, 2): the score of the local and of the larger compression, NaN where scoring failed.
    lengths:
        Shape (n,): of the full context, in any unit.
    documents:
        What each item is about; whole documents go to one half.
    """

    scores: Array
    costs: Array
    alone: Array
    straight: Array
    information: Array
    lengths: Array
    documents: tuple[Hashable, ...]

    @classmethod
    def of(
        cls,
        scores: ArrayLike,
        costs: ArrayLike,
        information: ArrayLike,
        lengths: ArrayLike,
        documents: Sequence[Hashable] | None = None,
        *,
        alone: ArrayLike | None = None,
        straight: ArrayLike | None = None,
    ) -> RoutingData:
        """The data, checked; ``alone`` defaults to ``costs`` (as if trying and scoring were free), and
        ``straight`` to those of the full context (as if the larger compressor were always tried).

        Raises
        ------
        UserError
            If shapes don't fit, or a score or cost is unknown: leave such items out.
        """
        s, c, i = (np.asarray(x, dtype=np.float64) for x in (scores, costs, information))
        a = c if alone is None else np.asarray(alone, dtype=np.float64)
        length = np.asarray(lengths, dtype=np.float64)
        n = len(s)
        shapes = {"scores": (s, (n, 3)), "costs": (c, (n, 3)), "alone": (a, (n, 3)),
                  "information": (i, (n, 2)), "lengths": (length, (n,))}  # fmt: skip
        direct = c[:, FULL] if straight is None and c.ndim == 2 and c.shape[1] == 3 else straight
        direct = np.asarray(direct, dtype=np.float64)
        shapes["straight"] = (direct, (n,))
        for name, (array, shape) in shapes.items():
            if array.shape != shape:
                raise UserError(f"routing: {name} has shape {array.shape}, not {shape}")
            if name != "information" and not np.isfinite(array).all():
                raise UserError(f"routing: {name} holds a value that is not finite; leave such items out")
        if ((s < 0) | (s > 1)).any():
            raise UserError("routing: a score lies between 0 and 1")
        named = tuple(range(n)) if documents is None else tuple(documents)
        if len(named) != n:
            raise UserError(f"routing: {n} items need as many documents, not {len(named)}")
        return cls(s, c, a, direct, i, length, named)

    def part(self, which: NDArray[np.bool_]) -> RoutingData:
        """Some of the items."""
        return RoutingData(
            self.scores[which],
            self.costs[which],
            self.alone[which],
            self.straight[which],
            self.information[which],
            self.lengths[which],
            tuple(name for name, taken in zip(self.documents, which, strict=True) if taken),
        )


def halves(documents: Sequence[Hashable], seed: int = 0) -> NDArray[np.bool_]:
    """Which items are for calibration: those of half of the documents, drawn with ``seed``.

    >>> halves(["a", "a", "b", "c", "c", "d"]).sum() in (2, 3, 4)
    True
    """
    known = list(dict.fromkeys(documents))
    order = np.random.default_rng(seed).permutation(len(known))
    chosen = {known[k] for k in order[: (len(known) + 1) // 2]}
    return np.array([name in chosen for name in documents], dtype=np.bool_)


# -- at run time --------------------------------------------------------------------------------


class Routed(NamedTuple):
    """Where a message goes, what is sent (``None``: the full context), and why."""

    route: Route
    text: str | None
    reason: str


@dataclass(frozen=True)
class Router:
    """Thresholds, and for what they hold.

    Parameters
    ----------
    local, large:
        A compression is sent if its information is at least this; ``inf``: never.
    enabled:
        Whether routing was worth it when it was learned; if not, everything goes in full.
    identifiers:
        Scorer, compressors, predictor and data that the thresholds were learned with.
    kind:
        What the information of a message is: ``"pointwise"``, ``"pmi_per_token"`` or ``"margin"``.
    why:
        Why it is disabled, if it is.
    """

    local: float
    large: float
    enabled: bool = True
    identifiers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "pointwise"
    why: str = ""

    def after_local(self, information: float | None) -> tuple[Route | None, str]:
        """``"local"``: send it; ``"full"``: send everything; ``None``: try the larger compressor."""
        if not self.enabled:
            return "full", f"router disabled: {self.why}"
        if information is None or math.isnan(information):
            return "full", "the local summary could not be scored"
        if information >= self.local:
            return "local", f"information {information:.3g} ≥ {self.local:.3g}"
        if math.isinf(self.large):
            return "full", f"information {information:.3g} < {self.local:.3g}"
        return None, f"information {information:.3g} < {self.local:.3g}"

    def after_large(self, information: float | None) -> tuple[Route, str]:
        """``"large"``: send it; ``"full"``: send everything."""
        if not self.enabled:
            return "full", f"router disabled: {self.why}"
        if information is None or math.isnan(information):
            return "full", "the larger compressor's message could not be scored"
        if information >= self.large:
            return "large", f"information {information:.3g} ≥ {self.large:.3g}"
        return "full", f"information {information:.3g} < {self.large:.3g}"

    async def send(self, local: Attempt, large: Attempt) -> Routed:
        """Try, score, and say what to send.

        ``local`` and ``large`` are called only when their turn comes and give the text and its
        information. One that fails with an error of this package sends the full context, with the
        reason; limits that forbid the reader's call are for the caller's next call to find.
        """
        if not self.enabled:
            return Routed("full", None, f"router disabled: {self.why}")
        text, information, failed = await _tried(local)
        route, reason = self.after_local(information)
        if route is None:
            text, information, failed = await _tried(large)
            route, reason = self.after_large(information)
        return Routed(route, None if route == "full" else text, f"{reason}: {failed}" if failed else reason)

    def save(self, path: Path | str) -> None:
        """Write it as JSON.

        Raises
        ------
        LedgerError
            If it can't be written.
        """
        write_json(
            Path(path),
            {
                "format": FORMAT,
                "local": _shown(self.local),
                "large": _shown(self.large),
                "enabled": self.enabled,
                "kind": self.kind,
                "why": self.why,
                "identifiers": dict(self.identifiers),
            },
        )

    @classmethod
    def load(cls, path: Path | str, identifiers: Mapping[str, str]) -> Router:
        """The router in a file, disabled if it was learned with anything else than ``identifiers``.

        Raises
        ------
        ConfigError
            If the file holds none.
        """
        data = read_json(Path(path))
        try:
            if data["format"] != FORMAT:
                raise ConfigError(f"{path} has format {data['format']}, not {FORMAT}; learn the router again")
            known = {str(k): str(v) for k, v in data["identifiers"].items()}
            made = cls(
                float(data["local"]),
                float(data["large"]),
                data["enabled"] is True,
                known,
                str(data["kind"]),
                str(data["why"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{path} holds no router ({error!r}); learn it again") from error
        different = sorted(k for k in {*known, *identifiers} if known.get(k) != identifiers.get(k))
        if not different:
            return made
        told = "; ".join(f"{k} was {known.get(k)!r}, is {identifiers.get(k)!r}" for k in different)
        return cls(made.local, made.large, False, known, made.kind, f"learned for something else: {told}")


Attempt = Callable[[], Awaitable[tuple[str, float | None]]]
"""Makes a compression and scores it."""


async def _tried(attempt: Attempt) -> tuple[str | None, float | None, str]:
    try:
        text, information = await attempt()
    except AgentCommError as error:
        return None, None, " ".join(str(error).split())
    return text, information, ""


def _shown(value: float) -> float | str:
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


# -- learning ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """One way of routing on the test half.

    ``rates`` are the shares of items sent each way; ``difference`` is against the full context.
    """

    name: str
    score: Interval
    cost: float
    rates: tuple[float, float, float]
    difference: NonInferiority

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "score": {"mean": self.score.mean, "low": self.score.low, "high": self.score.high},
            "cost": self.cost,
            "rates": dict(zip(ROUTES, self.rates, strict=True)),
            "against_full": self.difference.difference,
            "against_full_lower": self.difference.lower,
        }


@dataclass(frozen=True)
class Learned:
    """A router and how it did on documents that it has not seen.

    ``policies``: the router, random and length-only routing at equal rates, always each route.
    ``beats``: lower limit of the paired advantage over random and length-only routing; above 0 it wins.
    """

    router: Router
    policies: tuple[Policy, ...]
    beats: Mapping[str, float]
    margin: float
    level: float
    calibration_items: int
    test_items: int
    tried: int

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "local": _shown(self.router.local),
            "large": _shown(self.router.large),
            "enabled": self.router.enabled,
            "why": self.router.why,
            "kind": self.router.kind,
            "identifiers": dict(self.router.identifiers),
            "margin": self.margin,
            "level": self.level,
            "calibration_items": self.calibration_items,
            "test_items": self.test_items,
            "pairs_tried": self.tried,
            "policies": [p.facts() for p in self.policies],
            "advantage_lower": dict(self.beats),
        }

    def picture(self, title: str = "Routing", cost: str = "cost an item") -> str:
        """The score-cost plane as SVG."""
        series = [
            Series(p.name, [Point(p.cost, p.score.mean, p.score.low, p.score.high)])
            for p in self.policies
            if p.score.mean is not None
        ]
        return score_against_cost(title, series, x=cost)

    def __str__(self) -> str:
        lines = [f"router {'enabled' if self.router.enabled else 'disabled: ' + self.router.why}"]
        for p in self.policies:
            s = p.score
            score = "–" if s.mean is None else f"{s.mean:.3f} [{s.low:.3f}, {s.high:.3f}]"
            sent = ", ".join(f"{r:.0%} {name}" for name, r in zip(ROUTES, p.rates, strict=True))
            lines.append(f"{p.name}: score {score}, cost {p.cost:,.4g}; {sent}")
        return "\n".join(lines)


def learn_router(
    data: RoutingData,
    *,
    identifiers: Mapping[str, str],
    kind: str = "pointwise",
    margin: float = MARGIN,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2_000,
    calibration: NDArray[np.bool_] | None = None,
) -> Learned:
    """Learn thresholds on half of the documents and report on the other half.

    Parameters
    ----------
    identifiers:
        What the thresholds hold for: ``scorer``, ``compressor`` (both), ``predictor`` and ``data``.
    margin:
        Loss of score against the full context that doesn't matter.
    calibration:
        Which items are learned from, whole documents; default :func:`halves` with ``seed``.

    Raises
    ------
    UserError
        If there are fewer than two documents, one in both halves, an unknown ``kind`` or a missing identifier.
    """
    if kind not in KINDS:
        raise UserError(f"information is {', '.join(KINDS)}, not {kind!r}")
    if missing := [k for k in ("scorer", "compressor", "predictor", "data") if not identifiers.get(k)]:
        raise UserError(f"a router must know its {', '.join(missing)}: thresholds hold for nothing else")
    which = halves(data.documents, seed) if calibration is None else calibration
    learned_from, test = data.part(which), data.part(~which)
    if not (which.any() and (~which).any()):
        raise UserError("a router needs at least two documents: one half is learned from, one reported")
    if shared := set(learned_from.documents) & set(test.documents):
        raise UserError(f"document {sorted(map(str, shared))[0]!r} is in both halves; a document is in one")
    chosen, tried = _choose(learned_from, margin, level, seed, resamples)
    sent = send(learned_from, test, *chosen)
    rates, by_length = sent.rates, sent.by_length
    n = np.arange(len(by_length))
    by_router, at_random, length_score = sent.scores, test.scores @ np.array(rates), test.scores[n, by_length]
    why = ""
    beats: dict[str, float] = {}
    for name, other in (("random", at_random), ("length only", length_score)):
        beats[name] = _against(by_router, other, test, margin, level, seed, resamples).lower
    if math.isinf(chosen[0]) and math.isinf(chosen[1]) and chosen[0] > 0 and chosen[1] > 0:
        why = "no thresholds keep the score of the full context at less cost"
    elif lost := [name for name, lower in beats.items() if lower <= 0]:
        why = f"not shown to score higher than {' and '.join(lost)} routing at equal rates"
    router = Router(*chosen, not why, dict(identifiers), kind, why)

    def policy(name: str, scores: Array, costs: Array, shares: Sequence[float]) -> Policy:
        return Policy(
            name,
            mean_interval(scores.tolist(), clusters=test.documents, level=level),
            float(costs.mean()),
            (float(shares[0]), float(shares[1]), float(shares[2])),
            _against(scores, test.scores[:, FULL], test, margin, level, seed, resamples),
        )

    policies = (
        policy("router", by_router, sent.costs, rates),
        policy("random, equal rates", at_random, test.alone @ np.array(rates), rates),
        policy("length only, equal rates", length_score, test.alone[n, by_length], _rates(by_length)),
        policy("always local", test.scores[:, LOCAL], test.alone[:, LOCAL], (1, 0, 0)),
        policy("always larger", test.scores[:, LARGE], test.alone[:, LARGE], (0, 1, 0)),
        policy("never compress", test.scores[:, FULL], test.alone[:, FULL], (0, 0, 1)),
    )
    return Learned(
        router, policies, beats, margin, level, len(learned_from.documents), len(test.documents), tried
    )


class Sent(NamedTuple):
    """What thresholds do to items: where each ends, its score and cost there, the shares of items sent
    each way, and where length alone would send as many."""

    routes: NDArray[np.intp]
    scores: Array
    costs: Array
    rates: tuple[float, float, float]
    by_length: NDArray[np.intp]


def send(calibration: RoutingData, test: RoutingData, local: float, large: float) -> Sent:
    """Route the items of ``test`` by two thresholds.

    From ``calibration`` comes only whether longer or shorter contexts are the ones that length-only
    routing compresses.
    """
    routes = _route(test.information, local, large)
    longer = _longer_is_easier(calibration, _route(calibration.information, local, large))
    return Sent(
        routes,
        test.scores[np.arange(len(routes)), routes],
        # Thresholds that no message reaches need no attempt.
        test.alone[:, FULL] if local == large == math.inf else _costs(test, routes, large),
        _rates(routes),
        _by_length(test, routes, longer),
    )


def _costs(data: RoutingData, routes: NDArray[np.intp], large: float) -> Array:
    """Net cost of each item; an infinite second threshold saves trying the larger compressor."""
    costs: Array = data.costs[np.arange(len(routes)), routes]
    return np.where(routes == FULL, data.straight, costs) if large == math.inf else costs


def _choose(
    data: RoutingData, margin: float, level: float, seed: int, resamples: int
) -> tuple[tuple[float, float], int]:
    """The cheapest thresholds that keep the score of the full context; (inf, inf) if none do."""
    pairs = [(a, b) for a in _grid(data.information[:, 0]) for b in _grid(data.information[:, 1])]
    n = np.arange(len(data.scores))
    full = data.scores[:, FULL]
    seen: dict[bytes, tuple[float, tuple[float, float], Array]] = {}
    for pair in pairs:
        routes = _route(data.information, *pair)
        if (routes == FULL).all():
            continue
        cost = float(_costs(data, routes, pair[1]).mean())
        # Of pairs that route all items alike the first, the most cautious one, stands for them: where its
        # second threshold is infinite, it is the cheapest too.
        seen.setdefault(routes.tobytes(), (cost, pair, data.scores[n, routes]))
    dearest = float(data.alone[:, FULL].mean())
    for cost, pair, scores in sorted(seen.values(), key=lambda s: s[0]):
        if cost >= dearest:
            break
        if float((scores - full).mean()) <= -margin:
            continue  # its lower limit is lower still
        if _against(scores, full, data, margin, level, seed, resamples).lower >= -margin:
            return pair, len(seen)
    return (math.inf, math.inf), len(seen)


def _grid(information: Array) -> list[float]:
    """Thresholds from the most cautious to the least."""
    known = information[np.isfinite(information)]
    if not len(known):
        return [math.inf]
    values = np.unique(np.quantile(known, np.linspace(0, 1, GRID + 1)))[::-1]
    return [math.inf, *values.tolist()]


def _route(information: Array, local: float, large: float) -> NDArray[np.intp]:
    """Where each item ends; a score that failed sends the full context."""
    first, second = information[:, 0], information[:, 1]
    routes = np.full(len(information), FULL)
    tried = np.isfinite(first)
    routes[tried & (np.nan_to_num(second, nan=-math.inf) >= large) & np.isfinite(second)] = LARGE
    routes[tried & (np.nan_to_num(first, nan=-math.inf) >= local)] = LOCAL
    return routes


def _rates(routes: NDArray[np.intp]) -> tuple[float, float, float]:
    counts = np.bincount(routes, minlength=3) / len(routes)
    return float(counts[0]), float(counts[1]), float(counts[2])


def _by_length(data: RoutingData, routes: NDArray[np.intp], longer_first: bool) -> NDArray[np.intp]:
    """As many items each way, by length alone: the easiest ones compressed most."""
    order = np.argsort(-data.lengths if longer_first else data.lengths, kind="stable")
    made = np.empty_like(routes)
    made[order] = np.sort(routes)
    return made


def _longer_is_easier(data: RoutingData, routes: NDArray[np.intp]) -> bool:
    """Which end of the lengths is better compressed, on calibration."""
    n = np.arange(len(routes))
    longer, shorter = (data.scores[n, _by_length(data, routes, first)].mean() for first in (True, False))
    return bool(longer > shorter)


def _against(
    a: Array, b: Array, data: RoutingData, margin: float, level: float, seed: int, resamples: int
) -> NonInferiority:
    # Means of many scores may leave [0, 1] in their last bit.
    return non_inferiority(
        np.clip(a, 0, 1),
        np.clip(b, 0, 1),
        rng=np.random.default_rng(seed),
        margin=margin,
        level=level,
        clusters=data.documents,
        resamples=resamples,
    )
