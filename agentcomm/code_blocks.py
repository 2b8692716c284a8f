"""Find the program in a model's reply.

Models wrap code in fences, in several fences, in half a fence, or in none, with prose around it.
:func:`extract_code` follows one documented rule and never strips *characters*: removing "any of the
letters of python" from the left, as some evaluators do, turns ``print(1)`` into ``rint(1)``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from textwrap import dedent
from typing import NamedTuple

PYTHON_TAGS = frozenset({"", "python", "python3", "python2", "py", "py3"})

_OPENING = re.compile(r"^(?P<before>.*?)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
_TAG = re.compile(r"[A-Za-z][\w+#.-]*$")
_INLINE = re.compile(r"```(?:(?:python3?|py)\b)?[ \t]*([^`\n]+)```")
_STARTS_CODE = re.compile(r"(?:import|from|def|class|async\s+def)\s|@\w")


class Block(NamedTuple):
    """One fenced block: the word after the fence in lower case, and the text inside."""

    tag: str
    code: str


def extract_code(text: str, entry_point: str | None = None) -> str:
    r"""The program in a reply.

    1. Fenced blocks tagged as another language (``bash``, ``json``, ``text``) are left out, if any
       other block is there.
    2. With ``entry_point``: the last block that defines it and parses; else the last that defines it.
    3. Otherwise the longest block; among equally long ones the last.
    4. Without a fence: the reply itself if it is Python, else its longest run of lines that is and
       starts like a program; else the reply as it is (a completion that goes on after a prompt).

    Indentation inside a block is kept, except what the fence itself is indented by. Line ends become
    ``\n``. An unclosed fence reaches to the end.

    Examples
    --------
    >>> extract_code("Sure!\n```python\nprint(1)\n```\nThat prints 1.")
    'print(1)'
    >>> extract_code("```\npython_x=1\n```")
    'python_x=1'
    >>> two = "```python\ndef f(): return 1\n```\nUse it:\n```python\nprint(f(), f(), f(), f())\n```"
    >>> extract_code(two, "f")
    'def f(): return 1'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    blocks = [block for block in fenced_blocks(text) if block.code.strip()]
    if not blocks:
        return _unfenced(text, entry_point)
    codes = [b.code for b in blocks if b.tag in PYTHON_TAGS] or [b.code for b in blocks]
    if entry_point is not None:
        defining = [code for code in codes if _defines(code, entry_point)]
        parsing = [code for code in defining if _parses(code)]
        if defining:
            return (parsing or defining)[-1]
    return max(reversed(codes), key=len)


def fenced_blocks(text: str) -> Iterator[Block]:
    r"""Every fenced block in order.

    A fence of n marks is closed by a line of at least n of the same marks; where there is none before
    the next block, by a line of code that ends in them. Prose may stand before a fence that is tagged
    as Python.

    >>> list(fenced_blocks("~~~py\nx = '```'\n~~~"))
    [Block(tag='py', code="x = '```'")]
    """
    lines = text.split("\n")
    position = 0
    while position < len(lines):
        opening = _opening(lines[position])
        position += 1
        if opening is None:
            continue
        end = _closing(lines, position, opening.fence)
        inside = [*opening.code, *lines[position:end]]
        if end < len(lines) and (last := lines[end].rstrip().rstrip(opening.fence[0])).strip():
            inside.append(last.rstrip())
        position = end + 1
        yield Block(opening.tag, "\n".join(_without(opening.indent, inside)).strip("\n"))


class _Opening(NamedTuple):
    fence: str
    tag: str
    indent: str
    code: list[str]
    """Code in the line of the fence itself, as in ```` ```print(1) ````."""


def _opening(line: str) -> _Opening | None:
    match = _OPENING.match(line)
    if match is None:
        return None
    before, info = match["before"], match["info"].strip()
    first = info.split(maxsplit=1)[0] if info else ""
    tagged = not first or _TAG.match(first) is not None
    tag = first.lower() if tagged else ""
    if before.strip() and not (tag and tag in PYTHON_TAGS):
        return None
    indent = before if before.isspace() else " " * len(before)
    return _Opening(match["fence"], tag, indent, [] if tagged else [info])


def _closing(lines: list[str], start: int, fence: str) -> int:
    """Index of the line that closes the block, or the number of lines."""
    glued = len(lines)
    for index in range(start, len(lines)):
        line = lines[index].strip()
        if line.startswith(fence) and not line.strip(fence[0]):
            return index
        if glued == len(lines) and line.endswith(fence):
            glued = index
        elif glued < len(lines) and (again := _opening(line)) is not None and again.tag:
            break
    return glued


def _without(indent: str, lines: list[str]) -> list[str]:
    """Take away what the fence was indented by, if every line has it."""
    if all(line.startswith(indent) for line in lines if line.strip()):
        return [line.removeprefix(indent) for line in lines]
    return lines


def _unfenced(text: str, entry_point: str | None) -> str:
    inline = _INLINE.findall(text)
    if inline and _parses(inline[-1].strip()):
        return str(inline[-1].strip())
    whole = text.strip("\n")
    if _parses(whole) or not whole:
        return whole
    if _parses(dedented := dedent(whole)) and _STARTS_CODE.match(dedented):
        return dedented
    lines = whole.split("\n")
    best = ""
    for start, line in enumerate(lines):
        if _STARTS_CODE.match(line):
            run = _longest_program(lines[start:])
            wanted = entry_point is None or _defines(run, entry_point)
            if wanted and len(run) > len(best):
                best = run
            if best:
                break
    return best or whole


def _longest_program(lines: list[str]) -> str:
    """The longest prefix of the lines that is Python."""
    for end in range(len(lines), 0, -1):
        code = "\n".join(lines[:end]).rstrip()
        if _parses(code):
            return code
    return ""


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _defines(code: str, name: str) -> bool:
    """Whether a line at the left margin defines the name; works on code that does not parse, too."""
    word = re.escape(name)
    pattern = rf"^(?:(?:async\s+)?def\s+{word}\s*[(\[]|class\s+{word}\b|{word}\s*(?::[^=\n]+)?=(?!=))"
    return re.search(pattern, dedent(code), re.MULTILINE) is not None
