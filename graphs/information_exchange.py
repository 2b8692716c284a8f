"""Peers who each hold a part of the context and talk until they agree on an answer.

They speak in turn; each reads what was said since its own last turn and marks its answer as
<A>answer</A> (``mark="line"``: on a last line "Answer: ..."). The talk ends when two of them mark the
same answer, or after ``rounds`` rounds; what is said last counts. Models that state facts well and mark
nothing are asked at the end instead (``answer="asked"``: one more call, in which the one who spoke last
says the answer alone). (Setting of Optima, arXiv 2410.08115; the instruction is our own.)

    agentcomm eval information_exchange hotpotqa -T deal=2
    agentcomm eval information_exchange records -T specialists=3 -T by=attribute -T hops=2 -G agents=3
"""

from typing import Literal

import agentcomm as ac
from agentcomm.dialogue.stopping import Agreement, AnyTwo, Verdict

MARKS = {
    "tag": "write it as <A>answer</A>.",
    "line": "write it alone on the last line, after Answer:",
}
TELL = "Tell what your partner needs and ask for what you need, in few words. Use only what you both know."
ASKED = "Reply with the answer alone, in one or two words."
SYSTEM = "Two people each know a part of what is needed."


def graph(
    agents: int = 2,
    rounds: int = 3,
    instruction: str = "",
    temperature: float | None = None,
    max_tokens: int | None = 128,
    views: str = "",
    stop: Literal["agreement", "any_two"] = "agreement",
    mark: Literal["tag", "line"] = "tag",
    answer: Literal["marked", "asked"] = "marked",
) -> ac.AgentGraph:
    """``agents`` x ``rounds`` calls at most; ``instruction`` says how to write (a message format).

    ``views`` are s1,s2,... unless they are named. ``stop="any_two"`` is the rule of Optima's released
    code, under which one agent that repeats itself counts as agreement.
    """
    names = ["alice", "bob", "carol", "dave", "erin", "frank"][:agents]
    seen = [view.strip() for view in views.split(",")] if views else [f"s{n + 1}" for n in range(len(names))]
    if not 2 <= agents <= 6 or len(seen) != agents:
        raise ac.UserError(
            f"information_exchange: {agents} agents with the views {views!r}; use 2 to 6 agents, and a view for each"
        )
    if stop not in ("agreement", "any_two"):
        raise ac.UserError(f"information_exchange: stop={stop!r}; use agreement or any_two")
    if mark not in MARKS:
        raise ac.UserError(f"information_exchange: mark={mark!r}; use {' or '.join(MARKS)}")
    if answer not in ("marked", "asked"):
        raise ac.UserError(f"information_exchange: answer={answer!r}; use marked or asked")
    role = TELL
    if answer == "marked":
        role += f" When you know the answer, {MARKS[mark]}"
    peers = [
        ac.Agent(
            name,
            role=f"You are {name.title()}. {role} {instruction}".strip(),
            view=view,
            temperature=temperature,
            max_tokens=max_tokens,
        )
        for name, view in zip(names, seen, strict=True)
    ]
    order = {name: i for i, name in enumerate(names)}
    edges = [
        ac.Edge(a, b, kind="spatial" if order[a] < order[b] else "temporal")
        for a in names
        for b in names
        if a != b
    ]
    last = ac.Agent("agreement", act=Verdict())
    if answer == "asked":
        last = ac.Agent("answer", role=ASKED, view=seen[-1], temperature=temperature, max_tokens=16)
    edges += [ac.Edge(name, last.name) for name in names]
    return ac.AgentGraph(
        [*peers, last],
        edges,
        decision=last.name,
        rounds=rounds,
        system=SYSTEM,
        stop=Agreement() if stop == "agreement" else AnyTwo(),
    )
