"""Compare: runs side by side on the same items, quality against what it cost.

The first run is the reference. Differences are paired by (item, sample); items that failed in
one of the two runs are left out of the pair and counted, and where there are any the difference
with failures counted as wrong is given beside it. Tokens are **gross** (what the evaluation's
own calls used) and **net** (all the run paid: channels, learning, judges, retries included).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from agentcomm.errors import ConfigError
from agentcomm.evaluation.rundir import RunDir
from agentcomm.evaluation.stats import (
    Interval,
    NonInferiority,
    PairedDifference,
    RunPoint,
    holm,
    mcnemar,
    mean_interval,
    non_inferiority,
    paired_bootstrap,
    pareto_front,
)
from agentcomm.ledger.rows import EpisodeRow
from agentcomm.ledger.usage import UsageReport

Key = tuple[str, int]

AMORTISE = 1_000
"""Items over which learning is spread."""


@dataclass(frozen=True)
class RunSide:
    """One run in a comparison, restricted to the items compared."""

    name: str
    path: Path
    config: dict[str, Any]
    episodes: dict[Key, EpisodeRow]
    usage: UsageReport
    items: dict[str, str]
    """Content hash of each item, by id."""

    @cached_property
    def scores(self) -> dict[Key, float]:
        return {k: e.score for k, e in self.episodes.items() if e.status == "ok" and e.score is not None}

    @cached_property
    def failed(self) -> frozenset[Key]:
        return frozenset(k for k, e in self.episodes.items() if e.status == "failed")

    @property
    def learning(self) -> int | None:
        """Tokens that learning the run's policy has paid; 0 without a policy, ``None`` if nobody knows."""
        topology = self.config.get("topology")
        if not isinstance(topology, dict) or "policy" not in topology:
            return 0
        known = (topology.get("spent") or {}).get("tokens")
        return int(known) if isinstance(known, int | float) else None

    @cached_property
    def tokens(self) -> dict[Key, int]:
        """Gross input and output tokens by (item, sample)."""
        out = dict.fromkeys(self.episodes, 0)
        for row in self.usage.rows:
            if row.phase == "evaluate" and not row.cache_hit and (row.item, row.sample) in out:
                out[(row.item, row.sample)] += (row.input_tokens or 0) + (row.output_tokens or 0)
        return out


@dataclass(frozen=True)
class Against:
    """A run against the reference: paired difference of scores (run − reference) and what was saved."""

    run: str
    difference: PairedDifference
    verdict: NonInferiority
    p_value: float | None
    p_holm: float | None
    left_out: int
    """Pairs left out because one side failed."""
    failures_as_wrong: PairedDifference | None
    tokens_saved: float | None
    """Share of the reference's gross tokens saved; negative where more were used."""
    net_saved: float | None = None
    """The same of net tokens, each run with its share of learning."""
    break_even: float | None = None
    """Items after which learning is paid back; ``None`` if it never is, nothing was learned or nobody knows."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side on ``items`` items; ``level`` is the confidence of every interval.

    Net tokens spread learning over ``amortise`` items.
    """

    reference: str
    items: int
    level: float
    rows: tuple[dict[str, Any], ...]
    against: tuple[Against, ...]
    amortise: int = AMORTISE

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what ``agentcomm compare --json`` prints."""
        return {
            "reference": self.reference,
            "items": self.items,
            "level": self.level,
            "amortise": self.amortise,
            "runs": list(self.rows),
            "against": [asdict(a) for a in self.against],
        }


def load_side(path: Path) -> RunSide:
    """A run's episodes and calls, from its ledger (also of a run still going)."""
    directory = RunDir.open(path)
    with directory.ledger() as ledger:
        episodes = {(e.item, e.sample): e for e in ledger.episodes()}
        usage = ledger.usage()
    return RunSide(path.name, path, directory.config(), episodes, usage, directory.items())


def compare(
    paths: Sequence[Path],
    *,
    common: bool = False,
    margin: float = 0.02,
    level: float = 0.95,
    amortise: int = AMORTISE,
    seed: int = 0,
) -> Comparison:
    """Compare runs; the first is the reference.

    Parameters
    ----------
    common:
        Compare only items that all runs have, instead of refusing runs on different ones.
    margin:
        The loss of score that doesn't matter, for the non-inferiority verdict.
    amortise:
        Items over which the tokens that learning took are spread.

    Raises
    ------
    ConfigError
        If there are fewer than two runs, a run has no finished item, or the runs are on
        different items (or different tasks, which ``common`` doesn't allow either).
    """
    if len(paths) < 2:
        raise ConfigError("compare needs two runs or more: agentcomm compare RUN RUN")
    if amortise < 1:
        raise ConfigError(f"learning can't be spread over {amortise} items; give 1 or more")
    sides = [load_side(p) for p in paths]
    names = _distinct(sides)
    keys = _shared_keys(sides, names, common)
    reference = sides[0]
    rng = np.random.default_rng(seed)
    rows = tuple(_row(side, name, keys, level, amortise) for side, name in zip(sides, names, strict=True))
    _mark_front(rows, sides, names, keys, rng)
    pairs = [
        _against(side, name, reference, keys, margin, level, rng)
        for side, name in zip(sides[1:], names[1:], strict=True)
    ]
    known = [a.p_value for a in pairs if a.p_value is not None]
    adjusted = iter(holm(known))
    against = tuple(
        Against(
            **{
                **_shallow(a),
                "p_holm": next(adjusted) if a.p_value is not None else None,
                **_net(row, rows[0], side.learning, len(keys)),
            }
        )
        for a, row, side in zip(pairs, rows[1:], sides[1:], strict=True)
    )
    return Comparison(names[0], len({k[0] for k in keys}), level, rows, against, amortise)


def _shared_keys(sides: Sequence[RunSide], names: Sequence[str], common: bool) -> list[Key]:
    tasks = {s.config["task"]["name"] for s in sides}
    if len(tasks) > 1:
        raise ConfigError(
            f"the runs are on different tasks ({', '.join(sorted(tasks))}); compare runs of one task"
        )
    first = sides[0]
    for side, name in zip(sides[1:], names[1:], strict=True):
        if not common and (side.items != first.items or side.config["samples"] != first.config["samples"]):
            both = sum(side.items.get(i) == h for i, h in first.items.items())
            raise ConfigError(
                f"{names[0]} has {len(first.items)} items and {name} {len(side.items)}, of which {both} are the same; "
                f"run them on the same items, or give --common to compare those"
            )
    shared = [i for i, h in first.items.items() if all(s.items.get(i) == h for s in sides)]
    keys = [
        (item, sample)
        for item in shared
        for sample in range(min(s.config["samples"] for s in sides))
        if all((item, sample) in s.episodes for s in sides)
    ]
    if not keys:
        raise ConfigError(
            "the runs have no finished item in common; let them run, or compare runs on the same items"
        )
    return keys


def _net(
    row: Mapping[str, Any], reference: Mapping[str, Any], learning: int | None, episodes: int
) -> dict[str, float | None]:
    """What is saved once learning counts, and after how many items learning is paid back."""
    ours, theirs = row["tokens"], reference["tokens"]
    known = ours["net"] is not None and theirs["net"]
    saved = (theirs["gross"] - ours["gross"]) / episodes
    return {
        "net_saved": 1 - ours["net"] / theirs["net"] if known else None,
        "break_even": learning / saved if learning and saved > 0 else None,
    }


def _row(side: RunSide, name: str, keys: Sequence[Key], level: float, amortise: int) -> dict[str, Any]:
    wanted = set(keys)
    scores = side.scores
    kept = [k for k in keys if k in scores]
    interval = mean_interval([scores[k] for k in kept], clusters=[k[0] for k in kept], level=level)
    rows = [r for r in side.usage.rows if (r.item, r.sample) in wanted]
    used = UsageReport.of(rows)
    gross = UsageReport.of([r for r in rows if r.phase == "evaluate"])
    everything = side.usage
    learning, own = side.learning, everything.input_tokens + everything.output_tokens
    return {
        "run": name,
        "path": str(side.path),
        "graph": side.config["graph"]["name"],
        "model": side.config["model"],
        "scored": len(kept),
        "failed": sum(k in side.failed for k in keys),
        "score": _score(interval),
        "calls": used.calls,
        "tokens": {
            "input": gross.input_tokens,
            "output": gross.output_tokens,
            "gross": gross.input_tokens + gross.output_tokens,
            "net": None if learning is None else own + round(learning * len(keys) / amortise),
            "learning": learning,
            "cached": used.cached_tokens,
        },
        "unknown_calls": everything.unknown_calls,
        "cost": used.cost,
        "wall_s": round(sum(side.episodes[k].wall_s for k in keys), 3),
        "on_front": None,
        "front_probability": None,
    }


def _score(interval: Interval) -> dict[str, float | None]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "level": interval.level}


def _mark_front(
    rows: Sequence[dict[str, Any]],
    sides: Sequence[RunSide],
    names: Sequence[str],
    keys: Sequence[Key],
    rng: np.random.Generator,
) -> None:
    scored = [k for k in keys if all(k in s.scores for s in sides)]
    if not scored:
        return
    points = []
    for side, name in zip(sides, names, strict=True):
        scores, tokens = side.scores, side.tokens
        points.append(RunPoint(name, [scores[k] for k in scored], [tokens[k] for k in scored]))
    for row, point in zip(rows, pareto_front(points, rng=rng), strict=True):
        row["on_front"] = point.on_front
        row["front_probability"] = point.probability


def _against(
    side: RunSide,
    name: str,
    reference: RunSide,
    keys: Sequence[Key],
    margin: float,
    level: float,
    rng: np.random.Generator,
) -> Against:
    ours, theirs = side.scores, reference.scores
    pairs = [k for k in keys if k in ours and k in theirs]
    a, b = [ours[k] for k in pairs], [theirs[k] for k in pairs]
    clusters = [k[0] for k in pairs]
    binary = set(a) | set(b) <= {0.0, 1.0} and len(set(clusters)) == len(clusters)
    left_out = len(keys) - len(pairs)
    strict = None
    if left_out:
        strict = paired_bootstrap(
            [ours.get(k, 0.0) for k in keys],
            [theirs.get(k, 0.0) for k in keys],
            clusters=[k[0] for k in keys],
            rng=rng,
            level=level,
        )
    gross, before = (sum(s.tokens.get(k, 0) for k in keys) for s in (side, reference))
    return Against(
        run=name,
        difference=paired_bootstrap(a, b, clusters=clusters, rng=rng, level=level),
        verdict=non_inferiority(a, b, clusters=clusters, rng=rng, margin=margin, level=level),
        p_value=mcnemar(a, b).p_value if binary and pairs else None,
        p_holm=None,
        left_out=left_out,
        failures_as_wrong=strict,
        tokens_saved=1 - gross / before if before else None,
    )


def _distinct(sides: Sequence[RunSide]) -> list[str]:
    """Short names that tell the runs apart: the directory's name, or its path where that is taken."""
    names = [s.path.name or str(s.path) for s in sides]
    return [str(s.path) if names.count(n) > 1 else n for s, n in zip(sides, names, strict=True)]


def _shallow(against: Against) -> dict[str, Any]:
    return {name: getattr(against, name) for name in against.__dataclass_fields__}
