"""Agents that learn to say the same in fewer tokens: score and tokens by iteration, beside every control.

    python eval/dialogue.py SETTING --model hf/FOLDER|vllm/FOLDER [--base-url URL] [--seeds 0 1 2] [--minutes M]

For each seed a model is trained on its own dialogues (``agentcomm train``'s loop) and every iteration
answers the same items of the scoring split, greedily, beside the untrained model in natural language
and told to be terse, the best format without training, one agent with the whole context, that agent as
often as the tokens allow (self-consistency), the team with its messages cut to as many tokens, and the
same training on randomly chosen and on unfiltered dialogues. Writes eval/results/dialogue.json after
every piece; --minutes stops between pieces, and the same command goes on. Seeds may be run beside each
other (a process each, into the same file): they fill a server's batches. Then

    python eval/dialogue.py --draw

prints the table and draws docs/dialogue-SETTING-MODEL-METHOD.svg.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import numpy as np
from benchmarks import commit, fingerprint
from pruning import STYLE, say, ticks

from agentcomm.backends.adapters import ModelRef
from agentcomm.channels import from_words
from agentcomm.dialogue.export import TrainConfig
from agentcomm.dialogue.formats import NATURAL, POOL, pool
from agentcomm.dialogue.learning import Learning
from agentcomm.dialogue.plan import LearnConfig
from agentcomm.dialogue.play import Team
from agentcomm.dialogue.readability import open_readability
from agentcomm.dialogue.reward import RewardConfig
from agentcomm.dialogue.search import FormatSearch, SearchPlan, break_even, net_saving
from agentcomm.dialogue.workshop import TrlWorkshop
from agentcomm.evaluation.control_runs import run_controls
from agentcomm.evaluation.held import held
from agentcomm.evaluation.run import Run, evaluate
from agentcomm.evaluation.splits import hash_of
from agentcomm.evaluation.stats import mean_interval, non_inferiority, paired_bootstrap
from agentcomm.graph import AgentGraph
from agentcomm.loading import load_graph, load_task
from agentcomm.options import RunOptions

HERE = Path(__file__).parent
HORIZON = 10_000
"""Items over which learning is paid back in the table."""


class Setting(NamedTuple):
    """A team, a task and sizes; with 135 M parameters two cores need about 40 minutes for two_hop through vLLM."""

    graph: str
    graph_options: dict[str, Any]
    task: str
    task_options: dict[str, Any]
    margin: float
    learn: int = 40
    validate: int = 24
    score: int = 150
    samples: int = 4
    min_tokens: int = 8
    max_steps: int = 12
    batch_size: int = 8
    search: tuple[int, tuple[int, ...], int] = (16, (6, 12), 24)


SETTINGS = {
    "one_hop": Setting(
        "information_exchange",
        {"max_tokens": 48, "rounds": 1, "answer": "asked"},
        "records",
        {"specialists": 2, "by": "attribute"},
        0.05,
    ),
    "two_hop": Setting(
        "information_exchange",
        {"max_tokens": 48, "rounds": 2},
        "records",
        {"specialists": 2, "by": "attribute", "hops": 2},
        0.05,
    ),
    "hotpotqa": Setting(
        "information_exchange", {"max_tokens": 96}, "hotpotqa", {"deal": 2}, 0.05, min_tokens=20
    ),
    "arithmetic": Setting("debate_pair", {"max_tokens": 128}, "arithmetic", {}, 0.05, min_tokens=20),
}
ARMS = ("reward", "random", "unfiltered")
"""Ways to choose what is learned from; more are an option away: no_tokens, no_loss, single."""


class OutOfTime(Exception):
    """The minutes are over; everything so far is kept."""


class Study:
    """One setting and seed."""

    def __init__(self, name: str, seed: int, a: argparse.Namespace, deadline: float) -> None:
        self.name, self.seed, self.a, self.deadline = name, seed, a, deadline
        s = SETTINGS[name]
        changes = {
            k: v for k in ("learn", "validate", "score", "samples", "max_steps") if (v := getattr(a, k))
        }
        self.setting = s._replace(**changes)
        self.root = a.runs / name / f"seed-{seed}"
        self.options = RunOptions(
            seed=seed,
            temperature=0.0,
            base_url=a.base_url,
            max_concurrency=a.concurrency,
            timeout_s=1800.0,
            executor="plain",
        )
        self.learn = self.items("learn", self.setting.learn)
        self.validate = self.items("validate", self.setting.validate)
        self.score = self.items("score", self.setting.score)
        seen = {hash_of(i) for i in (*self.learn.items, *self.validate.items)}
        assert not seen & {hash_of(i) for i in self.score.items}, "an item is learned from and scored"
        self.runs: dict[str, Run] = {}
        self.learned: dict[str, list[dict[str, Any]]] = {}
        self.search: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}

    def items(self, split: str, limit: int) -> Any:
        shared = {"data": self.a.data} if self.a.data else {}
        return load_task(
            self.setting.task, {**self.setting.task_options, **shared, "split": split, "limit": limit}
        )

    def team(self, instruction: str = "", **more: Any) -> AgentGraph:
        options = {**self.setting.graph_options, **more}
        return load_graph(
            self.setting.graph, {**options, "instruction": instruction} if instruction else options
        )

    def on_time(self) -> None:
        if self.runs:  # what stands in the file stays until there is something to put in its place
            write(self)
        if time.monotonic() > self.deadline:
            raise OutOfTime

    async def point(self, title: str, graph: AgentGraph, model: str) -> Run:
        """A team on the scoring items, greedily; what is done already costs nothing."""
        self.on_time()
        out = self.root / "points" / title
        label = f"{self.name} {self.seed} {title}"
        run = await evaluate(
            graph, self.score, model, out=out, name=title, on_progress=say(label), options=self.options
        )
        self.runs[title] = run
        write(self)
        return run

    # -- learning --------------------------------------------------------------------------------

    def lesson(self, arm: str, readability: Any) -> Learning:
        s, a = self.setting, self.a
        alone = arm == "single"
        training = TrainConfig(
            batch_size=s.batch_size,
            max_steps=s.max_steps,
            learning_rate=a.learning_rate,
            rank=a.rank,
            bf16=a.bf16,
            epochs=a.epochs,
        )
        config = LearnConfig(
            method=a.method,
            samples=s.samples,
            formats=() if alone else tuple(POOL),
            selector=arm if arm in ("random", "unfiltered") else "reward",  # type: ignore[arg-type]
            expansions=a.expansions,
            accept=a.accept,
            restart=s.graph == "debate_pair",
            reward=RewardConfig(
                token_weight=0.0 if arm == "no_tokens" else 0.6,
                loss_weight=0.0 if arm == "no_loss" or readability.name == "off" else 1.0,
                min_tokens=0 if alone else s.min_tokens,
            ),
            sft=training,
            dpo=dataclasses.replace(training, method="rpo", learning_rate=None),
            seed=self.seed,
        )
        provider, _, folder = a.model.partition("/")
        return Learning(
            (lambda instruction: self.alone()) if alone else self.team,
            self.learn,
            self.learn.items,
            self.validate.items,
            ModelRef.of(folder),
            TrlWorkshop(provider, a.device, lambda text: print(text, file=sys.stderr), a.base_url, a.merge),
            self.root / "learn" / arm,
            config,
            readability,
            # The first iteration's dialogues are the same for all arms: only the first arm pays for them.
            dataclasses.replace(self.options, cache=self.root / "replies.sqlite"),
            lambda title, state: self.progress(f"{arm} {title}", state),
            lambda text: print(f"{arm} {text}", file=sys.stderr),
        )

    def progress(self, title: str, state: Any) -> None:
        known = self.notes.setdefault("progress", {})
        known.setdefault(title, say(f"{self.name} {self.seed} {title}"))(state)

    def alone(self) -> AgentGraph:
        """One agent with the whole context, told to mark its answer as the team is."""
        team = self.team()
        first = dataclasses.replace(team.agents[0], view="*")
        return AgentGraph([first], (), first.name, 1, team.system)

    async def arm(self, arm: str, readability: Any) -> None:
        """Learn iteration by iteration, and see how each model does."""
        graph = self.alone() if arm == "single" else self.team()
        lesson = self.lesson(arm, readability)
        for k in range(1, self.a.iterations + 1):
            self.on_time()
            made = await lesson.run(k)
            self.learned[arm] = [dict(m) for m in made.manifests]
            write(self)
            if arm != "reward" and k < self.a.iterations:
                continue
            name = made.manifests[-1]["model_out"]
            served = lesson.workshop.serve(lesson.ref(name))
            title = f"{arm}-{k}"
            # An iteration that was not accepted leaves the model, and the point, as they were.
            await self.point(title, graph, str(served))

    # -- controls --------------------------------------------------------------------------------

    async def untrained(self) -> None:
        model = self.a.model
        await self.point(NATURAL, self.team(), model)
        await self.point("natural_terse", self.team(POOL["natural_terse"].text), model)
        calibrate, rungs, accept = self.setting.search
        self.on_time()
        learn = self.items("learn", max(self.setting.learn, calibrate + sum(rungs)))
        team = Team(
            self.team,
            learn,
            learn.items,
            self.validate.items,
            model,
            self.root / "search",
            dataclasses.replace(self.options, temperature=0.0),
            lambda title, state: self.progress(f"search {title}", state),
        )
        plan = SearchPlan(calibrate=calibrate, rungs=rungs, accept=min(accept, self.setting.validate))
        config = RewardConfig(loss_weight=0.0, min_tokens=self.setting.min_tokens)
        found = await FormatSearch(pool(), plan, config, self.seed).run(team)
        self.search = {
            "adopted": found.adopted,
            "winner": found.winner,
            "dialogues": found.dialogues,
            "spent": team.paid_tokens,
            "verdict": found.verdict,
        }
        await self.point(f"format-{found.winner}", self.team(POOL[found.winner].text), model)

    async def controls(self) -> None:
        """One agent, self-consistency at the untrained team's tokens, and messages cut to the trained one's length."""
        model = self.a.model
        await self.point("single", self.alone(), model)
        trained = self.runs[f"reward-{self.a.iterations}"]
        self.on_time()
        natural = self.runs[NATURAL]
        made = await run_controls(
            natural,
            self.team(),
            self.score,
            model,
            ["self_consistency"],
            validate=self.validate,
            options=self.options,
            on_run=lambda title: say(f"{self.name} {self.seed} {title}"),
        )
        for control, run in made.runs:
            self.runs[control.label] = run
        self.notes["not_applicable"] = made.not_applicable
        each = max(1, round(float(np.mean([r.output_tokens or 0 for r in trained.usage.rows]))))
        self.notes["tokens_a_message"] = each
        cut = self.team().with_channel(from_words(f"truncate:tokens={each}"))
        await self.point("truncated", cut, model)
        await self.point("max_tokens", self.team(max_tokens=each), model)

    async def run(self) -> None:
        s, a = self.setting, self.a
        readability = open_readability(a.readability, a.model, base_url=a.base_url)
        try:
            async with held(a.model, self.options) if a.model.startswith("vllm/") else nullcontext():
                await self.untrained()
                await self.arm("reward", readability)
                await self.controls()
                for arm in a.arms:
                    if arm != "reward" and not (arm == "single" and s.graph == "debate_pair"):
                        await self.arm(arm, readability)
        finally:
            readability.close()
            write(self)


# --------------------------------------------------------------------------------- figures


def per_item(run: Run) -> dict[str, tuple[float, int, int]]:
    """Score, tokens written and all tokens of every item that came to an answer."""
    written: dict[str, int] = {}
    total: dict[str, int] = {}
    for row in run.usage.rows:
        if row.error_kind is None:
            written[row.item] = written.get(row.item, 0) + (row.output_tokens or 0)
            total[row.item] = total.get(row.item, 0) + (row.input_tokens or 0) + (row.output_tokens or 0)
    return {
        e.item: (float(e.score), written.get(e.item, 0), total.get(e.item, 0))
        for e in run.episodes
        if e.status == "ok" and e.score is not None
    }


def standing(run: Run, natural: Run | None, best: Run | None, margin: float, seed: int) -> dict[str, Any]:
    """A run's score and tokens with intervals, and its paired differences to the two baselines."""
    found = per_item(run)
    rng = np.random.default_rng([seed, 11])
    scores = [v[0] for v in found.values()]
    score = mean_interval(scores)
    out: dict[str, Any] = {
        "items": len(found),
        "failed": run.failed,
        "score": {"mean": score.mean, "low": score.low, "high": score.high},
    }
    for place, name in ((1, "written"), (2, "total")):
        values = np.array([v[place] for v in found.values()], float)
        draws = (
            values[rng.integers(len(values), size=(10_000, len(values)))].mean(axis=1) if len(values) else []
        )
        low, high = np.quantile(draws, [0.025, 0.975]) if len(values) else (None, None)
        out[name] = {"mean": float(values.mean()) if len(values) else None, "low": low, "high": high}
    for label, other in (("against_natural", natural), ("against_format", best)):
        if other is not None and other is not run:
            out[label] = against(found, per_item(other), margin, seed)
    return out


def against(
    ours: dict[str, tuple[float, int, int]],
    theirs: dict[str, tuple[float, int, int]],
    margin: float,
    seed: int,
) -> dict[str, Any]:
    items = sorted(ours.keys() & theirs.keys())
    a, b = (np.array([side[i] for i in items], float) for side in (ours, theirs))
    if not len(items):
        return {"items": 0}
    rng = np.random.default_rng([seed, 13])
    difference = paired_bootstrap(a[:, 0], b[:, 0], rng=rng)
    worse = non_inferiority(a[:, 0], b[:, 0], rng=rng, margin=margin)
    pick = rng.integers(len(items), size=(10_000, len(items)))
    out: dict[str, Any] = {
        "items": len(items),
        "score": {"mean": difference.mean, "low": difference.low, "high": difference.high},
        "not_worse": {
            "margin": margin,
            "verdict": worse.verdict,
            "lower": worse.lower,
            "items_needed": worse.needed,
        },
        "disagreement": float(np.mean((a[:, 0] - b[:, 0]) ** 2)),
    }
    for place, name in ((1, "written"), (2, "total")):
        ratios = a[pick, place].sum(axis=1) / np.maximum(1, b[pick, place].sum(axis=1))
        low, high = np.quantile(ratios, [0.025, 0.975])
        ratio = float(a[:, place].sum() / max(1.0, b[:, place].sum()))
        out[f"{name}_ratio"] = {"ratio": ratio, "low": float(low), "high": float(high)}
    return out


def results(study: Study) -> dict[str, Any]:
    """What is known of a seed so far."""
    natural = study.runs.get(NATURAL)
    best = study.runs.get(f"format-{study.search.get('winner')}")
    points = {
        title: standing(run, natural, best, study.setting.margin, study.seed)
        for title, run in study.runs.items()
    }
    entry: dict[str, Any] = {
        "points": points,
        "search": study.search,
        "learning": {
            arm: [
                {
                    k: m[k]
                    for k in ("iteration", "training_method", "model_in", "model_out", "dialogues", "failed",
                              "unmarked", "funnel", "normaliser", "readability", "reward", "guards", "formats",
                              "nothing", "training", "accept", "spent")
                }
                for m in manifests
            ]
            for arm, manifests in study.learned.items()
        },
        "notes": {k: v for k, v in study.notes.items() if k != "progress"},
    }  # fmt: skip
    last = f"reward-{study.a.iterations}"
    if natural is not None and last in points:
        spent = sum(sum(m["spent"].values()) for m in study.learned["reward"])
        before, after = points[NATURAL]["total"]["mean"], points[last]["total"]["mean"]
        trained = [m["training"] for m in study.learned["reward"] if m["training"]]
        entry["amortised"] = {
            "learning_tokens": spent,
            "total_before": before,
            "total_after": after,
            "break_even_items": break_even(spent, before - after),
            "horizon_items": HORIZON,
            "net_saving": net_saving(HORIZON, before, after, spent),
            "trainer_tokens": sum(t["tokens"] or 0 for t in trained),
            "trainer_steps": sum(t["steps"] or 0 for t in trained),
        }
    return entry


SAME = ("weights_sha256", "iterations", "sizes", "item_hashes", "learn_hashes")
"""What the seeds of one entry have in common."""


def key_of(study: Study) -> str:
    return f"{study.name} {Path(study.a.model.partition('/')[2]).name} {study.a.method}"


def write(study: Study) -> None:
    out = HERE / "results" / "dialogue.json" if study.a.results is None else study.a.results
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # seeds may be run beside each other, a process for each
        _merge(study, out)


def _merge(study: Study, out: Path) -> None:
    known = json.loads(out.read_text()) if out.exists() else {}
    a = study.a
    head = {
        "setting": study.name,
        "command": "python " + " ".join(["eval/dialogue.py", *sys.argv[1:]]),
        "commit": commit(),
        "model": Path(a.model.partition("/")[2]).name,
        "weights_sha256": study.notes.setdefault("weights", fingerprint(a.model)),
        "method": a.method,
        "iterations": a.iterations,
        "sizes": study.setting._asdict(),
        "item_hashes": [i.content_hash[:16] for i in study.score.items],
        "learn_hashes": [i.content_hash[:16] for i in study.learn.items],
    }
    key = key_of(study)
    entry = known.setdefault(key, {**head, "seeds": {}})
    there = [seed for seed in entry["seeds"] if seed != str(study.seed)]
    if there and any(entry[k] != json.loads(json.dumps(head[k])) for k in SAME):
        raise SystemExit(
            f"{out}: seed {there[0]} of {key!r} was measured with other sizes, items or weights; name another "
            "file (--results), or measure every seed again"
        )
    entry |= head
    entry["seeds"][str(study.seed)] = results(study)
    partial = out.with_suffix(".part")
    partial.write_text(json.dumps(known, indent=1, ensure_ascii=False, default=float) + "\n")
    partial.replace(out)


def table(known: dict[str, Any]) -> str:
    """Markdown: one line for each point, the seeds' median."""
    lines = [
        "| setting, model | team | score | tokens written | all tokens | written, of natural | score against natural "
        "| written, of the format | score against the format |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in known.values():
        seeds = entry["seeds"]
        first = f"{entry['setting']}, {entry['model']}"
        for title in dict.fromkeys(t for s in seeds.values() for t in s["points"]):
            there = sorted(
                (s["points"][title] for s in seeds.values() if title in s["points"]),
                key=lambda p: p["written"]["mean"],
            )
            p = there[(len(there) - 1) // 2]
            s = p["score"]
            more: list[str] = []
            for baseline in ("against_natural", "against_format"):
                versus = p.get(baseline)
                if not versus or not versus["items"]:
                    more += ["", ""]
                    continue
                r, d = versus["written_ratio"], versus["score"]
                shown = "" if d["low"] is None else f" [{100 * d['low']:+.0f}, {100 * d['high']:+.0f}]"
                more.append(f"{r['ratio']:.0%} [{r['low']:.0%}, {r['high']:.0%}]")
                more.append(f"{100 * d['mean']:+.1f} points{shown}")
            lines.append(
                f"| {first} | {title}{f' ({len(there)} seeds)' if len(there) > 1 else ''} | "
                f"{s['mean']:.2f} [{s['low']:.2f}, {s['high']:.2f}] | {p['written']['mean']:.0f} | "
                f"{p['total']['mean']:.0f} | {' | '.join(more)} |"
            )
            first = ""
        for seed, s in seeds.items():
            if paid := s.get("amortised"):
                when = paid["break_even_items"]
                lines.append(
                    f"| | seed {seed}: learning took {paid['learning_tokens']:,} tokens, "
                    f"{'never paid back' if when is None else f'paid back after {when:,.0f} items'} | | | | | | | |"
                )
    return "\n".join(lines)


def picture(key: str, entry: dict[str, Any]) -> str:
    """Two panels over the iterations, score and tokens written, with 95 % intervals; controls are dashed lines."""
    iterations = entry["iterations"]
    seeds = {k: s for k, s in entry["seeds"].items() if NATURAL in s["points"]}
    width, height, left, low, gap = 860, 340, 52, 44, 72
    panel = (width - 2 * left - gap - 150) / 2
    first = next(iter(seeds.values()))["points"]
    dashed = {
        t: p
        for t, p in first.items()
        if t not in (NATURAL, *(f"reward-{k}" for k in range(1, iterations + 1)))
    }
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><style>{STYLE} .dash {{ stroke-dasharray: 4 3; stroke-width: 1 }} '
        ".line { fill: none; stroke-width: 1.5 } .small { font-size: 10px }</style>",
        f'<text class="title" x="{left}" y="22">{escape(entry["setting"])}, {escape(entry["model"])}, '
        f"{escape(entry['method'])}: by iteration, on {next(iter(first.values()))['items']} held-out items</text>",
    ]
    for which, name, label in ((0, "score", "score"), (1, "written", "tokens written an item")):
        x0 = left + which * (panel + gap)
        every = [
            s["points"][t][name]["high"]
            for s in seeds.values()
            for t in (NATURAL, *(f"reward-{k}" for k in range(1, iterations + 1)))
            if t in s["points"]
        ]
        every += [p[name]["mean"] for p in dashed.values()]
        top = 1.08 * max(every)
        top = min(1.0, top) if name == "score" else top

        def x(k: float, x0: float = x0) -> float:
            return x0 + 12 + k / max(1, iterations) * (panel - 24)

        def y(v: float, top: float = top) -> float:
            return height - low - min(v, top) / top * (height - low - 48)

        for v in ticks(top):
            out.append(
                f'<line class="grid" x1="{x0}" x2="{x0 + panel:.0f}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
            )
            shown = f"{v:.2f}" if name == "score" else f"{v:.0f}"
            out.append(f'<text x="{x0 - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{shown}</text>')
        for k in range(iterations + 1):
            word = "untrained" if k == 0 else str(k)
            out.append(f'<text x="{x(k):.1f}" y="{height - low + 18}" text-anchor="middle">{word}</text>')
        out.append(f'<text x="{x0 + panel / 2:.0f}" y="{height - 8}" text-anchor="middle">{label}</text>')
        taken: list[float] = []
        for t, p in sorted(dashed.items(), key=lambda q: -q[1][name]["mean"]):
            at = y(p[name]["mean"])
            out.append(
                f'<line class="control dash" x1="{x0}" x2="{x0 + panel:.0f}" y1="{at:.1f}" y2="{at:.1f}">'
                f"<title>{escape(t)}: {p[name]['mean']:.2f}</title></line>"
            )
            if which == 1:
                place = max(at, max(taken, default=0.0) + 11)
                taken.append(place)
                out.append(
                    f'<text class="small" x="{x0 + panel + 6:.0f}" y="{place + 3:.1f}">{escape(t)}</text>'
                )
        for s in seeds.values():
            titles = [NATURAL, *(f"reward-{k}" for k in range(1, iterations + 1))]
            there = [(k, s["points"][t][name]) for k, t in enumerate(titles) if t in s["points"]]
            path = " ".join(f"{x(k):.1f},{y(p['mean']):.1f}" for k, p in there)
            out.append(f'<polyline class="policy line" style="fill: none" points="{path}"/>')
            for k, p in there:
                kind = "complete" if k == 0 else "policy"
                out.append(
                    f'<line class="{kind} bar" x1="{x(k):.1f}" x2="{x(k):.1f}" y1="{y(p["low"]):.1f}" '
                    f'y2="{y(p["high"]):.1f}"/><circle class="{kind}" cx="{x(k):.1f}" cy="{y(p["mean"]):.1f}" '
                    f'r="4"><title>{p["mean"]:.2f}</title></circle>'
                )
    return "".join([*out, "</svg>\n"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("setting", nargs="?", choices=list(SETTINGS))
    parser.add_argument("--model", help="hf/FOLDER or vllm/FOLDER")
    parser.add_argument("--base-url")
    parser.add_argument("--data")
    parser.add_argument("--method", default="isft", choices=("isft", "idpo", "isft-dpo"))
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--accept", default="always", choices=("always", "better"))
    parser.add_argument("--arms", nargs="*", default=list(ARMS), help="also no_tokens, no_loss, single")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, help="begin no further piece after so many")
    for name in ("learn", "validate", "score", "samples", "max-steps"):
        parser.add_argument(f"--{name}", type=int, help="instead of the setting's")
    parser.add_argument("--expansions", type=int, default=4)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--merge", action="store_true", help="vllm/: a server for each trained model, merged (no LoRA)"
    )
    parser.add_argument("--readability", default="auto")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--runs", type=Path, default=Path("runs/dialogue"))
    parser.add_argument("--results", type=Path, help="instead of eval/results/dialogue.json")
    parser.add_argument("--draw", action="store_true", help="print the table, and draw docs/dialogue-*.svg")
    a = parser.parse_args(arguments)
    if a.draw:
        known = json.loads((a.results or HERE / "results" / "dialogue.json").read_text())
        for key, entry in known.items():
            if any(NATURAL in seed["points"] for seed in entry["seeds"].values()):
                name = f"dialogue-{key.replace(' ', '-')}.svg"
                (HERE.parent / "docs" / name).write_text(picture(key, entry))
        print(table(known))
        return
    if not a.setting or not a.model:
        parser.error("SETTING and --model are needed, or --draw")
    deadline = time.monotonic() + 60 * a.minutes if a.minutes else float("inf")
    for seed in a.seeds:
        try:
            anyio.run(Study(a.setting, seed, a, deadline).run)
        except OutOfTime:
            print("the minutes are over; the same command goes on", file=sys.stderr)
            return


if __name__ == "__main__":
    main()
