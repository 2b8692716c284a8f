"""``agentcomm run``: one question, the conversation as it happens."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.command import CALLS_PER_ITEM, SECRET, agentcomm, finish, start, wait_until, write
from tests.servers import CountingServer, status


def test_json_prints_one_object_with_the_conversation_and_what_it_cost(team: Path) -> None:
    with CountingServer() as server:
        words = ("run", team, "What is 6 times 7?", "--model", "openai/test-model", "--base-url", server.url)
        done = agentcomm(*words, "--json")
        assert (done.code, done.err) == (0, "")
        told = server.tokens
    said = done.json
    assert said["answer"] == said["turns"][-1]["text"]
    assert [(t["round"], t["agent"]) for t in said["turns"]] == [
        (1, "solver"), (1, "critic"), (2, "solver"), (2, "critic"), (2, "judge"),
    ]  # fmt: skip
    assert said["turns"][2]["reads"] == ["critic"]
    usage = said["usage"]
    assert (usage["calls"], usage["input_tokens"], usage["output_tokens"]) == told


def test_a_person_sees_who_says_what_to_whom_and_the_tokens_of_each_edge(team: Path) -> None:
    done = agentcomm("run", team, "What is 6 times 7?", "--model", "mock/echo")
    assert done.code == 0
    places = [
        done.out.index(text)
        for text in ("solver round 1", "critic round 1", "solver round 2", "judge round 2")
    ]
    assert places == sorted(places)
    assert "reads solver->critic" in done.out
    assert f"in {CALLS_PER_ITEM} calls" in done.out
    assert done.out.rindex("critic->solver") > done.out.index("answer:")


def test_a_question_can_come_from_a_task(team: Path, sums: Path) -> None:
    words = ("run", team, "--task", sums, "--model", "mock/echo")
    assert "What is 2 plus 2?" in agentcomm(*words, "--item", "3", "--json").json["question"]
    for item in ("0", "5"):
        done = agentcomm(*words, "--item", item)
        assert done.code == 2
        assert "items 1 to 4" in done.complaint
    assert "not both" in agentcomm(*words[:2], "Hm?", *words[2:]).complaint


def test_an_agent_that_is_cut_makes_no_call_and_reaches_nobody(team: Path) -> None:
    with CountingServer() as server:
        done = agentcomm("run", team, "What is 6 times 7?", "--model", "openai/test-model", "--base-url", server.url,
                         "--cut", "critic", "--json")  # fmt: skip
        assert {t["agent"] for t in done.json["turns"]} == {"solver", "judge"}
        assert not any("ritic" in str(s.request) for s in server.served)
        assert len(server.served) == 3


def test_a_decision_that_fails_ends_with_1_and_says_why(team: Path) -> None:
    with CountingServer() as server:
        server.script(status(400), when=lambda r: "\n\nJudge." in r["messages"][-1]["content"])
        words = ("run", team, "Hm?", "--model", "openai/test-model", "--base-url", server.url)
        done = agentcomm(*words, "--json")
        assert done.code == 1
        assert done.json["answer"] is None
        assert "scripted 400" in done.json["failure"]
        assert done.err.startswith("failed: judge: refused")
        assert agentcomm(*words).code == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{team}"], "nothing to ask"),
        (["{team}", "   ", "--model", "mock/echo"], "question is empty"),
        (["{team}", "Hm?"], "--model"),
        (["{team}", "Hm?", "--model", "openai/x", "--base-url", "http://127.0.0.1:9/v1"], "127.0.0.1:9"),
        (["{team}", "Hm?", "--model", "openai/x", "--api-key-env", "NO_KEY"], "NO_KEY"),
        (["{team}", "Hm?", "--model", "mock/echo", "--item-limit", "calls=x"], "--item-limit calls=x"),
        (["{team}", "Hm?", "--model", "mock/echo", "--agent-limit", "cost=1"], "price of 'mock/echo'"),
        (["{team}", "Hm?", "--model", "mock/echo", "--cut", "judge"], "judge"),
        (["{team}", "Hm?", "--model", "replay/nothing"], "nothing"),
        (["{team}", "Hm?", "--model", "scripted/nothing.json"], "nothing.json"),
    ],
)
def test_mistakes_are_told_in_one_sentence_with_code_2(words: list[str], said: str, team: Path) -> None:
    done = agentcomm("run", *(w.format(team=team) for w in words), env={"OPENAI_API_KEY": SECRET})
    assert done.code == 2
    assert said in done.complaint
    assert SECRET not in done.out + done.err


def test_a_word_that_no_option_has_is_refused_with_code_2(team: Path) -> None:
    done = agentcomm("run", team, "Hm?", "--modell", "mock/echo")
    assert done.code == 2
    assert "--modell" in done.err
    assert "Traceback" not in done.err


def test_ctrl_c_ends_with_130(team: Path, tmp_path: Path) -> None:
    with CountingServer(latency_s=5) as server:
        server.stopping.clear()
        process = start("run", team, "Hm?", "--model", "openai/test-model", "--base-url", server.url, "--executor",
                        "plain", cwd=tmp_path)  # fmt: skip
        wait_until(lambda: server.peak > 0, process)
        process.send_signal(signal.SIGINT)
        done = finish(process)
    assert done.code == 130
    assert "interrupted" in done.err
    assert "Traceback" not in done.err


def test_a_reader_that_goes_away_is_not_an_error(tmp_path: Path, team: Path) -> None:
    write(tmp_path, "long.json", '{"default": "' + "word " * 20_000 + '"}')
    process = start("run", team, "Hm?", "--model", "scripted/long.json", "--executor", "plain", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(60)
    assert "Traceback" not in errors
    assert "Exception" not in errors
