"""Files that a user of the command has: a graph, a task and an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import SUMS, TEAM, write


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written beside the tests, and no key of the developer's is used."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AGENTCOMM_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def team(tmp_path: Path) -> Path:
    return write(tmp_path, "team.py", TEAM)


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    return write(tmp_path, "sums.py", SUMS)
