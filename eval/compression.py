"""Real compressors: what they keep, what it costs, and whether information ranks them as the answers do.

    python eval/compression.py compress TASK --model vllm/FOLDER [--base-url URL] [--data FOLDER]
    python eval/compression.py answer   TASK --model vllm/FOLDER [--base-url URL] [--data FOLDER]
    python eval/compression.py score    TASK --scorer hf/FOLDER [--data FOLDER]
    python eval/compression.py edges    --model vllm/FOLDER [--base-url URL] --data FOLDER
    python eval/compression.py write    [--data FOLDER]
    python eval/compression.py draw

TASK is squad (paragraph questions) or records (a long list of facts, of which one is asked). Each
step leaves its files in --runs and continues after an interruption; ``write`` gathers them into
eval/results/compression.json, ``draw`` makes the pictures. eval/compression.sh calls them in order.

* compress: each model, and rules without a model, shorten every context with respect to its question,
  at each budget, temperature 0.
* answer: a fixed predictor sees question and compression only; also the whole text, and nothing.
* score: log-probabilities of the compressions under every context, by a scorer of another family.
* edges: debate and solver-critic-judge with summarised messages against the same verbatim.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import numpy as np
from benchmarks import commit, fingerprint
from pruning import say
from scipy.stats import rankdata

import agentcomm as ac
from agentcomm.errors import UserError
from agentcomm.evaluation.compare import compare
from agentcomm.evaluation.run import Run, evaluate
from agentcomm.evaluation.rundir import RunDir
from agentcomm.evaluation.stats import mean_interval
from agentcomm.information.compressing import QUESTION
from agentcomm.information.measuring import Compressor, Messages, Sources, compress, measure, sources_of
from agentcomm.information.pictures import Level, Point, Series, mi_against_score, rate_distortion
from agentcomm.information.rate_distortion import RateDistortion, fit_rate_distortion
from agentcomm.information.score_matrix import ScoreMatrix
from agentcomm.information.scorers import open_scorer
from agentcomm.ledger.usage import UsageReport
from agentcomm.loading import load_graph, load_task
from agentcomm.options import RunOptions
from agentcomm.task import Item, Task

HERE = Path(__file__).parent
ITEMS = 64
SCORED = 32
"""Contexts of the score matrices: the first of the items, so log2 N = 5 bits."""
BUDGETS = {"squad": (16, 48), "records": (16, 48)}
RULES = ("extract", "truncate")
LONGEST = {"squad": 48, "records": 16}
DRAWS = 10_000


def task_of(name: str, data: Path | None) -> Task:
    options: dict[str, Any] = {"split": "score", "limit": 6 * ITEMS}
    if name == "records":
        options |= {"specialists": 6, "facts": 10, "by": "attribute"}
    elif data is not None:
        options["data"] = str(data)
    return load_task(name, options)


def sources(name: str, data: Path | None) -> tuple[Sources, tuple[Item, ...]]:
    task = task_of(name, data)
    found = sources_of(task, ITEMS)
    by_id = {item.id: item for item in task.items}
    return found, tuple(by_id[i] for i in found.ids)


# -- compress ---------------------------------------------------------------------------------


def label(model: str) -> str:
    return Path(model.partition("/")[2] or model).name


def options_of(a: argparse.Namespace, max_tokens: int | None) -> RunOptions:
    return RunOptions(
        seed=0,
        temperature=0.0,
        max_tokens=max_tokens,
        base_url=a.base_url,
        max_concurrency=a.concurrency,
        timeout_s=1800.0,
    )


async def compress_all(a: argparse.Namespace) -> None:
    material, _ = sources(a.task, a.data)
    for budget in BUDGETS[a.task]:
        for word in RULES:
            made = Compressor.parse(f"{word}:{budget}")
            keep(a.runs / a.task / f"{word}-{budget}", await compress(material, made, samples=1), None)
        if a.model is None:
            continue
        folder = a.runs / a.task / f"{label(a.model)}-{budget}"
        options = options_of(a, budget)
        run = RunDir.create(folder)
        began = time.monotonic()
        with run.ledger() as ledger:
            async with options.calls(ledger, a.model, resuming=True) as calls:
                made = Compressor.parse(a.model, budget)
                messages = await compress(material, made, samples=1, calls=calls)
        keep(folder, messages, a.model)
        print(
            f"{a.task} {folder.name}: {len(messages.texts)} messages, {messages.cut_off} cut off, "
            f"{time.monotonic() - began:.0f} s",
            file=sys.stderr,
        )


def keep(folder: Path, messages: Messages, model: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    facts = asdict(messages) | {
        "usage": {
            "calls": messages.usage.calls,
            "input_tokens": messages.usage.input_tokens,
            "output_tokens": messages.usage.output_tokens,
        },
        "weights_sha256": fingerprint(model) if model else None,
    }
    (folder / "messages.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n")


class Made(NamedTuple):
    """The messages of one compressor at one budget."""

    name: str
    budget: int
    folder: Path
    facts: dict[str, Any]

    @property
    def texts(self) -> list[str | None]:
        return [one[0] for one in self.facts["texts"]]

    def messages(self, n: int) -> Messages:
        f = self.facts
        return Messages(
            Compressor(**f["compressor"]),
            tuple(tuple(t) for t in f["texts"][:n]),
            tuple(tuple(t) for t in f["lengths"][:n]),
            f["unit"],
            f["failures"],
            f["cut_off"],
            f["prompt_id"],
            tuple(f["seeds"]),
            UsageReport(),
        )


def all_made(runs: Path, task: str) -> Iterator[Made]:
    for file in sorted((runs / task).glob("*/messages.json")):
        name, _, budget = file.parent.name.rpartition("-")
        yield Made(name, int(budget), file.parent, json.loads(file.read_text()))


# -- answer -----------------------------------------------------------------------------------


def predictor(text_for: dict[str, str]) -> ac.AgentGraph:
    """The predictor reads the question and what the source hands it, nothing else."""

    async def hand_over(turn: ac.Turn) -> str:
        return text_for[turn.item.id]

    reads = ac.Agent("predictor", role="Answer from what you are given.", context=False)
    if not text_for:
        return ac.AgentGraph([reads], [], decision="predictor", system="Answer the question.")
    source = ac.Agent("source", act=hand_over)
    return ac.AgentGraph(
        [source, reads], [ac.Edge("source", "predictor")], decision="predictor", system="Answer the question."
    )


async def answer_all(a: argparse.Namespace) -> None:
    material, items = sources(a.task, a.data)
    task = task_of(a.task, a.data)
    task = Task(task.name, items, task.score, task.description, task.config, task.extract)
    settings: list[tuple[str, dict[str, str]]] = [
        ("full", dict(zip(material.ids, material.contexts, strict=True))),
        ("nothing", {}),
    ]
    # A compression that failed leaves the predictor with nothing to read; it is counted in messages.json.
    settings += [
        (m.folder.name, {i: t or "" for i, t in zip(material.ids, m.texts, strict=True)})
        for m in all_made(a.runs, a.task)
    ]
    for title, texts in settings:
        run = await evaluate(
            predictor(texts),
            task,
            a.model,
            out=a.runs / a.task / f"answers-{title}",
            name=title,
            on_progress=say(f"{a.task} {title}"),
            options=options_of(a, LONGEST[a.task]),
        )
        facts = {
            "summary": run.summary(),
            "scores": {e.item: e.score for e in run.episodes if e.status == "ok"},
            "input_tokens": read_tokens(run),
            "model": label(a.model),
            "weights_sha256": fingerprint(a.model),
        }
        (a.runs / a.task / f"answers-{title}.json").write_text(json.dumps(facts, default=str, indent=1))


def read_tokens(run: Run) -> dict[str, int]:
    """Input tokens of the predictor by item."""
    out = {e.item: 0 for e in run.episodes}
    for row in run.usage.rows:
        if row.item in out:
            out[row.item] += row.input_tokens or 0
    return out


# -- score ------------------------------------------------------------------------------------


def score_all(a: argparse.Namespace) -> None:
    material, _ = sources(a.task, a.data)
    n = a.contexts
    some = Sources(
        material.ids[:n],
        material.contexts[:n],
        material.queries[:n],
        f"{a.task}, first {n} of {material.reference_set}",
    )
    word = a.scorer.replace("/", "-") if a.scorer.startswith("offline/") else label(a.scorer)
    settings: dict[str, Any] = {} if a.scorer.startswith("offline/") else {"prompt": QUESTION}
    if a.scorer.startswith("hf/"):
        settings["dtype"] = a.dtype
    cells = a.runs / a.task / f"cells-{word}.sqlite"
    with open_scorer(a.scorer, cells=cells, **settings) as judge:
        judge.check()
        # All messages at once, so that each context is read once; what follows finds its cells stored.
        every = [made.messages(n).texts for made in all_made(a.runs, a.task)]
        judge.score_matrix(
            some.contexts,
            some.queries,
            [[row[0] for row in of_context] for of_context in zip(*every, strict=True)],
            reference_set=some.reference_set,
            prior=judge.capabilities().null_context,
        )
        for made in all_made(a.runs, a.task):
            out = made.folder / f"mi.{word}.json"
            if out.exists():
                continue
            began = time.monotonic()
            measured = measure(some, made.messages(n), judge)
            facts = measured.facts() | {
                "scorer": measured.matrix.scorer_id,
                "seconds": round(time.monotonic() - began, 1),
                "gain_nats": gains(measured.matrix.logp, measured.matrix.row_context),
                "pmi_nats": against_nothing(measured.matrix),
            }
            out.write_text(json.dumps(facts, ensure_ascii=False, default=str, indent=1) + "\n")
            bits = facts["estimate"].get("mc_bits")
            print(
                f"{a.task} {made.folder.name} by {word}: {bits} bits, {facts['seconds']} s", file=sys.stderr
            )


def gains(logp: np.ndarray, own: np.ndarray) -> list[float]:
    """log q(z|own) - logsumexp + log N of each row: their mean is mc (no failures, M = 1)."""
    n = logp.shape[1]
    total = np.logaddexp.reduce(logp, axis=1)
    return [float(v) for v in logp[np.arange(len(logp)), own] - total + np.log(n)]


def against_nothing(matrix: ScoreMatrix) -> list[float] | None:
    """log q(z|own) - log r(z) of each row, r without a context: not capped by log N, and no bound."""
    if matrix.prior is None:
        return None
    own = matrix.logp[np.arange(len(matrix.logp)), matrix.row_context]
    return [float(v) for v in own - matrix.prior]


# -- edges ------------------------------------------------------------------------------------

TEAMS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("solver-critic-judge", "solver_critic_judge", {"rounds": 1}),
    ("debate", "debate", {"agents": 2, "rounds": 2}),
)
EDGE_BUDGET = 48


def summarised(graph: ac.AgentGraph, budget: int) -> ac.AgentGraph:
    """Every edge with a channel on which the run's own model shortens what is said."""
    return graph.with_channel(ac.channels.summarise(budget, query=True))


async def edges(a: argparse.Namespace) -> None:
    task = load_task("gsm8k", {"data": str(a.data), "limit": a.limit, "split": "score"})
    for title, name, words in TEAMS:
        graph = load_graph(name, words)
        runs: list[Run] = []
        for channel, team in (
            ("verbatim", graph),
            ("summarise", summarised(graph, EDGE_BUDGET)),
            ("extract", graph.with_channel(ac.channels.extract(EDGE_BUDGET))),
        ):
            run = await evaluate(
                team,
                task,
                a.model,
                out=a.runs / "edges" / f"{title}-{channel}",
                name=f"{title}, {channel}",
                on_progress=say(f"{title} {channel}"),
                options=options_of(a, 256),
            )
            runs.append(run)
            facts = {
                "task": "gsm8k",
                "item_hashes": [i.content_hash[:16] for i in task.items],
                "budget": EDGE_BUDGET,
                "model": label(a.model),
                "weights_sha256": fingerprint(a.model),
                "runs": [r.summary() for r in runs],
                "against_verbatim": compare([r.path for r in runs if r.path], margin=0.02).to_dict()[
                    "against"
                ]
                if len(runs) > 1
                else [],
            }
            (a.runs / "edges" / f"{title}.json").write_text(json.dumps(facts, default=str, indent=1))


# -- write ------------------------------------------------------------------------------------


def interval(values: np.ndarray) -> dict[str, float]:
    found = mean_interval(values.tolist())
    return {"mean": found.mean, "low": found.low, "high": found.high}


def ranks(x: np.ndarray, y: np.ndarray) -> float:
    a, b = rankdata(x), rankdata(y)
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def correlation(information: np.ndarray, scores: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Spearman's rank correlation over compressors of information and score, (points, items) each.

    The interval resamples items (percentiles of a bootstrap); a resampled item that has no
    information value counts for the score alone. The set of compressors is taken as it is.
    """
    points, n = scores.shape
    known = information.shape[1]
    rng = np.random.default_rng(seed)
    value = ranks(information.mean(axis=1), scores.mean(axis=1))
    drawn = []
    for _ in range(DRAWS // 5):
        pick = rng.integers(n, size=n)
        inside = pick[pick < known]
        if len(inside):
            drawn.append(ranks(information[:, inside].mean(axis=1), scores[:, pick].mean(axis=1)))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"spearman": value, "low": float(low), "high": float(high), "points": points}


def gather(a: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {
        "command": "eval/compression.sh",
        "commit": commit(),
        "items": ITEMS,
        "seed": 0,
        "temperature": 0.0,
        "scorers": [],
        "tasks": {},
        "edges": {},
    }
    for name in ("squad", "records"):
        if not list((a.runs / name).glob("answers-*.json")):
            continue
        material, items = sources(name, a.data)
        found["tasks"][name] = gather_task(a.runs, name, material, items)
    words = {w for t in found["tasks"].values() for p in t["points"] for w in p["information"]}
    found["scorers"] = sorted(words, key=lambda w: (w.startswith("offline"), w))
    for file in sorted((a.runs / "edges").glob("*.json")):
        found["edges"][file.stem] = json.loads(file.read_text())
    return found


def gather_task(runs: Path, name: str, material: Sources, items: tuple[Item, ...]) -> dict[str, Any]:
    def scores(title: str) -> np.ndarray | None:
        file = runs / name / f"answers-{title}.json"
        if not file.exists():
            return None
        by_item = json.loads(file.read_text())["scores"]
        return np.array([by_item.get(i, np.nan) for i in material.ids], float)

    def end(title: str) -> dict[str, Any] | None:
        s = scores(title)
        if s is None:
            return None
        summary = json.loads((runs / name / f"answers-{title}.json").read_text())["summary"]
        return {"score": interval(s), "predictor_tokens": summary["tokens"]}

    points: list[dict[str, Any]] = []
    score_rows: list[np.ndarray] = []
    gain_rows: dict[str, list[list[float]]] = {}
    for made in all_made(runs, name):
        s = scores(made.folder.name)
        if s is None:
            continue
        answers = json.loads((runs / name / f"answers-{made.folder.name}.json").read_text())
        point: dict[str, Any] = {
            "compressor": made.name,
            "budget": made.budget,
            "weights_sha256": made.facts["weights_sha256"],
            "failed": made.facts["failures"],
            "cut_off": made.facts["cut_off"],
            "mean_bytes": float(np.mean([len((t or "").encode()) for t in made.texts])),
            "own_tokens": float(np.mean([n[0] for n in made.facts["lengths"] if n[0] >= 0])),
            "own_unit": made.facts["unit"],
            "compressing": made.facts["usage"],
            "score": interval(s),
            "predictor_tokens": answers["summary"]["tokens"],
            "predictor": answers["model"],
            "information": {},
        }
        for file in sorted(made.folder.glob("mi.*.json")):
            facts = json.loads(file.read_text())
            word = file.name.removeprefix("mi.").removesuffix(".json")
            point["information"][word] = {
                k: facts[k]
                for k in ("scorer", "quantity", "estimate", "bits_per_byte", "bits_per_scorer_token")
            } | {"contexts": len(facts["gain_nats"])}
            gain_rows.setdefault(word, []).append(facts["gain_nats"])
            if facts["pmi_nats"] is not None:
                gain_rows.setdefault(f"{word}, against no context", []).append(facts["pmi_nats"])
        points.append(point)
        score_rows.append(s)
    # Rules copy pieces word for word, which says much about the context and little about the question.
    written = [k for k, p in enumerate(points) if p["weights_sha256"] is not None]
    rank = {
        f"{word}{suffix}": correlation(np.array(rows)[chosen], np.array(score_rows)[chosen])
        for suffix, chosen in (("", list(range(len(points)))), (", models alone", written))
        for word, rows in gain_rows.items()
        if len(rows) == len(points) and len(chosen) > 2
    }
    length = np.array([p["mean_bytes"] for p in points])
    table = np.array(score_rows)
    if len(points) > 2:
        # The rival without any model: longer is better.
        rank["length"] = correlation(np.repeat(length[:, None], table.shape[1], axis=1), table)
    return {
        "fits": fits(runs, name, material, points),
        "reference_set": material.reference_set,
        "item_hashes": [i.content_hash[:16] for i in items],
        "mean_context_bytes": float(np.mean([len(c.encode()) for c in material.contexts])),
        "prompt": QUESTION.id,
        "full": end("full"),
        "nothing": end("nothing"),
        "points": points,
        "rank_correlation_with_score": rank,
    }


def fits(runs: Path, name: str, material: Sources, points: list[dict[str, Any]]) -> dict[str, Any]:
    """Loss over the tokens that the predictor reads of the context, for each compressor: nothing, its
    budgets, and the whole text."""

    def of(title: str) -> tuple[np.ndarray, np.ndarray] | None:
        file = runs / name / f"answers-{title}.json"
        if not file.exists():
            return None
        facts = json.loads(file.read_text())
        return tuple(  # type: ignore[return-value]
            np.array([facts[k].get(i, np.nan) for i in material.ids], float)
            for k in ("scores", "input_tokens")
        )

    ends = of("nothing"), of("full")
    if ends[0] is None or ends[1] is None:
        return {}
    base = ends[0][1]
    found: dict[str, Any] = {}
    for compressor in sorted({p["compressor"] for p in points}):
        budgets = sorted(p["budget"] for p in points if p["compressor"] == compressor)
        rows = [ends[0], *(of(f"{compressor}-{b}") for b in budgets), ends[1]]
        loss = np.array([1 - r[0] for r in rows if r is not None])
        rates = np.array([np.maximum(r[1] - base, 0.0) for r in rows if r is not None])
        try:
            fit = fit_rate_distortion(loss, rates, rate="token that is read")
        except UserError as error:
            found[compressor] = {"refused": str(error)}
            continue
        found[compressor] = {
            "rates": [float(v) for v in np.nanmean(rates, axis=1)],
            "loss": [interval(row) for row in loss],
            "fit": asdict(fit) | {"draws": fit.draws[::20].round(5).tolist()},
        }
    return found


def table(result: dict[str, Any]) -> str:
    """Markdown: one line for each compressor and budget."""
    lines = [
        "| task | compressor | budget | bytes | score | bits | bits a byte | scorer (cap) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, task in result["tasks"].items():
        for word in ("full", "nothing"):
            if task[word]:
                s = task[word]["score"]
                size = f"{task['mean_context_bytes']:.0f}" if word == "full" else "0"
                lines.append(
                    f"| {name} | {word} | | {size} | {s['mean']:.2f} [{s['low']:.2f}, {s['high']:.2f}] | | | |"
                )
        for p in task["points"]:
            s = p["score"]
            start = (
                f"| | {p['compressor']} | {p['budget']} | {p['mean_bytes']:.0f} | "
                f"{s['mean']:.2f} [{s['low']:.2f}, {s['high']:.2f}] |"
            )
            for word, found in p["information"].items():
                e = found["estimate"]
                ci = e.get("ci_bits") or [float("nan")] * 2
                per = (found["bits_per_byte"] or {}).get("bits")
                shown = "" if per is None else f"{per:.3f}"
                mc = e.get("mc_bits")
                bits = "none" if mc is None else f"{mc:.2f} [{ci[0]:.2f}, {ci[1]:.2f}]"
                cap = np.log2(found["contexts"])
                lines.append(f"{start} {bits} | {shown} | {word} ({cap:g}) |")
                start = "| | | | | |"
            if not p["information"]:
                lines.append(f"{start} | | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["compress", "answer", "score", "edges", "write", "draw"])
    parser.add_argument("task", nargs="?", choices=["squad", "records"])
    parser.add_argument("--model")
    parser.add_argument("--scorer")
    parser.add_argument("--base-url")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int, default=40, help="items of `edges`")
    parser.add_argument(
        "--contexts", type=int, default=SCORED, help="contexts of a score matrix, at most 64 (32: 5 bits)"
    )
    parser.add_argument("--dtype", default="float32", help="of hf/ scorers: float32, bfloat16")
    parser.add_argument("--concurrency", type=int, default=48)
    parser.add_argument("--runs", type=Path, default=Path("runs/compression"))
    a = parser.parse_args()
    out = HERE / "results" / "compression.json"
    if a.step == "compress":
        anyio.run(compress_all, a)
    elif a.step == "answer":
        anyio.run(answer_all, a)
    elif a.step == "score":
        score_all(a)
    elif a.step == "edges":
        anyio.run(edges, a)
    elif a.step == "write":
        result = gather(a)
        out.write_text(json.dumps(result, indent=1, ensure_ascii=False, default=str) + "\n")
        print(table(result))
    else:
        draw(json.loads(out.read_text()))


NAMES = {"qwen0.5b-int8": "Qwen 0.5B", "qwen1.5b-int8": "Qwen 1.5B", "smollm2": "SmolLM2 135M"}


def draw(result: dict[str, Any]) -> None:
    """docs/rate-TASK.svg: loss over tokens; docs/information-TASK.svg: score over information."""
    docs = HERE.parent / "docs"
    for name, task in result["tasks"].items():
        curves = []
        for compressor, found in task["fits"].items():
            if "refused" in found:
                continue
            fit = RateDistortion(**found["fit"] | {"draws": np.array(found["fit"]["draws"])})
            places = list(zip(found["rates"], found["loss"], strict=True))[1:-1]
            points = [Point(r, d["mean"], d["low"], d["high"]) for r, d in places]
            curves.append(Series(NAMES.get(compressor, compressor), points, fit=fit))
        levels = []
        for word, title in (("full", "whole text"), ("nothing", "nothing")):
            s = task[word]["score"]
            levels.append(Level(title, 1 - s["mean"], 1 - s["high"], 1 - s["low"]))
        svg = rate_distortion(f"{name}: Qwen 1.5B answers from what a compressor leaves", curves, levels)
        (docs / f"rate-{name}.svg").write_text(svg)
        word = next(iter(result["scorers"]), None)
        if word is None:
            continue
        by: dict[str, list[Point]] = {}
        contexts = SCORED
        for p in task["points"]:
            if word in p["information"] and p["information"][word]["estimate"]["mc_bits"] is not None:
                e, s = p["information"][word]["estimate"], p["score"]
                low, high = e["ci_bits"] or (None, None)
                contexts = p["information"][word]["contexts"]
                point = Point(e["mc_bits"], s["mean"], s["low"], s["high"], str(p["budget"]), low, high)
                by.setdefault(NAMES.get(p["compressor"], p["compressor"]), []).append(point)
        svg = mi_against_score(
            f"{name}: score over information (scorer {word}; cap {np.log2(contexts):g} bits)",
            [Series(n, ps, joined=True) for n, ps in by.items()],
        )
        (docs / f"information-{name}.svg").write_text(svg)


if __name__ == "__main__":
    main()
