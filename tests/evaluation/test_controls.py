"""Controls: what they keep of the team, what they change, and how they are chosen and counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm import topologies
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.channels import truncate
from agentcomm.errors import ConfigError, GraphError, TaskError
from agentcomm.evaluation import controls
from agentcomm.evaluation.control_runs import Controlled, check_controls, control_paths, run_controls
from agentcomm.evaluation.controls import MajorityVote, MatchedRandom, control, words
from agentcomm.evaluation.run import Run, evaluate
from agentcomm.evaluation.scorers import read_choice, read_number, read_text
from agentcomm.graph import Agent, AgentGraph, Edge, Topology
from agentcomm.loading import load_graph, load_task, shipped
from agentcomm.message import EdgeKey
from agentcomm.options import RunOptions
from agentcomm.task import Item, Score, Task

POOL = [Agent("ann", role="Be bold.", view="a"), Agent("bob", role="Be brief.", view="b"), Agent("cy")]
JUDGE = Agent("judge", role="Decide.")
TEAM = topologies.chain(POOL, JUDGE)


def numbers(n: int = 6, first: int = 0, extract: Any = read_number) -> Task:
    items = [
        Item(f"q{i}", f"Say {i}.", answer=str(i), views={"a": "hint a", "b": "hint b"})
        for i in range(first, first + n)
    ]
    return Task("numbers", items, lambda i, t: Score(float(t.strip() == i.answer)), extract=extract)


# -- the single agent and the votes ------------------------------------------------------------


def test_every_agent_that_differs_is_a_single_agent_that_sees_all_views() -> None:
    made = control("single", TEAM, numbers())
    assert [c.label for c in made] == ["single-ann", "single-bob", "single-cy", "single-judge"]
    for one in made:
        (agent,) = one.graph.agents
        assert agent == dataclasses.replace(TEAM.by_name[agent.name], view="*")
        assert (one.graph.system, one.graph.rounds) == (TEAM.system, 1)


def test_debaters_who_differ_only_by_name_and_view_are_one_single_agent() -> None:
    made = control("single", load_graph("debate", {"agents": 5}), numbers())
    assert [c.label for c in made] == ["single-debater1", "single-judge"]


def test_function_agents_are_no_single_agents() -> None:
    async def say(turn: Any) -> str:
        return "x"

    team = AgentGraph([Agent("tool", act=say), Agent("solver")], [Edge("tool", "solver")], "solver")
    assert [c.label for c in control("single", team, numbers())] == ["single"]
    with pytest.raises(GraphError, match="no agent with a model"):
        control(
            "single",
            AgentGraph([Agent("tool", act=say), Agent("b", act=say)], [("tool", "b")], "b"),
            numbers(),
        )


def test_self_consistency_asks_one_agent_with_every_view_and_samples_what_would_be_greedy() -> None:
    (made,) = control("self_consistency", TEAM, numbers(), agent=POOL[0], samples=3)
    voters = made.graph.agents[:-1]
    assert [a.name for a in voters] == ["sample1", "sample2", "sample3"]
    assert {(a.role, a.view, a.temperature) for a in voters} == {("Be bold.", "*", 0.7)}
    assert made.graph.agents[-1].act is not None
    warm = dataclasses.replace(POOL[0], temperature=0.3)
    (made,) = control("self_consistency", TEAM, numbers(), agent=warm, samples=2)
    assert {a.temperature for a in made.graph.agents[:-1]} == {0.3}
    (made,) = control("self_consistency", TEAM, numbers(), agent=POOL[0], samples=2, temperature=1.0)
    assert {a.temperature for a in made.graph.agents[:-1]} == {None}  # the run's own


def test_the_vote_keeps_each_agent_of_the_pool_as_it_is_and_lets_nobody_read() -> None:
    (made,) = control("vote", TEAM, numbers())
    assert made.graph.agents[:-1] == tuple(POOL)
    assert [(e.sender, e.reader) for e in made.graph.edges] == [
        ("ann", "vote"),
        ("bob", "vote"),
        ("cy", "vote"),
    ]


def test_an_agent_called_vote_keeps_its_name() -> None:
    team = topologies.chain(["vote", "b"], "judge")
    (made,) = control("vote", team, numbers())
    assert made.graph.names == ("vote", "b", "vote_")


ITEM = Item("q", "How many?", answer="7")


def test_ties_go_to_the_answer_of_the_lowest_index_and_the_words_are_its_first_voters() -> None:
    vote = MajorityVote(read_number)
    assert vote.winner(ITEM, ["I say 3.", "It is 4", "4.0", "3"]) == 0
    assert vote.winner(ITEM, ["I say 3.", "It is 4", "$4.00"]) == 1


def test_who_gives_no_answer_abstains_and_without_any_the_first_text_is_said() -> None:
    vote = MajorityVote(read_number)
    assert vote.winner(ITEM, ["no idea", "no clue", "5"]) == 2
    assert vote.winner(ITEM, ["no idea", "no clue"]) == 0


def test_a_vote_never_sees_the_reference_answer() -> None:
    seen: list[Any] = []

    def nosy(item: Item, text: str) -> str | None:
        seen.append(item.answer)
        return text

    MajorityVote(nosy).winner(ITEM, ["1", "2"])
    assert seen == [None, None]


def test_a_task_without_extract_has_no_vote_and_says_so() -> None:
    for name in ("vote", "self_consistency"):
        with pytest.raises(TaskError, match="doesn't say how to read an answer"):
            control(name, TEAM, numbers(extract=None), samples=2)


@pytest.mark.parametrize("name", sorted(shipped("tasks")))
def test_every_shipped_task_but_code_and_reports_can_be_voted_on(name: str) -> None:
    source = shipped("tasks")[name].read_text()
    assert ("scorers.read_" in source or "def extract(" in source) == (
        name not in ("humaneval", "race", "research")
    )


@pytest.mark.parametrize(
    ("read", "same", "other"),
    [
        (read_number, ["#### 1,234", "so it's $1,234.00.", "1234"], "1235"),
        (read_choice, ["Answer: B", "(B)", "b"], "Answer: C"),
        (read_text, ["Answer: The Eiffel Tower.", "eiffel tower"], "Answer: Paris"),
        (read_text, ["Yes, both are.", "Answer: yes"], "no"),
    ],
)
def test_equal_answers_are_one_vote(
    read: Callable[[Item, str], str | None], same: list[str], other: str
) -> None:
    item = Item("q", "?", metadata={"options": ["w", "x", "y", "z"]})
    (value,) = {read(item, text) for text in same}
    assert value is not None
    assert read(item, other) not in (value, None)


def test_records_are_voted_on_by_the_value_they_name() -> None:
    task = load_task("records", {"limit": 1})
    assert task.extract is not None
    item = dataclasses.replace(task.items[0], answer=None)
    right = str(task.items[0].answer)
    assert task.extract(item, f"It is {right}.") == right.lower()
    assert task.extract(item, "I don't know.") is None


# -- other topologies --------------------------------------------------------------------------


def test_edgeless_keeps_only_edges_into_the_decision_agent_and_one_round() -> None:
    (made,) = control("edgeless", load_graph("debate", {"agents": 3, "rounds": 3}), numbers())
    assert {(e.sender, e.reader, e.kind) for e in made.graph.edges} == {
        (f"debater{i}", "judge", "spatial") for i in (1, 2, 3)
    }
    assert made.graph.rounds == 1


def test_complete_contains_the_team_whatever_the_order_of_its_agents() -> None:
    backwards = AgentGraph(
        [Agent("a"), Agent("b"), Agent("c"), JUDGE],
        [Edge("c", "a"), Edge("a", "judge"), Edge("b", "judge"), Edge("b", "c", "temporal")],
        "judge",
        rounds=2,
    )
    (made,) = control("complete", backwards, numbers())
    assert set(backwards.by_key) < set(made.graph.by_key)
    spatial = [e for e in made.graph.edges if e.kind == "spatial"]
    assert len(spatial) == 3 + 3
    assert made.graph.rounds == 2


def test_a_team_that_is_its_own_control_is_not_compared_with_itself() -> None:
    with pytest.raises(GraphError, match="the team itself is complete"):
        control("complete", topologies.complete(POOL, JUDGE), numbers())
    with pytest.raises(GraphError, match="the team itself is edgeless"):
        control("edgeless", topologies.independent(POOL, JUDGE), numbers())
    with pytest.raises(GraphError, match="would be itself"):
        control("random", load_graph("debate"), numbers())


def test_a_single_agent_has_no_pool_to_control_with() -> None:
    for name in ("single", "vote", "edgeless", "random", "complete"):
        with pytest.raises(GraphError):
            control(name, topologies.single("solo"), numbers())


def test_fixed_topologies_are_laid_over_the_pool_in_the_order_in_which_it_speaks() -> None:
    names = ["a", "b", "c", "d"]
    team = AgentGraph(
        [*map(Agent, names), JUDGE],
        [("d", "c"), ("c", "b"), ("b", "a"), *((n, "judge") for n in names), Edge("a", "d", "temporal")],
        "judge",
        rounds=2,
    )
    made = {c.label: c for c in control("fixed", team, numbers())}
    pairs = {
        label: {e.sender + e.reader for e in c.graph.edges if e.kind == "spatial" and e.reader != "judge"}
        for label, c in made.items()
    }
    assert pairs == {
        "fixed-chain": {"dc", "cb", "ba"},
        "fixed-star": {"dc", "db", "da"},
        "fixed-tree": {"dc", "db", "ca"},
        "fixed-layered": {"db", "da", "cb", "ca"},
        "fixed-complete": {"dc", "db", "da", "cb", "ca", "ba"},
    }
    for one in made.values():
        assert {e.key for e in one.graph.edges if e.reader == "judge"} == {
            e.key for e in team.edges if e.reader == "judge"
        }
        assert (one.graph.rounds, one.graph.by_key[EdgeKey("a", "d", "temporal")].kind) == (2, "temporal")
        assert one.details["candidates"] == 5


def test_fixed_topologies_that_are_the_same_for_few_agents_count_once() -> None:
    assert [c.label for c in control("fixed", topologies.independent(POOL[:2], JUDGE), numbers())] == [
        "fixed-chain"
    ]
    # Of three agents, a tree is a star.
    assert [c.label for c in control("fixed", TEAM, numbers())] == [
        "fixed-chain", "fixed-star", "fixed-layered", "fixed-complete",
    ]  # fmt: skip
    with pytest.raises(GraphError, match="nothing to put in another order"):
        control("fixed", topologies.independent(["a"], "judge"), numbers())


def test_new_edges_get_the_channel_that_most_edges_of_their_kind_have() -> None:
    short = truncate(5)
    team = AgentGraph(
        [*POOL, JUDGE],
        [Edge("ann", "bob", channel=short), *(Edge(a.name, "judge") for a in POOL)],
        "judge",
    )
    (made,) = control("complete", team, numbers())
    assert {(e.reader == "judge", e.channel is None) for e in made.graph.edges} == {
        (True, True),
        (False, False),
    }


def counts(edges: Any, decision: str) -> Counter[Any]:
    return Counter(controls._class(k, decision) for k in edges)


@given(
    agents=st.integers(2, 8),
    share=st.floats(0, 1),
    scope=st.sampled_from(["all", "sinks"]),
    seed=st.integers(0, 99),
)
def test_a_random_dag_has_as_many_agents_and_edges_and_leaves_nobody_unread(
    agents: int, share: float, scope: Any, seed: int
) -> None:
    most = agents * (agents - 1) // 2
    names = [f"a{i}" for i in range(agents)]
    team = topologies.random_dag(names, "judge", seed=seed, edges=round(share * most), decision_scope=scope)
    if round(share * most) == 0:
        with pytest.raises(GraphError, match="would be itself"):
            control("random", team, numbers(), seed=seed)
        return
    made = control("random", team, numbers(), seed=seed)
    for one in made:
        assert isinstance(one.topology, Topology)
        (mask,) = one.topology.masks
        assert mask.agents == set(team.names)
        assert counts(mask.edges, "judge") == counts(team.by_key, "judge")
        assert one.graph.useful_agents(one.topology) == set(team.names)
        one.graph.apply(one.topology)  # a DAG that runs
    assert made == control("random", team, numbers(), seed=seed)
    assert len({c.details["seed"] for c in made}) == 3


def test_a_random_topology_is_as_large_as_the_teams_own_on_each_item() -> None:
    team = topologies.complete(["a", "b", "c", "d"], "judge")
    work = numbers(8)

    def own(item: Item) -> Topology:
        if int(item.id[1:]) % 2:
            return team.topology(without_agents=["a", "c"])
        return team.topology(without_edges=[("a", "b"), ("c", "d")])

    for one in control("random", team, work, topology=own):
        assert isinstance(one.topology, MatchedRandom)
        drawn = {item.id: one.topology(item) for item in work.items}
        for item in work.items:
            (mask,), (ours,) = own(item).masks, drawn[item.id].masks
            assert len(ours.agents) == len(mask.agents)
            assert counts(ours.edges, "judge") == counts(mask.edges, "judge")
            assert one.topology(item) == drawn[item.id]
        assert len({t.to_dict().__repr__() for t in drawn.values()}) > 2
        assert one.topology.spec()["like"].endswith("own")


def test_temporal_edges_are_matched_round_by_round() -> None:
    team = load_graph("debate", {"agents": 4, "rounds": 2})
    cut = team.topology(without_edges=[("debater1", "debater2"), ("debater3", "debater4")])
    masks = Topology((team.topology().masks[0], cut.masks[0]))
    for one in control("random", team, numbers(), topology=masks):
        assert isinstance(one.topology, Topology)
        ours = [counts(m.edges, "judge") for m in one.topology.masks]
        assert ours == [counts(m.edges, "judge") for m in masks.masks]


def test_fewer_than_three_draws_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 3"):
        control("random", TEAM, numbers(), draws=2)


def test_the_words_are_all_or_some_and_a_wrong_one_is_named() -> None:
    assert words("all") == controls.MANDATORY
    assert words("all", learned=True) == (*controls.MANDATORY, "fixed", "untrained")
    assert words("vote,single") == ("single", "vote")
    with pytest.raises(ConfigError, match="'singel'"):
        words("singel,vote")
    with pytest.raises(ConfigError, match="no controls named"):
        words(" ")


# -- running them ------------------------------------------------------------------------------


def speaking(right: dict[str, Callable[[int], bool]]) -> Scripted:
    """A model that says the number asked for where the text found in its prompt lets it."""

    def reply(request: ChatRequest) -> str:
        prompt = "\n".join(m.content for m in request.messages)
        number = int(prompt.split("Say ")[1].split(".")[0])
        knows = next((f for text, f in right.items() if text in prompt), lambda n: False)
        return str(number) if knows(number) else "99999"

    return Scripted(reply)


async def everything(
    out: Path,
    graph: AgentGraph = TEAM,
    task: Task | None = None,
    model: Scripted | None = None,
    wanted: str = "all",
    **more: Any,
) -> tuple[Run, Controlled]:
    task = task or numbers()
    model = model or speaking({"Be brief.": lambda n: True})
    options = RunOptions(executor="plain")
    topology = more.pop("topology", None)
    run = await evaluate(graph, task, model, out=out, topology=topology, options=options)
    done = await run_controls(
        run, graph, task, model, words(wanted), topology=topology, options=options, **more
    )
    return run, done


def names_in(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir()]


pytestmark = pytest.mark.anyio


async def test_the_best_single_agent_is_chosen_on_validate_and_never_on_the_items_scored(
    tmp_path: Path,
) -> None:
    # On validate (100 and up) bob is best; on the scored items ann would be.
    model = speaking({"Be bold.": lambda n: n < 100, "Be brief.": lambda n: n >= 100})
    _, done = await everything(
        tmp_path / "team", model=model, wanted="single", validate=numbers(4, first=100)
    )
    assert [c.label for c, _ in done.runs] == ["single-bob"]
    assert done.chosen == "bob, on 4 items of validate (ann 0.00, bob 1.00, cy 0.00, judge 0.00)"
    assert done.runs[0][1].config["control"]["chosen_on"] == "validate"


async def test_without_validate_items_every_single_agent_is_shown_and_none_chosen(tmp_path: Path) -> None:
    _, done = await everything(tmp_path / "team", wanted="single", validate=None)
    assert [c.label for c, _ in done.runs] == ["single-ann", "single-bob", "single-cy", "single-judge"]
    assert done.chosen is None
    assert "single" in check_controls([tmp_path / "team", *control_paths(tmp_path / "team")]).present


async def test_validate_items_that_are_also_scored_choose_nothing(tmp_path: Path) -> None:
    _, done = await everything(tmp_path / "team", wanted="single", validate=numbers(2))
    assert len(done.runs) == 4


def hearing_only_ann(request: ChatRequest) -> str:
    """cy knows the answer if it reads nobody but ann (a star); the judge says what cy says."""
    text = request.messages[-1].content
    number = text.split("Say ")[1].split(".")[0]
    if "Decide." in text:
        return text.rpartition("From cy:\n")[2]
    reads = [line for line in text.splitlines() if line.startswith("From ")]
    return number if reads == ["From ann:"] and "hint" not in text else "?"


async def test_the_best_fixed_topology_is_chosen_on_validate_and_run_on_the_items(tmp_path: Path) -> None:
    model = Scripted(hearing_only_ann)
    validate = numbers(4, first=100)
    _, done = await everything(tmp_path / "team", model=model, wanted="fixed", validate=validate)
    ((one, run),) = done.runs
    assert (one.label, run.path) == ("fixed-star", tmp_path / "team-fixed-star")
    assert done.fixed == ("star, on 4 items of validate (chain 0.00, star 1.00, layered 0.00, complete 0.00)")
    assert [e.score for e in run.episodes] == [1.0] * 6
    assert run.config["control"]["chosen_on"] == "validate"
    # Continued, it is chosen and run without a call.
    paid = len(model.requests)
    _, again = await everything(tmp_path / "team", model=model, wanted="fixed", validate=validate)
    assert (len(model.requests), again.fixed) == (paid, done.fixed)


async def test_a_fixed_topology_that_cannot_be_chosen_or_is_the_team_itself_is_not_applicable(
    tmp_path: Path,
) -> None:
    _, done = await everything(tmp_path / "team", wanted="fixed", validate=None)
    assert done.runs == () and "no items of validate" in done.not_applicable["fixed"]
    star = topologies.star(POOL, JUDGE)
    model = Scripted(hearing_only_ann)
    _, done = await everything(
        tmp_path / "star", graph=star, model=model, wanted="fixed", validate=numbers(2, first=50)
    )
    assert done.not_applicable == {"fixed": "the team itself is the best fixed topology, star"}


async def test_a_learned_topology_needs_the_fixed_one_too_unless_there_is_nothing_to_choose_on(
    tmp_path: Path,
) -> None:
    def policy(item: Item) -> Topology:
        return TEAM.topology(without_agents=["ann"])

    await everything(tmp_path / "team", wanted="random", topology=policy)
    paths = [tmp_path / "team", *control_paths(tmp_path / "team")]
    assert "--controls fixed" in check_controls(paths).missing["fixed"]
    await everything(tmp_path / "team", wanted="fixed", topology=policy)
    assert "no items of validate" in check_controls(paths).not_applicable["fixed"]
    # Chosen from a whole team, also where the policy's team is one of the candidates.
    await everything(tmp_path / "chosen", wanted="fixed", topology=policy, validate=numbers(2, first=50))
    paths = [tmp_path / "chosen", *control_paths(tmp_path / "chosen")]
    assert check_controls(paths).present["fixed"] == ("chosen-fixed-chain",)


async def test_self_consistency_gets_as_many_samples_as_the_teams_tokens_allow(tmp_path: Path) -> None:
    run, done = await everything(tmp_path / "team", wanted="self_consistency", validate=numbers(2, first=50))
    by_label = {c.label: r for c, r in done.runs}
    assert set(by_label) == {"single-bob", "self-consistency"}  # one sample has to be measured
    team, alone, votes = (
        r.usage.input_tokens + r.usage.output_tokens
        for r in (run, by_label["single-bob"], by_label["self-consistency"])
    )
    assert team - alone < votes <= team
    assert votes % alone == 0


async def test_self_consistency_calls_makes_as_many_calls_as_the_team(tmp_path: Path) -> None:
    run, done = await everything(tmp_path / "team", wanted="self_consistency_calls")
    assert [r.usage.calls for _, r in done.runs] == [run.usage.calls]


async def test_all_controls_run_beside_the_team_and_nothing_is_missing(tmp_path: Path) -> None:
    run, done = await everything(tmp_path / "team", validate=numbers(2, first=50))
    assert set(names_in(tmp_path)) == {
        "team", "team-single-bob", "team-self-consistency", "team-vote", "team-edgeless", "team-random-1",
        "team-random-2", "team-random-3", "team-complete",
        *(f"team-validate-{name}" for name in ("ann", "bob", "cy", "judge")),
    }  # fmt: skip
    report = check_controls([tmp_path / "team", *control_paths(tmp_path / "team")])
    assert report.complete and report.missing == {}
    assert tuple(report.present) == controls.MANDATORY
    for _, control_run in done.runs:
        assert control_run.config["options"] == run.config["options"]
        assert control_run.config["task"] == run.config["task"]


async def test_a_continued_run_pays_for_nothing_again_and_keeps_what_was_measured(tmp_path: Path) -> None:
    model = speaking({"Be brief.": lambda n: True})
    await everything(tmp_path / "team", model=model, validate=numbers(2, first=50))
    paid = len(model.requests)
    _, done = await everything(tmp_path / "team", model=model, validate=numbers(2, first=50))
    assert len(model.requests) == paid
    assert len(done.runs) == 8


async def test_for_code_the_votes_are_not_applicable_and_not_missing(tmp_path: Path) -> None:
    model = speaking({"Be brief.": lambda n: True})
    task = numbers(extract=None)
    _, done = await everything(
        tmp_path / "team", task=task, model=model, wanted="self_consistency,vote,single"
    )
    assert set(done.not_applicable) == {"self_consistency", "vote"}
    assert "can't be voted on" in done.not_applicable["vote"]
    report = check_controls([tmp_path / "team", *control_paths(tmp_path / "team")])
    assert set(report.not_applicable) == {"self_consistency", "vote"}
    assert set(report.missing) == {"edgeless", "random", "complete"}


async def test_a_comparison_names_what_it_lacks(tmp_path: Path) -> None:
    await everything(tmp_path / "team", wanted="vote,random")
    team = tmp_path / "team"
    assert set(check_controls([team]).missing) == set(controls.MANDATORY)
    some = check_controls([team, tmp_path / "team-vote", tmp_path / "team-random-1"])
    assert set(some.present) == {"vote"}
    assert some.missing["random"] == "1 random DAGs of at least 3"
    assert "lacks mandatory controls" in str(some)


async def test_the_controls_of_another_run_do_not_count(tmp_path: Path) -> None:
    await everything(tmp_path / "team", wanted="vote")
    other = topologies.star(POOL, JUDGE)
    await everything(tmp_path / "other", graph=other, wanted="edgeless")
    report = check_controls([tmp_path / "team", tmp_path / "other-edgeless", tmp_path / "team-vote"])
    assert set(report.present) == {"vote"}
    # The claim is about the run whose controls are here, wherever it is listed.
    assert check_controls([tmp_path / "other", tmp_path / "team", tmp_path / "team-vote"]).run == "team"


async def test_a_topology_that_depends_on_the_item_also_needs_the_untrained_one(tmp_path: Path) -> None:
    def policy(item: Item) -> Topology:
        return TEAM.topology(without_agents=["ann"])

    await everything(tmp_path / "team", wanted="random", topology=policy)
    report = check_controls([tmp_path / "team", *control_paths(tmp_path / "team")])
    assert "random" in report.present
    assert "initial weights" in report.missing["untrained"]


class Keeping:
    """A policy whose untrained self keeps the decision agent and some others, whatever the item."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __call__(self, item: Item) -> Topology:
        return TEAM.topology(without_agents=[a.name for a in POOL if a.name not in self.names])

    def spec(self) -> dict[str, Any]:
        return {"policy": "test", "keeps": list(self.names)}

    def untrained(self, items: Any = ()) -> dict[str, Any]:
        if not items:
            return {"half": Keeping("ann")}
        return {"30%": Keeping("ann"), "70%": Keeping("ann", "bob")}


def hearing_bob(request: ChatRequest) -> str:
    text = request.messages[-1].content
    return text.split("Say ")[1].split(".")[0] if "Decide." in text and "From bob:" in text else "?"


async def test_the_untrained_network_has_thresholds_chosen_on_validate(tmp_path: Path) -> None:
    validate = numbers(2, first=50)
    _, done = await everything(
        tmp_path / "team", model=Scripted(hearing_bob), wanted="untrained", topology=Keeping("bob"),
        validate=validate,
    )  # fmt: skip
    ((one, run),) = done.runs
    assert run.path == tmp_path / "team-untrained"
    assert (one.details["keeps"], run.usage.calls) == ("70%", 18)
    assert [e.score for e in run.episodes] == [1.0] * 6
    assert run.config["topology"] == {"policy": "test", "keeps": ["ann", "bob"]}
    assert {"team-validate-untrained-30-", "team-validate-untrained-70-"} <= set(names_in(tmp_path))
    report = check_controls([tmp_path / "team", *control_paths(tmp_path / "team")])
    assert report.present["untrained"] == ("team-untrained",)


async def test_without_validate_items_the_untrained_network_stays_at_its_thresholds(tmp_path: Path) -> None:
    model = Scripted(hearing_bob)
    _, done = await everything(
        tmp_path / "team", model=model, wanted="untrained", topology=Keeping("bob"), validate=None
    )
    ((one, run),) = done.runs
    assert one.details == {"keeps": "half", "candidates": 1}
    assert run.config["control"]["chosen_on"] is None


async def test_a_topology_that_no_network_made_has_no_untrained_self(tmp_path: Path) -> None:
    def policy(item: Item) -> Topology:
        return TEAM.topology(without_agents=["ann"])

    _, done = await everything(tmp_path / "team", wanted="untrained", topology=policy)
    assert "doesn't come from a network" in done.not_applicable["untrained"]
    report = check_controls([tmp_path / "team"])
    assert "untrained" in report.not_applicable and "untrained" not in report.missing


async def test_a_damaged_list_of_controls_is_made_anew(tmp_path: Path) -> None:
    model = speaking({"Be brief.": lambda n: True})
    await everything(tmp_path / "team", model=model, wanted="vote")
    (tmp_path / "team" / "controls.json").write_text('{"of": "tr')
    paid = len(model.requests)
    await everything(tmp_path / "team", model=model, wanted="vote")
    assert len(model.requests) == paid
    assert [p.name for p in control_paths(tmp_path / "team")] == ["team-vote"]


async def test_a_vote_scores_what_the_majority_says(tmp_path: Path) -> None:
    model = speaking({"Be bold.": lambda n: n < 4, "Be brief.": lambda n: n < 4, "Decide.": lambda n: False})
    _, done = await everything(tmp_path / "team", model=model, wanted="vote")
    assert [e.score for e in done.runs[0][1].episodes] == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert done.runs[0][1].usage.calls == 18  # the vote itself asks nobody


def test_a_run_without_a_directory_has_nowhere_to_put_controls() -> None:
    async def go() -> None:
        run = await evaluate(TEAM, numbers(1), speaking({}), executor="plain")
        await run_controls(run, TEAM, numbers(1), speaking({}), ("vote",))

    with pytest.raises(ConfigError, match="--out"):
        anyio.run(go)
