"""An asker, a helper and a library that finds text: two models and a tool talk until they agree.

The asker writes ``find: WORDS``, the library (code) tells the passages of the item that have most of
them, the helper says what they mean; ``<A>answer</A>`` marks an answer, and the talk ends when both
mark the same one or after ``rounds`` rounds. (The dialogue of Learning through Communication, arXiv
2310.01444; tool and words are our own.)

    agentcomm eval dialogue hotpotqa -T deal=2
    agentcomm eval dialogue records
"""

import agentcomm as ac
from agentcomm.dialogue.patterns import Library
from agentcomm.dialogue.stopping import Agreement, Verdict


def graph(
    rounds: int = 4,
    passages: int = 2,
    instruction: str = "",
    temperature: float | None = None,
    max_tokens: int | None = 96,
) -> ac.AgentGraph:
    """``2 x rounds`` calls at most; the library tells ``passages`` passages, ``instruction`` says how to write."""
    answer = "When you know the answer, write it as <A>answer</A>."
    roles = {
        "asker": f"You are the asker. Look for what the question needs: write find: and the words. {answer}",
        "helper": f"You are the helper. Say what was found and what is missing, in few words. {answer}",
    }
    asker, helper = (
        ac.Agent(name, role=f"{role} {instruction}".strip(), temperature=temperature, max_tokens=max_tokens)
        for name, role in roles.items()
    )
    return ac.AgentGraph(
        [asker, ac.Agent("library", act=Library(passages)), helper, ac.Agent("agreement", act=Verdict())],
        [
            ac.Edge("asker", "library"),
            ac.Edge("asker", "helper"),
            ac.Edge("library", "helper"),
            ac.Edge("library", "asker", kind="temporal"),
            ac.Edge("helper", "asker", kind="temporal"),
            ac.Edge("asker", "agreement"),
            ac.Edge("helper", "agreement"),
        ],
        decision="agreement",
        rounds=rounds,
        system="Two people find an answer together. A library looks up what is asked of it.",
        stop=Agreement(),
    )
