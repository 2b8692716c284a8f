"""Runs for the report's tests: small and large teams, hostile words, retries, made by the shipped doubles."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import anyio

from agentcomm.backends.base import Backend, ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.channels import truncate
from agentcomm.errors import BackendError
from agentcomm.evaluation.run import TopologyOf, evaluate
from agentcomm.graph import Agent, AgentGraph, Edge
from agentcomm.ledger.rows import EpisodeRow
from agentcomm.ledger.store import Ledger
from agentcomm.task import Item, Score, Task

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<!--<script>",
    "line\u2028separator\u2029end",
    "half \ud800 pair",
    "right to left \u202egnp.exe\u202c done",
    "nul \x00 bell \x07 escape \x1b[31m",
    "{{7*7}} ${7*7} &lt;b&gt; ]]> javascript:alert(1)",
)
"""Texts that a careless page would run, break on or be turned around by."""

ROUNDS = 2

TEAM = AgentGraph(
    [
        Agent("solver", role="Solve the task step by step. End with 'Answer: N'.", view="facts"),
        Agent("critic", role="Find the first mistake in the solution."),
        Agent("checker", role="Compute the result in another way."),
        Agent("judge", role="Give the final answer. End with 'Answer: N'."),
    ],
    [
        Edge("solver", "critic"),
        Edge("solver", "judge", channel=truncate(120)),
        Edge("critic", "judge"),
        Edge("checker", "judge"),
        Edge("critic", "solver", "temporal"),
        Edge("checker", "solver", "temporal"),
    ],
    decision="judge",
    rounds=ROUNDS,
    system="You are part of a team that works on one task.",
)
SINGLE = AgentGraph([Agent("solo", role="Solve the task. End with 'Answer: N'.")], decision="solo")

THINGS = ("apples", "tickets", "marbles", "pages", "coins", "letters")


def numbers(n: int = 40) -> Task:
    """Additions with a fact that only one agent sees."""
    items = [
        Item(
            f"q{i:05d}",
            f"Mira has {i} {THINGS[i % 6]} and is given {i % 7} more. How many {THINGS[i % 6]} has she now?",
            answer=str(i + i % 7),
            views={"facts": f"It is known that Mira had exactly {i} before."},
        )
        for i in range(n)
    ]

    def score(item: Item, answer: str) -> Score:
        said = answer.rsplit("Answer:", 1)[-1].strip()
        return Score(float(said == item.answer), said)

    return Task("numbers", items, score)


def answering(right: Callable[[int], bool], *, fail: Callable[[int], bool] = lambda i: False) -> Scripted:
    """Says what an agent of its role might say; the number is right where ``right``."""

    def reply(request: ChatRequest) -> str | Exception:
        prompt = "\n".join(m.content for m in request.messages)
        words = prompt.split("Mira has ")[1].split()
        i, more = int(words[0]), int(words[5])
        result = i + more if right(i) else i - more - 1
        if "Find the first mistake" in prompt:
            return "No mistake found: the two numbers are added, and the sum is as it should be."
        if "in another way" in prompt:
            return (
                f"Counting up from {i}, {more} steps: " + ", ".join(str(i + k) for k in range(more + 1)) + "."
            )
        if fail(i) and "final answer" in prompt:
            return BackendError("the prompt was refused by a filter", kind="refused")
        if "final answer" in prompt:
            return f"Both ways agree. Answer: {result}"
        return (
            f"Mira starts with {i}. She is then given {more} more, which has to be added to what she has.\n"
            f"So the number at the end is {i} + {more} = {result}. Let me check: {result} - {more} = {result - more}, "
            f"which is what she had at the beginning.\nAnswer: {result}"
        )

    return Scripted(reply)


def make(
    path: Path,
    graph: AgentGraph,
    task: Task,
    model: Backend,
    *,
    topology: TopologyOf = None,
    samples: int = 1,
    **options: Any,
) -> Path:
    """A run directory, made with the plain executor and without waits."""
    from agentcomm.calls import Retry

    async def go() -> None:
        await evaluate(
            graph,
            task,
            model,
            out=path,
            topology=topology,
            samples=samples,
            executor="plain",
            retry=Retry(attempts=3, scale=0.0),
            **options,
        )

    anyio.run(go)
    return path


def hostile(path: Path, n: int = 8) -> Path:
    """A run in which ids, names, questions and replies are hostile."""
    graph = AgentGraph(
        [Agent("<b>bold</b>", role=HOSTILE[0]), Agent('" onload="x', role=HOSTILE[1])],
        [Edge("<b>bold</b>", '" onload="x')],
        decision='" onload="x',
        system=HOSTILE[2],
    )
    items = [Item(f"id {i} {HOSTILE[i % 8]}", HOSTILE[i % 8], answer=HOSTILE[(i + 1) % 8]) for i in range(n)]
    task = Task("</title><script>", items, lambda item, answer: Score(0.0, answer))
    return make(path, graph, task, Scripted(lambda request: "\n".join(HOSTILE)))


def ten_thousand(path: Path) -> Path:
    """A run of 10,000 items of which every third is wrong; their calls are not in it, to be quick."""
    make(path, SINGLE, numbers(1), answering(lambda i: True))
    items = [f"q{i:05d}" for i in range(10_000)]
    (path / "items.json").write_text(json.dumps(dict.fromkeys(items, "0" * 64)), encoding="utf-8")

    async def go() -> None:
        with Ledger.open(path / "ledger.sqlite") as ledger:
            async with anyio.create_task_group() as group:
                for i, item in enumerate(items):
                    row = EpisodeRow(
                        item, 0, "ok", f"Answer: {i}", float(i % 3 != 2), str(i), None, 0.1, float(i)
                    )
                    group.start_soon(ledger.record_episode, row)

    anyio.run(go)
    return path


def bulky(path: Path, n: int) -> Path:
    """A run of SINGLE whose replies hardly compress; item 7 failed."""

    def words(request: ChatRequest) -> str | Exception:
        asked = str(request.messages[-1].content)
        if " 7 " in asked:
            return BackendError("no", kind="refused")
        digest = hashlib.sha512(asked.encode()).hexdigest()
        return " ".join(hashlib.sha512(f"{digest}{i}".encode()).hexdigest() for i in range(40))

    return make(path, SINGLE, numbers(n), Scripted(words))


class Opened:
    """A report as its script sees it."""

    def __init__(self, path: Path) -> None:
        self.html = path.read_text(encoding="utf-8")
        parser = _Scripts()
        parser.feed(self.html)
        parser.close()
        self.tags = parser.tags
        self.scripts = parser.scripts
        """Content of each script element, by its id (``""`` for the one that runs)."""
        self.facts = json.loads(self.scripts["facts"])
        self.table = self._unpack("table")
        self.where = self._unpack("where")

    def _unpack(self, name: str) -> Any:
        return json.loads(gzip.decompress(base64.b64decode(self.scripts[name])))

    def rows(self, run: int, column: str) -> list[Any]:
        return list(self.table["runs"][run][column])

    def conversation(self, row: int) -> dict[str, Any] | None:
        chunk, index = self.where[0][row], self.where[1][row]
        return None if chunk < 0 else self._unpack(f"chunk-{chunk}")[index]


class _Scripts(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.scripts: dict[str, str] = {}
        self._open: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag == "script":
            self._open = dict(attrs).get("id") or ""
            assert self._open not in self.scripts
            self.scripts[self._open] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.scripts[self._open] += data
