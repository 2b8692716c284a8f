"""Real benchmarks with a real model: does a team beat one agent, and at what price?

    python eval/benchmarks.py TASK --model vllm/FOLDER --data FOLDER [--limit 100] [--base-url URL]

Runs one agent, self-consistency with as many tokens as the team used, solver-critic-judge and
debate on the same items of the scoring split, then compares each with the single agent. Writes
eval/results/benchmarks-TASK.json after every setting, so that a run cut short leaves what it has;
the same command continues (the runs lie in --runs).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from agentcomm.errors import AgentCommError
from agentcomm.evaluation.compare import compare
from agentcomm.evaluation.controls import control
from agentcomm.evaluation.run import Progress, Run, evaluate
from agentcomm.graph import AgentGraph
from agentcomm.loading import load_graph, load_task
from agentcomm.options import RunOptions
from agentcomm.task import Task

HERE = Path(__file__).parent
LONGEST = {"mmlu": 48, "arc_challenge": 48, "humaneval": 512}


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE
    )
    return done.stdout.strip() or "unknown"


def fingerprint(model: str) -> str | None:
    """SHA-256 of a local model folder's weights, so that a result names exactly what ran."""
    folder = Path(model.partition("/")[2])
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else [folder] if folder.is_file() else []
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def say(name: str) -> Any:
    shown = 0.0

    def progress(p: Progress) -> None:
        nonlocal shown
        if time.monotonic() - shown > 30 or p.done == p.total:
            shown = time.monotonic()
            score = "" if p.score is None else f" score {p.score:.3f}"
            print(
                f"{name}: {p.done}/{p.total}{score} {p.input_tokens}+{p.output_tokens} tokens",
                file=sys.stderr,
            )

    return progress


async def study(task: Task, arguments: argparse.Namespace) -> None:
    options = RunOptions(
        seed=arguments.seed,
        max_tokens=LONGEST.get(task.name, 256),
        base_url=arguments.base_url,
        max_concurrency=arguments.concurrency,
        timeout_s=1800.0,
    )
    single = load_graph("single")
    teams: list[tuple[str, AgentGraph]] = [
        ("single", single),
        ("solver-critic-judge", load_graph("solver_critic_judge", {"rounds": 1})),
        ("debate", load_graph("debate", {"agents": 2, "rounds": 2})),
    ]
    done: list[Run] = []

    async def one(name: str, graph: AgentGraph) -> Run:
        out = arguments.runs / f"{task.name}-{name}"
        run = await evaluate(
            graph,
            task,
            arguments.model,
            out=out,
            name=name,
            on_progress=say(f"{task.name} {name}"),
            options=options,
        )
        done.append(run)
        write(task, done, arguments)
        return run

    runs = {name: await one(name, graph) for name, graph in teams[:2]}
    try:
        # As many samples as the team's tokens pay for, measured on these runs.
        samples = max(3, round(total(runs["solver-critic-judge"]) / total(runs["single"])))
        (voting,) = control("self_consistency", single, task, agent=single.agents[0], samples=samples)
        await one(f"self-consistency-{samples}", voting.graph)
    except AgentCommError as error:
        print(f"{task.name}: no self-consistency: {error}", file=sys.stderr)
    if "debate" not in arguments.skip:
        await one(*teams[2])


def total(run: Run) -> int:
    return run.usage.input_tokens + run.usage.output_tokens


def write(task: Task, runs: list[Run], arguments: argparse.Namespace) -> None:
    paths = [r.path for r in runs if r.path is not None]
    result = {
        "command": "python " + " ".join(["eval/benchmarks.py", *sys.argv[1:]]),
        "commit": commit(),
        "model": Path(arguments.model).name,
        "weights_sha256": arguments.fingerprint,
        "seed": arguments.seed,
        "machine": f"{platform.machine()}, {platform.python_version()}",
        "task": task.name,
        "task_config": dict(task.config),
        "item_hashes": [i.content_hash[:16] for i in task.items],
        "settings": [{**r.summary(), "run": r.path.name if r.path else None} for r in runs],
        "against_single": compare(paths).to_dict()["against"] if len(paths) > 1 else [],
    }
    out = arguments.out or HERE / "results" / f"benchmarks-{task.name}.json"
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False, default=str) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base-url")
    parser.add_argument("--concurrency", type=int, default=48)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--skip", nargs="*", default=[], choices=["debate"], help="settings to leave out")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    arguments.fingerprint = fingerprint(arguments.model)
    task = load_task(
        arguments.task, {"data": arguments.data, "limit": arguments.limit, "seed": arguments.seed}
    )
    anyio.run(study, task, arguments)


if __name__ == "__main__":
    main()
