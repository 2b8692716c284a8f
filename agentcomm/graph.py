"""Agent, Edge, AgentGraph, Topology: what exists, and what may be cut.

A graph is a team. Its *spatial* edges are read within a round and form a DAG; its *temporal*
edges are read in the next round. A :class:`Topology` says which agents and edges are alive, for
all rounds or round by round; it can only take away. One agent decides.

Semantics (also what both executors do):

* A round runs the alive agents in topological order of the alive spatial edges.
* In round *r* an agent reads what its spatial senders said in *r* and what its temporal senders
  said in *r - 1*, temporal first, each in the order the agents are listed in the graph.
* The decision agent speaks once, after the last round. Only if somebody reads it over a
  temporal edge does it speak at the end of every round; its last word is the answer.
* A dead agent makes no call and is in nobody's inbox. An alive agent without edges still runs:
  isolation is not removal.

Nothing here does I/O; graphs and topologies are immutable. Deliberately absent: anything that
knows about models, prompts or tokens.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, cast

import networkx as nx

from agentcomm.errors import GraphError
from agentcomm.message import Delivery, EdgeKey, EdgeKind, Message

DEFAULT_SYSTEM = "You are part of a team that works on one task."
FORMAT = 1


class Channel(Protocol):
    """What happens on an edge: turns a message into what the reader reads.

    ``deliver`` gets the message, the edge and the turn of the agent that is going to read it (its
    item, round and earlier turns; ``turn.desk`` calls a model and counts tokens). What it raises is
    a failed delivery: the reader reads nothing. ``spec`` describes the channel in JSON for the run's
    configuration; :func:`agentcomm.channels.from_spec` makes it again from that.

    Two attributes may be there: ``models``, the model strings it calls (``None`` is the run's
    default), asked for before anything is paid; and ``in_order = True`` if it needs what the other
    edges delivered before it (``turn.inbox``), else edges are worked on side by side.
    """

    @property
    def name(self) -> str: ...

    def spec(self) -> dict[str, Any]: ...

    async def deliver(self, message: Message, edge: Edge, turn: Any) -> Delivery: ...


class StopRule(Protocol):
    """When a team has talked enough: asked after every wave, it ends the rounds early.

    ``over`` gets what was said so far, in the order of speaking, and must depend on nothing else.
    ``spec`` describes the rule in JSON for the run's configuration.
    """

    @property
    def name(self) -> str: ...

    def spec(self) -> dict[str, Any]: ...

    def over(self, messages: Sequence[Message]) -> bool: ...


@dataclass(frozen=True)
class Agent:
    """A member of the team.

    Parameters
    ----------
    name:
        Unique in the graph; shown to the readers of its messages.
    role:
        What it is told to do. Part of its prompt, after the task, so that agents share a prefix.
    model:
        A model string such as ``"local/smollm2"``; ``None`` takes the run's default.
    view:
        Which view of the item it sees beside the question: a view's name, ``"*"`` for all, or
        ``None`` for none.
    memory:
        Whether it remembers its own earlier rounds (what it read and said), appended to, never
        rewritten. ``False`` shows it only the current round's messages.
    temperature, top_p, max_tokens, stop:
        Sampling; ``None`` takes the run's default.
    schema:
        A JSON schema its reply should follow (structured output), where the backend offers it.
    act:
        A function agent instead of a model: any async callable that gets a
        :class:`agentcomm.prompting.Turn` and returns the text it says (``str`` or ``Message``).
        It makes no model call.
    adversarial:
        Marks an agent that is told to mislead (:mod:`agentcomm.adversary`), for whoever reads the
        results; it changes nothing by itself and is in no prompt.
    context:
        Whether it sees the item's shared context; ``False`` leaves it the question and its view.
    """

    name: str
    role: str = ""
    model: str | None = None
    view: str | None = None
    memory: bool = True
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = field(default=None, hash=False)
    act: Callable[[Any], Awaitable[str | Message]] | None = field(default=None, hash=False)
    adversarial: bool = False
    context: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise GraphError("an agent has no name; give every Agent a non-empty name")
        if "->" in self.name or any(ord(c) < 32 for c in self.name):
            raise GraphError(f"agent name {self.name!r} contains '->' or a control character; rename it")
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        if self.max_tokens is not None and self.max_tokens < 1:
            raise GraphError(f"agent {self.name!r} has max_tokens={self.max_tokens}; it must be at least 1")
        if self.temperature is not None and not 0.0 <= self.temperature < math.inf:
            raise GraphError(f"agent {self.name!r} has temperature={self.temperature}; it must be at least 0")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise GraphError(f"agent {self.name!r} has top_p={self.top_p}; it must be above 0 and at most 1")
        if self.act is not None and not callable(self.act):
            raise GraphError(f"agent {self.name!r}: act must be an async callable, not {self.act!r}")

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as JSON; a function agent by its name."""
        out: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name == "act" and value is not None:
                module = getattr(value, "__module__", type(value).__module__)
                value = f"{module}:{getattr(value, '__qualname__', type(value).__qualname__)}"
            elif f.name == "stop":
                value = list(value) or None
            if f.name == "name" or (value != f.default and value is not None):
                out[f.name] = value
        return out


@dataclass(frozen=True)
class Edge:
    """``sender`` speaks, ``reader`` reads: in the same round (``spatial``) or the next (``temporal``).

    ``channel`` changes what the reader reads (truncate, summarise...); ``None`` is verbatim.
    """

    sender: str
    reader: str
    kind: EdgeKind = "spatial"
    channel: Channel | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.kind not in ("spatial", "temporal"):
            raise GraphError(
                f"edge {self.sender}->{self.reader} has kind {self.kind!r}; use 'spatial' or 'temporal'"
            )

    @cached_property
    def key(self) -> EdgeKey:
        return EdgeKey(self.sender, self.reader, self.kind)

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"sender": self.sender, "reader": self.reader}
        if self.kind != "spatial":
            out["kind"] = self.kind
        if self.channel is not None:
            out["channel"] = self.channel.spec()
        return out


EdgeLike = Edge | EdgeKey | tuple[str, str] | tuple[str, str, str]


class Mask(NamedTuple):
    """Who and what is alive in one round."""

    agents: frozenset[str]
    edges: frozenset[EdgeKey]


@dataclass(frozen=True)
class Topology:
    """Which agents and edges are alive: one :class:`Mask` for all rounds, or one per round.

    Made by :meth:`AgentGraph.topology`. Pruning is monotone: ``a & b`` is alive where both are.
    An edge delivers in round *r* if it is alive in *r*, its reader is alive in *r*, and its
    sender was alive when it spoke (*r* for spatial, *r - 1* for temporal edges).
    """

    masks: tuple[Mask, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "masks", tuple(self.masks))
        if not self.masks:
            raise GraphError("a topology needs at least one mask")

    def mask(self, round: int) -> Mask:
        """The mask of a round (counted from 1)."""
        return self.masks[0] if len(self.masks) == 1 else self.masks[round - 1]

    def alive(self, agent: str, round: int) -> bool:
        return agent in self.mask(round).agents

    def delivers(self, edge: EdgeKey, round: int) -> bool:
        """Whether ``edge.reader`` reads ``edge.sender`` over this edge in ``round``."""
        masks = self.masks
        mask = masks[0] if len(masks) == 1 else masks[round - 1]
        if edge not in mask.edges or edge.reader not in mask.agents:
            return False
        if edge.kind == "spatial":
            return edge.sender in mask.agents
        return round > 1 and edge.sender in (mask if len(masks) == 1 else masks[round - 2]).agents

    def __and__(self, other: Topology) -> Topology:
        n = self._rounds_with(other)
        pairs = [(self.mask(r), other.mask(r)) for r in range(1, n + 1)]
        return Topology(tuple(Mask(a.agents & b.agents, a.edges & b.edges) for a, b in pairs))

    def __le__(self, other: Topology) -> bool:
        """Whether everything alive here is alive in ``other``."""
        n = self._rounds_with(other)
        return all(
            self.mask(r).agents <= other.mask(r).agents and self.mask(r).edges <= other.mask(r).edges
            for r in range(1, n + 1)
        )

    def _rounds_with(self, other: Topology) -> int:
        n = max(len(self.masks), len(other.masks))
        if {len(self.masks), len(other.masks)} - {1, n}:
            raise GraphError(
                f"topologies of {len(self.masks)} and {len(other.masks)} rounds don't fit together"
            )
        return n

    def to_dict(self) -> dict[str, Any]:
        return {
            "masks": [
                {"agents": sorted(m.agents), "edges": [list(e) for e in sorted(m.edges)]} for m in self.masks
            ]
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Topology:
        try:
            return cls(
                tuple(
                    Mask(frozenset(m["agents"]), frozenset(EdgeKey(*e) for e in m["edges"]))
                    for m in data["masks"]
                )
            )
        except (KeyError, TypeError) as error:
            raise GraphError(f"not a topology: {error!r}; expected {{'masks': [...]}}") from error


@dataclass(frozen=True)
class AgentGraph:
    """A team: agents, edges, who decides, and for how many rounds.

    Parameters
    ----------
    agents, edges:
        Unique names; at most one edge of a kind between a sender and a reader.
    decision:
        Name of the agent whose last message is the answer.
    rounds:
        How often the team goes round before the decision.
    system:
        Text shared by every agent, first in every prompt.
    stop:
        Ends the rounds before the last one: the decision agent speaks next. Under a stop rule it
        reads everything that its senders said in any round, in the order of speaking.

    Raises
    ------
    GraphError
        For a duplicate or unknown name, a cycle among spatial edges (the message names it), a
        missing decision agent, a spatial edge out of the decision agent, an agent that can't
        reach the decision agent, or fewer than one round.

    Examples
    --------
    >>> graph = AgentGraph([Agent("a"), Agent("b")], [Edge("a", "b")], decision="b")
    >>> graph.names
    ('a', 'b')
    """

    agents: tuple[Agent, ...]
    edges: tuple[Edge, ...] = ()
    decision: str = ""
    rounds: int = 1
    system: str = DEFAULT_SYSTEM
    stop: StopRule | None = None

    def __init__(
        self,
        agents: Iterable[Agent],
        edges: Iterable[EdgeLike] = (),
        decision: str = "",
        rounds: int = 1,
        system: str = DEFAULT_SYSTEM,
        stop: StopRule | None = None,
    ) -> None:
        object.__setattr__(self, "agents", tuple(agents))
        object.__setattr__(self, "edges", tuple(map(_edge, edges)))
        object.__setattr__(self, "decision", decision)
        object.__setattr__(self, "rounds", rounds)
        object.__setattr__(self, "system", system)
        object.__setattr__(self, "stop", stop)
        self._check()

    def _check(self) -> None:
        if not self.agents:
            raise GraphError("the graph has no agents; give it at least the decision agent")
        if strangers := [a for a in self.agents if not isinstance(a, Agent)]:
            raise GraphError(f"{strangers[0]!r} is not an agent; write Agent({str(strangers[0])!r})")
        for name, count in _counts(self.names).items():
            if count > 1:
                raise GraphError(f"{count} agents are named {name!r}; names must be unique")
        if not isinstance(self.rounds, int) or isinstance(self.rounds, bool) or self.rounds < 1:
            raise GraphError(f"rounds={self.rounds!r}; it must be a whole number of at least 1")
        if not self.decision:
            raise GraphError(
                f"the graph has no decision agent; set decision= to one of: {', '.join(self.names)}"
            )
        if self.decision not in self.by_name:
            raise GraphError(
                f"the decision agent {self.decision!r} is not in the graph; its agents are: {', '.join(self.names)}"
            )
        for edge in self.edges:
            for end in (edge.sender, edge.reader):
                if end not in self.by_name:
                    raise GraphError(
                        f"edge {edge.key} names {end!r}, which is not an agent of the graph ({', '.join(self.names)})"
                    )
            if edge.sender == self.decision and edge.kind == "spatial":
                raise GraphError(
                    f"edge {edge.key}: the decision agent speaks last in a round, so nobody can read it in the "
                    f"same round; use kind='temporal' or another decision agent"
                )
        for key, count in _counts(e.key for e in self.edges).items():
            if count > 1:
                raise GraphError(f"{count} {key.kind} edges {key}; keep one")
        spatial = nx.DiGraph((e.sender, e.reader) for e in self.edges if e.kind == "spatial")
        if not nx.is_directed_acyclic_graph(spatial):
            cycle = [a for a, _ in nx.find_cycle(spatial)]
            raise GraphError(
                f"spatial edges form a cycle: {' -> '.join([*cycle, cycle[0]])}; "
                f"make one of them kind='temporal' (read in the next round)"
            )
        useful = self.useful_agents(self.topology())
        if lost := [n for n in self.names if n not in useful]:
            hint = (
                " (temporal edges are read in the next round, and there is only one)"
                if self.rounds == 1 and any(e.kind == "temporal" for e in self.edges)
                else ""
            )
            raise GraphError(
                f"{_names(lost)} can't reach the decision agent {self.decision!r}{hint}; "
                f"add an edge towards it or leave the agent out"
            )

    # -- looking things up -------------------------------------------------------------------

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Agent names in the order given; every inbox and wave is sorted by it."""
        return tuple(a.name for a in self.agents)

    @cached_property
    def by_name(self) -> Mapping[str, Agent]:
        return {a.name: a for a in self.agents}

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Position of each agent in ``names``."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def by_key(self) -> Mapping[EdgeKey, Edge]:
        return {e.key: e for e in self.edges}

    @cached_property
    def incoming(self) -> Mapping[str, tuple[Edge, ...]]:
        """Edges into each agent in reading order: temporal first, then by the sender's position."""
        into: dict[str, list[Edge]] = {name: [] for name in self.names}
        for edge in self.edges:
            into[edge.reader].append(edge)
        return {
            name: tuple(sorted(edges, key=lambda e: (e.kind == "spatial", self.index[e.sender])))
            for name, edges in into.items()
        }

    # -- cutting -----------------------------------------------------------------------------

    def topology(
        self,
        *,
        agents: Iterable[str] | None = None,
        edges: Iterable[EdgeLike] | None = None,
        without_agents: Iterable[str] = (),
        without_edges: Iterable[EdgeLike] = (),
    ) -> Topology:
        """A topology for all rounds: everything, or only what is named, less what is taken away.

        A pair ``(sender, reader)`` names both kinds of edge between them. The decision agent
        always stays. Combine per-round masks with ``Topology(masks=...)``.
        """
        kept = (
            set(self.names) if agents is None else {self._known(n) for n in _each(agents)} | {self.decision}
        )
        gone = {self._known(n) for n in _each(without_agents)}
        if self.decision in gone:
            raise GraphError(f"the decision agent {self.decision!r} can't be pruned; it gives the answer")
        alive = kept - gone
        keys = set(self.by_key) if edges is None else set(self._keys(edges))
        keys -= set(self._keys(without_edges))
        keys = {k for k in keys if k.sender in alive and k.reader in alive}
        return Topology((Mask(frozenset(alive), frozenset(keys)),))

    def check_topology(self, topology: Topology) -> Topology:
        """Return ``topology`` if it fits this graph.

        Raises
        ------
        GraphError
            If it names agents or edges the graph lacks, prunes the decision agent, or has masks
            for another number of rounds.
        """
        if not isinstance(topology, Topology):
            raise GraphError(f"{topology!r} is not a topology; make one with graph.topology(...)")
        if len(topology.masks) not in (1, self.rounds):
            raise GraphError(
                f"the topology has masks for {len(topology.masks)} rounds, the graph has {self.rounds}"
            )
        for mask in topology.masks:
            if strange := sorted(mask.agents - set(self.names)):
                raise GraphError(f"the topology names {_names(strange)}, not in the graph")
            if unknown := sorted(mask.edges - set(self.by_key)):
                raise GraphError(f"the topology names the edge {unknown[0]}, not in the graph")
        if not topology.alive(self.decision, self.rounds):
            raise GraphError(f"the topology prunes the decision agent {self.decision!r}; it gives the answer")
        return topology

    def prune(self, *, agents: Iterable[str] = (), edges: Iterable[EdgeLike] = ()) -> AgentGraph:
        """The graph without these agents and edges.

        An agent whose last way to the decision agent is cut goes too: its calls would be paid
        for and its words reach nobody. (To keep it running, use :meth:`topology` instead.)
        """
        topology = self.topology(without_agents=agents, without_edges=edges)
        return self.apply(topology)

    def apply(self, topology: Topology) -> AgentGraph:
        """The graph that a topology for all rounds leaves, without agents that reach nobody."""
        if len(topology.masks) != 1:
            raise GraphError("only a topology with one mask for all rounds makes a graph")
        mask = self.check_topology(topology).masks[0]
        useful = self.useful_agents(topology)
        return AgentGraph(
            [a for a in self.agents if a.name in mask.agents and a.name in useful],
            [e for e in self.edges if e.key in mask.edges and e.sender in useful and e.reader in useful],
            self.decision,
            self.rounds,
            self.system,
            self.stop,
        )

    def useful_turns(self, topology: Topology) -> frozenset[tuple[str, int]]:
        """The turns (agent, round) whose words can reach the answer under ``topology``.

        A turn reaches the answer over delivering edges and through an agent's own memory. The
        rest may run (isolation is not removal) but can't matter.
        """
        start = (self.decision, self.rounds)
        seen = {start}
        stack = [start]
        while stack:
            name, r = stack.pop()
            sources = [
                (e.sender, r if e.kind == "spatial" else r - 1)
                for e in self.incoming[name]
                if topology.delivers(e.key, r)
            ]
            if r > 1 and self.by_name[name].memory and self._speaks(name, r - 1, topology):
                sources.append((name, r - 1))
            for source in sources:
                if source not in seen:
                    seen.add(source)
                    stack.append(source)
        return frozenset(seen)

    def _speaks(self, name: str, round: int, topology: Topology) -> bool:
        """Whether an agent has a turn in ``round``: the decision agent only where somebody reads it."""
        if not topology.alive(name, round):
            return False
        return name != self.decision or round == self.rounds or self.decision_is_read_after(round, topology)

    def decision_is_read_after(self, round: int, topology: Topology) -> bool:
        """Whether somebody reads in ``round + 1`` what the decision agent says in ``round``."""
        return any(topology.delivers(e.key, round + 1) for e in self._from_decision)

    @cached_property
    def _from_decision(self) -> tuple[Edge, ...]:
        return tuple(e for e in self.edges if e.sender == self.decision)

    def useful_agents(self, topology: Topology) -> frozenset[str]:
        """Agents of which at least one turn can reach the answer."""
        return frozenset(name for name, _ in self.useful_turns(topology))

    def _known(self, name: str) -> str:
        if name not in self.by_name:
            raise GraphError(f"no agent {name!r} in the graph; its agents are: {', '.join(self.names)}")
        return name

    def _keys(self, edges: Iterable[EdgeLike]) -> list[EdgeKey]:
        keys: list[EdgeKey] = []
        for edge in edges:
            named = _edge(edge).key
            kinds: tuple[EdgeKind, ...] = ("spatial", "temporal")
            if isinstance(edge, Edge | EdgeKey) or len(edge) == 3:
                kinds = (named.kind,)
            found = [k for kind in kinds if (k := named._replace(kind=kind)) in self.by_key]
            if not found:
                kind = "" if len(kinds) == 2 else f"{named.kind} "
                raise GraphError(f"no {kind}edge {named} in the graph")
            keys.extend(found)
        return keys

    def with_channel(self, channel: Channel | None, edges: Iterable[EdgeLike] | None = None) -> AgentGraph:
        """The graph with ``channel`` on these edges, or on all; ``None`` delivers verbatim.

        A pair ``(sender, reader)`` names both kinds of edge between them.
        """
        keys = set(self.by_key) if edges is None else set(self._keys(edges))
        changed = [dataclasses.replace(e, channel=channel) if e.key in keys else e for e in self.edges]
        return dataclasses.replace(self, edges=tuple(changed))

    # -- other shapes ------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The graph as JSON-ready data; equal graphs give equal data."""
        return {
            "format": FORMAT,
            "agents": [a.to_dict() for a in self.agents],
            "edges": [e.to_dict() for e in self.edges],
            "decision": self.decision,
            "rounds": self.rounds,
            "system": self.system,
            **({"stop": self.stop.spec()} if self.stop is not None else {}),
        }

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        functions: Mapping[str, Callable[[Any], Awaitable[str | Message]]] | None = None,
        channels: Callable[[Mapping[str, Any]], Channel] | None = None,
        stops: Callable[[Mapping[str, Any]], StopRule] | None = None,
    ) -> AgentGraph:
        """The graph that :meth:`to_dict` described.

        ``functions`` maps a function agent's name to its callable, ``channels`` turns a channel's
        spec into a channel (:func:`agentcomm.channels.from_spec`) and ``stops`` a stop rule's into
        a rule (:func:`agentcomm.dialogue.stopping.from_spec`): code is never loaded by a name found
        in a file.
        """
        if not isinstance(data, Mapping) or not {"agents", "decision"} <= set(data):
            raise GraphError("not an agent graph: expected an object with 'agents', 'edges' and 'decision'")
        if data.get("format", FORMAT) not in range(FORMAT + 1):
            raise GraphError(
                f"the graph has format {data['format']!r}, newer than {FORMAT}; update agentcomm"
            )
        try:
            agents = [_agent_from(entry, functions or {}) for entry in data["agents"]]
            edges = [_edge_from(entry, channels) for entry in data.get("edges", ())]
        except (KeyError, TypeError, ValueError) as error:
            raise GraphError(f"not an agent graph: {type(error).__name__}: {error}") from error
        stop = None
        if (spec := data.get("stop")) is not None:
            if stops is None:
                raise GraphError(
                    f"the graph stops by the rule {spec!r}; pass stops=, which makes a rule from its spec"
                )
            stop = stops(spec)
        return cls(
            agents, edges, data["decision"], data.get("rounds", 1), data.get("system", DEFAULT_SYSTEM), stop
        )

    @classmethod
    def from_json(cls, text: str, **options: Any) -> AgentGraph:
        try:
            data = json.loads(text)
        except ValueError as error:
            raise GraphError(f"not JSON: {error}") from error
        return cls.from_dict(data, **options)

    def to_networkx(self) -> nx.MultiDiGraph[str]:
        """A ``networkx.MultiDiGraph``: nodes carry ``agent``, edges are keyed by kind and carry ``edge``.

        networkx lists edges by their sender; ``position`` is their place in this graph.
        """
        g: nx.MultiDiGraph[str] = nx.MultiDiGraph(
            decision=self.decision, rounds=self.rounds, system=self.system, stop=self.stop
        )
        for agent in self.agents:
            g.add_node(agent.name, agent=agent)
        for position, edge in enumerate(self.edges):
            g.add_edge(edge.sender, edge.reader, key=edge.kind, edge=edge, position=position)
        return g

    @classmethod
    def from_networkx(
        cls,
        g: nx.Graph[Any],
        *,
        decision: str | None = None,
        rounds: int | None = None,
        system: str | None = None,
    ) -> AgentGraph:
        """A graph from any directed networkx graph.

        Node attributes ``agent`` (an Agent) or fields such as ``role``; edge attribute ``edge``,
        or ``kind`` (else the multigraph key if it is a kind, else spatial); those with a
        ``position`` come first, in its order. ``decision``, ``rounds`` and ``system`` come from the
        arguments or the graph's attributes, ``stop`` from those.
        """
        if not g.is_directed():
            raise GraphError("an undirected networkx graph doesn't say who reads whom; use a DiGraph")
        names = {f.name for f in dataclasses.fields(Agent)} - {"name"}
        agents = [
            data.get("agent") or Agent(str(node), **{k: v for k, v in data.items() if k in names})
            for node, data in g.nodes(data=True)
        ]
        edges: list[Edge] = []
        listed = _keyed(g) if g.is_multigraph() else g.edges(data=True)
        for u, v, data in sorted(listed, key=lambda entry: entry[2].get("position", math.inf)):
            kind: EdgeKind = data.get("kind", "spatial")
            edges.append(data.get("edge") or Edge(str(u), str(v), kind, data.get("channel")))
        return cls(
            agents,
            edges,
            decision if decision is not None else g.graph.get("decision", ""),
            rounds if rounds is not None else g.graph.get("rounds", 1),
            system if system is not None else g.graph.get("system", DEFAULT_SYSTEM),
            g.graph.get("stop"),
        )

    def mermaid(self, topology: Topology | None = None, tokens: Mapping[str, int] | None = None) -> str:
        """Mermaid source: solid arrows within a round, dotted ones to the next, the decision doubled.

        ``topology`` greys what it prunes (dead in every round); ``tokens`` maps ``"sender->reader"``
        to tokens, written on the edge. Drawn here, sent nowhere.
        """
        masks = (topology or self.topology()).masks
        alive_agents = frozenset().union(*(m.agents for m in masks))
        alive_edges = frozenset().union(*(m.edges for m in masks))
        ids = {name: f"n{i}" for i, name in enumerate(self.names)}
        lines = ["flowchart LR"]
        for name in self.names:
            left, right = ("(((", ")))") if name == self.decision else ("[", "]")
            lines.append(f'  {ids[name]}{left}"{_escape(name)}"{right}')
        grey = []
        for i, edge in enumerate(self.edges):
            arrow = "-->" if edge.kind == "spatial" else "-.->"
            label = [f"{tokens[str(edge.key)]:,}"] if tokens and str(edge.key) in tokens else []
            if edge.channel is not None:
                label.insert(0, edge.channel.name)
            text = f'|"{_escape(" ".join(label))}"|' if label else ""
            lines.append(f"  {ids[edge.sender]} {arrow}{text} {ids[edge.reader]}")
            if edge.key not in alive_edges:
                grey.append(i)
        if dead := [ids[n] for n in self.names if n not in alive_agents]:
            lines.append("  classDef pruned fill:#eee,stroke:#bbb,color:#999,stroke-dasharray:4")
            lines.append(f"  class {','.join(dead)} pruned")
        if told := [ids[a.name] for a in self.agents if a.adversarial]:
            lines.append("  classDef adversary stroke:#b00020,stroke-width:3px")
            lines.append(f"  class {','.join(told)} adversary")
        if grey:
            lines.append(f"  linkStyle {','.join(map(str, grey))} stroke:#ccc,stroke-dasharray:4")
        return "\n".join(lines)


def _agent_from(
    entry: Mapping[str, Any], functions: Mapping[str, Callable[[Any], Awaitable[str | Message]]]
) -> Agent:
    fields = dict(entry)
    if strange := sorted(set(fields) - {f.name for f in dataclasses.fields(Agent)}):
        raise GraphError(f"agent {fields.get('name')!r} has unknown fields: {', '.join(strange)}")
    if "act" in fields:
        name = fields["name"]
        if name not in functions:
            raise GraphError(
                f"agent {name!r} is a function agent ({fields['act']}); pass functions={{{name!r}: callable}}"
            )
        fields["act"] = functions[name]
    return Agent(**fields)


def _edge_from(entry: Mapping[str, Any], channels: Callable[[Mapping[str, Any]], Channel] | None) -> Edge:
    if strange := sorted(set(entry) - {"sender", "reader", "kind", "channel"}):
        raise GraphError(f"an edge has unknown fields: {', '.join(strange)}")
    channel = None
    if entry.get("channel") is not None:
        if channels is None:
            raise GraphError(
                f"edge {entry['sender']}->{entry['reader']} has a channel; pass "
                f"channels=agentcomm.channels.from_spec"
            )
        channel = channels(entry["channel"])
    return Edge(entry["sender"], entry["reader"], entry.get("kind", "spatial"), channel)


def _edge(edge: EdgeLike) -> Edge:
    if isinstance(edge, Edge):
        return edge
    if isinstance(edge, str) or not isinstance(edge, Sequence) or len(edge) not in (2, 3):
        raise GraphError(f"{edge!r} is not an edge; write ('sender', 'reader') or an Edge")
    return Edge(*edge)


def _keyed(g: nx.Graph[Any]) -> Iterable[tuple[Any, Any, dict[str, Any]]]:
    """A multigraph's edges; a key that is a kind of edge says the kind."""
    for u, v, key in cast("nx.MultiDiGraph[Any]", g).edges(keys=True):
        data = dict(g.get_edge_data(u, v)[key])
        yield u, v, {"kind": key, **data} if key in ("spatial", "temporal") else data


def _each(names: Iterable[str]) -> Iterable[str]:
    """The names; one alone may be given as it is."""
    return (names,) if isinstance(names, str) else names


def _counts(values: Iterable[Any]) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _names(names: Sequence[str]) -> str:
    quoted = ", ".join(repr(n) for n in names)
    return f"agent {quoted}" if len(names) == 1 else f"agents {quoted}"


def _escape(text: str) -> str:
    """Text inside a quoted mermaid label, with mermaid's own entity codes."""
    codes = {"#": "#35;", '"': "#quot;", "&": "#amp;", "<": "#lt;", ">": "#gt;", "`": "#96;"}
    return "".join(codes.get(c, c) for c in text)
