"""Channels in an episode: metered, limited, seeded, replayable, and their failures on record."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agentcomm as ac
from agentcomm import channels
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.replay import Replay
from agentcomm.backends.scripted import Scripted, count_words
from agentcomm.calls import Retry
from agentcomm.errors import BackendError, ConfigError
from agentcomm.ledger.limits import Limits
from agentcomm.ledger.store import Ledger
from agentcomm.message import Delivery, Message
from agentcomm.prompting import Turn
from tests.channels.doubles import TEXT
from tests.executors.graphs import teams

pytestmark = pytest.mark.anyio

SHORT = "Ben has a goat."
BUDGET = 12


def is_compressing(request: ChatRequest) -> bool:
    return "You shorten texts" in request.messages[0].content


def says(request: ChatRequest) -> str | Exception:
    prompt = "\n".join(m.content for m in request.messages)
    if is_compressing(request):
        return SHORT
    return TEXT if "You talk" in prompt else "A goat."


def team(channel: Any = None, **edge: Any) -> ac.AgentGraph:
    talker, judge = ac.Agent("talker", role="You talk."), ac.Agent("judge", role="You decide.")
    return ac.AgentGraph([talker, judge], [ac.Edge("talker", "judge", channel=channel)], decision="judge")


async def test_a_channels_call_is_charged_to_its_edge_in_phase_compress_and_parts_add_up() -> None:
    ledger = Ledger.in_memory()
    episode = await ac.run(team(channels.summarise(BUDGET)), "Which pet?", Scripted(says), ledger=ledger)
    (delivery,) = episode.records[-1].inbox
    assert delivery.text == SHORT
    assert (delivery.original.text, delivery.note) == (TEXT, "57 to 5 tokens, budget 12")
    usage = episode.usage
    compress, judged = (
        next(c for c in usage.rows if c.phase == phase and c.agent == "judge")
        for phase in ("compress", "evaluate")
    )
    assert compress.edge == "talker->judge" and compress.parts is not None
    assert compress.parts["talker->judge"] == count_words(f"Text:\n{TEXT}")
    assert sum(compress.parts.values()) == compress.input_tokens
    own = (compress.input_tokens or 0) + (compress.output_tokens or 0)
    assert usage.channel_tokens_by_edge() == {"talker->judge": own}
    assert usage.by_edge() == {"talker->judge": judged.parts["talker->judge"]}  # type: ignore[index]
    assert usage.net_by_edge() == {"talker->judge": own + usage.by_edge()["talker->judge"]}
    assert usage.by_phase()["compress"].calls == 1
    assert usage.input_tokens == sum(r.input_tokens or 0 for r in usage.rows)
    (row,) = ledger.channels()
    assert (row.status, row.budget, row.tokens, row.original_tokens, row.counted_by) == (
        "compressed",
        12,
        5,
        57,
        "scripted",
    )
    assert ledger.body(delivery.original.id) == TEXT == row.original_text
    ledger.close()


async def test_the_compressor_may_be_another_model_and_is_asked_for_before_anything_is_paid() -> None:
    script = Scripted(says)
    with pytest.raises(ConfigError, match="nowhere/x"):
        await ac.run(team(channels.summarise(BUDGET, "nowhere/x")), "Which pet?", script)
    assert script.requests == []
    episode = await ac.run(team(channels.summarise(BUDGET, "mock/echo", protect=())), "Which pet?", script)
    assert set(episode.usage.by_model()) == {"scripted", "mock/echo"}


async def test_its_seed_is_its_own_and_the_same_in_every_run() -> None:
    def seeds(script: Scripted) -> list[int | None]:
        return [r.seed for r in script.requests if is_compressing(r)]

    runs = []
    for seed in (1, 1, 2):
        script = Scripted(says)
        graph = ac.AgentGraph(
            [ac.Agent("talker", role="You talk."), ac.Agent("critic"), ac.Agent("judge")],
            [ac.Edge("talker", r, channel=channels.summarise(BUDGET)) for r in ("critic", "judge")]
            + [("critic", "judge")],
            decision="judge",
        )
        await ac.run(graph, "Which pet?", script, seed=seed)
        runs.append(seeds(script))
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) == 1 and len(runs[0]) == 2  # both readers of the message get the same request


@pytest.mark.parametrize("kept", ["store", "ledger"])
async def test_a_replay_answers_channels_too_and_cuts_where_they_cut(kept: str, tmp_path: Path) -> None:
    def runs_on(request: ChatRequest) -> str | Exception:
        return "Ben has a pet goat. He likes it. " * 5 if is_compressing(request) else says(request)

    graph = ac.AgentGraph(
        [ac.Agent("talker", role="You talk."), ac.Agent("critic"), ac.Agent("judge")],
        [
            ac.Edge("talker", "critic", channel=channels.extract(23)),
            ac.Edge("talker", "judge", channel=channels.summarise(BUDGET)),
            ac.Edge("critic", "judge"),
        ],
        decision="judge",
    )
    script, path = Scripted(runs_on), tmp_path / "kept.sqlite"
    if kept == "store":
        first = await ac.run(graph, "Which pet?", Replay(script, path))
    else:
        with Ledger.open(path) as ledger:
            first = await ac.run(graph, "Which pet?", script, ledger=ledger)
    again = await ac.run(graph, "Which pet?", f"replay/{path}")
    assert [[d.text for d in r.inbox] for r in again.records] == [
        [d.text for d in r.inbox] for r in first.records
    ]
    assert (first.usage.calls, again.usage.calls, again.usage.cache_hits) == (4, 0, 4)
    compressed = first.records[-1].inbox[0].compression
    assert compressed is not None and compressed.status == "cut"


async def test_a_resumed_run_pays_no_compression_twice_and_delivers_the_same(tmp_path: Path) -> None:
    task = ac.Task(
        "pets",
        [ac.Item("q1", "Which pet?", answer="A goat.")],
        lambda item, answer: ac.Score(float(answer == item.answer)),
    )
    broken = [True]

    def moody(request: ChatRequest) -> str | Exception:
        prompt = request.messages[-1].content
        if "You decide" in prompt and broken:
            return BackendError("refused", kind="refused")
        return says(request)

    script = Scripted(moody)
    graph = team(channels.summarise(BUDGET, temperature=0.9))
    first = await ac.evaluate(graph, task, script, out=tmp_path / "run")
    assert first.failed == 1
    broken.clear()
    done = await ac.evaluate(graph, task, script, out=tmp_path / "run")
    assert (done.failed, sum(map(is_compressing, script.requests))) == (0, 1)
    with Ledger.open(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        assert [r.text for r in ledger.channels()] == [SHORT]
    assert done.summary()["channels"]["talker->judge"]["compressed"] == 1
    with pytest.raises(ConfigError, match="budget"):
        await ac.evaluate(team(channels.summarise(13)), task, script, out=tmp_path / "run")


class Breaks:
    """A user's own channel with a bug."""

    name = "breaks"

    def spec(self) -> dict[str, Any]:
        return {"name": self.name}

    async def deliver(self, message: Message, edge: ac.Edge, turn: Turn) -> Delivery:
        raise KeyError("a bug")


@pytest.mark.parametrize("executor", ["langgraph", "plain"])
async def test_a_channel_that_fails_fails_its_delivery_on_record_and_the_reader_goes_on(
    executor: Any,
) -> None:
    def down(request: ChatRequest) -> str | Exception:
        return BackendError("overloaded", kind="server") if is_compressing(request) else says(request)

    for channel, why in (
        (channels.summarise(BUDGET), "server: overloaded"),
        (Breaks(), "agent: KeyError: 'a bug'"),
    ):
        script, ledger = Scripted(down), Ledger.in_memory()
        episode = await ac.run(team(channel), "Which pet?", script, ledger=ledger, executor=executor)
        assert episode.answer == "A goat."
        (lost,) = episode.failed_deliveries
        assert (lost.text, lost.original.text, lost.note) == ("", TEXT, f"not delivered: {why}")
        assert TEXT not in "".join(
            m.content for r in script.requests if not is_compressing(r) for m in r.messages
        )
        (row,) = ledger.channels()
        assert (row.status, row.reason, row.original_text, row.text) == ("failed", why, TEXT, "")
        assert episode.usage.by_edge() == {}
        ledger.close()


async def test_function_agents_are_not_shown_failed_deliveries() -> None:
    async def vote(turn: Turn) -> str:
        assert turn.desk is None
        return str([d.text for d in turn.inbox])

    graph = ac.AgentGraph(
        [ac.Agent("talker", role="You talk."), ac.Agent("other"), ac.Agent("vote", act=vote)],
        [
            ac.Edge("talker", "vote", channel=Breaks()),
            ac.Edge("other", "vote", channel=channels.truncate(tokens=4)),
        ],
        decision="vote",
    )
    episode = await ac.run(graph, "Which pet?", Scripted(says))
    assert episode.answer == "['A goat.']"
    assert len(episode.failed_deliveries) == 1
    assert episode.records[-1].inbox[1].compression.counted_by == "bytes/3"  # type: ignore[union-attr]


async def test_limits_hold_for_compressors_and_end_what_they_limit() -> None:
    graph = team(channels.summarise(BUDGET, on_failure="verbatim"))
    script, ledger = Scripted(says), Ledger.in_memory()
    episode = await ac.run(graph, "Which pet?", script, limits=Limits(calls=1), ledger=ledger)
    assert len(script.requests) == 1
    assert episode.failure is not None and (episode.failure.kind, episode.failure.scope) == ("limit", "run")
    assert [r.status for r in ledger.channels()] == ["failed"]
    silenced = await ac.run(graph, "Which pet?", Scripted(says), agent_limits=Limits(calls=1))
    assert (
        silenced.failure is not None and silenced.failure.scope == "agent judge"
    )  # its channel used its call


async def test_a_compressor_nobody_answers_for_ends_the_run_like_any_model() -> None:
    down = BackendError("nobody listens", kind="unreachable", retryable=True)
    script = Scripted(lambda r: down if is_compressing(r) else says(r))
    graph = ac.AgentGraph(
        [*(ac.Agent(f"t{i}", role="You talk.") for i in range(3)), ac.Agent("judge")],
        [
            ac.Edge(f"t{i}", "judge", channel=channels.summarise(BUDGET, on_failure="verbatim"))
            for i in range(3)
        ],
        decision="judge",
    )
    episode = await ac.run(graph, "Which pet?", script, retry=Retry(attempts=1))
    assert episode.failure is not None and episode.failure.fatal


async def test_edges_are_compressed_side_by_side_and_references_see_what_came_before() -> None:
    began: list[str] = []
    together = anyio.Event()

    class Waits(Breaks):
        async def deliver(self, message: Message, edge: ac.Edge, turn: Turn) -> Delivery:
            began.append(edge.sender)
            if len(began) == 2:
                together.set()
            with anyio.fail_after(20):
                await together.wait()
            return Delivery(edge.key, message, message.text, self.name)

    graph = ac.AgentGraph(
        [*(ac.Agent(n, role="You talk.") for n in ("a", "b", "c", "d")), ac.Agent("judge")],
        [
            ac.Edge("a", "judge", channel=Waits()),
            ac.Edge("b", "judge", channel=channels.dedup()),
            ac.Edge("c", "judge", channel=Waits()),
            ac.Edge("d", "judge", channel=channels.reference()),
        ],
        decision="judge",
    )
    episode = await ac.run(graph, "Which pet?", Scripted(says))
    assert [d.text for d in episode.records[-1].inbox][1::2] == ["[…]", '[a: "Ada lives in…"]']


async def test_what_a_reader_was_sent_is_never_changed_later() -> None:
    graph = ac.AgentGraph(
        [ac.Agent("talker", role="You talk."), ac.Agent("judge", role="You decide.")],
        [
            ac.Edge("talker", "judge", channel=channels.reference()),
            ac.Edge("judge", "talker", "temporal", channels.summarise(BUDGET)),
        ],
        decision="judge",
        rounds=3,
    )
    script = Scripted(says)
    await ac.run(graph, "Which pet?", script)
    prompts = [
        "\n".join(m.content for m in r.messages)
        for r in script.requests
        if "You decide" in r.messages[1].content
    ]
    assert len(prompts) == 3
    assert all(later.startswith(earlier) for earlier, later in pairwise(prompts))
    assert (
        TEXT in prompts[0]
        and prompts[2].count(TEXT) == 1
        and prompts[2].count('[talker: "Ada lives in…"]') == 2
    )


KINDS = [
    None,
    channels.summarise(BUDGET),
    channels.extract(9),
    channels.reference(),
    channels.truncate(tokens=5),
    Breaks(),
]


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_both_executors_deliver_the_same(data: st.DataObject) -> None:
    graph = data.draw(teams(most=4, most_rounds=2))
    edges = [ac.Edge(e.sender, e.reader, e.kind, data.draw(st.sampled_from(KINDS))) for e in graph.edges]
    graph = ac.AgentGraph(graph.agents, edges, graph.decision, graph.rounds)

    def talks(request: ChatRequest) -> str:
        return SHORT if is_compressing(request) else f"{TEXT} Seed {request.seed} says so."

    results = []
    for executor in ("plain", "langgraph"):
        with Ledger.in_memory() as ledger:
            episode = ac.run_sync(graph, "Which pet?", Scripted(talks), executor=executor, ledger=ledger)
            records = [
                (r.agent, r.round, r.inbox, getattr(r.outcome, "text", r.outcome)) for r in episode.records
            ]
            results.append((records, episode.usage.net_by_edge(), sorted(map(repr, ledger.channels()))))
    assert results[0] == results[1]


def test_a_channel_goes_on_all_or_on_chosen_edges_and_survives_json() -> None:
    graph = team()
    channel = channels.summarise(BUDGET, query=True)
    everywhere = graph.with_channel(channel)
    assert [e.channel for e in everywhere.edges] == [channel]
    assert everywhere.with_channel(None, [("talker", "judge")]) == graph
    assert ac.AgentGraph.from_json(everywhere.to_json(), channels=channels.from_spec) == everywhere
    with pytest.raises(ac.UserError, match="no edge judge->talker"):
        graph.with_channel(channel, [("judge", "talker")])


def test_an_agent_may_be_kept_from_the_context() -> None:
    script = Scripted(default="ok")
    item = ac.Item("q", "Which pet?", context="A long context.")
    graph = ac.AgentGraph([ac.Agent("solo", context=False)], decision="solo")
    ac.run_sync(graph, item, script)
    assert "A long context." not in script.requests[0].messages[1].content
    assert ac.AgentGraph.from_json(graph.to_json()) == graph
