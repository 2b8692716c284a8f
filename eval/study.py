"""A planted study from one command: a learned team, every mandatory control, and whether it was worth it.

    python eval/study.py [--quick] [--method agp] [--seeds 0 1 2] [--items 200] [--out runs/study]
    python eval/study.py --report runs/study

For each training seed a policy is learned on the planted world's ``learn`` items. The learned team
then answers ``score`` items through the whole runner (the world is a scripted model there), and so
do its controls (``agentcomm.evaluation.controls``); the accuracy-token curve is measured on ``validate``
items, by moving both thresholds together.

The report reads what lies in the folder, and nothing else: score with its interval, each control
against the learned team (paired by item and seed, an item's seeds in one cluster, Holm's p-values),
tokens by phase, when learning is paid back, what is known exactly here (regret), and the curve. It
fails where a mandatory control, a policy or a curve is missing; the same command then makes what is
missing. What the world says of a team that reads nobody but one agent is the planted ``task``.

The default world is the standard one (8 agents, 4 domains, 2 misleaders), the default method AGP as
published, with its own plan of rollouts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core, and no spinning beside other work

import anyio
import numpy as np

from agentcomm.errors import AgentCommError, ConfigError
from agentcomm.evaluation.compare import RunSide, compare, load_side
from agentcomm.evaluation.control_runs import check_controls, control_paths, run_controls
from agentcomm.evaluation.controls import LEARNED, MANDATORY
from agentcomm.evaluation.run import Progress, evaluate
from agentcomm.evaluation.stats import (
    holm,
    mean_interval,
    non_inferiority,
    paired_bootstrap,
    resolvable_difference,
    sign_flip,
)
from agentcomm.pruning import fit_async, load
from agentcomm.pruning.environment import Budget, Metered
from agentcomm.pruning.fixed import MatchedRandom
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.policy import Policy

LEARN_ITEMS, CURVE_ITEMS = 160, 60
HORIZON = 1_000
"""Items over which learning is paid back."""
MARGIN = 0.02
ROLLOUTS = {"agp": 95_000, "frugal": 3000}
QUICK = {
    "world": {"agents": 5, "domains": 1, "misleaders": 1},
    "method": "agp",
    "settings": {"mode": "reinforce"},
    "rollouts": 700,
    "items": 12,
}
PHASES = ("evaluate", "learn", "compress", "judge")


# ----------------------------------------------------------------------------------- making it


def wanted(a: argparse.Namespace) -> dict[str, Any]:
    """What the study is of; kept in its folder, so that two studies are never mixed."""
    if a.quick:
        return {**QUICK, "seed": a.world}
    return {
        "seed": a.world,
        "world": {"agents": a.agents, "domains": a.domains, "misleaders": a.misleaders},
        "method": a.method,
        "settings": {},
        "rollouts": a.rollouts or ROLLOUTS.get(a.method, 12_000),
        "items": a.items,
    }


def world_of(study: dict[str, Any]) -> PlantedWorld:
    return PlantedWorld(study["seed"], **study["world"])


def begin(out: Path, study: dict[str, Any], seeds: Sequence[int]) -> None:
    """A folder for the study; one that holds another is refused."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "study.json"
    if file.exists() and (known := json.loads(file.read_text())["study"]) != study:
        raise ConfigError(
            f"{out} holds another study ({json.dumps(known)}); choose another folder with --out"
        )
    known_seeds = json.loads(file.read_text())["seeds"] if file.exists() else []
    file.write_text(json.dumps({"study": study, "seeds": sorted({*known_seeds, *seeds})}) + "\n")


async def make(out: Path, study: dict[str, Any], seeds: Sequence[int]) -> None:
    """Everything that the report needs and that isn't there yet."""
    world = world_of(study)
    model, score = world.model(), world.task(study["items"], "score")
    validate = world.task(min(100, study["items"]), "validate")
    for seed in seeds:
        policy = await _policy(out / f"policy-{seed}", study, world, seed)
        run = await evaluate(
            world.graph,
            score,
            model,
            topology=policy,
            out=out / f"seed-{seed}",
            name=f"seed-{seed}",
            on_progress=_say(f"seed {seed}: the learned team"),
        )
        await run_controls(
            run,
            world.graph,
            score,
            model,
            (*MANDATORY, *LEARNED),
            topology=policy,
            validate=validate,
            on_run=lambda title, seed=seed: _say(f"seed {seed}: {title}"),  # type: ignore[misc]
        )
        if not (curve := out / f"curve-{seed}.json").exists():
            curve.write_text(json.dumps(await _curve(policy, world)) + "\n")


async def _policy(folder: Path, study: dict[str, Any], world: PlantedWorld, seed: int) -> Policy:
    if (folder / "policy.json").exists():
        return load(folder, world.graph, world)
    print(f"seed {seed}: learning with {study['method']}", file=sys.stderr)
    task = world.task(LEARN_ITEMS, "learn")
    return await fit_async(
        world.graph,
        task,
        study["method"],
        environment=world,
        embedder=world,
        rollouts=study["rollouts"],
        seed=seed,
        out=folder,
        settings=study["settings"],
    )


async def _curve(policy: Policy, world: PlantedWorld) -> dict[str, Any]:
    """Score against tokens on ``validate`` items, and what that took."""
    from agentcomm.pruning.agp import DIAGONAL, accuracy_tokens
    from agentcomm.pruning.imitation import Thresholds

    pairs = dict.fromkeys(
        [*(Thresholds(t, t) for t in DIAGONAL), Thresholds(policy.node_threshold, policy.edge_threshold)]
    )
    meter = Metered(world, Budget())
    points = await accuracy_tokens(policy, world.items(CURVE_ITEMS, "validate"), meter, tuple(pairs))
    return {"points": points, "rollouts": meter.rollouts, "tokens": meter.tokens}


def _say(title: str) -> Any:
    def progress(p: Progress) -> None:
        if p.done == p.total:
            print(f"{title}: {p.done} items", file=sys.stderr)

    return progress


# ------------------------------------------------------------------------------------ report


def report(out: Path) -> dict[str, Any]:
    """What came of a study, from its folder alone.

    Raises
    ------
    ConfigError
        If a part is missing: it names the part, and the command that makes it.
    """
    if not (out / "study.json").exists():
        raise ConfigError(f"{out} holds no study; make one: python eval/study.py --out {out}")
    file = json.loads((out / "study.json").read_text())
    study, seeds = file["study"], file["seeds"]
    again = f"the same command that made it goes on: python eval/study.py --out {out} ..."
    sides: dict[int, RunSide] = {}
    beside: dict[int, dict[str, list[RunSide]]] = {}
    ruled: dict[str, str] = {}
    per_seed = []
    world = world_of(study)
    for seed in seeds:
        run, folder = out / f"seed-{seed}", out / f"policy-{seed}"
        if not (out / f"curve-{seed}.json").exists():
            raise ConfigError(f"seed {seed} has no accuracy-token curve in {out}; {again}")
        paths = [run, *control_paths(run)]
        checked = check_controls(paths)
        if not checked.complete:
            lacks = "; ".join(f"{name}: {why}" for name, why in checked.missing.items())
            raise ConfigError(f"seed {seed} lacks mandatory controls ({lacks}); {again}")
        ruled |= dict(checked.not_applicable)
        sides[seed] = load_side(run)
        controls: dict[str, list[RunSide]] = {}
        for path in paths[1:]:
            one = load_side(path)
            controls.setdefault(one.config["control"]["name"], []).append(one)
        beside[seed] = controls
        per_seed.append(
            {
                "seed": seed,
                "compare": compare(paths, margin=MARGIN, amortise=HORIZON).to_dict(),
                "exact": _exact(load(folder, world.graph, world), world, seed),
                "spent": dict(load(folder, world.graph, world).card.spent),
            }
        )
    rows = _rows(sides, beside)
    items = len(next(iter(sides.values())).items)
    return {
        "study": study,
        "seeds": seeds,
        "items": items,
        "not_applicable": ruled,
        "rows": rows,
        "resolvable_difference": resolvable_difference(items, _discordant(sides, beside)),
        "phases": _phases(sides, per_seed, out, seeds),
        "curve": _mean_curve([json.loads((out / f"curve-{s}.json").read_text())["points"] for s in seeds]),
        "by_seed": per_seed,
    }


def _exact(policy: Policy, world: PlantedWorld, seed: int) -> dict[str, float]:
    """What the runs only sample: expected utility against the best team there is."""
    found = world.assess(policy)
    matched = anyio.run(MatchedRandom(match=policy, seed=seed).fit, world.items(1), world, Budget(rollouts=0))
    return {
        "regret": found.regret,
        "matched_regret": world.assess(matched).regret,
        "node_f1": found.node_f1,
        "edge_f1": found.edge_f1,
    }


Key = tuple[str, int, int]
"""Item, training seed, draw."""


def _scores(sides: dict[int, list[RunSide]]) -> tuple[dict[Key, float], int]:
    """All scores, and how many episodes failed."""
    found: dict[Key, float] = {}
    failed = 0
    for seed, some in sides.items():
        for draw, side in enumerate(some):
            failed += len(side.failed)
            found |= {(item, seed, draw): score for (item, _), score in side.scores.items()}
    return found, failed


def _tokens(sides: dict[int, list[RunSide]]) -> dict[str, float]:
    """Means over items: input, output, calls; what a cache answered counts as what it would cost."""
    rows = [r for some in sides.values() for s in some for r in s.usage.rows if r.error_kind is None]
    episodes = sum(len(s.episodes) for some in sides.values() for s in some)
    return {
        "input": sum(r.input_tokens or 0 for r in rows) / episodes,
        "output": sum(r.output_tokens or 0 for r in rows) / episodes,
        "calls": len(rows) / episodes,
    }


def _rows(sides: dict[int, RunSide], beside: dict[int, dict[str, list[RunSide]]]) -> list[dict[str, Any]]:
    """The learned team and each control over all seeds."""
    own, failed = _scores({seed: [side] for seed, side in sides.items()})
    rng = np.random.default_rng(0)
    rows = [_row("learned", {seed: [side] for seed, side in sides.items()}, own, failed)]
    names = [n for n in (*MANDATORY, *LEARNED) if any(n in controls for controls in beside.values())]
    for name in names:
        these = {seed: controls.get(name, []) for seed, controls in beside.items()}
        scores, failed = _scores(these)
        row = _row(name, these, scores, failed)
        keys = [k for k in scores if (k[0], k[1], 0) in own]
        ours, theirs = [own[k[0], k[1], 0] for k in keys], [scores[k] for k in keys]
        items = [k[0] for k in keys]
        difference = paired_bootstrap(ours, theirs, clusters=items, rng=rng)
        verdict = non_inferiority(ours, theirs, clusters=items, rng=rng, margin=MARGIN)
        row["learned_minus_this"] = {
            "mean": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "p": sign_flip(ours, theirs, clusters=items, rng=rng),
            "not_worse": verdict.verdict,
        }
        rows.append(row)
    for row, p in zip(rows[1:], holm([r["learned_minus_this"]["p"] for r in rows[1:]]), strict=True):
        row["learned_minus_this"]["p_holm"] = p
    return rows


def _row(name: str, sides: dict[int, list[RunSide]], scores: dict[Key, float], failed: int) -> dict[str, Any]:
    whole = mean_interval(list(scores.values()), clusters=[k[0] for k in scores])
    means = [float(np.mean([v for k, v in scores.items() if k[1] == seed])) for seed in sides if sides[seed]]
    return {
        "team": name,
        "score": {"mean": whole.mean, "low": whole.low, "high": whole.high},
        "seeds": {"mean": float(np.mean(means)), "min": min(means), "max": max(means), "each": means},
        "runs": sum(len(some) for some in sides.values()),
        "failed": failed,
        "tokens": _tokens(sides),
    }


def _discordant(sides: dict[int, RunSide], beside: dict[int, dict[str, list[RunSide]]]) -> float:
    """Share of items on which the learned team and the complete one differ."""
    differ = [
        side.scores[key] != other.scores[key]
        for seed, side in sides.items()
        for other in beside[seed].get("complete", [])
        for key in side.scores
        if key in other.scores
    ]
    return float(np.mean(differ)) if differ else 1.0


def _phases(
    sides: dict[int, RunSide], per_seed: Sequence[dict[str, Any]], out: Path, seeds: Sequence[int]
) -> dict[str, Any]:
    """Tokens of the learned team by phase, summed over seeds; learning was paid before the run."""
    found: dict[str, dict[str, int | None]] = {}
    for side in sides.values():
        for phase, group in side.usage.by_phase().items():
            told = group.to_dict()
            mine = found.setdefault(phase, {})
            for kind in ("input", "output", "cached"):
                value, before = told.get(kind), mine.get(kind, 0)
                mine[kind] = None if value is None or before is None else before + value
    spent = [s["spent"].get("tokens") for s in per_seed]
    found["learn"] = {
        "total": None if any(t is None for t in spent) else int(sum(spent)),
        "rollouts": int(sum(s["spent"].get("rollouts") or 0 for s in per_seed)),
    }
    curves = [json.loads((out / f"curve-{s}.json").read_text()) for s in seeds]
    found["curve"] = {
        "total": sum(c["tokens"] for c in curves),
        "rollouts": sum(c["rollouts"] for c in curves),
    }
    return found


def _mean_curve(curves: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, float]]:
    """Means over seeds at the thresholds that all seeds have, fewest tokens first."""
    by_pair: dict[tuple[float, float], list[dict[str, Any]]] = {}
    for points in curves:
        for p in points:
            by_pair.setdefault((p["node_threshold"], p["edge_threshold"]), []).append(p)
    rows = []
    for (node, edge), points in by_pair.items():
        if len(points) == len(curves):
            row: dict[str, float] = {"node_threshold": node, "edge_threshold": edge}
            for name in ("correct", "tokens", "agents", "edges"):
                row[name] = float(np.mean([p[name] for p in points]))
            worth = [p["correct"] for p in points]
            rows.append({**row, "least": min(worth), "most": max(worth)})
    return sorted(rows, key=lambda r: r["tokens"])


def shown(told: dict[str, Any]) -> str:
    """The report as text."""
    study = told["study"]
    lines = [
        f"{study['method']} on planted world {study['seed']} ({', '.join(f'{k} {v}' for k, v in study['world'].items())}); "
        f"training seeds {', '.join(map(str, told['seeds']))}; {told['items']} scoring items",
        "",
        f"{'team':17} {'score [95 %]':20} {'seeds: min to max':18} {'input':>7} {'output':>7} {'calls':>6}  "
        f"learned minus this (points)",
    ]
    for row in told["rows"]:
        s, e, t = row["score"], row["seeds"], row["tokens"]
        text = (
            f"{row['team']:17} {s['mean']:.3f} [{s['low']:.3f}, {s['high']:.3f}] {e['min']:.3f} to {e['max']:.3f}     "
            f"{t['input']:7,.0f} {t['output']:7,.0f} {t['calls']:6.1f}"
        )
        if (d := row.get("learned_minus_this")) is not None:
            text += (
                f"  {100 * d['mean']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}], "
                f"p = {d['p_holm']:.4f} (Holm), not worse by {100 * MARGIN:g}: {d['not_worse']}"
            )
        lines.append(text + (f"  ({row['failed']} failed)" if row["failed"] else ""))
    lines += [f"{name:17} not applicable: {why}" for name, why in told["not_applicable"].items()]
    lines += [
        "",
        f"{told['items']} items can resolve {100 * told['resolvable_difference']:.1f} points against complete "
        f"(80 % power, one seed)",
        "",
        "tokens by phase, all seeds:",
    ]
    for phase, use in told["phases"].items():
        parts = ", ".join(f"{k} {'unknown' if v is None else f'{v:,}'}" for k, v in use.items())
        lines.append(f"  {phase:9} {parts}")
    for one in told["by_seed"]:
        x = one["exact"]
        paid = next((c["break_even"] for c in _against_complete(one) if c is not None), None)
        back = "never paid back against complete" if paid is None else f"paid back after {paid:,.0f} items"
        verdict = "beats" if x["regret"] < x["matched_regret"] else "does NOT beat"
        lines.append(
            f"seed {one['seed']}: regret {x['regret']:.3f} ({verdict} the matched random DAG, "
            f"{x['matched_regret']:.3f}), agents F1 {x['node_f1']:.2f}, edges F1 {x['edge_f1']:.2f}; learning {back}"
        )
    lines += ["", "accuracy against tokens, by thresholds (validate items, means over seeds):"]
    lines += [
        f"  nodes {p['node_threshold']:.2f}, edges {p['edge_threshold']:.2f}: {p['correct']:.3f} "
        f"[{p['least']:.3f} to {p['most']:.3f}] for {p['tokens']:,.0f} tokens, {p['agents']:.1f} agents, "
        f"{p['edges']:.1f} edges"
        for p in told["curve"]
    ]
    return "\n".join(lines)


def _against_complete(one: dict[str, Any]) -> list[dict[str, Any]]:
    """Break-even of learning against the complete team: items until its tokens are saved again."""
    runs = {r["run"]: r for r in one["compare"]["runs"]}
    team = runs[one["compare"]["reference"]]
    found = []
    for name, row in runs.items():
        if name.endswith("-complete"):
            items = one["compare"]["items"]
            saved = (row["tokens"]["gross"] - team["tokens"]["gross"]) / items
            learning = team["tokens"]["learning"]
            found.append({"break_even": learning / saved if learning and saved > 0 else None})
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small world and few items: seconds")
    parser.add_argument("--method", default="agp")
    parser.add_argument("--rollouts", type=int, help="for each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training")
    parser.add_argument("--items", type=int, default=200, help="scoring items")
    parser.add_argument("--world", type=int, default=0, help="seed of the world")
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--domains", type=int, default=4)
    parser.add_argument("--misleaders", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="only report, on what lies there")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the report as JSON there, too")
    a = parser.parse_args(arguments)
    out = a.report or a.out
    try:
        if a.report is None:
            begin(out, study := wanted(a), a.seeds)
            anyio.run(make, out, study, a.seeds)
        told = report(out)
    except AgentCommError as error:
        sys.exit(f"error: {error}")
    text = json.dumps(told, indent=1) + "\n"
    (out / "report.json").write_text(text)
    if a.keep is not None:
        shutil.copy(out / "report.json", a.keep)
    print(shown(told))


if __name__ == "__main__":
    main()
