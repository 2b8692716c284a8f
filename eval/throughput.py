"""How busy an evaluation keeps a model server, against the same requests without a graph.

    python eval/throughput.py --model openai/NAME --base-url http://127.0.0.1:8000/v1 --concurrency 48
    python eval/throughput.py --fake                       a loopback server of fixed latency
    ... [--graph debate] [--task records] [--items 64] [--repeats 2] [--out eval/results/throughput.json]

Three ways of asking one server the same, in one run, each repeated:

* graph: ``agentcomm eval``'s own way, ledger on disk included. Items run side by side and so do the
  agents of a wave, but an agent waits for those it reads.
* direct: the requests that the graph made, thrown at the server with nothing between them, as many
  at a time as it serves. No orchestration can do better: what counts is graph / direct.
* loop: a few items at a time (``--batch``), and in each the agents are awaited one by one, as research
  code does.

Compare the ratios, not the speeds. Each pass puts a mark of its own, equally long, at the start of
every prompt, so that none finds its prefixes in the server's cache from the pass before; within a
pass the cache works as it does in an evaluation. Replies may differ from pass to pass, so speeds are
output tokens per second, and prompts and output tokens together beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import httpx

from agentcomm.backends.base import Backend, ChatRequest
from agentcomm.evaluation.run import evaluate
from agentcomm.graph import AgentGraph
from agentcomm.ledger.usage import UsageReport
from agentcomm.loading import load_graph, load_task
from agentcomm.message import Reply
from agentcomm.options import RunOptions
from agentcomm.task import Task

HERE = Path(__file__).parent
FAKE_MODEL = "fake"
TARGET = 0.9


class Recorder:
    """A backend that remembers the requests it passes on."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.asked: dict[str, ChatRequest] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def chat(self, request: ChatRequest) -> Reply:
        self.asked[request.id] = request
        return await self.inner.chat(request)

    async def aclose(self) -> None:
        await self.inner.aclose()


@dataclasses.dataclass
class Speed:
    """Tokens and seconds of one pass."""

    requests: int
    input_tokens: int
    output_tokens: int
    seconds: float

    @property
    def output_per_s(self) -> float:
        return self.output_tokens / self.seconds

    def to_dict(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "seconds": round(self.seconds, 3),
            "output_tokens_per_s": round(self.output_per_s, 2),
            "all_tokens_per_s": round((self.input_tokens + self.output_tokens) / self.seconds, 2),
        }


@dataclasses.dataclass(frozen=True)
class Setup:
    graph: AgentGraph
    task: Task
    model: str
    url: str
    options: RunOptions
    concurrency: int
    batch: int

    @property
    def name(self) -> str:
        return self.model.partition("/")[2]


def marked(graph: AgentGraph, mark: str) -> AgentGraph:
    return AgentGraph(graph.agents, graph.edges, graph.decision, graph.rounds, f"[{mark}] {graph.system}")


async def through_graph(setup: Setup, mark: str) -> tuple[Speed, list[list[ChatRequest]]]:
    """One evaluation; also the requests it made, by item, in the order in which they were sent."""
    recorder = Recorder(setup.options.resolver()(setup.model))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = await evaluate(
            marked(setup.graph, mark), setup.task, recorder, out=Path(folder) / "run", options=setup.options
        )
        seconds = time.perf_counter() - began
    await recorder.aclose()
    if run.failed or run.stopped:
        raise SystemExit(f"the evaluation failed: {run.stopped or run.episodes[0].failure}")
    usage: UsageReport = run.usage
    rows = sorted(usage.rows, key=lambda r: r.started_at)
    by_item: dict[str, list[ChatRequest]] = {}
    for row in rows:
        by_item.setdefault(row.item, []).append(recorder.asked[row.request_id])
    return Speed(usage.calls, usage.input_tokens, usage.output_tokens, seconds), list(by_item.values())


async def by_hand(
    setup: Setup, groups: Sequence[Sequence[ChatRequest]], old: str, new: str, side_by_side: int
) -> Speed:
    """Each group's requests one after another, so many groups at a time, over plain HTTP."""
    speed = Speed(0, 0, 0, 0.0)
    key = os.environ.get(setup.options.api_key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=side_by_side, max_keepalive_connections=side_by_side)
    queue = iter(groups)

    async def work(client: httpx.AsyncClient) -> None:
        for group in queue:
            for request in group:
                body: dict[str, Any] = {
                    "model": setup.name,
                    "messages": [
                        {**m.as_dict(), "content": m.content.replace(f"[{old}]", f"[{new}]", 1)}
                        for m in request.messages
                    ],
                    "temperature": request.temperature,
                    "max_tokens": request.max_tokens,
                    "seed": request.seed,
                }
                reply = await client.post(f"{setup.url}/chat/completions", json=body)
                reply.raise_for_status()
                usage = reply.json()["usage"]
                speed.requests += 1
                speed.input_tokens += usage["prompt_tokens"]
                speed.output_tokens += usage["completion_tokens"]

    async with httpx.AsyncClient(
        headers=headers, limits=limits, timeout=setup.options.timeout_s, trust_env=False
    ) as client:
        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for _ in range(min(side_by_side, len(groups))):
                tasks.start_soon(work, client)
        speed.seconds = time.perf_counter() - began
    return speed


async def measure(setup: Setup, repeats: int, loop_items: int) -> dict[str, Any]:
    passes: dict[str, list[Speed]] = {"graph": [], "direct": [], "loop": []}
    few = dataclasses.replace(setup.task, items=setup.task.items[: setup.concurrency])
    await through_graph(dataclasses.replace(setup, task=few), "warm-up")
    for n in range(repeats):
        first, second, third = (f"pass {100 + 3 * n + k}" for k in range(3))
        speed, by_item = await through_graph(setup, first)
        passes["graph"].append(speed)
        single = [[request] for group in by_item for request in group]
        passes["direct"].append(await by_hand(setup, single, first, second, setup.concurrency))
        passes["loop"].append(await by_hand(setup, by_item[:loop_items], first, third, setup.batch))

    def ratios(a: str, b: str) -> list[float]:
        pairs = zip(passes[a], passes[b], strict=True)
        return [round(x.output_per_s / y.output_per_s, 3) for x, y in pairs]

    against = ratios("graph", "direct")
    return {
        "graph_against_direct": round(statistics.median(against), 3),
        "graph_against_direct_by_repeat": against,
        "target": TARGET,
        "reached": statistics.median(against) >= TARGET,
        "graph_against_loop": round(statistics.median(ratios("graph", "loop")), 3),
        "passes": {name: [s.to_dict() for s in speeds] for name, speeds in passes.items()},
    }


# -- the fake server: fixed latency, so many requests at a time ------------------------------------


def serve(latency_s: float, slots: int, words: int) -> None:
    """A loopback server as in tests/servers.py, until stdin is closed; prints its port."""
    sys.path.insert(0, str(HERE.parent))
    from tests.servers import CountingServer

    free = threading.Semaphore(slots)

    def reply(request: dict[str, Any]) -> str:
        with free:
            time.sleep(latency_s)
        return " ".join(["word"] * min(words, request.get("max_tokens") or words))

    with CountingServer(model=FAKE_MODEL, reply=reply) as server:
        print(server.port, flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def fake(latency_s: float, slots: int, words: int) -> Iterator[str]:
    # A process of its own: a server in ours would wait for the same interpreter.
    command = [sys.executable, __file__, "--serve", str(latency_s), str(slots), str(words)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.communicate("")


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE
    )
    return done.stdout.strip() or "unknown"


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="openai/NAME of a server that is running")
    parser.add_argument("--base-url", help="where it answers (…/v1)")
    parser.add_argument("--fake", action="store_true", help="a loopback server of fixed latency instead")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds a fake reply takes")
    parser.add_argument(
        "--concurrency", type=int, default=16, help="requests that the server works on at a time"
    )
    parser.add_argument("--graph", default="solver_critic_judge")
    parser.add_argument("--task", default="records")
    parser.add_argument("--data", help="folder with the task's files")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--loop-items", type=int, help="items of the loop, which is slow; default: all")
    parser.add_argument("--batch", type=int, default=4, help="items at a time in the loop")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--executor", default="langgraph")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    if args.fake == bool(args.model) or (args.model and not args.base_url):
        parser.error("give --model and --base-url of a running server, or --fake")
    with contextlib.ExitStack() as stack:
        url = args.base_url or stack.enter_context(fake(args.latency, args.concurrency, args.max_tokens))
        setup = Setup(
            graph=load_graph(args.graph),
            task=load_task(args.task, {"limit": args.items, **({"data": args.data} if args.data else {})}),
            model=args.model or f"openai/{FAKE_MODEL}",
            url=url.rstrip("/"),
            options=RunOptions(
                base_url=url,
                max_tokens=args.max_tokens,
                max_concurrency=args.concurrency,
                executor=args.executor,
                timeout_s=600.0,
            ),
            concurrency=args.concurrency,
            batch=args.batch,
        )
        figures = anyio.run(measure, setup, args.repeats, args.loop_items or args.items)
    result = {
        "command": " ".join(["python eval/throughput.py", *sys.argv[1:]]),
        "commit": commit(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "server": "fake: fixed latency" if args.fake else args.model,
        "graph": args.graph,
        "task": args.task,
        "items": len(setup.task.items),
        "concurrency": args.concurrency,
        **figures,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
