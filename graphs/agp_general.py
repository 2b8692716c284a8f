"""The team of AGP's general benchmark (MMLU): nine agents who read all before them, and a judge.

Nine ways to look at a question; which of them help depends on the question, so most can go for most
questions. The roles are ours; from the publication (Adaptive Graph Pruning, arXiv 2506.02951) are who
is there and that everybody may read everybody.
"""

import agentcomm as ac
from agentcomm import topologies

ROLES = {
    "expert": "Say in brief what is known about this, then answer.",
    "critic": "Say in brief what speaks against each option, then answer.",
    "mathematician": "Judge it in brief as a mathematician: calculate or prove, then answer.",
    "psychologist": "Judge it in brief as a psychologist: how people think and act, then answer.",
    "historian": "Judge it in brief as a historian: when, where and why it happened, then answer.",
    "doctor": "Judge it in brief as a doctor: body, illness and cure, then answer.",
    "lawyer": "Judge it in brief as a lawyer: rules, rights and wording, then answer.",
    "economist": "Judge it in brief as an economist: costs, incentives and markets, then answer.",
    "programmer": "Judge it in brief as a programmer: machines, data and algorithms, then answer.",
}
JUDGE = "Weigh the reasons, not the votes, and give the answer as the task asks."


def graph(rounds: int = 1, max_tokens: int | None = None) -> ac.AgentGraph:
    """10 calls; each further round adds 9, in which everybody reads what all said before."""
    agents = [ac.Agent(name, role=role, max_tokens=max_tokens) for name, role in ROLES.items()]
    judge = ac.Agent("judge", role=JUDGE, max_tokens=max_tokens)
    return topologies.mesh(agents, judge, rounds=rounds)
