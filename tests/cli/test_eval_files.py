"""``agentcomm eval`` with the files it is given: caches, checkpoints, replays, JSON graphs, prices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import CALLS_PER_ITEM, agentcomm, write
from tests.servers import CountingServer, hang, status


@pytest.mark.parametrize("option", ["--cache", "--checkpoint", "--prices"])
@pytest.mark.parametrize("kind", ["a folder", "another file", "no such folder"])
def test_a_file_that_is_not_what_the_option_wants_is_refused(
    option: str, kind: str, team: Path, sums: Path
) -> None:
    Path("folder").mkdir()
    Path("other").write_text("This is a letter, not what the option wants. " * 50)
    where = {"a folder": "folder", "another file": "other", "no such folder": "other/x/file"}[kind]
    done = agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "run", option, where)
    assert done.code == 2, done
    assert where in done.complaint
    assert Path("other").read_text().startswith("This is a letter")


def test_a_replay_gives_the_same_answers_and_costs_nothing(team: Path, sums: Path) -> None:
    with CountingServer() as server:
        first = agentcomm("eval", team, sums, "--model", "openai/test-model", "--base-url", server.url,
                          "--out", "one", "--json").json  # fmt: skip
    again = agentcomm("eval", team, sums, "--model", "replay/one", "--out", "two", "--json")
    assert again.code == 0, again.err
    assert (again.json["calls"], again.json["cache_hits"]) == (0, first["calls"])
    assert again.json["tokens"]["input"] == 0
    one, two = (json.loads(Path(out, "results.json").read_text())["episodes"] for out in ("one", "two"))
    assert [e["answer"] for e in one] == [e["answer"] for e in two]


def test_a_graph_as_json_runs_like_the_file_it_came_from(team: Path, sums: Path) -> None:
    Path("team.json").write_text(agentcomm("graph", team, "--json").out)
    runs = [agentcomm("eval", g, sums, "--model", "mock/echo", "--out", f"{i}", "--json").json
            for i, g in enumerate((team, Path("team.json")))]  # fmt: skip
    assert runs[0]["tokens"] == runs[1]["tokens"]
    for text in ("{", "[]", '{"agents": 5}', '{"agents": [{"name": "a", "colour": 1}], "decision": "a"}', '{"agents": [{}]}',
                 '{"agents": [{"name": "a"}], "edges": [["a"]], "decision": "a"}', "\x00", "null"):  # fmt: skip
        Path("bad.json").write_text(text)
        done = agentcomm("eval", "bad.json", sums, "--model", "mock/echo")
        assert done.code == 2, text
        assert done.complaint


def test_a_price_gives_a_cost_and_a_limit_of_cost_stops_the_run(team: Path, sums: Path) -> None:
    Path("prices.toml").write_text('["mock/echo"]\ninput = 1000.0\noutput = 2000.0\n')
    words = ("eval", team, sums, "--model", "mock/echo", "--prices", "prices.toml", "--out", "run", "--json")
    stopped = agentcomm(*words, "--run-limit", "cost=0.2")
    assert stopped.code == 1
    assert "the run has reached its limit of cost" in stopped.json["stopped"]
    assert "--out run" in stopped.err
    done = agentcomm(*words, "--run-limit", "cost=20", "--run-limit", "calls=100")
    assert done.code == 0
    tokens = done.json["tokens"]
    assert done.json["cost"] == pytest.approx((tokens["input"] + 2 * tokens["output"]) / 1000)
    assert done.json["calls"] == 4 * CALLS_PER_ITEM


@pytest.mark.parametrize("limit", [1, 2])
def test_figures_of_few_items_are_json_too(limit: int, team: Path, sums: Path) -> None:
    done = agentcomm("eval", team, sums, "--model", "mock/echo", "--limit", f"{limit}", "--json")
    assert done.json["score"]["mean"] == 0.0


def test_a_run_in_which_everything_failed_has_no_score(team: Path, sums: Path) -> None:
    with CountingServer() as server:
        server.script(status(400), when=lambda r: True)
        words = ("eval", team, sums, "--model", "openai/test-model", "--base-url", server.url, "--out", "run")
        done = agentcomm(*words, "--json")
        assert done.code == 1
        assert (done.json["scored"], done.json["failed"], done.json["score"]["mean"]) == (0, 4, None)
        assert done.json["tokens"]["input"] == 0
        assert done.json["failed_calls"] == done.json["calls"] == server.tokens.requests
        assert agentcomm(*words).code == 1


def test_a_server_that_hangs_is_given_up_after_the_timeout(sums: Path) -> None:
    with CountingServer() as server:
        server.script(hang(), when=lambda r: "plus 1" in str(r["messages"]))
        done = agentcomm("eval", "single", sums, "--model", "openai/test-model", "--base-url", server.url,
                         "--timeout", "0.3", "--retries", "1", "--json")  # fmt: skip
    assert done.code == 1
    assert (done.json["scored"], done.json["failed"]) == (3, 1)
    assert "did not answer within 0.3 s" in done.err


def test_a_server_that_dies_while_items_run_ends_with_1_and_the_run_continues(team: Path, sums: Path) -> None:
    with CountingServer() as server:
        server.script(status(503), when=lambda r: len(server.served) >= 9)
        words = ("eval", team, sums, "--model", "openai/test-model", "--base-url", server.url, "--out", "run",
                 "--retries", "1", "--concurrency", "1", "--json")  # fmt: skip
        first = agentcomm(*words)
        assert first.code == 1
        server.forgive()
        done = agentcomm(*words)
        assert done.code == 0
        assert done.json["scored"] == 4
        assert done.json["calls"] == server.tokens.requests
        assert done.json["calls"] - done.json["failed_calls"] == 4 * CALLS_PER_ITEM


@pytest.mark.parametrize(
    ("model", "said"),
    [("gpt-5", "unknown model 'gpt-5'"), ("openai/nosuch", "'nosuch'"), ("local/nosuch.gguf", "nosuch.gguf")],
)
def test_a_wrong_model_of_one_agent_is_refused_before_anything_is_paid(
    model: str, said: str, tmp_path: Path, sums: Path
) -> None:
    graph = write(
        tmp_path,
        "g.py",
        f"""
        import agentcomm as ac
        graph = ac.AgentGraph([ac.Agent("a"), ac.Agent("b", model={model!r})], [("a", "b")], decision="b")
        """,
    )
    with CountingServer() as server:
        done = agentcomm(
            "eval", graph, sums, "--model", "openai/test-model", "--base-url", server.url, "--out", "r"
        )
        assert server.served == []
    assert done.code == 2
    assert said in done.complaint


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ("[]", "no items"),
        ("[ac.Item('a', 'Hm?'), ac.Item('a', 'Well?')]", "two items with id 'a'"),
        ("[5]", "5"),
        ("5", "Task"),
    ],
)
def test_a_task_without_usable_items_is_refused(items: str, said: str, team: Path, tmp_path: Path) -> None:
    text = (
        f"import agentcomm as ac\ndef task():\n    return ac.Task('t', {items}, lambda i, t: ac.Score(1.0))\n"
    )
    done = agentcomm("eval", team, write(tmp_path, "t.py", text), "--model", "mock/echo")
    assert done.code == 2
    assert said in done.complaint or "t.py" in done.complaint
