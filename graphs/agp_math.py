"""The team of AGP's mathematics benchmarks: four agents who read all before them, and a judge.

    solver      Math Solver: works it out in words
    analyst     Mathematical Analyst: equations first, numbers last
    programmer  Programming Expert: thinks of it as a program
    inspector   Inspector: checks what it reads

The roles are ours; from the publication (Adaptive Graph Pruning, arXiv 2506.02951) are who is there and
that everybody may read everybody. They are short because every call pays for them.
"""

import agentcomm as ac
from agentcomm import topologies

ROLES = {
    "solver": "Solve it step by step, with one short calculation a line.",
    "analyst": "Name the unknown, write the equations with letters, then put in the numbers and solve.",
    "programmer": "Write a short Python program that computes the answer, trace it, and give its result.",
    "inspector": "Check each step of the solutions you are shown, redo what is wrong, and give your answer.",
}
JUDGE = "Compare the solutions, keep the one whose steps are right, and give its answer as the task asks."


def graph(rounds: int = 1, max_tokens: int | None = None) -> ac.AgentGraph:
    """5 calls; each further round adds 4, in which everybody reads what all said before."""
    agents = [ac.Agent(name, role=role, max_tokens=max_tokens) for name, role in ROLES.items()]
    judge = ac.Agent("judge", role=JUDGE, max_tokens=max_tokens)
    return topologies.mesh(agents, judge, rounds=rounds)
