"""The report's data: what is counted, what is kept, and that no text in it can become markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.errors import BackendError, ConfigError
from agentcomm.evaluation.page import as_json, packed
from agentcomm.evaluation.report import Written, write_report
from agentcomm.evaluation.report_facts import FAILED, NOT_RUN, OK
from agentcomm.evaluation.report_texts import LONGEST
from agentcomm.evaluation.run import Progress
from agentcomm.graph import Agent, AgentGraph, Edge
from agentcomm.ledger.limits import Limits
from agentcomm.ledger.rows import CallRow
from agentcomm.ledger.store import Ledger
from agentcomm.message import Reply, Usage
from agentcomm.task import Item, Task
from tests.command import agentcomm
from tests.reports import HOSTILE, SINGLE, TEAM, Opened, answering, bulky, hostile, make, numbers


def report(*runs: Path, **options: Any) -> Opened:
    out = runs[0].parent / "report.html"
    write_report(runs, out, **options)
    return Opened(out)


# -- numbers


def test_what_the_report_counts_is_what_the_ledger_counts(tmp_path: Path) -> None:
    run = make(tmp_path / "team", TEAM, numbers(12), answering(lambda i: i % 3 > 0, fail=lambda i: i == 7))
    (facts,) = report(run).facts["runs"]
    with Ledger.open(run / "ledger.sqlite") as ledger:
        usage = ledger.usage()
    assert (facts["input"], facts["output"]) == (usage.input_tokens, usage.output_tokens)
    assert (facts["calls"], facts["failed_calls"], facts["unknown_calls"]) == (
        usage.calls,
        usage.failed_calls,
        usage.unknown_calls,
    )
    assert sum(facts["parts"].values()) == usage.input_tokens
    assert facts["parts"] == {k: v for k, v in usage.by_part().items() if v}
    by_pair: dict[str, int] = {}
    for edge in facts["edges"]:
        ends = f"{facts['agents'][edge['sender']]['name']}->{facts['agents'][edge['reader']]['name']}"
        by_pair[ends] = by_pair.get(ends, 0) + edge["tokens"]
    assert by_pair == usage.by_edge()
    by_agent = {a["name"]: (a["calls"], a["input"], a["output"]) for a in facts["agents"]}
    assert by_agent == {n: (g.calls, g.input, g.output) for n, g in usage.by_agent().items()}


def test_rows_hold_each_items_score_tokens_and_failures(tmp_path: Path) -> None:
    run = make(tmp_path / "team", TEAM, numbers(10), answering(lambda i: i != 4, fail=lambda i: i == 7))
    opened = report(run)
    assert opened.table["item"] == [f"q{i:05d}" for i in range(10)]
    assert opened.rows(0, "state") == [FAILED if i == 7 else OK for i in range(10)]
    assert opened.rows(0, "score") == [None if i == 7 else float(i != 4) for i in range(10)]
    assert opened.rows(0, "failed_calls")[7] == opened.rows(0, "unknown")[7] == 1
    facts = opened.facts["runs"][0]
    assert sum(opened.rows(0, "input")) == facts["input"]
    assert (facts["scored"], facts["failed"], facts["score"]) == (9, 1, pytest.approx(8 / 9))
    assert opened.table["question"][3].startswith("Mira has 3 pages")


def test_replies_from_a_cache_cost_nothing(tmp_path: Path) -> None:
    hit = Reply("Answer: 0", Usage(5, 2), cache_hit=True)
    opened = report(make(tmp_path / "solo", SINGLE, numbers(3), Scripted(lambda r: hit)))
    (facts,) = opened.facts["runs"]
    assert (facts["cache_hits"], facts["calls"], facts["input"], facts["parts"]) == (3, 0, 0, {})
    assert opened.rows(0, "input") == [0, 0, 0] and facts["agents"][0]["calls"] == 0


def test_samples_are_rows_of_their_own(tmp_path: Path) -> None:
    opened = report(make(tmp_path / "solo", SINGLE, numbers(3), answering(lambda i: True), samples=2))
    assert opened.table["item"] == ["q00000", "q00000", "q00001", "q00001", "q00002", "q00002"]
    assert opened.table["sample"] == [0, 1] * 3


def test_runs_are_compared_on_the_rows_that_all_scored(tmp_path: Path) -> None:
    a = make(tmp_path / "a", TEAM, numbers(20), answering(lambda i: i < 10, fail=lambda i: i == 19))
    b = make(tmp_path / "b", SINGLE, numbers(25), answering(lambda i: i < 15))
    opened = report(a, b)
    first, second = opened.facts["runs"]
    assert first["point"]["rows"] == second["point"]["rows"] == 19
    assert second["point"]["front"] and not first["point"]["front"]
    assert second["against"]["mean"] == pytest.approx(5 / 19) and second["against"]["saved"] > 0.5
    assert len(opened.table["item"]) == 25 and opened.rows(0, "state")[20:] == [0] * 5


def test_runs_without_a_common_row_are_shown_but_not_compared(tmp_path: Path) -> None:
    other = Task("numbers", [Item("q00000", "Mira has 3 pens and is given 4 more.", "7")], numbers(1).score)
    a = make(tmp_path / "a", SINGLE, numbers(1), answering(lambda i: True))
    b = make(tmp_path / "b", SINGLE, other, answering(lambda i: True))
    opened = report(a, b)
    assert opened.table["item"] == ["q00000", "q00000"]  # the same id, two questions
    assert not opened.facts["runs"][1]["point"]["shared"] and opened.facts["runs"][1]["against"] is None


# -- the graph


def test_what_was_cut_is_marked_and_has_no_tokens(tmp_path: Path) -> None:
    cut = TEAM.topology(without_agents=["checker"])
    run = make(tmp_path / "cut", TEAM, numbers(3), answering(lambda i: True), topology=cut)
    (facts,) = report(run).facts["runs"]
    dead = [e for e in facts["edges"] if e["alive"] == 0]
    assert {facts["agents"][e["sender"]]["name"] for e in dead} == {"checker"} and len(dead) == 2
    assert all(e["tokens"] == e["messages"] == 0 for e in dead)
    assert [a["alive"] for a in facts["agents"]] == [1, 1, 0, 1]
    assert facts["topology"] == "cut"


def test_a_topology_chosen_for_each_item_gives_shares(tmp_path: Path) -> None:
    def choose(item: Item) -> Any:
        return TEAM.topology(without_agents=["checker"] if item.id in ("q00000", "q00002") else [])

    run = make(tmp_path / "some", TEAM, numbers(4), answering(lambda i: True), topology=choose)
    opened = report(run)
    (facts,) = opened.facts["runs"]
    assert facts["agents"][2]["alive"] == 0.5 and facts["topology"] == "chosen for each item"
    talk = opened.conversation(0)
    assert talk is not None and len(talk["runs"][0]["cut"]) == 2


def test_an_edges_worth_comes_from_value_json_and_is_else_unknown(tmp_path: Path) -> None:
    run = make(tmp_path / "team", TEAM, numbers(2), answering(lambda i: True))
    value = {
        "what": "points",
        "edges": {"solver->critic": 0.2, "critic->solver temporal": {"worth": -0.1, "low": -0.2}},
    }
    (run / "value.json").write_text(json.dumps(value), encoding="utf-8")
    (facts,) = report(run).facts["runs"]
    assert [e["worth"] for e in facts["edges"]] == [0.2, None, None, None, -0.1, None]
    assert facts["edges"][4]["worth_low"] == -0.2 and facts["worth_of"] == "points"
    (given,) = report(run, values={"team": {"edges": {"solver->judge": 1.0}}}).facts["runs"]
    assert [e["worth"] for e in given["edges"]][:2] == [None, 1.0]


def test_a_broken_value_json_is_named(tmp_path: Path) -> None:
    run = make(tmp_path / "team", TEAM, numbers(1), answering(lambda i: True))
    for text in ("{", "[1]"):
        (run / "value.json").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"value\.json"):
            report(run)


# -- conversations


def test_a_conversation_has_what_each_agent_was_given_and_what_a_channel_changed(tmp_path: Path) -> None:
    opened = report(make(tmp_path / "team", TEAM, numbers(4), answering(lambda i: True)))
    talk = opened.conversation(3)
    assert talk is not None
    texts = talk["texts"]
    assert texts[talk["question"]].startswith("Mira has 3 pages") and texts[talk["answer"]] == "6"
    assert texts[talk["views"]["facts"]] == "It is known that Mira had exactly 3 before."
    turns = talk["runs"][0]["turns"]
    names = [opened.facts["runs"][0]["agents"][t["agent"]]["name"] for t in turns]
    assert [(t["round"], n) for t, n in zip(turns, names, strict=True)] == [
        (1, "solver"), (1, "checker"), (1, "critic"),
        (2, "solver"), (2, "checker"), (2, "critic"), (2, "judge"),
    ]  # fmt: skip
    (judged,) = turns[-1]["calls"]
    from_solver = judged["given"][0]
    assert len(texts[from_solver["text"]]) <= 120 < len(texts[from_solver["original"]])
    assert from_solver["channel"] == "truncate" and from_solver["tokens"] > 0
    assert sum(judged["parts"].values()) == judged["input"]
    assert texts[judged["reply"]].endswith("Answer: 6")


def test_retries_and_failures_are_in_the_conversation(tmp_path: Path) -> None:
    failures = iter([True, True, False])

    def reply(request: ChatRequest) -> str | Exception:
        return BackendError("busy", kind="rate_limit", retryable=True) if next(failures) else "done"

    opened = report(make(tmp_path / "solo", SINGLE, numbers(1), Scripted(reply)))
    talk = opened.conversation(0)
    assert talk is not None
    calls = talk["runs"][0]["turns"][0]["calls"]
    assert [c.get("error") for c in calls] == ["rate_limit", "rate_limit", None]
    assert calls[0]["why"] == "busy" and "input" not in calls[0]  # unknown, not zero
    failed = report(
        make(tmp_path / "bad", SINGLE, numbers(1), Scripted(lambda r: BackendError("no", kind="refused")))
    )
    broken = failed.conversation(0)
    assert broken is not None and "refused" in broken["runs"][0]["failure"]


def test_function_agents_words_are_shown_though_they_made_no_call(tmp_path: Path) -> None:
    async def look_up(turn: Any) -> str:
        return "found it"

    async def vote(turn: Any) -> str:
        return "voted"

    graph = AgentGraph(
        [Agent("finder", act=look_up), Agent("writer"), Agent("vote", act=vote)],
        [Edge("finder", "writer"), Edge("writer", "vote")],
        "vote",
    )
    opened = report(make(tmp_path / "mixed", graph, numbers(1), Scripted(lambda r: "written")))
    talk = opened.conversation(0)
    assert talk is not None
    turns = talk["runs"][0]["turns"]
    said = [talk["texts"][t["said"]] if "said" in t else talk["texts"][t["calls"][0]["reply"]] for t in turns]
    assert said == ["found it", "written", "voted"]


def test_a_long_text_is_cut_and_says_how_long_it_was(tmp_path: Path) -> None:
    long = "word " * LONGEST
    opened = report(make(tmp_path / "solo", SINGLE, numbers(1), Scripted(lambda r: long), max_tokens=100_000))
    talk = opened.conversation(0)
    assert talk is not None
    text, length, sha = talk["texts"][talk["runs"][0]["turns"][0]["calls"][0]["reply"]]
    assert len(text) == LONGEST and length == len(long)
    with Ledger.open(tmp_path / "solo" / "ledger.sqlite") as ledger:
        assert ledger.body(sha) == long


def test_a_text_read_by_many_is_in_the_file_once(tmp_path: Path) -> None:
    readers = [Agent(f"r{i}", role=f"You are number {i}.") for i in range(10)]
    graph = AgentGraph(
        [Agent("speaker"), *readers, Agent("judge")],
        [*(Edge("speaker", r.name) for r in readers), *(Edge(r.name, "judge") for r in readers)],
        "judge",
    )
    talk = report(
        make(tmp_path / "many", graph, numbers(1), Scripted(lambda r: "the very same words"))
    ).conversation(0)
    assert talk is not None and talk["texts"].count("the very same words") == 1


# -- size


def test_a_report_stays_under_its_size_and_keeps_what_is_interesting(tmp_path: Path) -> None:
    run = bulky(tmp_path / "big", 400)
    written = write_report([run], tmp_path / "small.html", size=1_000_000)
    assert written.bytes < 1_000_000 and 0 < written.conversations < written.rows == 400
    opened = Opened(tmp_path / "small.html")
    assert opened.conversation(7) is not None  # the failed one
    dearest = max(range(400), key=lambda i: opened.rows(0, "input")[i] + opened.rows(0, "output")[i])
    assert opened.conversation(dearest) is not None
    assert opened.facts["kept"] == sum(opened.facts["reasons"].values())
    assert sum(c >= 0 for c in opened.where[0]) == written.conversations
    assert len(opened.rows(0, "input")) == 400  # the numbers are of all
    whole = write_report([run], tmp_path / "whole.html")
    assert whole.conversations == 400


def test_the_ledger_is_read_item_by_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path / "solo", SINGLE, numbers(3), answering(lambda i: True))
    calls = Ledger.calls

    def only_one(self: Ledger, *, item: str | None = None, **options: Any) -> list[CallRow]:
        assert item is not None, "the whole run was read into memory"
        return calls(self, item=item, **options)

    monkeypatch.setattr(Ledger, "calls", only_one)
    report(run)


def test_the_same_run_gives_the_same_report_but_for_its_date(tmp_path: Path) -> None:
    run = make(tmp_path / "team", TEAM, numbers(5), answering(lambda i: i > 2))
    made = [re.sub(r'"made":[\d.]+', "", report(run).html) for _ in range(2)]
    assert made[0] == made[1]


# -- runs that are not whole


def test_a_run_that_was_stopped_says_why_and_what_is_missing(tmp_path: Path) -> None:
    run = make(tmp_path / "solo", SINGLE, numbers(50), answering(lambda i: True), limits=Limits(calls=10))
    opened = report(run)
    (facts,) = opened.facts["runs"]
    assert facts["done"] < facts["expected"] == 50 and "calls" in facts["stopped"]
    assert opened.rows(0, "state").count(NOT_RUN) == 50 - facts["done"]


def test_a_run_still_going_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    path, seen = tmp_path / "going", []

    def look(progress: Progress) -> None:
        if progress.done == 5 and not seen:
            assert not (path / "results.json").exists()
            seen.append(report(path))

    make(path, SINGLE, numbers(20), answering(lambda i: True), on_progress=look, max_concurrency=1)
    (opened,) = seen
    (facts,) = opened.facts["runs"]
    assert 5 <= facts["done"] < 20 and facts["stopped"] is None and facts["last_at"] is not None


def test_a_run_cut_off_in_the_middle_of_a_write_is_shown(tmp_path: Path) -> None:
    run = make(tmp_path / "solo", SINGLE, numbers(5), answering(lambda i: True))
    (run / "results.json").write_text('{"summary": {"sto', encoding="utf-8")
    lines = (run / "questions.jsonl").read_bytes()
    (run / "questions.jsonl").write_bytes(lines[: len(lines) - 40])
    opened = report(run)
    assert opened.table["question"][0] and not opened.table["question"][4]
    talk = opened.conversation(4)
    assert talk is not None and "question" not in talk and talk["runs"][0]["turns"]


def test_a_run_of_an_older_agentcomm_lacks_its_questions_and_says_so(tmp_path: Path) -> None:
    run = make(tmp_path / "solo", SINGLE, numbers(2), answering(lambda i: True))
    (run / "questions.jsonl").unlink()
    (facts,) = report(run).facts["runs"]
    assert facts["questions"] is False


def test_a_run_in_which_nothing_was_asked_yet_gives_an_empty_report(tmp_path: Path) -> None:
    run = make(tmp_path / "solo", SINGLE, numbers(3), answering(lambda i: True))
    (run / "ledger.sqlite").unlink()
    Ledger.open(run / "ledger.sqlite").close()
    opened = report(run)
    assert opened.facts["runs"][0]["score"] is None and opened.conversation(0) is None


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path / "a", SINGLE, numbers(1), answering(lambda i: True))
    for paths, words in (([], "no run to show"), ([tmp_path], "no run at"), ([run, run], "named twice")):
        with pytest.raises(ConfigError, match=words):
            write_report(paths, tmp_path / "out.html")
    (run / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json is not a run's configuration"):
        write_report([run], tmp_path / "out.html")


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    runs = [make(tmp_path / x / "run", SINGLE, numbers(1), answering(lambda i: True)) for x in ("a", "b")]
    assert [r["name"] for r in report(*runs).facts["runs"]] == ["a/run", "b/run"]


# -- no text becomes markup


def test_hostile_texts_stay_inside_the_data(tmp_path: Path) -> None:
    opened = report(hostile(tmp_path / "hostile"))
    harmless = report(make(tmp_path / "harmless", SINGLE, numbers(2), answering(lambda i: True)))
    assert opened.tags == harmless.tags  # nothing but the frame and as many pieces of data
    assert "owned" not in re.sub(r"<script.*?</script>", "", opened.html, flags=re.S)
    talk = opened.conversation(0)
    assert talk is not None and talk["texts"][talk["question"]] == HOSTILE[0]
    reply = talk["texts"][talk["runs"][0]["turns"][0]["calls"][0]["reply"]]
    assert reply == "\n".join(HOSTILE)  # also the half of a surrogate pair


@given(st.recursive(
    st.text(alphabet=st.characters()) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet=st.characters()), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_any_json_can_stand_in_a_script_and_comes_back(value: Any) -> None:
    text = as_json(value)
    assert not re.search(r"[<>&\u2028\u2029]", text) and json.loads(text) == value
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", packed(value))


def test_the_policy_allows_this_script_and_this_style_and_nothing_else(tmp_path: Path) -> None:
    html = report(make(tmp_path / "solo", SINGLE, numbers(1), answering(lambda i: True))).html
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    for directive, tag in (("script-src", "script"), ("style-src", "style")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert html.index("Content-Security-Policy") < html.index("<style>")


def test_the_file_names_no_address_and_parses_no_string_as_markup(tmp_path: Path) -> None:
    opened = report(make(tmp_path / "solo", SINGLE, numbers(1), answering(lambda i: True)))
    assert set(re.findall(r"https?://[^\s\"'`]+", opened.html)) == {"http://www.w3.org/2000/svg"}
    script = opened.scripts[""]
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
    ):
        assert word not in script


# -- the command


def test_view_writes_into_the_first_run_and_prints_where(tmp_path: Path) -> None:
    run = make(tmp_path / "solo", SINGLE, numbers(2), answering(lambda i: True))
    done = agentcomm("view", run)
    assert done.code == 0 and Path(done.out.strip()) == run / "report.html"
    assert Opened(run / "report.html").facts["rows"] == 2
    assert agentcomm("view", run, "--out", tmp_path / "new" / "r.html").code == 0


def test_view_says_that_not_all_conversations_fit(tmp_path: Path) -> None:
    done = agentcomm("view", bulky(tmp_path / "big", 400), "--size", "1")
    assert done.code == 0 and "of 400 conversations are in the file" in done.err


def test_view_refuses_what_it_cannot_read_or_write(tmp_path: Path) -> None:
    run = make(tmp_path / "solo", SINGLE, numbers(1), answering(lambda i: True))
    assert "no run at" in agentcomm("view", tmp_path).complaint
    assert "is a folder" in agentcomm("view", run, "--out", tmp_path).complaint
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert "can't write" in agentcomm("view", run, "--out", tmp_path / "file" / "r.html").complaint


def test_written_says_what_was_made(tmp_path: Path) -> None:
    run = make(tmp_path / "solo", SINGLE, numbers(2), answering(lambda i: True))
    out = tmp_path / "r.html"
    assert write_report([run], out) == Written(out, out.stat().st_size, 2, 2)
    assert not list(tmp_path.glob("*.partial"))
