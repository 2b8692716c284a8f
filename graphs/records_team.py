"""Specialists who each know a part of the facts, and a judge who answers from what they say.

Made for the task ``records``: specialist ``s1`` sees only the view ``s1`` of an item. The options
choose who reads whom, so that one team can be compared under several topologies:

    complete   every specialist reads all before it, the judge reads everybody
    chain      every specialist reads the one before it, the judge reads everybody
    edgeless   specialists read nobody, the judge reads everybody
"""

from itertools import pairwise

import agentcomm as ac

SYSTEM = "Answer with the fact that is asked for."


def graph(specialists: int = 4, topology: str = "complete", max_tokens: int = 16) -> ac.AgentGraph:
    """``specialists`` + 1 calls an item; messages are short, so edges are what costs."""
    names = [f"s{i + 1}" for i in range(specialists)]
    agents = [ac.Agent(n, role="Answer from these facts.", view=n, max_tokens=max_tokens) for n in names]
    judge = ac.Agent("judge", role="Answer from these messages.", max_tokens=max_tokens)
    among = {
        "complete": [ac.Edge(a, b) for i, a in enumerate(names) for b in names[i + 1 :]],
        "chain": [ac.Edge(a, b) for a, b in pairwise(names)],
        "edgeless": [],
    }
    if topology not in among:
        raise ac.UserError(f"records_team: topology {topology!r}; use one of: {', '.join(among)}")
    edges = [*among[topology], *(ac.Edge(n, "judge") for n in names)]
    return ac.AgentGraph([*agents, judge], edges, decision="judge", system=SYSTEM)
