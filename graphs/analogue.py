"""A student answers; a teacher writes the solution and a new, similar problem; the student answers that too.

The student's first answer is the answer to the item. Its later ones are judged by the teacher's own
solutions (``agentcomm.dialogue.patterns.answers``). (The analogue of Learning through Communication,
arXiv 2310.01444; the words are our own.)

    agentcomm eval analogue gsm8k -G teacher_model=openai/gpt-4o-mini
"""

import agentcomm as ac
from agentcomm.dialogue.stopping import Turns, Verdict


def graph(
    problems: int = 2,
    instruction: str = "",
    teacher_model: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = 256,
) -> ac.AgentGraph:
    """``2 x problems`` calls: the item and ``problems - 1`` new ones; ``instruction`` is for the student."""
    if problems < 1:
        raise ac.UserError(f"analogue: problems={problems}; it must be at least 1")
    student = ac.Agent(
        "student",
        role=(
            "You are the student. Solve the problem step by step and write the answer as <A>answer</A>. Where "
            f"your teacher gives a new problem as <P>problem</P>, solve that one. {instruction}"
        ).strip(),
        temperature=temperature,
        max_tokens=max_tokens,
    )
    teacher = ac.Agent(
        "teacher",
        role=(
            "You are the teacher. Write the solution of the problem that your student just answered, its answer "
            "as <A>answer</A>. Then write one new problem that is solved the same way, with other names and "
            "numbers, as <P>problem</P>."
        ),
        model=teacher_model,
        temperature=temperature,
        max_tokens=max_tokens,
    )
    return ac.AgentGraph(
        [student, teacher, ac.Agent("outcome", act=Verdict("student", first=True))],
        [
            ac.Edge("student", "teacher"),
            *([ac.Edge("teacher", "student", kind="temporal")] if problems > 1 else []),
            ac.Edge("student", "outcome"),
            ac.Edge("teacher", "outcome"),
        ],
        decision="outcome",
        rounds=problems,
        system="A student learns from a teacher, problem by problem.",
        stop=Turns("teacher", problems),
    )
