"""Controls: what a team has to beat before its edges can be given the credit.

Every control is made from the user's own graph: the same prompts, models, sampling and items; only
who reads whom, and who decides, differs. The *pool* are all agents but the decision agent.

    single             one agent alone that sees every view of an item; one control for each agent
                       whose prompt differs (the best is chosen on ``validate``, see
                       :mod:`agentcomm.evaluation.control_runs`)
    self_consistency   that agent, asked as often as the team's tokens allow, and a vote; with
                       ``self_consistency_calls`` as often as the team makes calls
    vote               the pool's agents, who read nobody, and a vote
    edgeless           the pool's agents, who read nobody, and the decision agent, who reads all
    random             at least three random DAGs with as many agents and edges as the team has
                       (on each item, where its topology depends on the item)
    complete           every agent reads all before it, the decision agent reads everybody
    untrained          the team's own policy with the initial weights of its network, and thresholds
                       of its own, chosen on ``validate``
    fixed              chain, star, tree, two layers or complete, over the pool's agents; the best is
                       chosen on ``validate``

Who reads nobody says the same in every round, so ``vote`` and ``edgeless`` take one round.

A vote is a function agent (no model call). It counts answers as the task's ``extract`` reads them,
without the reference answer, and says the whole text of the winner who is listed first; ties go to
the answer of the lowest index, texts without an answer abstain.

Deliberately absent: running them, and any look at scores.
"""

from __future__ import annotations

import dataclasses
import random as random_module
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import combinations, permutations
from typing import Any

import networkx as nx

from agentcomm.calls import derive_seed
from agentcomm.errors import ConfigError, GraphError, TaskError
from agentcomm.evaluation.run import TopologyOf, topology_spec
from agentcomm.graph import Agent, AgentGraph, Channel, Edge, Mask, Topology
from agentcomm.message import EdgeKey, content_id
from agentcomm.prompting import Turn
from agentcomm.task import ALL_VIEWS, Item, Task

MANDATORY = ("single", "self_consistency", "vote", "edgeless", "random", "complete")
"""The controls without which a result says little about communication."""

UNTRAINED = "untrained"
"""The same pipeline with the network's initial weights, where a topology was learned."""

LEARNED = ("fixed", UNTRAINED)
"""Mandatory besides, where a topology was learned."""

WORDS = (*MANDATORY, *LEARNED, "self_consistency_calls")
DRAWS = 3
"""Random DAGs at least."""

SAMPLING_TEMPERATURE = 0.7
"""For self-consistency of an agent that is otherwise greedy: equal samples could not vote."""

Extract = Callable[[Item, str], str | None]
EdgeClass = tuple[str, str]


@dataclass(frozen=True)
class Control:
    """One way to run a control.

    ``name`` is the control's word, ``label`` tells several of one word apart (``"random-2"``),
    ``note`` says in a few words what it is, and ``details`` is kept in the run's configuration.
    """

    name: str
    label: str
    note: str
    graph: AgentGraph
    topology: TopologyOf = None
    details: Mapping[str, Any] = field(default_factory=dict)


def words(text: str, *, learned: bool = False) -> tuple[str, ...]:
    """``"all"`` or ``"single,vote"`` as controls, in the order of :data:`WORDS`.

    ``"all"`` are the mandatory ones, for a ``learned`` topology with those of :data:`LEARNED`.

    Raises
    ------
    ConfigError
        For an unknown word, or none.

    >>> words("vote, single")
    ('single', 'vote')
    """
    asked = {w.strip() for w in text.split(",") if w.strip()}
    if "all" in asked:
        asked = (asked - {"all"}) | {*MANDATORY, *(LEARNED if learned else ())}
    if strange := sorted(asked - set(WORDS)):
        raise ConfigError(
            f"unknown control {', '.join(map(repr, strange))}; write all, or some of: {', '.join(WORDS)}"
        )
    if not asked:
        raise ConfigError(f"no controls named; write all, or some of: {', '.join(WORDS)}")
    return tuple(w for w in WORDS if w in asked)


def control(
    name: str,
    graph: AgentGraph,
    task: Task,
    *,
    topology: TopologyOf = None,
    seed: int = 0,
    draws: int = DRAWS,
    agent: Agent | None = None,
    samples: int | None = None,
    temperature: float = 0.0,
    items: Sequence[Item] = (),
) -> tuple[Control, ...]:
    """The control called ``name`` of a team, ready to be run; one or several.

    Parameters
    ----------
    topology:
        What of the team is alive: what ``random`` imitates. The others take the whole team.
    seed, draws:
        Of ``random``.
    agent, samples, temperature:
        Of self-consistency: who is asked (the first of :func:`singles` by default), how often, and
        the run's own temperature.
    items:
        Of ``untrained``: what its thresholds are laid over.

    Raises
    ------
    GraphError, TaskError
        If the graph or the task has no such control (the message says why).
    ConfigError
        For an unknown name.
    """
    if name == "single":
        return singles(graph)
    if name in ("self_consistency", "self_consistency_calls"):
        if samples is None:
            raise ConfigError(f"{name} needs samples=, how often the agent is asked")
        who = agent if agent is not None else singles(graph, allow_itself=True)[0].graph.agents[0]
        return (_self_consistency(name, graph, who, samples, temperature, _extract(task)),)
    if name not in WORDS:
        raise ConfigError(f"unknown control {name!r}; there are: {', '.join(WORDS)}")
    if name == "fixed":
        return fixed(graph)
    if name == UNTRAINED:
        return untrained(graph, topology, items)
    if name == "vote":
        return (_vote(graph, _pool(graph, 2), _extract(task)),)
    if name == "random":
        if draws < DRAWS:
            raise ConfigError(f"{draws} random DAGs say little; take at least {DRAWS}")
        drawn = tuple(_random(graph, topology, seed, draw) for draw in range(draws))
        if not callable(topology) and _leaves_no_choice(graph, topology, drawn[0].graph):
            raise GraphError(
                "the team has none or all of the edges of each kind: a random one would be itself"
            )
        return drawn
    made = edgeless(graph) if name == "edgeless" else complete(graph)
    if topology is None and shape(made) == shape(graph):
        raise GraphError(f"the team itself is {name}, so there is nothing to compare it with")
    note = "no edges but to the decision agent" if name == "edgeless" else "every agent reads all before it"
    return (Control(name, name, note, made),)


def identity(config: Mapping[str, Any]) -> str:
    """What a run's controls must share with it: its graph, topology, items, model and sampling.

    ``config`` is a run's configuration; the graph's name doesn't count.
    """
    graph = {k: v for k, v in config["graph"].items() if k != "name"}
    task = config["task"]
    return content_id(
        graph, config.get("topology"), task["name"], task["items_hash"], *_conditions(config)
    )  # fmt: skip


def _conditions(config: Mapping[str, Any]) -> tuple[Any, ...]:
    return config.get("model"), config.get("samples"), config.get("options")


# ----------------------------------------------------------------------------- one agent alone


def singles(graph: AgentGraph, *, allow_itself: bool = False) -> tuple[Control, ...]:
    """Each agent alone, seeing every view; agents who differ only by name, view or place count once.

    The pool comes first, then the decision agent. Function agents make no calls and are left out.
    """
    if len(graph.agents) == 1 and not allow_itself:
        raise GraphError("the graph is a single agent itself")
    ordered = [*(a for a in graph.agents if a.name != graph.decision), graph.by_name[graph.decision]]
    different: dict[str, Agent] = {}
    for member in ordered:
        if member.act is None:
            bare = dataclasses.replace(member, name="x", view=None, memory=True)
            different.setdefault(content_id(bare.to_dict()), member)
    if not different:
        raise GraphError("the graph has no agent with a model: every one is a function")
    return tuple(
        Control(
            "single",
            f"single-{member.name}" if len(different) > 1 else "single",
            f"{member.name} alone sees all",
            AgentGraph([dataclasses.replace(member, view=ALL_VIEWS)], (), member.name, 1, graph.system),
            details={"agent": member.name, "candidates": len(different)},
        )
        for member in different.values()
    )


def _self_consistency(
    name: str, graph: AgentGraph, agent: Agent, samples: int, temperature: float, extract: Extract
) -> Control:
    if samples < 1:
        raise ConfigError(f"samples={samples}; self-consistency needs at least 1")
    own = agent.temperature if agent.temperature is not None else temperature
    drawn = [
        dataclasses.replace(
            agent,
            name=f"sample{i + 1}",
            view=ALL_VIEWS,
            temperature=agent.temperature if own > 0 else SAMPLING_TEMPERATURE,
        )
        for i in range(samples)
    ]
    # Hyphens, as in the names of run directories.
    return Control(
        name,
        name.replace("_", "-"),
        f"{agent.name} asked {samples} times, vote",
        _voting(drawn, graph.system, extract),
        details={"agent": agent.name, "samples": samples},
    )


# ---------------------------------------------------------------------------------------- votes


@dataclass(frozen=True)
class MajorityVote:
    """A function agent that says what most of those it reads say.

    ``extract(item, text)`` reads an answer; the item it gets has no reference answer. Of equally
    many votes the answer counts whose first voter is listed first; the words said are that voter's.
    Where no text has an answer, the first text is said.
    """

    extract: Extract

    async def __call__(self, turn: Turn) -> str:
        texts = [d.text for d in turn.inbox]
        if not texts:
            raise ValueError("nobody answered, so there is nothing to vote on")
        return texts[self.winner(turn.item, texts)]

    def winner(self, item: Item, texts: Sequence[str]) -> int:
        """Index of the text whose answer has the most votes.

        >>> MajorityVote(lambda item, text: text or None).winner(Item("q", "?"), ["", "b", "a", "a", "b"])
        1
        """
        blind = dataclasses.replace(item, answer=None)
        answers = [self.extract(blind, text) for text in texts]
        votes = Counter(a for a in answers if a is not None)
        if not votes:
            return 0
        most = max(votes.values())
        return next(i for i, a in enumerate(answers) if a is not None and votes[a] == most)


def _vote(graph: AgentGraph, pool: Sequence[Agent], extract: Extract) -> Control:
    made = _voting(pool, graph.system, extract)
    return Control("vote", "vote", f"majority of {len(pool)} answers", made)


def _voting(voters: Sequence[Agent], system: str, extract: Extract) -> AgentGraph:
    name = "vote"
    while name in {a.name for a in voters}:
        name += "_"
    edges = [Edge(a.name, name) for a in voters]
    return AgentGraph([*voters, Agent(name, act=MajorityVote(extract))], edges, name, 1, system)


def _extract(task: Task) -> Extract:
    if task.extract is None:
        raise TaskError(
            f"task {task.name!r} doesn't say how to read an answer, so answers can't be voted on (code can't "
            f"be; for other answers give it Task(..., extract=function of item and text))"
        )
    return task.extract


# ------------------------------------------------------------------------------- other topologies


def edgeless(graph: AgentGraph) -> AgentGraph:
    """The pool's agents, who read nobody; the decision agent reads them all, once."""
    pool = _pool(graph, 1)
    channels = _Channels(graph)
    edges = [channels.edge(a.name, graph.decision) for a in pool]
    return AgentGraph(graph.agents, edges, graph.decision, 1, graph.system)


def complete(graph: AgentGraph) -> AgentGraph:
    """The graph with every spatial edge that a DAG can have in the order in which its agents speak.

    It contains the graph: temporal edges, rounds and channels are kept; a new edge gets the channel
    that most edges of its kind have.
    """
    return _with_spatial(graph, lambda n: combinations(range(n), 2))


def fixed(graph: AgentGraph) -> tuple[Control, ...]:
    """The topologies of :data:`FIXED` over the pool, in the order in which the team speaks.

    The decision agent reads everybody; rounds, temporal edges and channels are kept as in
    :func:`complete`. Those that are the same for so few agents count once.
    """
    _pool(graph, 2)
    made: dict[str, Control] = {}
    for name, (pairs, note) in FIXED.items():
        team = _with_spatial(graph, pairs)
        made.setdefault(
            shape(team), Control("fixed", f"fixed-{name}", note, team, details={"topology": name})
        )
    candidates = len(made)
    return tuple(
        dataclasses.replace(c, details={**c.details, "candidates": candidates}) for c in made.values()
    )


def untrained(graph: AgentGraph, topology: TopologyOf, items: Sequence[Item] = ()) -> tuple[Control, ...]:
    """The team's policy with initial weights, at several thresholds; ``items`` as for :func:`control`.

    A policy offers it by a method ``untrained(items)``: policies with initial weights, by name.
    """
    make = getattr(topology, UNTRAINED, None)
    if not callable(make):
        raise GraphError("the team's topology doesn't come from a network, so there are no initial weights")
    made: Mapping[str, TopologyOf] = make(items)
    return tuple(
        Control(
            UNTRAINED,
            UNTRAINED,
            f"the same network, initial weights, keeps {name}",
            graph,
            policy,
            {"keeps": name, "candidates": len(made)},
        )
        for name, policy in made.items()
    )


def _layered(agents: int) -> Iterable[tuple[int, int]]:
    layer = [i * 2 // agents for i in range(agents)]
    return [(i, j) for i, j in combinations(range(agents), 2) if layer[i] < layer[j]]


FIXED: Mapping[str, tuple[Callable[[int], Iterable[tuple[int, int]]], str]] = {
    "chain": (lambda n: [(i, i + 1) for i in range(n - 1)], "each reads the one before it"),
    "star": (lambda n: [(0, i) for i in range(1, n)], "all read the first"),
    "tree": (lambda n: [((i - 1) // 2, i) for i in range(1, n)], "each is read by two"),
    "layered": (_layered, "the second half reads the first"),
    "complete": (lambda n: combinations(range(n), 2), "each reads all before it"),
}
"""Fixed topologies: pairs of positions in the pool, for so many agents."""


def _with_spatial(graph: AgentGraph, pairs: Callable[[int], Iterable[tuple[int, int]]]) -> AgentGraph:
    """The graph with these spatial edges among its pool; positions are those in which its agents speak."""
    pool = [a.name for a in _pool(graph, 1)]
    dag: nx.DiGraph[str] = nx.DiGraph()
    dag.add_nodes_from(pool)
    dag.add_edges_from(
        (e.sender, e.reader) for e in graph.edges if e.kind == "spatial" and e.reader != graph.decision
    )
    order = list(nx.lexicographical_topological_sort(dag, key=lambda name: graph.index[name]))
    channels = _Channels(graph)
    edges = [channels.edge(order[i], order[j]) for i, j in pairs(len(order))]
    edges += [channels.edge(a, graph.decision) for a in pool]
    edges += [e for e in graph.edges if e.kind == "temporal"]
    return AgentGraph(graph.agents, edges, graph.decision, graph.rounds, graph.system)


def _random(graph: AgentGraph, topology: TopologyOf, seed: int, draw: int) -> Control:
    pool = [a.name for a in _pool(graph, 2)]
    drawn_from = derive_seed("random control", seed, draw)
    order = tuple(random_module.Random(drawn_from).sample(pool, len(pool)))
    # What brings its own schedules may have edges of kinds that the graph has none of.
    free = hasattr(topology, "schedule") and graph.rounds > 1
    within = _everything(graph, order, {("temporal", "pool"), ("temporal", "self")} if free else set())
    matched = MatchedRandom(graph, within, order, topology, drawn_from)
    return Control(
        "random",
        f"random-{draw + 1}",
        "random, as many agents and edges",
        matched.within,
        matched if callable(topology) else matched.like(topology, drawn_from),
        {"draw": draw, "seed": drawn_from},
    )


@dataclass(frozen=True)
class MatchedRandom:
    """item -> a random topology with as many agents and edges as the team has on that item.

    ``order`` is a random order of the pool, in which spatial edges point forward; ``within`` has
    every edge that may be drawn. Matched are the numbers of alive pool agents, of spatial and of
    temporal edges among them, of those into and out of the decision agent, and of temporal edges from
    an agent to itself, round by round where the team's topology has rounds.

    Drawn are the agents, then whom the decision agent reads (the last in the order always, since
    nobody else could read it), then edges among the pool: one for every agent that would otherwise
    be read by nobody, the rest all alike. Where the decision agent reads everybody, all choices are
    alike.
    """

    graph: AgentGraph
    within: AgentGraph
    order: tuple[str, ...]
    topology: TopologyOf
    seed: int

    def __call__(self, item: Item) -> Topology:
        own = self.topology(item) if callable(self.topology) else self.topology
        return self.like(own, derive_seed(self.seed, item.content_hash))

    def spec(self) -> dict[str, Any]:
        """What it depends on beside the graph, for the run's configuration."""
        return {"random": self.seed, "like": topology_spec(self.topology)}

    def like(self, topology: Topology | None, seed: int) -> Topology:
        """A random topology as large as ``topology`` (the whole team by default)."""
        rng = random_module.Random(seed)
        own = topology if topology is not None else self.graph.topology()
        drawn = rng.sample(self.order, len(self.order))
        return Topology(tuple(self._mask(mask, drawn, rng) for mask in own.masks))

    def _mask(self, mask: Mask, drawn: Sequence[str], rng: random_module.Random) -> Mask:
        decision = self.graph.decision
        size = len(mask.agents - {decision})
        chosen = {*drawn[:size]}
        alive = [name for name in self.order if name in chosen]
        wanted = Counter(
            _class(e, decision) for e in mask.edges if e.sender in mask.agents and e.reader in mask.agents
        )
        edges = self._spatial(
            alive, wanted.pop(("spatial", "pool"), 0), wanted.pop(("spatial", "in"), 0), rng
        )
        there = {*alive, decision}
        for kind, count in sorted(wanted.items()):
            among = sorted(
                k
                for k in self.within.by_key
                if _class(k, decision) == kind and k.sender in there and k.reader in there
            )
            edges += rng.sample(among, min(count, len(among)))
        return Mask(frozenset(there), frozenset(edges))

    def _spatial(
        self, alive: Sequence[str], among: int, read: int, rng: random_module.Random
    ) -> list[EdgeKey]:
        pairs = list(combinations(alive, 2))
        heard = [*alive[-1:], *rng.sample(alive[:-1], min(read, len(alive)) - 1)] if read and alive else []
        # Each agent that the decision doesn't read speaks to one that is after it.
        linked = [
            (name, rng.choice(alive[i + 1 :]))
            for i, name in enumerate(alive)
            if name not in heard and i + 1 < len(alive)
        ]
        if len(linked) > among:
            linked = []
        rest = [p for p in pairs if p not in set(linked)]
        linked += rng.sample(rest, min(among - len(linked), len(rest)))
        return [EdgeKey(a, b) for a, b in linked] + [EdgeKey(a, self.graph.decision) for a in heard]


def _everything(graph: AgentGraph, order: Sequence[str], more: Set[EdgeClass] = frozenset()) -> AgentGraph:
    """Every edge of the kinds the graph has, and of ``more``, with the spatial ones forward in ``order``."""
    channels = _Channels(graph)
    decision = graph.decision
    kinds = {_class(e.key, decision) for e in graph.edges} | more
    edges = [channels.edge(a, b) for a, b in combinations(order, 2)]
    edges += [channels.edge(a, decision) for a in order]
    temporal: list[tuple[str, str]] = []
    if ("temporal", "pool") in kinds:
        temporal += permutations(order, 2)
    if ("temporal", "self") in kinds:
        temporal += [(a, a) for a in order]
    if ("temporal", "in") in kinds:
        temporal += [(a, decision) for a in order]
    if ("temporal", "out") in kinds:
        temporal += [(decision, a) for a in order]
    if ("temporal", "own") in kinds:
        temporal.append((decision, decision))
    edges += [channels.edge(a, b, "temporal") for a, b in temporal]
    return AgentGraph(graph.agents, edges, decision, graph.rounds, graph.system)


def _leaves_no_choice(graph: AgentGraph, topology: Topology | None, within: AgentGraph) -> bool:
    """Whether everything that is as large as the topology is the same."""
    possible = Counter(_class(key, graph.decision) for key in within.by_key)
    for mask in (topology if topology is not None else graph.topology()).masks:
        there = Counter(_class(key, graph.decision) for key in mask.edges)
        if len(mask.agents) < len(graph.agents) or there[("spatial", "pool")]:
            return False
        if any(0 < count < possible[kind] for kind, count in there.items()):
            return False
    return True


def _class(edge: EdgeKey, decision: str) -> EdgeClass:
    """What an edge is matched with: its kind, and whether it touches the decision agent."""
    if edge.sender == edge.reader:
        return edge.kind, "own" if edge.sender == decision else "self"
    if edge.reader == decision:
        return edge.kind, "in"
    return edge.kind, "out" if edge.sender == decision else "pool"


class _Channels:
    """Which channel a control's edge has: the one between the two agents, else the usual one."""

    def __init__(self, graph: AgentGraph) -> None:
        self.graph = graph
        by_class: dict[EdgeClass, list[Channel | None]] = {}
        for edge in graph.edges:
            by_class.setdefault(_class(edge.key, graph.decision), []).append(edge.channel)
        self.usual = {kind: _most_common(channels) for kind, channels in by_class.items()}

    def edge(self, sender: str, reader: str, kind: Any = "spatial") -> Edge:
        key = EdgeKey(sender, reader, kind)
        for known in (key, EdgeKey(reader, sender, kind)):
            if known in self.graph.by_key:
                return Edge(sender, reader, kind, self.graph.by_key[known].channel)
        return Edge(sender, reader, kind, self.usual.get(_class(key, self.graph.decision)))


def _most_common(channels: Iterable[Channel | None]) -> Channel | None:
    listed = list(channels)
    names = [content_id(c.spec() if c is not None else None) for c in listed]
    return listed[names.index(Counter(names).most_common(1)[0][0])]


def _pool(graph: AgentGraph, least: int) -> list[Agent]:
    pool = [a for a in graph.agents if a.name != graph.decision]
    if len(pool) < least:
        few = "no agent beside the decision agent" if not pool else "one agent beside the decision agent"
        raise GraphError(f"the graph has {few}, so there is nothing to put in another order or to vote")
    return pool


def shape(graph: AgentGraph) -> str:
    """Equal for graphs that differ at most by the order in which their edges are listed."""
    data = graph.to_dict()
    data["edges"] = sorted(map(content_id, data["edges"]))
    return content_id(data)
