"""The team of AGP's programming benchmark (HumanEval): five agents, a runner of code, and a writer.

    manager     Project Manager: what exactly is asked
    designer    Algorithm Designer: how to do it, without code
    programmer  Programming Expert: the code
    tester      Test Analyst: cases that could break it
    runner      no model: runs the code it reads on the examples in the question, in the sandbox
    fixer       Bug Fixer: the code without the mistakes that it was told of

The roles are ours; from the publication (Adaptive Graph Pruning, arXiv 2506.02951) are who is there and
that everybody may read everybody. The runner sees the question, never the hidden tests.
"""

import agentcomm as ac
from agentcomm import topologies
from agentcomm.code_runner import CodeRunner

ROLES = {
    "manager": "In a few lines, no code: what goes in, what must come out, and which special cases count.",
    "designer": "In a few lines, no code: the steps of an algorithm that does it.",
    "programmer": "Write the whole function, with its imports, in one code block and nothing else.",
    "tester": "In a few lines: calls that could break the code, with the right result of each.",
    "fixer": "Correct the mistakes that were found. Write the whole function in one code block.",
}
WRITER = "Reply with the final, whole function and its imports in one code block."


def graph(rounds: int = 1, runner: bool = True, max_tokens: int | None = None) -> ac.AgentGraph:
    """6 calls; each further round adds 5, in which everybody reads what all said before."""
    agents = [ac.Agent(name, role=role, max_tokens=max_tokens) for name, role in ROLES.items()]
    if runner:
        agents.insert(-1, ac.Agent("runner", act=CodeRunner()))
    writer = ac.Agent("writer", role=WRITER, max_tokens=max_tokens)
    return topologies.mesh(agents, writer, rounds=rounds)
