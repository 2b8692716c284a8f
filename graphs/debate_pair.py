"""A solver and a critic who both see the whole question; the solver's last answer counts.

The critic points at errors and gives no answer. The talk ends when the solver marks the same
answer twice, with a critique between, or after ``rounds`` rounds. (Debate setting of Optima,
arXiv 2410.08115; the instructions are our own.)
"""

from typing import Literal

import agentcomm as ac
from agentcomm.dialogue.marks import Kind
from agentcomm.dialogue.stopping import AnyTwo, Repeat, Verdict


def graph(
    rounds: int = 3,
    instruction: str = "",
    kind: Kind = "number",
    temperature: float | None = None,
    max_tokens: int | None = 256,
    stop: Literal["repeat", "any_two"] = "repeat",
) -> ac.AgentGraph:
    """``2 x rounds`` calls at most; ``instruction`` is the critic's message format, ``kind`` compares answers.

    ``stop="any_two"`` is the rule of Optima's released code: a mark that equals the mark before it.
    """
    if stop not in ("repeat", "any_two"):
        raise ac.UserError(f"debate_pair: stop={stop!r}; use repeat or any_two")
    solver = ac.Agent(
        "solver",
        role="Solve the problem step by step. Write the answer as <A>answer</A>.",
        temperature=temperature,
        max_tokens=max_tokens,
    )
    critic = ac.Agent(
        "critic",
        role=f"Point at the first error, or say that there is none. Give no answer. {instruction}".strip(),
        temperature=temperature,
        max_tokens=max_tokens,
    )
    return ac.AgentGraph(
        [solver, critic, ac.Agent("agreement", act=Verdict("solver"))],
        [
            ac.Edge("solver", "critic"),
            ac.Edge("critic", "solver", kind="temporal"),
            ac.Edge("solver", "agreement"),
            ac.Edge("critic", "agreement"),
        ],
        decision="agreement",
        rounds=rounds,
        stop=Repeat("solver", kind) if stop == "repeat" else AnyTwo(kind),
    )
