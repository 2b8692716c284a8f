"""Programs are cut out of replies without losing a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.code_blocks import Block, extract_code, fenced_blocks

PROGRAMS = [
    "print(1)",
    "try:\n    x = 1\nexcept ValueError:\n    pass",
    "python_x=1",
    "python = 3\nprint(python)",
    "py = 'th'\ntext = \"json\"",
    "def f():\n    return '``'",
    "n = 3\n\n\nif n:\n\tprint(n)",
]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("tag", ["", "python", "Python", "py", "python3"])
@pytest.mark.parametrize("fence", ["```", "````", "~~~"])
def test_a_fenced_program_comes_out_unchanged(program: str, tag: str, fence: str) -> None:
    assert extract_code(f"Here it is.\n\n{fence}{tag}\n{program}\n{fence}\nDone.") == program
    assert extract_code(f"{fence}{tag}\n{program}") == program  # unclosed
    assert extract_code(f"{fence} {tag}\r\n{program}\r\n{fence}\r\n".replace("\n\n", "\n\r\n")) == program


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_without_fences_comes_out_unchanged(program: str) -> None:
    assert extract_code(program) == program
    assert extract_code(f"\n{program}\n\n") == program


@given(
    st.lists(
        st.sampled_from(["import os", "x = 1", "print('python')", "try_ = 'py'", "# note", "y = 2"]),
        min_size=1,
    )
)
def test_fencing_and_extracting_is_the_identity(lines: list[str]) -> None:
    program = "\n".join(lines)
    assert extract_code(f"```python\n{program}\n```") == program
    assert extract_code(f"~~~\n{program}\n~~~") == program


@given(st.text(alphabet="`~ \nabpython:=()'\r\t#", max_size=80), st.sampled_from([None, "f"]))
def test_no_reply_breaks_it_and_the_result_is_part_of_the_reply(text: str, entry_point: str | None) -> None:
    code = extract_code(text, entry_point)
    plain = "".join(text.split())
    assert "".join(code.split()) in plain


def test_with_an_entry_point_the_last_block_that_defines_it_is_taken() -> None:
    first = "def f(x):\n    return 1"
    better = "def f(x):\n    return 2"
    usage = "print(f(1))\nprint(f(2))\nprint(f(3))  # a long example that does not define it"
    reply = f"```python\n{first}\n```\nBetter:\n```python\n{better}\n```\n```python\n{usage}\n```"
    assert extract_code(reply, "f") == better
    assert extract_code(reply) == usage


def test_a_definition_that_parses_is_preferred_to_a_later_one_that_does_not() -> None:
    reply = "```\ndef f(x):\n    return 1\n```\n```\ndef f(x):\n    ...(\n```"
    assert extract_code(reply, "f") == "def f(x):\n    return 1"


def test_a_similar_name_is_no_definition() -> None:
    reply = "```\ndef f(x): return 1\n```\n```\ndef f_helper(x): return 1\nf == 2\n```"
    assert extract_code(reply, "f") == "def f(x): return 1"
    assert extract_code(
        "```\nf = lambda x: 1\n```\n```\nprint('longer than the first block')\n```", "f"
    ).startswith("f =")


def test_blocks_of_other_languages_are_left_out_unless_there_is_nothing_else() -> None:
    reply = "```bash\npip install something-with-a-long-name\n```\n```python\nx = 1\n```\n```text\n1\n```"
    assert extract_code(reply) == "x = 1"
    assert extract_code("```javascript\nlet x = 1\n```") == "let x = 1"


def test_an_indented_fence_takes_its_indentation_away_and_no_more() -> None:
    reply = "1. Do this:\n\n   ```python\n   def f():\n       return 1\n   ```\n"
    assert extract_code(reply) == "def f():\n    return 1"
    assert extract_code("Answer: ```python\ndef f():\n    return 1\n```") == "def f():\n    return 1"


def test_a_fence_glued_to_the_code_is_cut_off() -> None:
    assert extract_code("```print(1)\n```") == "print(1)"
    assert extract_code("```python\nprint(1)```") == "print(1)"
    assert extract_code("Use ```python print(1)``` here.") == "print(1)"
    assert extract_code("```try:\n    f()\nexcept E:\n    pass\n```") == "try:\n    f()\nexcept E:\n    pass"


def test_prose_around_an_unfenced_program_is_left_out() -> None:
    reply = "Sure, here you go:\n\nimport math\n\ndef f(x):\n    return math.sqrt(x)\n\nThis takes the root."
    assert extract_code(reply, "f") == "import math\n\ndef f(x):\n    return math.sqrt(x)"


def test_a_bare_function_body_keeps_its_indentation() -> None:
    body = "    total = 0\n    return total"
    assert extract_code(f"\n{body}\n") == body


def test_a_longer_fence_holds_a_shorter_one() -> None:
    assert list(fenced_blocks("````md\n```\nx\n```\n````")) == [Block("md", "```\nx\n```")]
