"""``agentcomm research``: a report on stdout, costs on stderr, a run that continues."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agentcomm.ledger.store import Ledger
from tests.command import agentcomm, finish, start, wait_until
from tests.research.services import Service
from tests.research.teams import FACTS, PLAN, QUESTION, write_corpus
from tests.servers import CountingServer, hang


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def script(tmp_path: Path) -> str:
    """Replies as a file, by text in the prompt."""
    notes = {words: json.dumps({"explanation": fact, "relevant": True}) for words, fact in FACTS.items()}
    by_role = {
        "Do not answer the question yet": PLAN,
        "Write the report": "It eats thistles [1] and lives behind the mill [2], they say [9].",
        **notes,
    }
    path = tmp_path / "replies.json"
    path.write_text(json.dumps({"by_role": by_role, "default": '{"explanation": "", "relevant": false}'}))
    return f"scripted/{path}"


def test_the_report_goes_to_stdout_with_its_sources_and_the_costs_to_stderr(
    corpus: Path, script: str, tmp_path: Path
) -> None:
    (corpus / "photo.jpg").write_bytes(b"\xff\xd8\xff\x00")
    out = tmp_path / "run"
    done = agentcomm("research", QUESTION, "--corpus", corpus, "-c", script, "-p", script, "--out", out)
    assert done.code == 0, done.err
    assert done.out.startswith(
        "It eats thistles [1] and lives behind the mill [2], they say [9].\n\nSources:\n"
    )
    assert re.search(r"^\[1\] (goat.md|house.txt) \(", done.out, re.MULTILINE)
    assert "calls" not in done.out
    for said in ("plan", "compress", "write", "2 relevant (67%)", "cites [9], which names no source"):
        assert said in done.err
    assert "1 file left out (photo.jpg is not UTF-8 text)" in done.err
    assert agentcomm("ledger", out, "--by", "phase", "--json").json["compress"]["calls"] == 3
    assert agentcomm("ledger", out, "--by", "channel", "--json").json["search->notes"]["channel"] == "digest"
    assert agentcomm("view", out).code == 0
    again = agentcomm("research", QUESTION, "--corpus", corpus, "-c", script, "-p", script, "--out", out)
    assert again.out == done.out
    facts = agentcomm(
        "research", QUESTION, "--corpus", corpus, "-c", script, "-p", script, "--out", out, "--json"
    ).json
    assert facts["citations"]["unknown"] == [9]
    assert [s["cited"] for s in facts["citations"]["sources"]] == [True, True]
    assert facts["stages"]["compress"]["calls"] == 3 and facts["stages"]["compress"]["input"] > 0
    assert (facts["chunks"], facts["relevant"], facts["failure"]) == (3, 2, None)
    assert facts["files_left_out"] == [{"name": "photo.jpg", "why": "is not UTF-8 text"}]
    assert facts["left_out"] == 0, "chunks"


def test_a_dry_run_says_what_it_would_cost_at_most_and_calls_nobody(corpus: Path, tmp_path: Path) -> None:
    done = agentcomm("research", QUESTION, "--corpus", corpus, "--dry-run")
    assert done.code == 0, done.err
    assert "4 texts" in done.out and "at most 10 calls" in done.out
    facts = agentcomm("research", QUESTION, "--corpus", corpus, "--dry-run", "--json").json
    assert facts["forecast"]["most_calls"] == 10
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([""], "the question is empty"),
        (["  \n"], "the question is empty"),
        (["Why?"], "where to search"),
        (["Why?", "--corpus", "corpus", "--search", "http://127.0.0.1"], "where to search"),
        (["Why?", "--corpus", "nowhere"], "no folder nowhere"),
        (["Why?", "--corpus", "empty"], "empty holds no text"),
        (["Why?", "--corpus", "corpus", "--chunk", "100"], "the overlap must be"),
        (["Why?", "--search", "google"], "write its address"),
    ],
)
def test_what_only_the_user_can_mend_is_said_before_anything_is_paid(
    corpus: Path, tmp_path: Path, words: list[str], complaint: str
) -> None:
    (tmp_path / "empty").mkdir()
    done = agentcomm("research", *words, "-p", "mock/echo")
    assert done.code == 2
    assert complaint in done.complaint
    assert not (tmp_path / "runs").exists()


def test_somebody_must_write(corpus: Path) -> None:
    done = agentcomm("research", "Why?", "--corpus", corpus)
    assert done.code == 2 and "who writes?" in done.complaint


def test_a_model_that_never_gives_json_still_ends_in_a_report_that_says_so(
    corpus: Path, tmp_path: Path
) -> None:
    done = agentcomm("research", QUESTION, "--corpus", corpus, "-p", "mock/echo", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    for said in (
        "a plan could not be read",
        "no readable note on 4 of 4 chunks",
        "no chunk was found relevant",
        "cites no source",
    ):
        assert said in done.err


def test_killed_between_chunks_it_goes_on_and_pays_for_none_twice(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def reply(request: dict[str, object]) -> str:
        prompt = json.dumps(request["messages"])
        if "Do not answer the question yet" in prompt:
            return PLAN
        if "Does the text help" in prompt:
            return '{"explanation": "It eats thistles.", "relevant": true}'
        return "Thistles [1]."

    with CountingServer(model="m", reply=reply) as server:
        hanging = True
        server.script(
            hang(120), when=lambda request: hanging and "Text from ships.txt" in json.dumps(request)
        )
        words = (
            "research",
            QUESTION,
            "--corpus",
            corpus,
            "-p",
            "openai/m",
            "--base-url",
            server.url,
            "--executor",
            "plain",
            "--out",
            out,
        )

        def served() -> list[str]:
            return [json.dumps(s.request["messages"]) for s in server.served if s.whole and s.status == 200]

        def kept() -> bool:
            """Whether plan and two notes are on disk: what was only said may be asked for again."""
            if len(served()) < 3:
                return False
            with Ledger.open(out / "ledger.sqlite", read_only=True) as book:
                return sum(row.finish_reason is not None for row in book.calls(texts=False)) >= 3

        running = start(*words, env={"OPENAI_API_KEY": "none"})
        try:
            wait_until(kept, running, timeout=900)
        finally:
            running.kill()
            running.communicate()
        hanging = False
        assert len(served()) == 3
        done = finish(start(*words, "--json", env={"OPENAI_API_KEY": "none"}), timeout=900)
        assert done.code == 0, done.err
        assert done.json["answer"] == "Thistles [1]."
        assert (done.json["chunks"], done.json["relevant"]) == (3, 3)
        assert len(served()) == len(set(served())) == 5, "the chunk that hung and the writer came after"
        assert (done.json["stages"]["compress"]["calls"], done.json["failure"]) == (4, None), (
            "one was cut off"
        )


def test_a_search_services_key_is_stored_nowhere_and_a_replay_reads_what_was_found(
    script: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = {"title": "Goat", "url": "http://g", "content": "Ada's goat eats thistles. " * 5}
    with Service({"results": [result]}) as service:
        words = (
            "research",
            QUESTION,
            "--search",
            f"{service.url}/s?q={{query}}",
            "--search-key-env",
            "X-Key:K",
        )
        env = {"K": "sk-search-0123456789"}
        done = agentcomm(*words, "-p", script, "--out", out, env=env)
        assert done.code == 0, done.err
        assert service.asked[0].headers["X-Key"] == env["K"]
        asked = len(service.asked)
        assert env["K"].encode() not in b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())
        again = agentcomm(*words, "-p", f"replay/{out}", "-c", f"replay/{out}", "--json", env=env)
        assert again.code == 0, again.err
        assert again.json["relevant"] == 1
        assert len(service.asked) == asked
    assert "[1] http://g (Goat)" in done.out
