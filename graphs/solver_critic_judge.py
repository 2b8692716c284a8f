"""A solver, a critic who looks for the first mistake, and a judge who answers.

The critic's remarks reach the solver in the next round. The solver remembers its own attempt,
so its second prompt is the first one with the critique appended: the cached prefix is reused.
"""

import agentcomm as ac


def graph(rounds: int = 2, max_tokens: int | None = None) -> ac.AgentGraph:
    """``rounds=1`` is a draft, one critique and a verdict: 3 calls; each round more adds 2."""
    return ac.AgentGraph(
        agents=[
            ac.Agent("solver", role="Solve the problem step by step.", max_tokens=max_tokens),
            ac.Agent(
                "critic",
                role="Find the first mistake in what you are shown. If there is none, say that it is correct.",
                max_tokens=max_tokens,
            ),
            ac.Agent(
                "judge", role="Weigh what you are shown and give the final answer.", max_tokens=max_tokens
            ),
        ],
        edges=[
            ac.Edge("solver", "critic"),
            *([ac.Edge("critic", "solver", kind="temporal")] if rounds > 1 else []),
            ac.Edge("solver", "judge"),
            ac.Edge("critic", "judge"),
        ],
        decision="judge",
        rounds=rounds,
    )
