"""Debate: everyone answers, reads the others and answers again; a judge reads the last round.

The debaters differ only by their sampling seeds, so give them a temperature above 0 (here 0.7).
"""

import agentcomm as ac
from agentcomm import topologies


def graph(
    agents: int = 3, rounds: int = 2, temperature: float = 0.7, max_tokens: int | None = None
) -> ac.AgentGraph:
    """``agents`` x ``rounds`` + 1 calls."""
    debaters = [
        ac.Agent(
            f"debater{i + 1}",
            role="Answer. When you are shown other answers, use them to check and improve yours.",
            temperature=temperature,
            max_tokens=max_tokens,
        )
        for i in range(agents)
    ]
    judge = ac.Agent(
        "judge", role="Weigh the answers you are shown and give the final answer.", max_tokens=max_tokens
    )
    return topologies.debate(debaters, decision=judge, rounds=rounds)
