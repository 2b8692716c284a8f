"""The ledger's file: what goes in comes back, in order, once, from this format and older ones."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcomm.errors import LedgerError
from agentcomm.ledger import schema
from agentcomm.ledger.store import Ledger
from agentcomm.ledger.writer import sha_of
from tests.ledger.rows import answered, call, channelled, delivery, episode

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["file", "memory"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger.open(tmp_path / "ledger.sqlite") if request.param == "file" else Ledger.in_memory()
    with made:
        yield made


async def test_rows_come_back_as_they_were_recorded(ledger: Ledger) -> None:
    row = answered(reasoning_tokens=1, cost=0.25, edge="critic->solver", parts_estimated=True, cache_hit=True)
    read = (delivery(), delivery(text="again", again=True, kind="temporal", sender_call_id="c0", tokens=None))
    ledger.start_call(row)
    await ledger.finish_call(row, read)
    await ledger.record_episode(episode(topology='{"masks": []}', failures=2))
    assert ledger.calls() == [row]
    assert ledger.deliveries() == list(read)
    assert ledger.episodes() == [episode(topology='{"masks": []}', failures=2)]


async def test_unknown_buckets_come_back_as_none_and_not_as_zero(ledger: Ledger) -> None:
    await ledger.finish_call(call(error_kind="timeout", error="no reply in 5 s"))
    (row,) = ledger.calls()
    assert (row.input_tokens, row.output_tokens, row.cached_tokens, row.cost, row.parts) == (None,) * 5


async def test_a_started_call_is_pending_until_it_is_finished(ledger: Ledger) -> None:
    ledger.start_call(call("c1"))
    ledger.start_call(call("c2"))
    assert [(r.id, r.error_kind) for r in ledger.pending()] == [("c1", "pending"), ("c2", "pending")]
    await ledger.finish_call(answered("c2"))
    assert [r.id for r in ledger.pending()] == ["c1"]
    assert [r.id for r in ledger.calls()] == ["c1", "c2"]


async def test_a_call_that_ends_while_its_start_is_queued_is_one_row(ledger: Ledger) -> None:
    ledger.start_call(call("c1"))
    await ledger.finish_call(answered("c1"))
    assert ledger.calls() == [answered("c1")]


async def test_a_finished_call_is_never_rewritten(ledger: Ledger) -> None:
    await ledger.finish_call(answered("c1"), [delivery()])
    await ledger.finish_call(answered("c1", input_tokens=999), [delivery(text="other")])
    ledger.start_call(call("c1"))
    assert ledger.calls() == [answered("c1")]
    assert ledger.deliveries() == [delivery()]


async def test_rows_are_sorted_by_place_and_not_by_arrival(ledger: Ledger) -> None:
    places = [
        (item, sample, round, agent, attempt)
        for item in ("a", "b")
        for sample in (0, 1)
        for round in (1, 2)
        for agent in ("x", "y")
        for attempt in (1, 2)
    ]
    for n, (item, sample, round, agent, attempt) in enumerate(reversed(places)):
        row = answered(f"c{n}", item=item, sample=sample, round=round, agent=agent, attempt=attempt)
        read = [
            delivery(row.id, item=item, sample=sample, round=round, reader=agent, tokens=t) for t in (7, 3)
        ]
        await ledger.finish_call(row, read)
        await ledger.record_episode(episode(item, sample=sample))
    assert [(r.item, r.sample, r.round, r.agent, r.attempt) for r in ledger.calls()] == places
    read_in_order = [(d.item, d.sample, d.round, d.reader, d.tokens) for d in ledger.deliveries()]
    assert read_in_order == [(*p[:4], t) for p in places for t in (7, 3)]
    assert [(e.item, e.sample) for e in ledger.episodes()] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


async def test_rows_can_be_asked_for_by_item_and_sample(ledger: Ledger) -> None:
    for n, (item, sample) in enumerate([("a", 0), ("a", 1), ("b", 0)]):
        row = answered(f"c{n}", item=item, sample=sample)
        await ledger.finish_call(row, [delivery(row.id, item=item, sample=sample)])
        await ledger.record_episode(episode(item, sample=sample))
    assert [r.id for r in ledger.calls(item="a")] == ["c0", "c1"]
    assert [r.id for r in ledger.calls(item="a", sample=1)] == ["c1"]
    assert [d.call_id for d in ledger.deliveries(sample=0)] == ["c0", "c2"]
    assert [e.item for e in ledger.episodes(item="b", sample=0)] == ["b"]
    assert ledger.usage(item="a").calls == 2


async def test_an_episode_tried_again_counts_by_its_last_row(ledger: Ledger) -> None:
    failed = episode(status="failed", answer=None, score=None, failure="solver, round 1: timeout")
    await ledger.record_episode(failed)
    await ledger.record_episode(episode())
    assert ledger.episodes() == [episode()]
    assert ledger.episodes(item="q1", history=True) == [failed, episode()]


async def test_totals_need_no_texts(ledger: Ledger) -> None:
    await ledger.finish_call(answered(), [delivery()])
    assert ledger.calls(texts=False)[0].reply_text is None
    (read,) = ledger.deliveries(texts=False)
    assert (read.text, read.original_text, read.tokens) == ("", "", 3)
    usage = ledger.usage()
    assert (usage.calls, usage.input_tokens, usage.by_edge()) == (1, 10, {"critic->solver": 3})
    assert usage.messages_by_edge() == {"critic->solver": 1}


async def test_a_reply_is_found_by_its_turn_and_request_only(ledger: Ledger) -> None:
    await ledger.finish_call(call("failed", error_kind="server", error="500"))
    ledger.start_call(call("sent", attempt=2))
    assert ledger.reply("q1", 0, 1, "solver", "request") is None
    await ledger.finish_call(answered("good", attempt=3))
    await ledger.finish_call(answered("channel", edge="critic->solver", reply_text="short"))
    assert ledger.reply("q1", 0, 1, "solver", "request") == answered("good", attempt=3)
    found = ledger.reply("q1", 0, 1, "solver", "request", "critic->solver")
    assert found is not None
    assert found.reply_text == "short"
    for other in [("q2", 0, 1, "solver", "request"), ("q1", 1, 1, "solver", "request")]:
        assert ledger.reply(*other) is None
    assert ledger.reply("q1", 0, 2, "solver", "request") is None
    assert ledger.reply("q1", 0, 1, "critic", "request") is None
    assert ledger.reply("q1", 0, 1, "solver", "another request") is None


async def test_finding_a_reply_uses_an_index(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    asked: list[str] = []
    with Ledger.open(path) as ledger:
        ledger._reader.set_trace_callback(asked.append)
        ledger.reply("q1", 0, 1, "solver", "request")
        plan = ledger._reader.execute(f"EXPLAIN QUERY PLAN {asked[0]}").fetchall()
    assert any(
        "USING INDEX calls_by_turn (item=? AND sample=? AND round=? AND agent=?)" in r[3] for r in plan
    )


async def test_a_text_is_stored_once_and_found_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    text = "the same long message" * 100
    with Ledger.open(path) as ledger:
        for n in range(20):
            row = answered(f"c{n}", reply_text=text)
            await ledger.finish_call(row, [delivery(row.id, original_text=text, text=text)])
        assert ledger.body(hashlib.sha256(text.encode()).hexdigest()) == text
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM bodies").fetchone() == (1,)
    db.close()


async def test_the_original_of_a_shortened_message_is_found_by_the_messages_id(ledger: Ledger) -> None:
    await ledger.finish_call(answered(), [delivery(message_id="cd" * 32)])
    assert ledger.body("cd" * 32) == "a long message"
    with pytest.raises(LedgerError, match="no text or message 'nonsense'"):
        ledger.body("nonsense")


STRANGE = ["\ud800", "a\x00b", "\udcff\udcfe", "😀 \ufffe", "", "\x1b[31m", "x" * 300_000]


@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
async def test_text_that_is_not_clean_unicode_comes_back_as_it_was(ledger: Ledger, text: str) -> None:
    row = answered(item=text, agent=text, error_kind="broken_reply", error=text, reply_text=text)
    read = delivery(item=text, sender=text, text=text, original_text=text, note=text)
    await ledger.finish_call(row, [read])
    await ledger.record_episode(episode(text, answer=text, extracted=text))
    assert ledger.calls(item=text) == [row]
    assert ledger.deliveries(item=text) == [read]
    assert ledger.episodes(item=text) == [episode(text, answer=text, extracted=text)]
    await ledger.finish_call(answered("good", item=text, agent=text, reply_text=text))
    found = ledger.reply(text, 0, 1, text, "request")
    assert found is not None
    assert found.reply_text == text


@given(text=st.text(st.characters(exclude_categories=[])))
@settings(max_examples=50, deadline=None)
def test_any_text_is_recovered_by_its_hash(text: str) -> None:
    async def go() -> str:
        with Ledger.in_memory() as ledger:
            await ledger.finish_call(answered(reply_text=text))
            return ledger.body(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())

    assert anyio.run(go) == text


async def test_a_row_that_cannot_be_stored_harms_no_other(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="input_tokens"):
        await ledger.finish_call(answered("bad", input_tokens=2**63))
    await ledger.finish_call(answered("good"))
    assert [r.id for r in ledger.calls()] == ["good"]


async def test_registered_secrets_are_stored_nowhere_and_keys_in_errors_neither(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    secret, lookalike = "correct-horse-battery", "sk-proj-abcdefghijklmnop1234"
    with Ledger.open(path, secrets=[secret, None]) as ledger:
        await ledger.finish_call(
            answered(
                error_kind="refused", error=f"401 for {lookalike} / {secret}", reply_text=f"I saw {secret}"
            ),
            [delivery(text=secret, original_text=secret, note=f"Bearer {lookalike}")],
        )
        await ledger.record_episode(episode(answer=secret, extracted=secret, failure=f"api_key={lookalike}"))
        later = "registered-later-on"
        ledger.add_secret(later)
        await ledger.finish_call(answered("c2", reply_text=later))
        assert ledger.calls(item="q1")[0].error == "401 for [redacted] / [redacted]"
        held = _all_bytes(tmp_path)
    held += _all_bytes(tmp_path)
    for word in (secret, lookalike, later):
        assert word.encode() not in held


def _all_bytes(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in folder.iterdir())


async def test_replies_that_only_look_like_keys_are_left_alone(ledger: Ledger) -> None:
    text = "use sk-abcdefghijklmnop as the key and Bearer abcdefghijkl"
    await ledger.finish_call(answered(reply_text=text))
    assert ledger.calls()[0].reply_text == text


# ------------------------------------------------------------------ the file


async def test_a_ledger_is_read_again_after_it_was_closed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        await ledger.finish_call(answered(), [delivery()])
    with Ledger.open(path) as ledger:
        assert ledger.calls() == [answered()]
        await ledger.finish_call(answered("c2"))
    with Ledger.open(path, read_only=True) as ledger:
        assert [r.id for r in ledger.calls()] == ["c1", "c2"]


async def test_starts_that_were_queued_are_kept_when_the_ledger_closes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        for n in range(50):
            ledger.start_call(call(f"c{n:02}"))
    with Ledger.open(path) as ledger:
        assert [r.id for r in ledger.pending()] == [f"c{n:02}" for n in range(50)]


async def test_a_closed_ledger_says_so(ledger: Ledger) -> None:
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.start_call(call())
    with pytest.raises(LedgerError, match="closed"):
        await ledger.finish_call(answered())
    with pytest.raises(LedgerError, match="closed"):
        ledger.calls()


async def test_commits_are_durable(tmp_path: Path) -> None:
    from agentcomm.ledger.store import _connect

    connection = _connect(tmp_path / "ledger.sqlite")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


NEWER = (*schema.MIGRATIONS, ("ALTER TABLE calls ADD COLUMN region TEXT", "CREATE TABLE extra (x)"))


async def test_an_older_ledger_is_migrated_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        await ledger.finish_call(answered(), [delivery()])
        await ledger.record_episode(episode())
    with Ledger.open(path, migrations=NEWER) as ledger:
        assert ledger.calls() == [answered()]
        await ledger.finish_call(answered("c2"))
        assert ledger.episodes() == [episode()]
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (len(NEWER),)
    assert db.execute("SELECT id, region FROM calls").fetchall() == [("c1", None), ("c2", None)]
    db.close()


async def test_a_ledger_from_before_channels_were_recorded_takes_them_now(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path, migrations=schema.MIGRATIONS[:1]) as ledger:
        await ledger.finish_call(answered(), [delivery()])
    with Ledger.open(path) as ledger:
        assert ledger.channels() == []
        await ledger.record_channel(channelled())
        assert (ledger.calls(), ledger.channels()) == ([answered()], [channelled()])


async def test_what_a_channel_made_is_kept_and_its_original_comes_back_by_hash_after_a_restart(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.sqlite"
    first = channelled(original_text="long \ud83d text é", text="", status="failed", reason="model down")
    last = replace(first, text="text", status="compressed", reason="")
    other = channelled(item="q0", reader="judge")
    with Ledger.open(path) as ledger:
        for row in (first, last, other):
            await ledger.record_channel(row)
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.channels() == [other, last]
        assert ledger.channels(item="q1", texts=False) == [replace(last, original_text="", text="")]
        assert ledger.body(sha_of(first.original_text).hex()) == first.original_text
        assert ledger.body(first.message_id) == first.original_text


async def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        await ledger.finish_call(answered())
    broken = (*schema.MIGRATIONS, ("CREATE TABLE extra (x)", "NO SUCH STATEMENT"))
    with pytest.raises(LedgerError, match="syntax error"):
        Ledger.open(path, migrations=broken)
    with Ledger.open(path) as ledger:
        assert ledger.calls() == [answered()]
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)
    db.close()


def test_a_newer_ledger_is_refused_with_the_advice_to_update(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path, migrations=NEWER).close()
    for read_only in (False, True):
        with pytest.raises(LedgerError, match=rf"format {len(NEWER)}.*update agentcomm"):
            Ledger.open(path, read_only=read_only)


def test_an_older_ledger_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    with pytest.raises(LedgerError, match="older agentcomm and can't be written"):
        Ledger.open(path, migrations=NEWER, read_only=True)


def test_another_programs_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE notes (x)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="not an agentcomm ledger"):
        Ledger.open(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["notes.sqlite"]


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("just some notes\n" * 100)
    with pytest.raises(LedgerError, match="not an agentcomm ledger"):
        Ledger.open(path)
    assert path.read_text() == "just some notes\n" * 100


def test_a_missing_folder_and_a_folder_in_the_files_place_are_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="check that its folder exists"):
        Ledger.open(tmp_path / "nowhere" / "ledger.sqlite")
    with pytest.raises(LedgerError, match=r"is a folder; name the ledger\.sqlite in it"):
        Ledger.open(tmp_path)


async def test_two_ledgers_at_once_hold_their_own_calls_each(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "a.sqlite") as a, Ledger.open(tmp_path / "b.sqlite") as b:

        async def work(ledger: Ledger, name: str, n: int) -> None:
            row = answered(f"{name}{n:03}", item=name, input_tokens=n, parts={"task": n})
            ledger.start_call(row)
            await anyio.lowlevel.checkpoint()
            await ledger.finish_call(row, [delivery(row.id, item=name)])

        async with anyio.create_task_group() as group:
            for n in range(100):
                group.start_soon(work, a, "a", n)
                group.start_soon(work, b, "b", 2 * n)
        assert [r.id for r in a.calls()] == [f"a{n:03}" for n in range(100)]
        assert [r.id for r in b.calls()] == [f"b{2 * n:03}" for n in range(100)]
        assert a.usage().input_tokens == sum(range(100))
        assert b.usage().input_tokens == 2 * sum(range(100))
        assert {d.item for d in b.deliveries()} == {"b"}


def test_a_ledger_serves_one_event_loop_after_another(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        for n in range(3):
            anyio.run(ledger.finish_call, answered(f"c{n}"))
        assert [r.id for r in ledger.calls()] == ["c0", "c1", "c2"]
