"""One agent that sees everything: the control that every team has to beat."""

import agentcomm as ac


def graph(role: str = "", system: str | None = None, max_tokens: int | None = None) -> ac.AgentGraph:
    """``view="*"`` shows it every view of an item, so it lacks nothing that a team has."""
    solo = ac.Agent("solo", role=role, view="*", max_tokens=max_tokens)
    return ac.AgentGraph([solo], decision="solo", **({} if system is None else {"system": system}))
