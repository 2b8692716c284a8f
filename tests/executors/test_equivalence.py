"""Both executors make the same calls with the same inboxes, and those that graph.py's text asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcomm.executors.langgraph import LangGraphExecutor
from agentcomm.executors.plain import PlainExecutor
from agentcomm.graph import AgentGraph, Topology
from agentcomm.message import EdgeKey, Message, Outcome
from agentcomm.schedule import Schedule
from tests.executors.graphs import Fates, Recorder, fates, says, shown, teams, topologies


def semantics(graph: AgentGraph, topology: Topology, fates: Fates) -> dict[tuple[int, str], Any]:
    """What every turn reads, in the words of graph.py's docstring; calls nothing of schedule.py."""
    said: dict[tuple[int, str], Outcome] = {}
    read: dict[tuple[int, str], Any] = {}
    for r in range(1, graph.rounds + 1):
        now = topology.mask(r)
        waiting = [n for n in graph.names if n in now.agents and n != graph.decision]
        waves = []
        while waiting:  # topological order of the alive spatial edges
            waves.append([a for a in waiting if not any(EdgeKey(b, a) in now.edges for b in waiting)])
            waiting = [a for a in waiting if a not in waves[-1]]
        heard = r < graph.rounds and any(
            EdgeKey(graph.decision, a, "temporal") in topology.mask(r + 1).edges
            for a in topology.mask(r + 1).agents
        )
        if r == graph.rounds or (heard and graph.decision in now.agents):
            waves.append([graph.decision])
        for wave in waves:
            for a in wave:
                letters = []
                for kind, when in (("temporal", r - 1), ("spatial", r)):
                    for b in graph.names:
                        message = said.get((when, b))
                        if EdgeKey(b, a, kind) in now.edges and isinstance(message, Message):  # type: ignore[arg-type]
                            letters.append((b, kind, when, message.text))
                own = [(s, read[(s, a)][0]) for s in range(1, r) if (s, a) in said]
                past = [(s, shown(said[(s, a)]), [text for *_, text in before]) for s, before in own]
                read[(r, a)] = (letters, past if graph.by_name[a].memory else [])
            said |= {(r, a): says(a, r, read[(r, a)][0], fates.get((a, r))) for a in wave}
            if any(fates.get((a, r)) == "fatal" for a in wave):
                return read
    return read


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_both_executors_take_the_same_turns_with_the_same_inboxes(data: st.DataObject) -> None:
    graph = data.draw(teams())
    topology = data.draw(topologies(graph))
    failing = data.draw(fates(graph))
    schedule = Schedule.of(graph, topology)
    plain, lang = Recorder(failing), Recorder(failing)
    plain_mailbox = anyio.run(PlainExecutor().execute, schedule, plain.act)
    lang_mailbox = anyio.run(LangGraphExecutor().execute, schedule, lang.act)
    assert plain.read == semantics(graph, topology, failing)
    assert lang.read == plain.read
    assert len(lang.order) == len(lang.read)  # nobody was asked twice
    assert len(plain.order) == len(plain.read)
    assert list(lang_mailbox.items()) == list(plain_mailbox.items())


@dataclass(frozen=True)
class Enough:
    """Over after so many messages."""

    messages: int
    name: ClassVar[str] = "enough"

    def spec(self) -> dict[str, Any]:
        return {"rule": self.name, "messages": self.messages}

    def over(self, messages: Sequence[Message]) -> bool:
        return len(messages) >= self.messages


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_stop_rule_ends_the_rounds_at_the_same_wave_in_both_executors(data: st.DataObject) -> None:
    team = data.draw(teams())
    rule = Enough(data.draw(st.integers(1, 8)))
    graph = AgentGraph(team.agents, team.edges, team.decision, team.rounds, team.system, rule)
    failing = {k: f for k, f in data.draw(fates(graph)).items() if f == "fails"}
    schedule = Schedule.of(graph)
    plain, lang = Recorder(failing), Recorder(failing)
    mailbox = anyio.run(PlainExecutor().execute, schedule, plain.act)
    assert list(anyio.run(LangGraphExecutor().execute, schedule, lang.act).items()) == list(mailbox.items())
    assert lang.read == plain.read
    assert (graph.rounds, graph.decision) in mailbox  # the decision agent always speaks
    done = 0
    for wave in schedule.waves[:-1]:  # whole waves are taken until enough was said, none after
        taken = [(wave.round, a) in mailbox for a in wave.agents]
        assert all(taken) == (done < rule.messages) and any(taken) == all(taken)
        done += sum(isinstance(mailbox[wave.round, a].outcome, Message) for a in wave.agents if all(taken))
    letters: Any = plain.read[graph.rounds, graph.decision]
    heard = [text for *_, text in letters[0]]
    senders = {e.sender for e in graph.incoming[graph.decision]}
    before = [r.outcome for place, r in mailbox.items() if place != (graph.rounds, graph.decision)]
    assert heard == [m.text for m in before if isinstance(m, Message) and m.sender in senders]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_an_episode_cut_off_anywhere_resumes_to_the_same_end(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    graph = data.draw(teams(most=4))
    schedule = Schedule.of(graph, data.draw(topologies(graph)))
    failing = {k: f for k, f in data.draw(fates(graph)).items() if f == "fails"}
    whole = Recorder(failing)
    expected = anyio.run(PlainExecutor().execute, schedule, whole.act)
    crash = data.draw(st.sampled_from(sorted(expected)))
    path = tmp_path_factory.mktemp("cut") / "checkpoints.sqlite"
    first = Recorder({**failing, (crash[1], crash[0]): "raises"})
    second = Recorder(failing)

    async def cut_off_and_go_on() -> Any:
        with pytest.raises(RuntimeError, match="crashed"):
            await LangGraphExecutor(path).execute(schedule, first.act, thread="t")
        return await LangGraphExecutor(path).execute(schedule, second.act, thread="t")

    assert list(anyio.run(cut_off_and_go_on).items()) == list(expected.items())
    # A turn is taken again only if the crash came before its wave was over.
    wave_of = {place: i for i, w in enumerate(schedule.waves) for place in ((w.round, a) for a in w.agents)}
    assert {wave_of[place] for place in first.order if place in second.order} == {wave_of[crash]}
    assert all(wave_of[place] >= wave_of[crash] for place in second.order)
    assert all(second.read[place] == whole.read[place] for place in second.order)
