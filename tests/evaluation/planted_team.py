"""A planted world as a team with edges, and the exact worth of every part of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from agentcomm.evaluation.parts import Part, parts, useful, without
from agentcomm.graph import AgentGraph, Edge, Topology
from agentcomm.pruning.planted import JUDGE, PlantedWorld

WORLD = PlantedWorld(3, agents=4, domains=1, facts=2, misleaders=1)
"""One domain, so everybody has one part to play: two holders, a solver and a misleader."""


def team(world: PlantedWorld = WORLD) -> AgentGraph:
    """Everybody before the solver tells the solver and the judge."""
    (plan,) = world.layout
    (misleader,) = plan.misleaders
    before = [*plan.holders, misleader]
    edges = [Edge(f"a{i}", f"a{plan.solver}") for i in before]
    edges += [Edge(f"a{i}", JUDGE) for i in (*before, plan.solver)]
    return AgentGraph(world.graph.agents, edges, JUDGE, system="")


def names(world: PlantedWorld = WORLD) -> tuple[str, str]:
    """Of the solver and the misleader."""
    (plan,) = world.layout
    (misleader,) = plan.misleaders
    return f"a{plan.solver}", f"a{misleader}"


def chance(topology: Topology, world: PlantedWorld = WORLD) -> float:
    """P(correct)."""
    return world.chance(world.reading(0, topology))


def varied(graph: AgentGraph) -> tuple[Part, ...]:
    return tuple(p for p in parts(graph) if p.left is not None)


def needs(found: Sequence[Part]) -> tuple[tuple[int, ...], ...]:
    place = {p.name: i for i, p in enumerate(found)}
    return tuple(tuple(place[e] for e in p.ends if e in place) if p.kind == "edge" else () for p in found)


def left(graph: AgentGraph, found: Sequence[Part], kept: Sequence[bool]) -> Topology:
    """The sub-team with these parts kept."""
    out = [p for p, stays in zip(found, kept, strict=True) if not stays]
    return without(
        graph,
        useful(graph),
        agents=[p.name for p in out if p.kind == "agent"],
        pairs=tuple(p.ends for p in out if p.kind == "edge"),
    )


def exact(graph: AgentGraph, found: Sequence[Part], keep: float) -> np.ndarray:
    """E[P(correct) | part and its needs] - E[P(correct) | not the part, but its needs], over all sub-teams."""
    masks = np.array(list(itertools.product((False, True), repeat=len(found))))
    right = np.array([chance(left(graph, found, kept)) for kept in masks])
    weight = np.where(masks, keep, 1 - keep).prod(axis=1)
    effects = []
    for u, needed in enumerate(needs(found)):
        there = masks[:, list(needed)].all(axis=1)
        means = [np.average(right[s], weights=weight[s]) for s in (there & masks[:, u], there & ~masks[:, u])]
        effects.append(means[0] - means[1])
    return np.array(effects)
