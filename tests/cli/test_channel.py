"""``eval --channel`` and ``ledger --by channel``; the compressor-predictor graph."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

import agentcomm as ac
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.evaluation.report import write_report
from agentcomm.ledger.store import Ledger
from agentcomm.loading import load_graph
from tests.channels.doubles import QUESTION, TEXT
from tests.command import agentcomm, write
from tests.reports import Opened

REPLIES = """
{"by_role": {"You shorten texts": ["Sure! Here is the summary: It is four.", "It is four.", "", ""],
             "Judge.": "4"},
 "default": "The sum of the two numbers can be had by counting up from the first one, which is how it is done here and it is four in the end."}
"""


def test_a_channel_is_put_on_chosen_edges_and_told_of_in_every_output(
    team: Path, sums: Path, tmp_path: Path
) -> None:
    write(tmp_path, "replies.json", REPLIES)
    words = [
        "eval",
        team,
        sums,
        "--model",
        "scripted/replies.json",
        "--out",
        "run",
        "-G",
        "rounds=1",
        "--limit",
        "2",
    ]
    channel = [
        "--channel",
        "summarise:budget=12,on_failure=extract",
        "--channel-edges",
        "solver->judge, critic->judge",
    ]
    done = agentcomm(*words, *channel, "--json")
    assert done.code in (0, 1), done.err
    told = done.json["channels"]
    assert set(told) == {"solver->judge", "critic->judge"}
    edges = json.loads(Path("run/config.json").read_text(encoding="utf-8"))["graph"]["edges"]
    spec = {"name": "summarise", "budget": 12, "on_failure": "extract"}
    assert [e.get("channel") for e in edges] == [None, spec, spec]
    by_channel = agentcomm("ledger", "run", "--by", "channel", "--json").json
    assert by_channel == told
    for edge in told.values():
        assert edge["deliveries"] == 2 == edge["compressed"] + edge["cut"]
        assert edge["tokens"] <= 24 < edge["original_tokens"]
        assert edge["own_tokens"] > 0
        assert edge["saved"] == edge["original_tokens"] - edge["tokens"] - edge["own_tokens"]
    assert sum(e["reasons"].get("preamble", 0) for e in told.values()) == 1
    assert (
        sum(e["reasons"].get("empty", 0) for e in told.values()) == 2
        or sum(e["cut"] for e in told.values()) >= 1
    )
    net = done.json["tokens"]["net_by_edge"]
    assert (
        net["solver->judge"]
        == done.json["tokens"]["by_edge"]["solver->judge"] + told["solver->judge"]["own_tokens"]
    )
    shown = agentcomm("ledger", "run", "--by", "channel").out
    assert "solver->judge: " in shown and "summarise" in shown and "as told" in shown
    refused = agentcomm(*words, "--json")
    assert refused.code == 2 and "channel" in refused.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--channel", "summarise:budget=0"], "budget=0"),
        (["--channel", "nothing:budget=1"], "unknown channel 'nothing'"),
        (["--channel", "rules", "--channel-edges", "judge->solver"], "no edge judge->solver"),
        (["--channel-edges", "solver->judge"], "--channel-edges needs --channel"),
        (["--channel", "extract:budget=9", "--channel-edges", "solver"], "is not an edge"),
    ],
)
def test_what_cannot_be_put_on_an_edge_is_refused_before_anything_runs(
    team: Path, sums: Path, flags: list[str], says: str
) -> None:
    done = agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "run", *flags)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert not Path("run").exists()


def test_a_run_without_channels_says_so(team: Path, sums: Path) -> None:
    agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "run", "--limit", "1")
    assert agentcomm("ledger", "run", "--by", "channel").out.strip() == "no edge of this run has a channel"
    assert agentcomm("ledger", "run", "--by", "channel", "--json").json == {}


def judging(request: ChatRequest) -> str:
    prompt = "\n".join(m.content for m in request.messages)
    return f"Ben has a goat. Seed {request.seed}." if "You shorten texts" in prompt else "A goat."


ITEM = ac.Item("q", QUESTION, context=TEXT, views={"v": "Dan has a dog."})


@pytest.mark.parametrize("query", [True, False])
def test_the_predictor_reads_only_what_the_compressor_wrote(query: bool) -> None:
    script = Scripted(judging)
    graph = load_graph("compressor_predictor", {"budget": 20, "query": query, "predictor": None})
    episode = ac.run_sync(graph, ITEM, script)
    compress, predict = ("\n".join(m.content for m in r.messages) for r in script.requests)
    assert TEXT in compress and "Dan has a dog." in compress
    assert (QUESTION in compress) is query
    assert TEXT not in predict and "Dan has a dog." not in predict
    assert "Ben has a goat." in predict and QUESTION in predict
    assert episode.usage.by_phase()["compress"].calls == 1


def test_several_samples_differ_by_their_seeds_and_are_all_read() -> None:
    script = Scripted(judging)
    ac.run_sync(load_graph("compressor_predictor", {"samples": 3, "budget": 20}), ITEM, script)
    asked = [r for r in script.requests if "You shorten texts" in r.messages[0].content]
    assert len({r.seed for r in asked}) == len(asked) == 3
    assert {r.temperature for r in asked} == {0.7}
    assert script.requests[-1].messages[1].content.count("Ben has a goat.") == 3


@pytest.mark.parametrize(
    ("method", "text"), [("extract", "Ben has a pet goat that he likes very much."), ("full", TEXT)]
)
def test_other_compressors_and_none_can_take_its_place(method: str, text: str) -> None:
    script = Scripted(judging)
    episode = ac.run_sync(load_graph("compressor_predictor", {"method": method, "budget": 12}), ITEM, script)
    assert text in script.requests[0].messages[1].content
    assert episode.usage.calls == 1
    with pytest.raises(ac.UserError, match="method 'zip'; use one of"):
        load_graph("compressor_predictor", {"method": "zip"})


class Breaks:
    name = "breaks"

    def spec(self) -> dict[str, str]:
        return {"name": self.name}

    async def deliver(self, message: object, edge: object, turn: object) -> ac.Delivery:
        raise KeyError("a bug")


def test_the_report_shows_what_was_not_delivered_and_what_channels_did(tmp_path: Path) -> None:
    graph = ac.AgentGraph(
        [ac.Agent("a"), ac.Agent("b"), ac.Agent("judge")],
        [ac.Edge("a", "judge", channel=Breaks()), ac.Edge("b", "judge", channel=ac.channels.extract(12))],
        decision="judge",
    )
    task = ac.Task("pets", [ac.Item("q", QUESTION, answer="x")], lambda item, answer: ac.Score(1.0))

    async def go() -> None:
        await ac.evaluate(graph, task, Scripted(default=TEXT), out=tmp_path / "run")

    anyio.run(go)
    with Ledger.open(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        assert [e.failures for e in ledger.episodes()] == [1]
        assert sorted(r.status for r in ledger.channels()) == ["compressed", "failed"]
    write_report([tmp_path / "run"], tmp_path / "report.html")
    opened = Opened(tmp_path / "report.html")
    assert [e["channel_did"] for e in opened.facts["runs"][0]["edges"]] == [
        "0 compressed, 0 cut, 0 whole, 1 failed (agent 1)",
        "1 compressed, 0 cut, 0 whole, 0 failed",
    ]
    talk = opened.conversation(0)
    assert talk is not None
    given = talk["runs"][0]["turns"][-1]["calls"][-1]["given"]
    lost = next(g for g in given if g["channel"] == "breaks")
    assert lost["note"] == "not delivered: agent: KeyError: 'a bug'"
    assert (talk["texts"][lost["text"]], talk["texts"][lost["original"]], lost["tokens"]) == ("", TEXT, 0)
