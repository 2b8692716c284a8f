"""The code runner: which examples a question shows, what it runs, and what it tells the team."""

from __future__ import annotations

import pytest

from agentcomm.code_runner import CodeRunner, read_problem
from agentcomm.graph import Agent
from agentcomm.message import Delivery, EdgeKey, Message
from agentcomm.prompting import Turn
from agentcomm.sandbox import SandboxLimits
from agentcomm.task import Item

pytestmark = pytest.mark.anyio


def asking(docstring: str, before: str = "") -> str:
    return f'Complete it.\n\n```python\n{before}def half(x):\n    """{docstring}"""\n```'


def examples(docstring: str) -> list[tuple[str, str]]:
    return [tuple(e) for e in read_problem(asking(docstring)).examples]  # type: ignore[misc]


async def told(question: str, *texts: str, runner: CodeRunner | None = None) -> str:
    """What the runner says to messages of a, b, ...; its item's hidden tests would break any reader."""
    inbox = tuple(
        Delivery(EdgeKey(name, "runner", "spatial"), Message(name, 1, text), text)
        for name, text in zip("abc", texts, strict=False)
    )
    item = Item("1", question, answer={"test": "def check(f): assert f(2) == 'hidden'", "entry_point": "g"})
    return await (runner or CodeRunner())(Turn(item, Agent("runner"), 1, inbox))


@pytest.mark.parametrize(
    ("docstring", "found"),
    [
        ("Half.\n    >>> half(4)\n    2\n    >>> half(6)\n    3\n    ", [("half(4)", "2"), ("half(6)", "3")]),
        ("Half.\n    >>> y = 4\n    >>> half(y)\n    2\n    ", [("y = 4", ""), ("half(y)", "2")]),
        ("half(4) == 2\n    * half(6) -> 3.", [("half(4)", "2"), ("half(6)", "3")]),
        ("half([(1), 2]) ➞ [1, 2]  # twice", [("half([(1), 2])", "[1, 2]  # twice")]),
        ("half(4) should return 2.", [("half(4)", "2")]),
        ("half(4) returns 'two'\n    half(6) ==> {'a': 1}", [("half(4)", "'two'"), ("half(6)", "{'a': 1}")]),
        # No plain data: nothing that could be compared.
        ("half(a) == 2\n    half(4) = 1 + 1 = 2\n    half(4) => true\n    half of 4 is 2", []),
        ("behalf(4) == 2", []),
        ("Half.\n    >>> half('x')\n    Traceback (most recent call last):\n    TypeError: no\n    ", []),
        ("Half.\n    >>>half(4)\n    2\n    ", []),  # no session: nothing to guess
    ],
)
def test_examples_are_sessions_or_lines_with_plain_results(
    docstring: str, found: list[tuple[str, str]]
) -> None:
    assert examples(docstring) == found


def test_the_function_asked_for_is_the_last_one_and_a_question_without_code_has_none() -> None:
    problem = read_problem(asking("half(4) == 2", before='def twice(x):\n    """twice(1) == 2"""\n\n\n'))
    assert (problem.name, len(problem.examples)) == ("half", 1)
    assert read_problem("What is half of four?") == ("", None, ())
    assert read_problem("```python\ndef half(:\n```").name is None


HALF = asking("half(4) == 2\n    half(6) == 3\n    half(7) == 3.5", before="import math\n")
RIGHT = "Here:\n```python\ndef half(x):\n    return x / 2\n```"


async def test_right_code_gives_the_right_result_in_every_example() -> None:
    assert await told(HALF, RIGHT) == "a's code gives the right result in all 3 examples of the task."


async def test_failed_examples_are_named_with_what_came_instead() -> None:
    floor = "```python\ndef half(x):\n    return math.floor(x / 2) if x > 4 else 1 / 0\n```"
    assert await told(HALF, floor) == (
        "a's code fails 2 of 3 examples of the task:\n"
        "half(4) raises ZeroDivisionError: division by zero\n"
        "half(7) gives 3, not 3.5"
    )


async def test_each_sender_has_its_report_and_prose_has_none() -> None:
    wrong = "```python\ndef half(x):\n    return 2\n```"
    lines = (await told(HALF, "Divide by two, then return it.", RIGHT, wrong)).splitlines()
    assert lines[0].startswith("b's code gives the right result")
    assert lines[1] == "c's code fails 2 of 3 examples of the task:"
    assert await told(HALF, "Divide by two.") == ""
    assert await told(HALF) == ""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    return x +", "does not run: SyntaxError"),
        ("    return x\nhalf = None\nraise KeyError('k')", "does not run: KeyError: 'k'"),
        ("    return x\ndel half", "does not run: it does not define half"),
        ("    while True: pass", "was stopped: "),
        ("    import os; os._exit(0)", "was stopped: it ended by itself"),
        ('    print(\'{"error": "x"}\'); return x / 2', "gives the right result in all 3"),
        ("    return 'x' * 10**6", "fails 3 of 3"),
    ],
)
async def test_code_that_misbehaves_is_told_of_in_a_few_words(body: str, said: str) -> None:
    runner = CodeRunner(SandboxLimits(wall=1.5, cpu=1.5))
    text = await told(HALF, f"```python\ndef half(x):\n{body}\n```", runner=runner)
    assert text.startswith(f"a's code {said}")
    assert len(text) < 800


async def test_without_examples_it_says_whether_the_code_runs() -> None:
    assert await told(asking("Half of it."), RIGHT) == "a's code runs; the task shows no examples."
    assert await told("Write half.", "```python\nprint(1\n```") == (
        "a's code does not run: SyntaxError: '(' was never closed (answer, line 1)."
    )
    assert await told("Write half.", "No code yet.") == ""
