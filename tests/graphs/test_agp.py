"""The published teams: who is in them, who reads whom, and that the last word is an answer."""

from __future__ import annotations

import gzip
import json
from itertools import combinations
from pathlib import Path

import pytest

import agentcomm as ac
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted, count_words
from agentcomm.loading import load_graph, load_task
from agentcomm.message import EdgeKey
from agentcomm.pruning.pool import Pool
from tests.command import agentcomm
from tests.tasks.test_benchmarks import HUMANEVAL

pytestmark = pytest.mark.anyio

POOLS = {
    "agp_math": ["solver", "analyst", "programmer", "inspector"],
    "agp_code": ["manager", "designer", "programmer", "tester", "runner", "fixer"],
    "agp_general": ["expert", "critic", "mathematician", "psychologist", "historian", "doctor", "lawyer",
                    "economist", "programmer"],
}  # fmt: skip


@pytest.mark.parametrize("name", POOLS)
def test_everybody_reads_all_before_them_and_the_decision_agent_reads_everybody(name: str) -> None:
    graph = load_graph(name)
    assert list(Pool(graph).names) == POOLS[name]
    assert set(graph.by_key) == {EdgeKey(a, b, "spatial") for a, b in combinations(graph.names, 2)}
    assert (graph.rounds, graph.names[-1]) == (1, graph.decision)


@pytest.mark.parametrize("name", POOLS)
def test_in_further_rounds_they_also_read_what_all_others_said_before(name: str) -> None:
    graph = load_graph(name, {"rounds": 3, "max_tokens": 9})
    pool = set(POOLS[name])
    temporal = {(e.sender, e.reader) for e in graph.edges if e.kind == "temporal"}
    assert temporal == {(a, b) for a in pool for b in pool if a != b}
    assert {a.max_tokens for a in graph.agents if a.act is None} == {9}
    assert load_graph(name, {"rounds": 3, "max_tokens": 9}) == graph


@pytest.mark.parametrize("name", POOLS)
def test_roles_are_short_and_tell_the_agents_apart(name: str) -> None:
    roles = [a.role for a in load_graph(name).agents if a.act is None]
    assert max(map(count_words, roles)) <= 25
    assert len(set(roles)) == len(roles)


@pytest.mark.parametrize("name", POOLS)
def test_the_command_shows_them(name: str) -> None:
    done = agentcomm("graph", name)
    assert done.code == 0
    assert f"{len(POOLS[name]) + 1} agents" in done.out
    assert all(agent in done.out for agent in POOLS[name])
    calls = len([a for a in POOLS[name] if a != "runner"]) + 1
    assert f"an item costs {calls} model calls" in done.out


def test_a_team_of_programmers_without_a_runner_has_the_five_published_roles() -> None:
    assert list(Pool(load_graph("agp_code", {"runner": False})).names) == [
        "manager", "designer", "programmer", "tester", "fixer",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "task", "row", "answer"),
    [
        (
            "agp_math",
            "gsm8k",
            {"question": "What is 2 times 21?", "answer": "2*21=42 #### 42"},
            "So\n#### 42",
        ),
        (
            "agp_general",
            "arc_challenge",
            {
                "id": "q",
                "question": "Which one floats?",
                "choices": {"text": ["wood", "iron"], "label": ["A", "B"]},
                "answerKey": "A",
            },
            "Wood does.\nAnswer: A",
        ),
    ],
)
async def test_what_the_judge_says_is_read_as_the_answer(
    tmp_path: Path, name: str, task: str, row: dict[str, object], answer: str
) -> None:
    folder = tmp_path / task
    folder.mkdir()
    (folder / "test.jsonl").write_text(json.dumps(row))
    work = load_task(task, {"data": str(tmp_path), "split": "all"})
    graph = load_graph(name)
    judge = graph.by_name["judge"].role
    model = Scripted({judge: answer, "": "I don't know."})
    run = await ac.evaluate(graph, work, model)
    assert run.episodes[0].score == 1.0
    asked = model.requests[-1].messages[-1].content
    assert work.items[0].question in asked and asked.index(judge) < asked.index("I don't know.")


RIGHT = "```python\nimport math\ndef area(r):\n    return math.sqrt(r)\n```"
WRONG = RIGHT.replace("sqrt(r)", "sqrt(r) + 1")


@pytest.fixture
def humaneval(tmp_path: Path) -> ac.Task:
    folder = tmp_path / "humaneval"
    folder.mkdir()
    (folder / "HumanEval.jsonl.gz").write_bytes(gzip.compress(json.dumps(HUMANEVAL).encode()))
    return load_task("humaneval", {"data": str(tmp_path), "split": "all"})


async def test_the_fixer_and_the_writer_read_what_came_of_the_public_examples(humaneval: ac.Task) -> None:
    graph = load_graph("agp_code")
    heard: dict[str, str] = {}

    def say(request: ChatRequest) -> str:
        prompt = request.messages[-1].content
        (who,) = [a.name for a in graph.agents if a.role and a.role in prompt]
        heard[who] = prompt
        return {"programmer": WRONG, "fixer": RIGHT, "writer": RIGHT}.get(who, "Mind the root.")

    run = await ac.evaluate(graph, humaneval, Scripted(say))
    assert run.episodes[0].score == 1.0
    report = (
        "From runner:\nprogrammer's code fails 1 of 1 examples of the task:\narea(4) gives 3.0, not 2.0\n"
    )
    for name in ("fixer", "writer"):
        assert report.strip() in heard[name]
    # The hidden test asks for area(9); no prompt does.
    assert not any("9" in prompt for prompt in heard.values())
    assert run.usage.calls == 6


async def test_a_runner_that_reads_no_code_is_not_heard(humaneval: ac.Task) -> None:
    graph = load_graph("agp_code")
    model = Scripted({"": "No code today."})
    run = await ac.evaluate(graph, humaneval, model)
    assert (run.episodes[0].status, run.episodes[0].score) == ("ok", 0.0)
    assert not any("From runner" in r.messages[-1].content for r in model.requests)
