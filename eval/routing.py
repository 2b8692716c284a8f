"""Routing on real messages: does information say which summaries can be sent, and which texts must go in full?

    python eval/routing.py [--runs runs/compression] [--data FOLDER] [--out FILE] [--docs FOLDER]

Continues where it was cut short (runs/compression/routing has what is done; delete it to begin anew).
Calls no model: it reads what eval/compression.py left (messages of compressors, the fixed predictor's
scores and tokens on each of them and on the whole text). Every item can end in three ways: a small
compressor's message, a larger one's, the whole text. What decides is known before the answer: the
offline critic's pointwise information of a message, against the contexts of the calibration half, with
the scale (alpha) that is best on that half.

* learned: agentcomm's learn_router, thresholds from one half of the documents and scores from the other,
  then the halves exchanged, so that every item is scored by thresholds that have not seen it.
* sweep: both thresholds at the same quantile of the calibration half, from never to always compressing.
  The score between the ends, less that of random routing at the same rates: does information help at all?
* at_cap: the share of messages whose information is all that so many contexts allow (log K): it can't
  tell these apart.
* signal: rank correlation over items of information and of what the message costs in score.

Costs: FLOPs of every call, prompts read included, nothing cached (`flops`: small and larger compressor,
predictor; those of an attempt that was not sent are paid too). `predictor`: only the tokens that the
predictor reads and writes, as if compressors ran for nothing on one's own machine. The critic needs no
model: 0. Intervals resample documents; those over both halves take the thresholds as given.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks import commit
from compression import NAMES, Made, all_made, ranks, sources
from scipy.special import logsumexp
from scipy.stats import rankdata

from agentcomm.evaluation.rundir import RunDir
from agentcomm.evaluation.stats import mean_interval, paired_bootstrap
from agentcomm.information.arms import document_of
from agentcomm.information.cells import Cells
from agentcomm.information.flops import Shape, flops_of
from agentcomm.information.measuring import Sources
from agentcomm.information.pictures import Point, Series, score_against_cost
from agentcomm.information.routing import (
    FULL,
    LARGE,
    LOCAL,
    ROUTES,
    RoutingData,
    halves,
    learn_router,
    send,
)
from agentcomm.information.scorers import open_scorer
from agentcomm.information.tempering import best_alpha
from agentcomm.task import Item

HERE = Path(__file__).parent
SCORER = "offline/codelength"
PAIRS = (
    ("qwen0.5b-int8-48", "qwen1.5b-int8-48"),
    ("qwen0.5b-int8-16", "qwen1.5b-int8-16"),
    ("smollm2-48", "qwen1.5b-int8-48"),
    ("extract-16", "qwen1.5b-int8-48"),
    ("extract-48", "qwen1.5b-int8-48"),
)
"""Local and larger compressor; the first pair was chosen before looking, and is the one that is drawn."""
SHAPES = {
    "smollm2": Shape(1.345e8, 30, 576),
    "qwen0.5b-int8": Shape(4.94e8, 24, 896),
    "qwen1.5b-int8": Shape(1.54e9, 28, 1536),
}
"""Of the published models; the embedding counts once."""
COSTS = {"flops": "GFLOPs an item, all calls", "predictor": "predictor's tokens an item"}
QUANTILES = tuple(round(0.1 * k, 1) for k in range(11))
KINDS = ("pointwise", "pmi_per_token", "margin")
RESAMPLES = 2_000
SEED = 0


class Answers(NamedTuple):
    """Of the predictor, by item: score, FLOPs and tokens; NaN where there is none."""

    scores: np.ndarray
    flops: np.ndarray
    tokens: np.ndarray


class Message(NamedTuple):
    """Of a compressor: log-probabilities under every context and under none, bytes, FLOPs by item."""

    logp: np.ndarray
    prior: np.ndarray
    n_bytes: np.ndarray
    flops: np.ndarray


# -- what the runs hold -----------------------------------------------------------------------


def calls_of(folder: Path, ids: tuple[str, ...], shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs (1e9) and tokens by item; calls whose tokens are unknown make theirs unknown."""
    flops: dict[str, float] = defaultdict(float)
    tokens: dict[str, float] = defaultdict(float)
    with RunDir(folder).ledger(read_only=True) as ledger:
        for row in ledger.calls(texts=False):
            n_in, n_out = row.input_tokens, row.output_tokens
            if n_in is None or n_out is None:
                if row.error_kind is None:
                    flops[row.item] = tokens[row.item] = math.nan
                continue
            flops[row.item] += flops_of(shape, n_in, n_out).total / 1e9
            tokens[row.item] += n_in + n_out
    return tuple(np.array([found.get(i, math.nan) for i in ids]) for found in (flops, tokens))  # type: ignore[return-value]


def answers(runs: Path, task: str, title: str, ids: tuple[str, ...]) -> Answers:
    facts = json.loads((runs / task / f"answers-{title}.json").read_text())
    spent = calls_of(runs / task / f"answers-{title}", ids, SHAPES[facts["model"]])
    return Answers(np.array([facts["scores"].get(i, math.nan) for i in ids], float), *spent)


def message(made: Made, material: Sources) -> Message:
    with open_scorer(SCORER) as critic:
        matrix = critic.score_matrix(
            material.contexts,
            material.queries,
            [[text] for text in made.texts],
            reference_set=material.reference_set,
            prior=True,
        )
    assert matrix.prior is not None and matrix.n_bytes is not None
    n = len(material.ids)
    flops = np.zeros(n)
    if made.name in SHAPES:
        flops, _ = calls_of(made.folder, material.ids, SHAPES[made.name])
    return Message(matrix.logp, matrix.prior, np.asarray(matrix.n_bytes, float), flops)


# -- information of a message ----------------------------------------------------------------


def information(m: Message, calibration: np.ndarray, kind: str) -> tuple[np.ndarray, float]:
    """Of every item's message, against the contexts of the calibration half only; and the scale.

    All items have the same number of other contexts: one of the calibration half leaves its own out,
    one of the other half the first.
    """
    n = len(m.logp)
    at = np.flatnonzero(calibration)
    own = m.logp[np.arange(n), np.arange(n)]
    if kind == "pmi_per_token":  # a byte: offline critics have no tokens
        return (own - m.prior) / np.maximum(m.n_bytes, 1), 1.0
    k = len(at)
    within = m.logp[np.ix_(at, at)]
    known = np.isfinite(within).all(axis=1)
    alpha = best_alpha(
        Cells(
            within[known],
            np.flatnonzero(known),
            np.zeros(int(known.sum()), np.intp),
            np.full(int(known.sum()), k, np.intp),
            None,
            np.arange(k),
        )
    )
    others = np.array([np.setdiff1d(at, [i]) if calibration[i] else at[1:] for i in range(n)])
    rest = np.take_along_axis(m.logp, others, axis=1)
    if kind == "margin":
        return own - rest.max(axis=1), alpha
    total = logsumexp(alpha * np.column_stack([own, rest]), axis=1)
    return alpha * own - total + math.log(k), alpha


# -- a task and a pair ------------------------------------------------------------------------


class Case(NamedTuple):
    """Two compressors and the whole text on one task."""

    material: Sources
    documents: tuple[str, ...]
    known: np.ndarray
    """Items of which every score and cost is known."""
    messages: tuple[Message, Message]
    by: tuple[Answers, Answers, Answers]

    def data(self, calibration: np.ndarray, kind: str, cost: str) -> RoutingData:
        known = self.known
        read = [a.flops if cost == "flops" else a.tokens for a in self.by]
        paid = [m.flops if cost == "flops" else np.zeros(len(known)) for m in self.messages]
        tried = [paid[LOCAL], paid[LOCAL] + paid[LARGE], paid[LOCAL] + paid[LARGE]]
        found = [information(m, calibration & known, kind)[0] for m in self.messages]
        return RoutingData.of(
            np.column_stack([a.scores for a in self.by])[known],
            np.column_stack([t + r for t, r in zip(tried, read, strict=True)])[known],
            np.column_stack(found)[known],
            np.array([len(c.encode()) for c in self.material.contexts], float)[known],
            [d for d, k in zip(self.documents, known, strict=True) if k],
            alone=np.column_stack([paid[0] + read[0], paid[1] + read[1], read[2]])[known],
            straight=(paid[LOCAL] + read[FULL])[known],
        )


def case_of(
    runs: Path,
    task: str,
    material: Sources,
    items: tuple[Item, ...],
    pair: tuple[Made, Made],
    scored: dict[str, Message],
) -> Case:
    by = tuple(answers(runs, task, m.folder.name, material.ids) for m in pair)
    by += (answers(runs, task, "full", material.ids),)
    for m in pair:
        if m.folder.name not in scored:
            scored[m.folder.name] = message(m, material)
    messages = tuple(scored[m.folder.name] for m in pair)
    numbers = [*(v for a in by for v in a), *(m.flops for m in messages)]
    known = np.isfinite(np.stack(numbers)).all(axis=0)
    return Case(material, tuple(map(document_of, items)), known, messages, by)  # type: ignore[arg-type]


def interval(values: np.ndarray, documents: tuple[Any, ...]) -> dict[str, Any]:
    found = mean_interval(values.tolist(), clusters=documents)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def difference(a: np.ndarray, b: np.ndarray, documents: tuple[Any, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    d = paired_bootstrap(a, b, rng=rng, clusters=documents, resamples=RESAMPLES)
    return {"mean": d.mean, "low": d.low, "high": d.high}


class Played(NamedTuple):
    """Scores and costs by item of information, random and length-only routing, and the routes."""

    scores: dict[str, np.ndarray]
    costs: dict[str, np.ndarray]
    rates: np.ndarray


def play(folds: list[tuple[np.ndarray, RoutingData]], thresholds: list[tuple[float, float]]) -> Played:
    """Every item under the thresholds of the half that it is not in."""
    n = len(folds[0][0])
    scores = {name: np.zeros(n) for name in ("router", "random", "length")}
    costs = {name: np.zeros(n) for name in scores}
    rates = np.zeros(3)
    for (learned, data), pair in zip(folds, thresholds, strict=True):
        test = data.part(~learned)
        sent = send(data.part(learned), test, *pair)
        at = np.arange(len(sent.routes))
        shares = np.array(sent.rates)
        scores["router"][~learned], costs["router"][~learned] = sent.scores, sent.costs
        scores["random"][~learned], costs["random"][~learned] = test.scores @ shares, test.alone @ shares
        scores["length"][~learned] = test.scores[at, sent.by_length]
        costs["length"][~learned] = test.alone[at, sent.by_length]
        rates += shares * len(at) / n
    return Played(scores, costs, rates)


def facts_of(played: Played, data: RoutingData, *, ends: bool = True) -> dict[str, Any]:
    documents = data.documents
    rivals = {name: played.scores[name] for name in ("random", "length")}
    if ends:
        rivals |= {"never compress": data.scores[:, FULL], "always local": data.scores[:, LOCAL]}
        rivals |= {"always larger": data.scores[:, LARGE]}
    return {
        "rates": dict(zip(ROUTES, map(float, played.rates), strict=True)),
        "policies": {
            name: {"score": interval(np.clip(s, 0, 1), documents), "cost": float(played.costs[name].mean())}
            for name, s in played.scores.items()
        },
        "score_against": {
            name: difference(played.scores["router"], other, documents) for name, other in rivals.items()
        },
        "cost_against_never_compress": difference(played.costs["router"], data.alone[:, FULL], documents),
    }


def study(case: Case, names: tuple[str, str], task: str, identifiers: dict[str, str]) -> dict[str, Any]:
    documents = tuple(d for d, k in zip(case.documents, case.known, strict=True) if k)
    first = halves(case.documents, SEED)
    cap = math.log((first & case.known).sum())
    found: dict[str, Any] = {
        "local": names[0],
        "larger": names[1],
        "items": len(documents),
        "documents": len(set(documents)),
        "alpha": [
            [information(m, half & case.known, "pointwise")[1] for m in case.messages]
            for half in (first, ~first)
        ],
        "at_cap": [
            float(np.mean(information(m, first & case.known, "pointwise")[0] > cap - 0.01))
            for m in case.messages
        ],
        "always": {},
        "learned": {},
        "sweep": {},
        "signal": {},
    }
    for cost in COSTS:
        folds = [(half[case.known], case.data(half, "pointwise", cost)) for half in (first, ~first)]
        data = folds[0][1]
        found["always"][cost] = {
            name: {"score": interval(data.scores[:, i], documents), "cost": float(data.alone[:, i].mean())}
            for i, name in enumerate(("always local", "always larger", "never compress"))
        }
        routers = [
            learn_router(d, identifiers=identifiers, seed=SEED, resamples=RESAMPLES, calibration=learned)
            for learned, d in folds
        ]
        pairs = [(r.router.local, r.router.large) for r in routers]
        found["learned"][cost] = {
            "halves": [r.facts() for r in routers],
            "both_halves": facts_of(play(folds, pairs), data),
        }
    for kind in KINDS:
        found["signal"][kind] = {}
        for cost in COSTS if kind == "pointwise" else ("flops",):
            folds = [(half[case.known], case.data(half, kind, cost)) for half in (first, ~first)]
            found["sweep"][f"{kind}, {cost}"] = sweep(folds)
        for i, name in ((LOCAL, "local"), (LARGE, "larger")):
            found["signal"][kind][name] = signal(folds, i)
    return found


def sweep(folds: list[tuple[np.ndarray, RoutingData]]) -> dict[str, Any]:
    """Both thresholds at one quantile of the calibration half, from never to always compressing."""
    data = folds[0][1]
    played = []
    for share in QUANTILES:
        thresholds = []
        for learned, d in folds:
            # No message says enough at 0, each does at 1.
            values = d.information[learned]
            ends = {0.0: (math.inf, math.inf), 1.0: (-math.inf, -math.inf)}
            cut = np.nanquantile(values, 1 - share, axis=0)
            thresholds.append(ends.get(share, (float(cut[0]), float(cut[1]))))
        played.append(play(folds, thresholds))
    inner = played[1:-1]
    mean = {name: np.mean([p.scores[name] for p in inner], axis=0) for name in inner[0].scores}
    return {
        "points": [
            {"share": share, **facts_of(p, data, ends=False)}
            for share, p in zip(QUANTILES, played, strict=True)
        ],
        "mean_advantage": {
            name: difference(mean["router"], mean[name], data.documents) for name in ("random", "length")
        },
    }


def signal(folds: list[tuple[np.ndarray, RoutingData]], which: int) -> dict[str, Any]:
    """Spearman's correlation over test items of information and score of the message, and of information
    and score less that of the whole text; the interval resamples items (percentiles)."""
    out: dict[str, Any] = {}
    data = folds[0][1]
    # Ranks within a half: the two halves' information has two scales.
    place = np.zeros(len(data.scores))
    for learned, d in folds:
        values = np.nan_to_num(d.information[~learned, which], nan=-np.inf)
        place[~learned] = rankdata(values) / len(values)
    # Every context is there once, so that items are documents.
    rows = np.random.default_rng(SEED).integers(len(place), size=(RESAMPLES, len(place)))
    for title, value in (
        ("score", data.scores[:, which]),
        ("score_less_full", data.scores[:, which] - data.scores[:, FULL]),
    ):
        at = ranks(place, value)
        each = correlations(place[rows], value[rows])
        enough = math.isfinite(at) and np.isfinite(each).mean() > 0.5
        low, high = map(float, np.nanquantile(each, [0.025, 0.975])) if enough else (None, None)
        out[title] = {"spearman": at if enough else None, "low": low, "high": high}
    return out


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's, row by row; NaN where a row has only equal values."""
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (rankdata(x, axis=1), rankdata(y, axis=1)))
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), size, out=np.full(len(a), np.nan), where=size > 0)


# -- writing -----------------------------------------------------------------------------------


def gather(runs: Path, data: Path | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "command": "python eval/routing.py" + (" --data ../shared/data" if data else ""),
        "commit": commit(),
        "seed": SEED,
        "scorer": SCORER,
        "resamples": RESAMPLES,
        "costs": COSTS,
        "shapes": {name: s.facts() for name, s in SHAPES.items()},
        "first_pair": list(PAIRS[0]),
        "tasks": {},
    }
    for task in ("squad", "records"):
        if not (runs / task / "answers-full.json").exists():
            continue
        material, items = sources(task, data)
        made = {m.folder.name: m for m in all_made(runs, task)}
        full = json.loads((runs / task / "answers-full.json").read_text())
        entry: dict[str, Any] = {
            "reference_set": material.reference_set,
            "item_hashes": [i.content_hash[:16] for i in items],
            "predictor": {"model": full["model"], "weights_sha256": full["weights_sha256"]},
            "compressors": {n: m.facts["weights_sha256"] for n, m in made.items() if used(n)},
            "pairs": [],
        }
        scored: dict[str, Message] = {}
        for names in PAIRS:
            if not all(n in made and (runs / task / f"answers-{n}.json").exists() for n in names):
                continue
            kept = runs / "routing" / f"{task}, {', '.join(names)}.json"
            if not kept.exists():
                case = case_of(runs, task, material, items, (made[names[0]], made[names[1]]), scored)
                identifiers = {
                    "scorer": SCORER,
                    "compressor": " + ".join(names),
                    "predictor": full["model"],
                    "data": material.reference_set,
                }
                found = study(case, names, task, identifiers)
                kept.parent.mkdir(exist_ok=True)
                kept.write_text(json.dumps(found, default=float))
                print(kept.stem, file=sys.stderr)
            entry["pairs"].append(json.loads(kept.read_text()))
        result["tasks"][task] = entry
    return result


def used(name: str) -> bool:
    return any(name in pair for pair in PAIRS)


def shown(name: str) -> str:
    word, _, budget = name.rpartition("-")
    return f"{NAMES.get(word, word)}, {budget} tokens"


def table(result: dict[str, Any]) -> str:
    lines = [
        "| task | local → larger | local | larger | full | learned: local/larger/full | its score | less random "
        "| cost / full | local at cap | sweep less random | sweep less length | signal (local, score) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]

    def of(d: dict[str, Any], name: str = "mean") -> str:
        return "–" if d[name] is None else f"{d[name]:.2f} [{d['low']:.2f}, {d['high']:.2f}]"

    for task, entry in result["tasks"].items():
        for p in entry["pairs"]:
            always = p["always"]["flops"]
            both = p["learned"]["flops"]["both_halves"]
            rates = "/".join(f"{both['rates'][r]:.0%}" for r in ROUTES)
            gain = p["sweep"]["pointwise, flops"]["mean_advantage"]
            cost = both["policies"]["router"]["cost"] / always["never compress"]["cost"]
            scores = " | ".join(f"{a['score']['mean']:.2f}" for a in always.values())
            lines.append(
                f"| {task} | {p['local']} → {p['larger']} | {scores} | {rates} | "
                f"{of(both['policies']['router']['score'])} | {of(both['score_against']['random'])} | {cost:.2f} | "
                f"{p['at_cap'][LOCAL]:.0%} | "
                f"{of(gain['random'])} | {of(gain['length'])} | "
                f"{of(p['signal']['pointwise']['local']['score'], 'spearman')} |"
            )
    return "\n".join(lines)


def draw(result: dict[str, Any], docs: Path) -> None:
    """docs/routing-TASK.svg: the score-cost plane of the first pair."""
    for task, entry in result["tasks"].items():
        if not entry["pairs"]:
            continue
        p = entry["pairs"][0]
        points = p["sweep"]["pointwise, flops"]["points"]

        def line(name: str, points: list[dict[str, Any]] = points) -> list[Point]:
            policies = [point["policies"][name] for point in points]
            return [Point(one["cost"], one["score"]["mean"]) for one in policies]

        series = [Series("by information", line("router"), joined=True)]
        series += [Series("at random", line("random"), joined=True)]
        series += [Series("by length", line("length"), joined=True)]
        for name, one in p["always"]["flops"].items():
            s = one["score"]
            series.append(Series(name, [Point(one["cost"], s["mean"], s["low"], s["high"])]))
        title = f"{task}: {shown(p['local'])} → {shown(p['larger'])} → whole text"
        (docs / f"routing-{task}.svg").write_text(score_against_cost(title, series, x=COSTS["flops"]))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/compression"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "routing.json")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    a = parser.parse_args(words)
    result = gather(a.runs, a.data)
    if not result["tasks"]:
        parser.error(f"no answers in {a.runs}; eval/compression.sh makes them")
    a.out.write_text(json.dumps(result, indent=1, ensure_ascii=False, default=float) + "\n")
    draw(result, a.docs)
    print(table(result))


if __name__ == "__main__":
    main()
