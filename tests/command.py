"""The command as tests use it: in this process (fast), or as a process of its own (to kill it).

``TEAM`` and ``SUMS`` are a graph and a task file such as a user writes; :func:`write` puts them
into a folder.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from agentcomm.cli import main

TEAM = """
import agentcomm as ac

def graph(rounds: int = 2):
    return ac.AgentGraph(
        [ac.Agent("solver", role="Solve."), ac.Agent("critic", role="Criticise."), ac.Agent("judge", role="Judge.")],
        [ac.Edge("solver", "critic"), ac.Edge("solver", "judge"), ac.Edge("critic", "judge"),
         *([ac.Edge("critic", "solver", kind="temporal")] if rounds > 1 else [])],
        decision="judge",
        rounds=rounds,
    )
"""
"""Three agents, two rounds: five calls an item."""

CALLS_PER_ITEM = 5

SUMS = """
import agentcomm as ac

def score(item, text):
    return ac.Score(1.0 if item.answer in text else 0.0, text[:20])

def task(limit: int = 4):
    return ac.Task("sums", [ac.Item(f"q{i:03d}", f"What is {i} plus {i}?", str(2 * i)) for i in range(limit)], score)
"""

SECRET = "sk-secret-0123456789abcdef"
"""A key that must be seen nowhere."""


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What was printed on stdout, which must be one JSON value without NaN and nothing else."""

        def refuse(constant: str) -> Any:
            raise AssertionError(f"{constant} is not JSON")

        return json.loads(self.out, parse_constant=refuse)

    @property
    def complaint(self) -> str:
        """The one sentence on stderr; fails if it is none, or a traceback."""
        assert "Traceback" not in self.out + self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("error: ")


def agentcomm(*words: str | Path, env: Mapping[str, str] | None = None) -> Done:
    """Run ``agentcomm WORDS`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["agentcomm", *map(str, words)]),
        mock.patch.dict(os.environ, {"COLUMNS": "200", **(env or {})}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    return Done(code, out.getvalue(), err.getvalue())


def start(
    *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, before: str = ""
) -> subprocess.Popen[str]:
    """Start ``agentcomm WORDS`` as a process of its own; ``before`` is Python that it runs first."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{before}\nfrom agentcomm.cli import main\nmain()", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 60.0) -> Done:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Done(process.returncode, out, err)


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str], timeout: float = 60.0) -> None:
    """Wait for something that a running command brings about; fails if the command ends before."""
    end = time.monotonic() + timeout
    while not true():
        if process.poll() is not None:
            raise AssertionError(f"the command ended with {process.returncode}: {process.communicate()}")
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def everything_in(folder: Path) -> bytes:
    """The bytes of every file below ``folder``."""
    return b"".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file())
