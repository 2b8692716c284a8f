"""Learned topologies with a real model: what pruning saves, net of learning, and whether anything is lost.

    python eval/pruning.py SETTING --model vllm/FOLDER [--base-url URL] [--data FOLDER] [--seeds 0 1 2]

For each training seed a policy is learned on the learn split, then the team as it is (complete) and
the team under the policy answer the same items of the scoring split, beside every mandatory control.
Writes eval/results/pruning.json after every run (settings that are there already stay), so that what
was cut short keeps what it has; the same command continues. The picture is drawn from that file:

    python eval/pruning.py --draw
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import numpy as np
from benchmarks import commit, fingerprint

from agentcomm.evaluation.compare import compare
from agentcomm.evaluation.control_runs import run_controls
from agentcomm.evaluation.controls import MANDATORY
from agentcomm.evaluation.held import held
from agentcomm.evaluation.run import Progress, Run, evaluate
from agentcomm.loading import load_graph, load_task
from agentcomm.options import RunOptions
from agentcomm.pruning import fit_async, load

HERE = Path(__file__).parent
HORIZON = 1_000
"""Items over which learning is paid back."""
MARGIN = 0.02


class Setting(NamedTuple):
    """One real team and task; sizes are what two cores manage, larger ones are an option away."""

    graph: str
    graph_options: dict[str, Any]
    task: str
    task_options: dict[str, Any]
    learn: int
    rollouts: int
    score: int
    max_tokens: int
    temperature: float = 0.0
    price: float = 0.2


SETTINGS = {
    "records": Setting("records_team", {}, "records", {"by": "attribute", "fixed": True}, 200, 400, 300, 16),
    "gsm8k": Setting("agp_math", {}, "gsm8k", {}, 60, 120, 100, 256),
    "humaneval": Setting("agp_code", {}, "humaneval", {"hashed": True}, 30, 90, 100, 256),
}


def say(title: str) -> Any:
    shown = 0.0

    def progress(p: Progress) -> None:
        nonlocal shown
        if time.monotonic() - shown > 30 or p.done == p.total:
            shown = time.monotonic()
            score = "" if p.score is None else f" score {p.score:.3f}"
            print(f"{title}: {p.done}/{p.total}{score} {p.input_tokens}+{p.output_tokens}", file=sys.stderr)

    return progress


def input_tokens(run: Run) -> dict[tuple[str, int], int]:
    """Input tokens by (item, sample), gross: what a cache answered is what would have been paid."""
    out = {(e.item, e.sample): 0 for e in run.episodes}
    for row in run.usage.rows:
        if (row.item, row.sample) in out:
            out[row.item, row.sample] += row.input_tokens or 0
    return out


def ratio(ours: Run, theirs: Run, learning: float, seed: int = 0, draws: int = 10_000) -> dict[str, float]:
    """Input tokens of one run over those of another, gross and net of learning over HORIZON items.

    Intervals are percentiles of a bootstrap over items (what learning took is not resampled).
    """
    a, b = input_tokens(ours), input_tokens(theirs)
    items = sorted({k[0] for k in a} & {k[0] for k in b})
    x, y = (np.array([sum(v for k, v in t.items() if k[0] == i) for i in items], float) for t in (a, b))
    rng = np.random.default_rng(seed)
    pick = rng.integers(len(items), size=(draws, len(items)))
    gross = x[pick].sum(axis=1) / y[pick].sum(axis=1)
    net = (x[pick].mean(axis=1) + learning / HORIZON) / y[pick].mean(axis=1)
    low, high = np.quantile(gross, [0.025, 0.975])
    net_low, net_high = np.quantile(net, [0.025, 0.975])
    saved = float(y.mean() - x.mean())
    return {
        "gross": float(x.sum() / y.sum()),
        "gross_low": float(low),
        "gross_high": float(high),
        "net": float((x.mean() + learning / HORIZON) / y.mean()),
        "net_low": float(net_low),
        "net_high": float(net_high),
        "break_even_items": learning / saved if saved > 0 else None,  # type: ignore[dict-item]
    }


def shape(run: Run) -> dict[str, float]:
    """Mean agents and edges alive on an item."""
    cuts = [json.loads(e.topology) for e in run.episodes if e.topology]
    agents = [len(c["masks"][0]["agents"]) for c in cuts]
    edges = [sum(len(m["edges"]) for m in c["masks"]) for c in cuts]
    return {"agents": float(np.mean(agents)), "edges": float(np.mean(edges))} if cuts else {}


def learned_before(folder: Path, asked: dict[str, Any], graph: Any) -> tuple[Any, float | None] | None:
    """The policy that was learned in ``folder`` from the same words, and the seconds it took (``None``: not known).

    Fitting again would find every rollout recorded, and say that learning had cost nothing.
    """
    note = folder.with_suffix(".json")
    if not note.exists():
        return None
    told = json.loads(note.read_text())
    return (load(folder, graph), told["seconds"]) if told["asked"] == asked else None


async def study(task_name: str, a: argparse.Namespace) -> None:
    setting, name = SETTINGS[task_name], a.name or task_name
    price = setting.price if a.price is None else a.price
    graph = load_graph(setting.graph, setting.graph_options)
    options = RunOptions(
        seed=0,
        max_tokens=setting.max_tokens,
        temperature=setting.temperature,
        base_url=a.base_url,
        max_concurrency=a.concurrency,
        timeout_s=1800.0,
    )

    def task(split: str, limit: int) -> Any:
        shared = {"data": a.data} if a.data and task_name != "records" else {}
        return load_task(setting.task, {**setting.task_options, **shared, "split": split, "limit": limit})

    learn, score = task("learn", a.learn or setting.learn), task("score", a.score or setting.score)
    try:
        validate = task("validate", a.validate)
    except Exception as error:
        print(f"{name}: no validate items: {error}", file=sys.stderr)
        validate = None
    root = a.runs / name
    asked = {
        "method": a.method,
        "rollouts": a.rollouts or setting.rollouts,
        "price": price,
        "kinds": a.kinds,
        "confirm": a.confirm,
        "embedder": a.embedder,
        "learn": [i.content_hash[:16] for i in learn.items],
    }
    entry: dict[str, Any] = {
        "command": "python " + " ".join(["eval/pruning.py", *sys.argv[1:]]),
        "commit": commit(),
        "model": Path(a.model).name,
        "weights_sha256": fingerprint(a.model),
        "graph": setting.graph,
        "task": setting.task,
        "task_config": dict(score.config),
        **{k: v for k, v in asked.items() if k != "learn"},
        "learn_hashes": asked["learn"],
        "item_hashes": [i.content_hash[:16] for i in score.items],
        "horizon_items": HORIZON,
        "margin": MARGIN,
        "policies": [],
        "complete": None,
        "controls": [],
    }

    async def run(title: str, topology: Any = None) -> Run:
        return await evaluate(
            graph,
            score,
            a.model,
            out=root / title,
            topology=topology,
            name=title,
            on_progress=say(f"{name} {title}"),
            options=options,
        )

    async with held(a.model, options):
        complete = await run("complete")
        entry["complete"] = complete.summary()
        write(name, entry)
        done: dict[int, tuple[Run, dict[str, Any]]] = {}

        async def learned(seed: int) -> None:
            out = root / f"policy-{seed}"
            before = learned_before(out, asked, graph)
            if before is None:
                began = time.monotonic()
                policy = await fit_async(
                    graph,
                    learn,
                    method=a.method,
                    model=a.model,
                    rollouts=asked["rollouts"],
                    price=price,
                    seed=seed,
                    embedder=a.embedder,
                    validate=validate,
                    confirm=a.confirm,
                    margin=MARGIN,
                    out=out,
                    options=options,
                    **({} if a.kinds is None else {"most_kinds": a.kinds}),
                )
                before = policy, round(time.monotonic() - began, 1)
                out.with_suffix(".json").write_text(json.dumps({"asked": asked, "seconds": before[1]}))
            policy, took = before
            one = await run(f"{a.method}-{seed}", policy)
            spent = policy.card.spent
            learning = float(spent.get("input_tokens") or 0)
            against = compare([complete.path, one.path], margin=MARGIN).to_dict()["against"][0]
            done[seed] = (
                one,
                {
                    "seed": seed,
                    "spent": dict(spent),
                    "seconds": took,
                    "notes": list(policy.card.notes),
                    "run": one.summary(),
                    "alive": shape(one),
                    "input_tokens_ratio": ratio(one, complete, learning),
                    "against_complete": against,
                },
            )
            entry["policies"] = [done[s][1] for s in a.seeds if s in done]
            write(name, entry)

        # Seeds are independent; beside each other they fill the server's batches.
        async with anyio.create_task_group() as group:
            for seed in a.seeds:
                group.start_soon(learned, seed)
        pruned = [done[seed][0] for seed in a.seeds]
        for seed, one in zip(a.seeds, pruned, strict=True):
            # The controls that imitate a policy are run for each one, the others once.
            first = seed == a.seeds[0]
            if a.no_controls or not (first or a.all_random):
                continue
            # The whole team of every setting is the complete graph: that control has run already.
            words = [w for w in MANDATORY if w != "complete"] if first else ["random"]
            words += ["fixed"] if a.fixed and first else []
            controlled = await run_controls(
                one,
                graph,
                score,
                a.model,
                words,
                topology=load(root / f"policy-{seed}", graph),
                validate=validate,
                options=options,
                on_run=lambda title: say(f"{name} {title}"),
            )
            for control, ran in controlled.runs:
                beside = compare([one.path, ran.path], margin=MARGIN).to_dict()["against"][0]
                entry["controls"].append(
                    {
                        "of_seed": seed,
                        "name": control.name,
                        "label": control.label,
                        "note": control.note,
                        "run": ran.summary(),
                        "against_pruned": beside,
                    }
                )
                write(name, entry)
            entry["not_applicable"] = controlled.not_applicable
            entry["single_chosen"] = controlled.chosen
            entry["fixed_chosen"] = controlled.fixed
    write(name, entry)


def write(name: str, entry: dict[str, Any]) -> None:
    out = HERE / "results" / "pruning.json"
    known = json.loads(out.read_text()) if out.exists() else {}
    known[name] = entry
    out.write_text(json.dumps(known, indent=1, ensure_ascii=False, default=str) + "\n")


def table(settings: dict[str, Any]) -> str:
    """Markdown: one line for each team that ran."""
    lines = [
        "| task, model | team | score | input tokens an item | of complete | net of learning | against complete "
        "| not worse by 2 points |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def score(run: dict[str, Any]) -> str:
        s = run["score"]
        return f"{s['mean']:.2f} [{s['low']:.2f}, {s['high']:.2f}]"

    def each(run: dict[str, Any]) -> float:
        return float(run["tokens"]["input"]) / max(1, run["items"])

    for name, entry in settings.items():
        full = entry["complete"]
        lines.append(
            f"| {name}, {entry['model']} | complete | {score(full)} | {each(full):.0f} | 100% | | | |"
        )
        for p in entry["policies"]:
            r, d = p["input_tokens_ratio"], p["against_complete"]["difference"]
            net = f"{r['net']:.0%} [{r['net_low']:.0%}, {r['net_high']:.0%}]"
            if not p["spent"].get("input_tokens"):
                net = "(from rollouts of another entry)"  # what it learned from was paid for there
            lines.append(
                f"| | {entry['method']}, seed {p['seed']} | {score(p['run'])} | {each(p['run']):.0f} | "
                f"{r['gross']:.0%} | {net} | "
                f"{100 * d['mean']:+.0f} points [{100 * d['low']:+.0f}, {100 * d['high']:+.0f}] | "
                f"{p['against_complete']['verdict']['verdict']} |"
            )
        lines += [
            f"| | {c['label']} | {score(c['run'])} | {each(c['run']):.0f} | "
            f"{each(c['run']) / each(full):.0%} | | | |"
            for c in entry["controls"]
        ]
    return "\n".join(lines)


STYLE = """
  svg { background: #fff; color: #1f2937; font: 12px system-ui, sans-serif } text { fill: currentColor }
  .title { font-weight: 600; font-size: 13px } .axis { stroke: #9ca3af } .grid { stroke: #e5e7eb }
  .complete { stroke: #d97706; fill: #d97706 } .policy { stroke: #4f46e5; fill: #4f46e5 }
  .control { stroke: #9ca3af; fill: #9ca3af } .bar { stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    svg { background: #0f172a; color: #e2e8f0 } .grid { stroke: #1e293b } .axis { stroke: #475569 }
    .policy { stroke: #a5b4fc; fill: #a5b4fc } .complete { stroke: #fbbf24; fill: #fbbf24 }
  }
"""


def ticks(most: float) -> list[float]:
    """Round numbers from 0 to ``most``, about five of them."""
    size = 10 ** np.floor(np.log10(most / 5))
    step = min((size * k for k in (1, 2, 5, 10)), key=lambda s: abs(most / s - 5))
    return [float(v) for v in np.arange(0, most + 1e-9, step)]


def picture(name: str, entry: dict[str, Any]) -> str:
    """Score against input tokens an item, with 95 % intervals: the team, the policies, the controls."""
    points = [("complete team", "complete", entry["complete"])]
    points += [(f"{entry['method']} {p['seed']}", "policy", p["run"]) for p in entry["policies"]]
    points += [(c["label"], "control", c["run"]) for c in entry["controls"] if c["name"] != "complete"]

    def tokens(run: dict[str, Any]) -> float:
        return float(run["tokens"]["input"]) / max(1, run["items"])

    width, height, left, low = 640, 360, 56, 44
    most = 1.12 * max(tokens(r) for *_, r in points)
    top = min(1.0, 1.15 * max(r["score"]["high"] for *_, r in points))

    def x(t: float) -> float:
        return left + t / most * (width - left - 24)

    def y(v: float) -> float:
        return height - low - v / top * (height - low - 40)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img"><style>{STYLE}</style>',
        f'<text class="title" x="{left}" y="22">{escape(entry["graph"])} on {escape(name)}, '
        f"{escape(entry['model'])}: score against what agents read</text>",
    ]
    for v in ticks(top):
        out.append(f'<line class="grid" x1="{left}" x2="{width - 24}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>')
        out.append(f'<text x="{left - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.2f}</text>')
    out += [
        f'<text x="{x(t):.1f}" y="{height - low + 18}" text-anchor="middle">{t:.0f}</text>'
        for t in ticks(most)
    ]
    out.append(
        f'<text x="{(left + width) / 2}" y="{height - 8}" text-anchor="middle">input tokens an item</text>'
    )
    taken: list[tuple[float, float]] = []
    for label, kind, run in points:
        s, px = run["score"], x(tokens(run))
        out.append(
            f'<line class="{kind} bar" x1="{px:.1f}" x2="{px:.1f}" y1="{y(s["low"]):.1f}" y2="{y(s["high"]):.1f}"/>'
            f'<circle class="{kind}" cx="{px:.1f}" cy="{y(s["mean"]):.1f}" r="{6 if kind != "control" else 4}">'
            f"<title>{escape(label)}: {s['mean']:.2f} for {tokens(run):.0f} tokens</title></circle>"
        )
        at = y(s["mean"]) + 4
        while any(abs(at - v) < 12 and abs(px - u) < 90 for u, v in taken):
            at += 12
        taken.append((px, at))
        aside = f'x="{px - 9:.1f}" text-anchor="end"' if px > width - 140 else f'x="{px + 9:.1f}"'
        out.append(f'<text {aside} y="{at:.1f}">{escape(label)}</text>')
    return "".join([*out, "</svg>\n"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("setting", nargs="?", choices=list(SETTINGS))
    parser.add_argument("--model")
    parser.add_argument("--base-url")
    parser.add_argument("--data")
    parser.add_argument("--method", default="frugal")
    parser.add_argument("--embedder", default="hash")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--learn", type=int, help="learn items")
    parser.add_argument("--rollouts", type=int)
    parser.add_argument("--score", type=int, help="scoring items")
    parser.add_argument("--price", type=float, help="points of score that all the team's tokens are worth")
    parser.add_argument("--validate", type=int, default=100, help="items of validate at most (100)")
    parser.add_argument(
        "--confirm",
        type=int,
        default=0,
        help="validate items on which what was learned has to hold (0: it is measured, good or bad)",
    )
    parser.add_argument("--kinds", type=int, help="kinds of question at most that frugal tells apart")
    parser.add_argument("--name", help="of the entry in the results (default: the setting)")
    parser.add_argument("--no-controls", action="store_true", help="only the complete team and the policies")
    parser.add_argument("--fixed", action="store_true", help="also the best fixed topology by validate items")
    parser.add_argument("--concurrency", type=int, default=48)
    parser.add_argument("--all-random", action="store_true", help="matched random DAGs for every seed")
    parser.add_argument("--runs", type=Path, default=Path("runs/pruning"))
    parser.add_argument(
        "--draw",
        action="store_true",
        help="print the table of what is measured, and draw docs/pruning-SETTING.svg",
    )
    a = parser.parse_args(arguments)
    if a.draw:
        settings = json.loads((HERE / "results" / "pruning.json").read_text())
        for name, entry in settings.items():
            (HERE.parent / "docs" / f"pruning-{name}.svg").write_text(picture(name, entry))
        print(table(settings))
        return
    if a.setting is None or a.model is None:
        parser.error("name a setting and --model, or --draw")
    anyio.run(study, a.setting, a)


if __name__ == "__main__":
    main()
