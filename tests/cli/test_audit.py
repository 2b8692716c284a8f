"""``agentcomm audit``: the table, the sentence, JSON, files, codes and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import agentcomm, write

TEAM = """
import agentcomm as ac

def graph():
    return ac.AgentGraph(
        [ac.Agent("finder", role="Find.", view="facts"), ac.Agent("judge", role="Judge.")], [("finder", "judge")], "judge"
    )
"""
BOXES = """
import agentcomm as ac

def score(item, text):
    return ac.Score(1.0 if item.answer in text else 0.0, text[:20])

def task(limit: int = 12):
    names = ["oak", "elm", "fir", "ash", "yew", "box", "bay", "fig", "gum", "nut", "tea", "asp"][:limit]
    return ac.Task("boxes", [ac.Item(f"q{i:02d}", f"Which tree is {i}?", n, views={"facts": f"{i} is {n}."})
                             for i, n in enumerate(names)], score)
"""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path, "pair.py", TEAM), write(tmp_path, "boxes.py", BOXES)


def test_an_echoing_team_passes_its_messages_on_and_the_last_line_says_so(pair: tuple[Path, Path]) -> None:
    words = (
        "audit",
        *pair,
        "-m",
        "mock/echo",
        "--executor",
        "plain",
        "--out",
        "a",
        "--order-scorer",
        "offline",
    )
    done = agentcomm(*words)
    assert done.code == 0, done.err
    last = done.out.strip().splitlines()[-1]
    assert last.startswith("the messages' content raises the score by 100 points [")
    for said in ("carries information", "generic", "loss", "mismatched: other items' messages", "4 runs"):
        assert said in done.out
    # Finders say one thing each: there is no order to find, and that is said.
    assert "whether the order of the messages matters is unknown" in done.out and "offline/ngram" in done.out
    again = agentcomm(*words, "--json")
    made = again.json
    assert (made["graph"], made["task"], made["verdict"]) == ("pair", "boxes", "carries_information")
    assert made["sentence"] == last and made["full"] == "context" and made["paid"]["runs"] == 4
    kept = json.loads(Path("a/audit.json").read_text())
    assert kept["audits"] == made["audits"] and kept["order"] == made["order"]
    assert (Path("a") / "true" / "ledger.sqlite").exists()


def test_what_is_wrong_is_one_sentence_and_ends_with_2(pair: tuple[Path, Path]) -> None:
    base = ("audit", *pair, "-m", "mock/echo", "--executor", "plain", "--out", "a")
    for more, said in (
        (("--edge", "judge->finder"), "there are: finder->judge"),
        (("--full", "verbatim"), "no channel on these edges"),
        (("--full", "most"), "auto, verbatim, context, none"),
        (("--limit", "1"), "of one document"),
        (("--margin", "2"), "between 0 and 1"),
        (("--order-scorer", "offline/entropy"), "no offline critic"),
        (("--order-scorer", "words"), "unknown scorer"),
        (("--samples", "0"), "at least 1"),
        (("--permutations", "0"), "at least 1"),
    ):
        done = agentcomm(*base, *more)
        assert done.code == 2 and said in done.complaint, (more, done.err)


def test_a_limit_ends_it_with_1_and_the_same_command_continues(pair: tuple[Path, Path]) -> None:
    words = ("audit", *pair, "-m", "mock/echo", "--executor", "plain", "--out", "a", "--full", "none")
    stopped = agentcomm(*words, "--run-limit", "calls=9")
    assert stopped.code == 1 and "stopped early" in stopped.err and "--out a continues" in stopped.err
    done = agentcomm(*words)
    assert done.code == 0 and "raises the score by 100 points" in done.out
