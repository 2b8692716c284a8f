"""Builders of teams whose edges follow a rule: chain, star, tree, layered, complete, mesh...

Every builder takes the *pool* ``agents`` a_0 ... a_(N-1) (an :class:`~agentcomm.graph.Agent` or a
name each) and defines its edges over their positions; ``i -> j`` is a spatial edge (read in the
same round), ``i ~> j`` a temporal one (read in the next).

Who decides is the same for all:

* ``decision`` is a further agent: it reads, over spatial edges, the pool agents that
  ``decision_scope`` says: ``"all"`` of them, the ``"sinks"`` (those without a spatial edge to
  another pool agent), or the ``"last"`` of the list.
* ``decision`` names a pool agent: that one decides, and no edge is added.
* ``decision=None``: the pool agent in which the topology ends decides, and no edge is added;
  where it doesn't end in one agent, that is an error.

Deliberately absent: a choice of topology for you. ``BUILDERS`` has them by name.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, pairwise, permutations
from typing import Literal

from agentcomm.errors import GraphError
from agentcomm.graph import DEFAULT_SYSTEM, Agent, AgentGraph, Edge

DecisionScope = Literal["all", "sinks", "last"]
Direction = Literal["out", "in"]
Pairs = Iterable[tuple[int, int]]


def single(agent: Agent | str, *, system: str = DEFAULT_SYSTEM) -> AgentGraph:
    """One agent that speaks once; no edges."""
    return _team("single", [agent], None, ends_in=0, system=system)


def independent(
    agents: Sequence[Agent | str],
    decision: Agent | str | None = None,
    *,
    rounds: int = 1,
    system: str = DEFAULT_SYSTEM,
) -> AgentGraph:
    """No edges among the pool; the decision agent, which must be a further one, reads all."""
    return _team("independent", agents, decision, rounds=rounds, system=system)


def chain(
    agents: Sequence[Agent | str],
    decision: Agent | str | None = None,
    *,
    rounds: int = 1,
    decision_scope: DecisionScope = "all",
    system: str = DEFAULT_SYSTEM,
) -> AgentGraph:
    """i -> i+1 for 0 <= i < N-1: N-1 edges. It ends in the last agent."""
    spatial = [(i, i + 1) for i in range(len(agents) - 1)]
    return _team("chain", agents, decision, spatial, (), rounds, decision_scope, system, ends_in=-1)


def star(
    agents: Sequence[Agent | str],
    decision: Agent | str | None = None,
    *,
    direction: Direction = "out",
    rounds: int = 1,
    decision_scope: DecisionScope = "all",
    system: str = DEFAULT_SYSTEM,
) -> AgentGraph:
    """0 -> i for i >= 1, or with ``direction="in"`` i -> 0: N-1 edges; the first agent is the hub.

    ``"in"`` ends in the hub.
    """
    spatial = _directed("star", direction, [(0, i) for i in range(1, len(agents))])
    ends = 0 if direction == "in" or len(agents) == 1 else None
    return _team("star", agents, decision, spatial, (), rounds, decision_scope, system, ends_in=ends)


def tree(
    agents: Sequence[Agent | str],
    decision: Agent | str | None = None,
    *,
    b: int = 2,
    direction: Direction = "out",
    rounds: int = 1,
    decision_scope: DecisionScope = "all",
    system: str = DEFAULT_SYSTEM,
) -> AgentGraph:
    """floor((i-1)/b) -> i for i >= 1, or with ``direction="in"`` reversed: N-1 edges, b >= 1.

    ``"in"`` ends in the root, the first agent.
    """
    if b < 1:
        raise GraphError(f"a tree with b={b} children an agent; b must be at least 1")
    spatial = _directed("tree", direction, [((i - 1) // b, i) for i in range(1, len(agents))])
    ends = 0 if direction == "in" or len(agents) == 1 else None
    return _team("tree", agents, decision, spatial, (), rounds, decision_scope, system, ends_in=ends)


def layered(
    agents: Sequence[Agent | str],
    decision: Agent | str | None = None,
    *,
    layers: int = 2,
    rounds: int = 1,
    decision_scope: DecisionScope = "all",
    system: str = DEFAULT_SYSTEM,
) -> AgentGraph:
    """Agent i is in layer floor(i*L/N), 1 <= L <= N; every agent of a layer -> every one of the next.

    It ends in the last agent if that one is alone in its layer.
    """
    n = len(agents)
    if not 1 <= layers <= max(n, 1):
        raise GraphError(f"{layers} layers for {n} agents; layers must be between 1 and the number of agents")
    members: list[list[int]] = [[] for _ in range(layers)]
    for i in range(n):
        members[i * layers // n].append(i)
    spatial = [(i, j) for a, b in pairwise(members) for i in a for j in b]
    ends = -1 if len(members[-1]) == 1 else None
    return _team("layered", agents, decision, spatial, (), rounds, decision_scope, system, ends_in=ends)


def complete(
    agents: Sequence[Agent | str],
    decision: Agent | str | None = None,
    *,
    rounds: int = 1,
    decision_scope: DecisionScope = "all",
    system: str = DEFAULT_SYSTEM,
) -> AgentGraph:
    """i -> j for all i < j: N(N-1)/2 edges, the most a DAG can have. It ends in the last agent."""
    spatial = combinations(range(len(agents)), 2)
    return _team("complete", agents, decision, spatial, (), rounds, decision_scope, system, ends_in=-1)


def mesh(
    agents: Sequence[Agent | str],
    decision: Agent | str | None = None,
    *,
    rounds: int = 2,
    decision_scope: DecisionScope = "all",
    system: str = DEFAULT_SYSTEM,
) -> AgentGraph:
    """:func:`complete`, and i ~> j for all i != j: everybody reads everybody, now or a round later.

    With ``rounds=1`` nothing is read a round later, and it is :func:`complete`. It ends in the
    last agent, which then speaks in every round, since the others read it in the next.
    """
    n = len(agents)
    temporal: Pairs = permutations(range(n), 2) if rounds > 1 else ()
    spatial = combinations(range(n), 2)
    return _team("mesh", agents, decision, spatial, temporal, rounds, decision_scope, system, ends_in=-1)


def random_dag(
    agents: Sequence[Agent | str],
    decision: Agent | str | None = None,
    *,
    seed: int,
    edges: int | None = None,
    p: float | None = None,
    rounds: int = 1,
    decision_scope: DecisionScope = "all",
    system: str = DEFAULT_SYSTEM,
) -> AgentGraph:
    """A random order of the pool (all N! alike), then edges from earlier to later agents in it.

    Exactly one of ``edges`` and ``p``: ``edges`` of the N(N-1)/2 forward pairs, all choices alike;
    or each pair on its own with probability ``p``. Equal seeds give equal graphs. It has no
    natural end, so ``decision`` must be given.
    """
    n = len(agents)
    most = n * (n - 1) // 2
    if (edges is None) == (p is None):
        raise GraphError("a random DAG takes either edges= (how many) or p= (how likely each is)")
    if edges is not None and not 0 <= edges <= most:
        raise GraphError(f"a DAG of {n} agents can't have {edges} edges; it has between 0 and {most}")
    if p is not None and not 0.0 <= p <= 1.0:
        raise GraphError(f"p={p}; a probability lies between 0 and 1")
    rng = random.Random(seed)
    order = rng.sample(range(n), n)
    pairs = list(combinations(order, 2))
    spatial = (
        rng.sample(pairs, edges) if edges is not None else [e for e in pairs if rng.random() < (p or 0.0)]
    )
    spatial.sort()
    return _team("random DAG", agents, decision, spatial, (), rounds, decision_scope, system)


def debate(
    agents: Sequence[Agent | str],
    decision: Agent | str | None = None,
    *,
    rounds: int = 2,
    decision_scope: DecisionScope = "all",
    system: str = DEFAULT_SYSTEM,
) -> AgentGraph:
    """No spatial edges among the pool; i ~> j for all i != j, and i ~> i for agents without a memory.

    In round 1 everybody answers alone; in each later round everybody reads what all said before,
    itself included (from its memory, if it has one). Two rounds or more. The decision agent, which
    must be a further one, reads the last round.
    """
    if rounds < 2:
        raise GraphError(f"a debate of rounds={rounds}; it needs at least 2, since it is read a round later")
    pool = _agents(agents)
    n = len(pool)
    temporal = [(i, j) for i in range(n) for j in range(n) if i != j or not pool[i].memory]
    return _team("debate", pool, decision, (), temporal, rounds, decision_scope, system)


BUILDERS: Mapping[str, Callable[..., AgentGraph]] = {
    "independent": independent,
    "chain": chain,
    "star": star,
    "tree": tree,
    "layered": layered,
    "complete": complete,
    "mesh": mesh,
    "random_dag": random_dag,
    "debate": debate,
}
"""The builders that take a pool of agents, by name."""


def _agents(agents: Sequence[Agent | str]) -> list[Agent]:
    if isinstance(agents, str):
        raise GraphError(f"agents={agents!r} is one string; pass a list of agents or names")
    return [a if isinstance(a, Agent) else Agent(a) for a in agents]


def _directed(name: str, direction: Direction, outward: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if direction not in ("out", "in"):
        raise GraphError(f"a {name} with direction={direction!r}; use 'out' or 'in'")
    return outward if direction == "out" else [(j, i) for i, j in outward]


def _team(
    name: str,
    agents: Sequence[Agent | str],
    decision: Agent | str | None,
    spatial: Pairs = (),
    temporal: Pairs = (),
    rounds: int = 1,
    decision_scope: DecisionScope = "all",
    system: str = DEFAULT_SYSTEM,
    *,
    ends_in: int | None = None,
) -> AgentGraph:
    pool = _agents(agents)
    if not pool:
        raise GraphError(f"a {name} of no agents; pass at least one")
    spatial = list(spatial)
    edges = [Edge(pool[i].name, pool[j].name) for i, j in spatial]
    edges += [Edge(pool[i].name, pool[j].name, "temporal") for i, j in temporal]
    if decision is None:
        if ends_in is None:
            raise GraphError(f"this {name} doesn't end in one agent; pass decision=, the agent that answers")
        return AgentGraph(pool, edges, pool[ends_in].name, rounds, system)
    if decision in pool or decision in [a.name for a in pool]:
        decider = decision.name if isinstance(decision, Agent) else decision
        return AgentGraph(pool, edges, decider, rounds, system)
    if decision_scope not in ("all", "sinks", "last"):
        raise GraphError(f"decision_scope={decision_scope!r}; use 'all', 'sinks' or 'last'")
    judge = decision if isinstance(decision, Agent) else Agent(decision)
    heard_inside = {i for i, _ in spatial}
    read = {
        "all": pool,
        "sinks": [a for i, a in enumerate(pool) if i not in heard_inside],
        "last": pool[-1:],
    }[decision_scope]
    edges += [Edge(a.name, judge.name) for a in read]
    return AgentGraph([*pool, judge], edges, judge.name, rounds, system)
