"""One model thinks and acts in a small text environment: a cabinet whose drawers are the item's views.

It writes what it thinks, and one action a turn: ``do: look``, ``do: open s1``, ``do: answer Oslo``. The
game ends with its answer, or after ``rounds`` turns. (The monologue of Learning through
Communication, arXiv 2310.01444; environment and words are our own.)

    agentcomm eval monologue records -T by=attribute -T hops=2
    agentcomm eval monologue hotpotqa -T deal=4
"""

import agentcomm as ac
from agentcomm.dialogue.patterns import ACTIONS, Cabinet
from agentcomm.dialogue.stopping import Marked, Verdict


def graph(
    rounds: int = 8, instruction: str = "", temperature: float | None = None, max_tokens: int | None = 96
) -> ac.AgentGraph:
    """``rounds`` calls at most; ``instruction`` says how to write."""
    role = (
        "What you need lies in the drawers of a cabinet. Think in one short sentence, then act on a line of "
        f"its own: {ACTIONS}. One action a turn; begin with do: look. {instruction}"
    )
    actor = ac.Agent("actor", role=role.strip(), temperature=temperature, max_tokens=max_tokens)
    return ac.AgentGraph(
        [actor, ac.Agent("environment", act=Cabinet()), ac.Agent("outcome", act=Verdict("environment"))],
        [
            ac.Edge("actor", "environment"),
            ac.Edge("environment", "actor", kind="temporal"),
            ac.Edge("environment", "outcome"),
        ],
        decision="outcome",
        rounds=rounds,
        system="You solve a task step by step.",
        stop=Marked("environment"),
    )
