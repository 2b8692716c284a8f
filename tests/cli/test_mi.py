"""``agentcomm mi``: a table, one JSON object, a folder that continues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentcomm.information import estimate_mi
from agentcomm.information.matrix_files import load_matrix
from tests.command import agentcomm, finish, start, wait_until
from tests.information.scorers.server import ScoringServer
from tests.servers import CountingServer, hang

OFFLINE = ("--scorer", "offline/codelength")


def test_the_table_names_the_quantity_the_bracket_and_what_went_wrong() -> None:
    done = agentcomm("mi", "records", "--compressor", "truncate:30", *OFFLINE, "--contexts", "12")
    assert done.code == 0, done.err
    for said in (
        "cross-context information",
        "N = 12 contexts, M = 1 messages",
        "mc, raw",
        "tempered",
        "diagnostic",
        "saturation",
        "bits per word",
        "bits per byte",
        "failures: 0 cells",
        "untempered_critic",
    ):
        assert said in done.out
    assert "I(X;Z|Q=q)" not in done.out, "each context has its own question"
    shared = agentcomm("mi", "records", "-c", "truncate:30", *OFFLINE, "-n", "12", "--query", "Who?")
    assert "I(X;Z|Q=q)" in shared.out


def test_json_is_one_object_and_the_files_hold_the_same(tmp_path: Path) -> None:
    out = tmp_path / "mi"
    done = agentcomm("mi", "records", "-c", "extract:20", *OFFLINE, "-n", "12", "--out", out, "--json")
    assert done.code == 0, done.err
    facts = done.json
    assert facts["estimate"]["N"] == 12
    assert facts["scorer"] == "offline/codelength:zlib"
    assert json.loads((out / "mi.offline-codelength.json").read_text()) == facts
    matrix = load_matrix(out / "matrix.offline-codelength.json")
    assert estimate_mi(matrix).facts() == facts["estimate"]
    messages = [json.loads(line) for line in (out / "messages.jsonl").read_text().splitlines()]
    assert len(messages) == 12


def test_the_same_command_continues_and_another_scorer_scores_the_same_messages(tmp_path: Path) -> None:
    out = tmp_path / "mi"
    with CountingServer(model="m") as server:
        words = (
            "mi",
            "records",
            "-c",
            "openai/m",
            "--base-url",
            server.url,
            "-n",
            "12",
            "-k",
            "2",
            "--out",
            out,
        )
        first = agentcomm(*words, *OFFLINE, "--json")
        assert first.code == 0, first.err
        assert first.json["calls"]["made"] == server.tokens.requests == 24
        again = agentcomm(*words, *OFFLINE, "--json")
        assert again.json == first.json
        other = agentcomm(*words, "--scorer", "offline/ngram", "--json")
        assert other.code == 0, other.err
        assert server.tokens.requests == 24
        assert other.json["scorer"] != first.json["scorer"]
        changed = agentcomm(*words[:-4], "-k", "3", "--out", out, *OFFLINE)
        assert changed.code == 2
        assert "samples was 2, now 3" in changed.complaint


def test_after_ctrl_c_it_says_how_to_go_on_and_pays_nothing_twice(tmp_path: Path) -> None:
    out = tmp_path / "mi"
    with CountingServer(model="m") as server:
        server.script(hang(120), when=lambda request: len(server.served) >= 5)
        words = ("mi", "records", "-c", "openai/m", "--base-url", server.url, "-n", "4", "-k", "2",
                 "--concurrency", "1", "--out", out, *OFFLINE)  # fmt: skip
        repo = Path(__file__).parents[2]
        process = start(*words, cwd=tmp_path, env={"PYTHONPATH": str(repo)})
        wait_until(lambda: len(server.served) >= 6, process, timeout=120)
        process.send_signal(2)
        done = finish(process)
        assert done.code == 130, done
        assert f"--out {out} continues" in done.err
        server.forgive()
        paid = server.tokens.requests
        rest = agentcomm(*words, "--json")
        assert rest.code == 0, rest.err
        assert server.tokens.requests - paid == 8 - 5


def test_a_scorer_on_a_server_is_probed_first(tmp_path: Path) -> None:
    with ScoringServer() as scoring, CountingServer(model="m") as server:
        words = ("mi", "records", "-c", "openai/m", "--base-url", server.url, "-n", "3", "-k", "1", "--json",
                 "--scorer", "openai/test-model", "--scorer-url", scoring.url)  # fmt: skip
        done = agentcomm(*words)
        assert done.code == 0, done.err
        assert "9 cells" in done.err
        assert "afresh" in done.err
        assert done.json["bits_per_scorer_token"]["unit"] == "token of the scorer"
        assert done.json["estimate"]["doe_nats"] is not None
        scoring.mode = "generated"
        paid = server.tokens.requests
        refused = agentcomm(*words)
        assert refused.code == 2
        assert "gives no log-probabilities of a prompt" in refused.complaint
        assert server.tokens.requests == paid, "refused before anything is compressed"


def test_without_an_estimate_it_ends_with_1_and_the_reason() -> None:
    with ScoringServer(max_length=150) as scoring:
        done = agentcomm("mi", "records", "-c", "truncate:9", "-n", "3", "--json", "--query", "",
                         "--scorer", "openai/test-model", "--scorer-url", scoring.url)  # fmt: skip
    assert done.code == 1, done.err
    assert done.json["estimate"]["status"] == "too_many_failures"
    assert "more than the model's 150" in done.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("-c", "nonsense", *OFFLINE), "identity, truncate:64"),
        (("-c", "identity", "--scorer", "gzip"), "unknown scorer"),
        (("-c", "identity", "--scorer", "openai/gpt-5-mini"), "--scorer-url"),
        (("-c", "identity", "--scorer", "hf/nowhere"), "nowhere is no Hugging Face folder"),
        (("-c", "identity", *OFFLINE, "--contexts", "0"), "--contexts 0"),
        (("-c", "random", *OFFLINE, "--samples", "0"), "--samples 0"),
        (("-c", "mock/echo", *OFFLINE, "--budget", "0"), "--budget 0"),
    ],
)
def test_what_only_the_user_can_mend_is_one_sentence(words: Any, complaint: str) -> None:
    done = agentcomm("mi", "records", *words)
    assert done.code == 2
    assert complaint in done.complaint


def test_a_task_without_contexts_is_named(sums: Path) -> None:
    done = agentcomm("mi", sums, "-c", "identity", *OFFLINE)
    assert done.code == 2
    assert "no context to compress" in done.complaint


def test_several_items_about_one_context_are_one_context(tmp_path: Path) -> None:
    from tests.command import write

    path = write(
        tmp_path,
        "shared.py",
        """
        import agentcomm as ac

        def task(limit: int = 100):
            items = [ac.Item(f"q{i}", f"What is {i}?", context=f"context {i // 5}") for i in range(limit)]
            return ac.Task("shared", items, lambda item, text: ac.Score(0.0))
        """,
    )
    done = agentcomm("mi", path, "-c", "identity", *OFFLINE, "-n", "12", "--json")
    assert done.code == 0, done.err
    assert done.json["estimate"]["n_distinct_contexts"] == 12
