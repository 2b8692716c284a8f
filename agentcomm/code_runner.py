"""CodeRunner: a function agent that runs the code it reads on the examples in the question.

What it knows is what every agent knows: the question. The examples are those that its code block
shows in a docstring, written as a session (``>>> f(2)`` and the result below) or as a line
(``f(2) == 4``, ``f(2) -> 4``, ``f(2) returns 4``). The item's reference answer and hidden tests are
never looked at. Code runs only in the sandbox; what it reports is text for the team, no verdict.
"""

from __future__ import annotations

import ast
import doctest
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from agentcomm.code_blocks import extract_code, fenced_blocks
from agentcomm.prompting import Turn
from agentcomm.sandbox import SandboxLimits, SandboxResult, run_python

SHOWN = 3
"""Failed examples that a report tells of."""


class Example(NamedTuple):
    """A call and the text of its result; ``wanted=""`` only prepares for the next."""

    call: str
    wanted: str


class Problem(NamedTuple):
    """What a question asks for: the code it gives, the function it names last, and its examples."""

    given: str
    name: str | None
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class CodeRunner:
    """Runs each program that it reads and says which of the question's examples hold.

    It says nothing where it reads no code. ``limits`` are for one program with all its examples.
    """

    limits: SandboxLimits = field(default_factory=lambda: SandboxLimits(wall=5.0, cpu=5.0))

    async def __call__(self, turn: Turn) -> str:
        problem = read_problem(turn.item.question)
        reports: dict[str, str] = {}  # by program: equal ones are run once
        lines: list[str] = []
        for delivery in turn.inbox:
            program = _program(delivery.text, problem)
            if program is None:
                continue
            if program not in reports:
                reports[program] = await self._report(program, problem)
            lines.append(f"{delivery.edge.sender}'s code {reports[program]}")
        return "\n".join(lines)

    async def _report(self, program: str, problem: Problem) -> str:
        asked = json.dumps([program, problem.examples, problem.name, SHOWN])
        result = await run_python(_HARNESS, stdin=asked, limits=self.limits)
        return _told(result, len([e for e in problem.examples if e.wanted]))


def read_problem(question: str) -> Problem:
    r"""What a question with a Python code block asks for; without one, nothing is known.

    >>> read_problem("Do it.\n```python\ndef double(x):\n    'double(2) == 4'\n```").examples
    (Example(call='double(2)', wanted='4'),)
    """
    for block in fenced_blocks(question):
        try:
            tree = ast.parse(block.code)
        except (SyntaxError, ValueError):
            continue
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        if functions:
            name = functions[-1].name
            text = ast.get_docstring(functions[-1], clean=True) or ""
            return Problem(block.code, name, tuple(_examples(text, name)))
    return Problem("", None, ())


def _examples(docstring: str, name: str) -> Iterator[Example]:
    try:
        session = doctest.DocTestParser().get_examples(docstring)
    except ValueError:  # badly indented: people write docstrings for people
        session = []
    if session:
        for example in session:
            if example.exc_msg is None:
                yield Example(example.source.strip(), example.want.strip())
        return
    for line in docstring.splitlines():
        if (found := _in_line(line, name)) is not None:
            yield found


_RESULT = re.compile(r"\s*(?:#\s*)?(?:==>|==|=>|=|->|➞|→|returns|should return)\s*(?P<wanted>.+)")


def _in_line(line: str, name: str) -> Example | None:
    """The example in a line such as ``f(2) == 4``, if its result is plain data."""
    start = re.search(rf"(?<![\w.]){re.escape(name)}\(", line)
    if start is None:
        return None
    for end in (m.end() for m in re.finditer(r"\)", line[start.start() :])):
        call, rest = line[start.start() :][:end], line[start.start() :][end:]
        match = _RESULT.match(rest)
        if match is None or not _is_call(call):
            continue
        wanted = match["wanted"].strip().rstrip(".")
        if _is_data(wanted):
            return Example(call, wanted)
    return None


def _is_call(text: str) -> bool:
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return False
    return isinstance(node, ast.Call) and all(_is_data(ast.unparse(a)) for a in node.args)


def _is_data(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return False
    return True


def _program(text: str, problem: Problem) -> str | None:
    """The program in a message, after the code that the question gives; ``None`` if there is none."""
    if problem.name is None:
        blocks = [b for b in fenced_blocks(text) if b.code.strip()]
        return extract_code(text) if blocks else None
    code = extract_code(text, problem.name)
    if not re.search(rf"^\s*(?:async\s+)?def\s+{re.escape(problem.name)}\s*\(", code, re.MULTILINE):
        return None
    return f"{problem.given}\n{code}"


def _told(result: SandboxResult, examples: int) -> str:
    """One program's report, in a few words a line."""
    try:
        told = json.loads(result.stdout.rpartition("\n")[2])
        error, failed, count = told["error"], told["failed"], told["count"]
    except (ValueError, KeyError, TypeError):
        why = result.detail or "it ended by itself"
        return f"was stopped: {why}."
    if error:
        return f"does not run: {error}."
    if not examples:
        return "runs; the task shows no examples."
    if not count:
        return f"gives the right result in all {examples} examples of the task."
    shown = "".join(f"\n{line}" for line in failed)
    return f"fails {count} of {examples} examples of the task:{shown}"


# Runs in the sandbox: what the program prints is kept apart, and each value is cut short.
_HARNESS = r"""
import ast, contextlib, io, json, sys
code, examples, name, most = json.load(sys.stdin)
told = {"error": "", "failed": [], "count": 0}

def short(text):
    text = " ".join(str(text).split())
    return text if len(text) <= 100 else text[:100] + "..."

def wrong(error):
    return short(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)

def same(got, wanted):
    try:
        value = ast.literal_eval(wanted)
    except (SyntaxError, ValueError):
        return repr(got) == wanted
    return bool(got == value)

with contextlib.redirect_stdout(io.StringIO()):
    space = {"__name__": "answer"}
    try:
        exec(compile(code, "answer", "exec"), space)
        if name is not None and name not in space:
            told["error"] = f"it does not define {name}"
    except BaseException as error:
        told["error"] = wrong(error)
    for call, wanted in () if told["error"] else examples:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                try:
                    run = compile(call, "example", "eval")
                except SyntaxError:
                    exec(compile(call, "example", "exec"), space)
                    got = None
                else:
                    got = eval(run, space)
            shown = said.getvalue().strip() or repr(got)
            if not wanted or same(got, wanted) or shown == wanted:
                continue
            line = f"{short(call)} gives {short(shown)}, not {short(wanted)}"
        except BaseException as error:
            line = f"{short(call)} raises {wrong(error)}"
        told["count"] += 1
        if len(told["failed"]) < most:
            told["failed"].append(line)
print()
print(json.dumps(told), end="")
"""
