"""What orchestration costs: ratios against hand-written loops, growth, ledger speed, memory.

    python eval/overhead.py [--quick] [--out eval/results/overhead.json]

Every figure is made in this one run on this one machine; compare the ratios, not the times.
Models answer at once, so that only our own work is measured.

* executors: time per agent call of ``plain`` and ``langgraph`` walking a schedule whose agents
  answer at once, beside a hand-written asyncio loop and a hand-written LangGraph graph (static
  nodes and edges) of the same team.
* episodes: the whole way of a call (inbox, prompt, limits, ledger row, attribution) with the
  scripted backend, in memory and on disk.
* growth: time against agents (chain of layers) and against edges (fixed agents), exponent fitted.
* ledger: calls per second that are committed with synchronous=FULL, waited for.
* flight: peak memory of many items with 200 episodes in flight, for two run lengths.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import anyio

from agentcomm import topologies
from agentcomm.api import run
from agentcomm.backends.scripted import Echo
from agentcomm.evaluation.run import Progress, evaluate
from agentcomm.executors.base import Executor
from agentcomm.executors.langgraph import LangGraphExecutor
from agentcomm.executors.plain import PlainExecutor
from agentcomm.graph import AgentGraph
from agentcomm.ledger.rows import CallRow
from agentcomm.ledger.store import Ledger
from agentcomm.message import Message
from agentcomm.schedule import Inbox, Schedule, TurnRecord
from agentcomm.task import Item, Score, Task

HERE = Path(__file__).parent


def team(agents: int, layers: int, rounds: int) -> AgentGraph:
    pool = [f"a{i}" for i in range(agents)]
    return topologies.layered(pool, layers=layers, decision="judge", rounds=rounds)


async def at_once(inbox: Inbox) -> TurnRecord:
    return TurnRecord(inbox.agent, inbox.round, (), Message(inbox.agent, inbox.round, "x"))


async def best(action: Callable[[], Awaitable[Any]], repeats: int) -> float:
    """Seconds of the quickest of several repeats: the one least disturbed by the machine."""
    await action()
    times = []
    for _ in range(repeats):
        gc.collect()
        began = time.perf_counter()
        await action()
        times.append(time.perf_counter() - began)
    return min(times)


def merge(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    return {**old, **new}


class State(TypedDict):
    said: Annotated[dict[str, str], merge]


# -- hand-written teams: what a user would write for just this graph -------------------------------


async def loop_by_hand(graph: AgentGraph, waves: list[list[str]], reads: dict[str, list[str]]) -> str:
    said: dict[str, str] = {}

    async def act(name: str) -> None:
        _ = [said[s] for s in reads[name] if s in said]
        said[name] = "x"

    for _ in range(graph.rounds):
        for wave in waves:
            async with anyio.create_task_group() as group:
                for name in wave:
                    group.start_soon(act, name)
    await act(graph.decision)
    return said[graph.decision]


def langgraph_by_hand(graph: AgentGraph) -> Any:
    """Static nodes with barrier edges, unrolled over the rounds: LangGraph's own idiom."""
    from langgraph.graph import END, START, StateGraph

    def node(name: str, sources: list[str]) -> Callable[[State], Awaitable[dict[str, Any]]]:
        async def act(state: State) -> dict[str, Any]:
            _ = [state["said"].get(s) for s in sources]
            return {"said": {name: "x"}}

        return act

    builder = StateGraph(State)
    schedule = Schedule.of(graph)
    previous: list[str] = []
    for wave in schedule.waves:
        names = [f"{agent}@{wave.round}" for agent in wave.agents]
        for agent, name in zip(wave.agents, names, strict=True):
            sources = [
                f"{e.sender}@{wave.round - (e.kind == 'temporal')}"
                for e in schedule.sources(agent, wave.round)
            ]
            builder.add_node(name, node(name, sources))
            builder.add_edge(previous or START, name)  # type: ignore[arg-type]
        previous = names
    builder.add_edge(previous, END)
    return builder.compile()


async def executors(repeats: int) -> dict[str, Any]:
    rows = {}
    for agents, layers, rounds in ((5, 1, 3), (9, 3, 3), (20, 4, 5), (50, 5, 3)):
        graph = team(agents, layers, rounds)
        schedule = Schedule.of(graph)
        calls = len(schedule.turns)
        waves = [list(w.agents) for w in schedule.waves if w.round == 1 and graph.decision not in w.agents]
        reads = {n: [e.sender for e in graph.incoming[n]] for n in graph.names}
        compiled = langgraph_by_hand(graph)

        def walk(executor: Executor, schedule: Schedule = schedule) -> Callable[[], Awaitable[Any]]:
            return lambda: executor.execute(schedule, at_once)

        ms = {
            "plain": await best(walk(PlainExecutor()), repeats),
            "langgraph": await best(walk(LangGraphExecutor()), repeats),
            "asyncio_by_hand": await best(lambda g=graph, w=waves, r=reads: loop_by_hand(g, w, r), repeats),
            "langgraph_by_hand": await best(
                lambda c=compiled: c.ainvoke({"said": {}}, {"recursion_limit": 1000}), repeats
            ),
        }
        per_call = {k: round(v / calls * 1e3, 4) for k, v in ms.items()}
        rows[f"{agents} agents, {layers} layers, {rounds} rounds"] = {
            "calls": calls,
            "ms_per_call": per_call,
            "plain_over_by_hand": round(ms["plain"] / ms["asyncio_by_hand"], 2),
            "langgraph_over_by_hand": round(ms["langgraph"] / ms["langgraph_by_hand"], 2),
        }
    return rows


async def episodes(repeats: int) -> dict[str, Any]:
    """Whole calls: prompt, limits, ledger and attribution included."""
    graph = team(9, 3, 3)
    calls = len(Schedule.of(graph).turns)
    out: dict[str, Any] = {"calls": calls}
    for name in ("plain", "langgraph"):

        async def one(name: str = name) -> None:
            episode = await run(graph, "What is 6 times 7?", Echo(), executor=name)
            assert episode.ok

        out[f"{name}_ms_per_call"] = round(await best(one, repeats) / calls * 1e3, 3)
    with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder) / "ledger.sqlite") as ledger:

        async def durable() -> None:
            await run(graph, "What is 6 times 7?", Echo(), executor="plain", ledger=ledger)

        out["plain_durable_ms_per_call"] = round(await best(durable, repeats) / calls * 1e3, 3)
    return out


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log time over log size, by least squares."""
    x, y = [math.log(s) for s in sizes], [math.log(s) for s in seconds]
    mx, my = statistics.fmean(x), statistics.fmean(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


async def growth(repeats: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    plain = PlainExecutor()
    sizes, seconds, edges = [50, 100, 200, 400, 800], [], []
    for agents in sizes:
        # Layers of 10: edges grow with agents, so that this shows growth in agents alone.
        schedule = Schedule.of(team(agents, agents // 10, 3))
        edges.append(len(schedule.graph.edges))
        seconds.append(await best(lambda s=schedule: plain.execute(s, at_once), repeats))
    out["agents"] = {
        "agents": sizes,
        "edges": edges,
        "ms": [round(s * 1e3, 2) for s in seconds],
        "exponent": round(exponent(sizes, seconds), 2),
    }
    counts, seconds = [], []
    for layers in (50, 20, 10, 5, 2):
        schedule = Schedule.of(team(200, layers, 3))
        counts.append(len(schedule.graph.edges))
        seconds.append(await best(lambda s=schedule: plain.execute(s, at_once), repeats))
    out["edges"] = {
        "agents": 200,
        "edges": counts,
        "ms": [round(s * 1e3, 2) for s in seconds],
        "exponent": round(exponent(counts, seconds), 2),
    }
    began = time.perf_counter()
    graph = team(1000, 10, 3)
    built = time.perf_counter() - began
    schedule = Schedule.of(graph)
    turns = len(schedule.turns)
    for name, executor in (("plain", plain), ("langgraph", LangGraphExecutor())):
        took = await best(lambda e=executor: e.execute(schedule, at_once), max(1, repeats // 3))
        out[f"thousand_{name}"] = {
            "agents": 1000,
            "edges": len(graph.edges),
            "rounds": 3,
            "calls": turns,
            "build_s": round(built, 2),
            "run_s": round(took, 2),
            "ms_per_call": round(took / turns * 1e3, 3),
        }
    return out


async def ledger_speed(calls: int) -> dict[str, Any]:
    """Committed calls per second: many writers, each waiting for its own commit."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("AGENTCOMM_EVAL_DISK")) as folder:  # noqa: SIM117
        with Ledger.open(Path(folder) / "ledger.sqlite") as ledger:

            async def writer(k: int, n: int) -> None:
                for i in range(n):
                    row = CallRow(
                        f"{k}-{i}", f"q{k}", 0, 1, "solver", 1, "evaluate", "m", f"r{k}-{i}", time.time()
                    )
                    ledger.start_call(row)
                    done = CallRow(
                        row.id, row.item, 0, 1, "solver", 1, "evaluate", "m", row.request_id, row.started_at,
                        input_tokens=100, output_tokens=20, parts={"task": 90, "template": 10}, reply_text=f"reply {k} {i}",
                    )  # fmt: skip
                    await ledger.finish_call(done)

            writers = 200
            began = time.perf_counter()
            async with anyio.create_task_group() as group:
                for k in range(writers):
                    group.start_soon(writer, k, calls // writers)
            took = time.perf_counter() - began
            kept = len(ledger.calls())
    return {"calls": kept, "calls_per_s": round(kept / took), "synchronous": "FULL", "writers": writers}


FLIGHT = """
import sys, anyio
from pathlib import Path
sys.path.insert(0, {here!r})
import overhead
print(*anyio.run(overhead.fly, int(sys.argv[1]), Path(sys.argv[2])))
"""


def peak_kb() -> int:
    """The most memory this process held so far. Not ru_maxrss: a child inherits that."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


async def fly(items: int, folder: Path) -> tuple[int, int]:
    """Peak kilobytes of a run of ``items`` with 200 episodes in flight: until the last item, and in all."""
    task = Task(
        "noop", [Item(f"q{i}", f"Question {i}?") for i in range(items)], lambda item, answer: Score(1.0)
    )
    graph = team(4, 2, 1)
    running = 0

    def look(progress: Progress) -> None:
        nonlocal running
        if progress.done == progress.total:
            running = peak_kb()

    result = await evaluate(
        graph, task, Echo(max_concurrency=200), out=folder / f"run{items}", executor="plain", on_progress=look
    )
    assert result.failed == 0
    return running, peak_kb()


def flight(short: int, long: int) -> dict[str, Any]:
    peaks: dict[int, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for items in (short, long):
            code = FLIGHT.format(here=str(HERE))
            done = subprocess.run(
                [sys.executable, "-c", code, str(items), folder], capture_output=True, text=True, check=True
            )
            running, whole = done.stdout.split()[-2:]
            peaks[items] = int(running), int(whole)
    grown = [(peaks[long][i] - peaks[short][i]) / (long - short) for i in (0, 1)]
    return {
        "in_flight": 200,
        "peak_mb_while_running": {str(k): round(v[0] / 1024, 1) for k, v in peaks.items()},
        "peak_mb_with_the_summary": {str(k): round(v[1] / 1024, 1) for k, v in peaks.items()},
        "kb_per_finished_item_while_running": round(grown[0], 2),
        "kb_per_item_of_the_summary": round(grown[1] - grown[0], 2),
    }


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE
    )
    return done.stdout.strip() or "unknown"


async def measure(quick: bool) -> dict[str, Any]:
    repeats = 3 if quick else 15
    return {
        "command": "python eval/overhead.py" + (" --quick" if quick else ""),
        "commit": commit(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "executors": await executors(repeats),
        "episodes": await episodes(repeats),
        "growth": await growth(repeats if quick else 9),
        "ledger": await ledger_speed(5_000 if quick else 20_000),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats and smaller runs")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    result = anyio.run(measure, options.quick)
    result["flight"] = flight(500, 2_000) if options.quick else flight(1_000, 5_000)
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
