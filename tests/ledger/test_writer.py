"""Durability: what was acknowledged is there, whatever happens to the process or the disk."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest

from agentcomm.errors import LedgerError
from agentcomm.ledger import store, writer
from agentcomm.ledger.store import Ledger
from tests.ledger.rows import answered, call, delivery, episode

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


class Gate:
    """Holds commits back until opened, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.sizes: list[int] = []
        real = writer.commit

        def held(connection: sqlite3.Connection, batch: writer.Batch, known: set[bytes]) -> None:
            self.reached.set()
            assert self.open.wait(30)
            self.sizes.append(len(batch.calls))
            real(connection, batch, known)

        monkeypatch.setattr(writer, "commit", held)


async def test_calls_that_end_during_a_commit_go_into_the_next_one_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        async with anyio.create_task_group() as group:
            group.start_soon(ledger.finish_call, answered("first"))
            await anyio.to_thread.run_sync(gate.reached.wait, 30)
            for n in range(40):
                group.start_soon(ledger.finish_call, answered(f"c{n}"))
            await anyio.wait_all_tasks_blocked()
            gate.open.set()
        assert gate.sizes == [1, 40]
        assert len(ledger.calls()) == 41


async def test_nothing_is_acknowledged_before_it_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    told: list[str] = []
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:

        async def finish() -> None:
            await ledger.finish_call(answered())
            told.append("told")

        async with anyio.create_task_group() as group:
            group.start_soon(finish)
            await anyio.to_thread.run_sync(gate.reached.wait, 30)
            await anyio.wait_all_tasks_blocked()
            assert told == []
            gate.open.set()
        assert told == ["told"]


async def test_a_cancelled_waiter_does_not_lose_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        async with anyio.create_task_group() as group:
            group.start_soon(ledger.finish_call, answered("c1"), [delivery()])
            await anyio.to_thread.run_sync(gate.reached.wait, 30)
            group.start_soon(ledger.finish_call, answered("c2"))
            group.start_soon(ledger.record_episode, episode())
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        gate.open.set()
        assert [r.id for r in ledger.calls()] == ["c1", "c2"]
        assert ledger.deliveries() == [delivery()]
        assert ledger.episodes() == [episode()]


async def test_starting_a_call_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.start_call(call("c1"))
        await anyio.to_thread.run_sync(gate.reached.wait, 30)
        ledger.start_call(call("c2"))  # would hang here if it waited: the gate is shut
        gate.open.set()
        assert len(ledger.pending()) == 2


async def test_a_late_start_does_not_hide_an_end_that_is_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        async with anyio.create_task_group() as group:
            group.start_soon(ledger.finish_call, answered("c1"))
            await anyio.to_thread.run_sync(gate.reached.wait, 30)
            group.start_soon(ledger.finish_call, answered("c2"))
            await anyio.wait_all_tasks_blocked()
            ledger.start_call(call("c2"))
            gate.open.set()
        assert ledger.calls() == [answered("c1"), answered("c2")]


async def test_a_call_whose_start_is_being_written_is_finished_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.start_call(call("c1"))
        await anyio.to_thread.run_sync(gate.reached.wait, 30)
        gate.open.set()
        await ledger.finish_call(answered("c1"))
        assert ledger.calls() == [answered("c1")]


async def test_a_full_disk_is_told_to_every_waiter_and_later_call_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.sqlite"
    connect = store._connect

    def small(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 40")
        return connection

    monkeypatch.setattr(store, "_connect", small)
    kept: list[str] = []
    refused: list[str] = []
    with Ledger.open(path) as ledger:

        async def work(n: int) -> None:
            row = answered(f"c{n:03}", reply_text=os.urandom(5000).hex())
            try:
                await ledger.finish_call(row, [delivery(row.id)])
                kept.append(row.id)
            except LedgerError as error:
                refused.append(str(error))

        for start in range(0, 40, 4):
            async with anyio.create_task_group() as group:
                for n in range(start, start + 4):
                    group.start_soon(work, n)
        assert kept
        assert refused
        assert set(refused) == {
            f"the disk is full: the ledger {path} can't grow; free space and repeat the command, "
            "what was recorded stays"
        }
        with pytest.raises(LedgerError, match="the disk is full"):
            ledger.start_call(call("later"))
        with pytest.raises(LedgerError, match="the disk is full"):
            await ledger.record_episode(episode())
        assert [r.id for r in ledger.calls()] == sorted(kept)
    monkeypatch.undo()
    with Ledger.open(path) as ledger:
        assert [r.id for r in ledger.calls()] == sorted(kept)
        assert [d.call_id for d in ledger.deliveries()] == sorted(kept)
        await ledger.finish_call(answered("after"))  # with space again, it goes on


async def test_who_queued_behind_a_failing_commit_hears_of_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    held = writer.commit

    def fails(connection: sqlite3.Connection, batch: writer.Batch, known: set[bytes]) -> None:
        held(connection, batch, known)
        raise sqlite3.OperationalError("the cable was pulled")

    monkeypatch.setattr(writer, "commit", fails)
    heard: list[str] = []
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:

        async def finish(id: str) -> None:
            with pytest.raises(LedgerError, match="the cable was pulled"):
                await ledger.finish_call(answered(id))
            heard.append(id)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(finish, "c1")
                await anyio.to_thread.run_sync(gate.reached.wait, 30)
                group.start_soon(finish, "c2")
                await anyio.wait_all_tasks_blocked()
                gate.open.set()
    assert sorted(heard) == ["c1", "c2"]


WRITE_UNTIL_IT_FAILS = """
import os, resource, signal, sys
import anyio
from pathlib import Path
from agentcomm.errors import LedgerError
from agentcomm.ledger.store import Ledger
from tests.ledger.rows import answered

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

async def main():
    for n in range(10_000):
        await ledger.finish_call(answered(f"c{n:05}", reply_text=os.urandom(2000).hex()))
        print(f"c{n:05}", flush=True)

try:
    anyio.run(main)
except LedgerError as error:
    print(f"error: {error}", flush=True)
ledger.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_a_file_that_may_not_grow_ends_in_one_sentence_and_keeps_every_acknowledged_row(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.sqlite"
    done = _python(WRITE_UNTIL_IT_FAILS, str(path))
    *kept, last = done.stdout.splitlines()
    assert done.stderr == ""
    assert last.startswith(f"error: the ledger {path} can't be written") or "disk is full" in last
    assert kept
    with Ledger.open(path) as ledger:
        assert [r.id for r in ledger.calls()] == kept


WRITE_FOR_EVER = """
import sys
import anyio
from pathlib import Path
from agentcomm.ledger.store import Ledger
from tests.ledger.rows import answered, call, delivery

ledger = Ledger.open(Path(sys.argv[1]))
ledger.start_call(call("never-ends"))

async def work(name):
    for n in range(100_000):
        row = answered(f"{name}-{n:05}")
        ledger.start_call(row)
        await ledger.finish_call(row, [delivery(row.id), delivery(row.id, text="second")])
        sys.stdout.write(row.id + "\\n")
        sys.stdout.flush()

async def main():
    async with anyio.create_task_group() as group:
        for name in "abcdefgh":
            group.start_soon(work, name)

anyio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_every_acknowledged_row_survives_kill_9_and_is_readable_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        told = [process.stdout.readline().strip() for _ in range(300)]
        # Another process reads meanwhile: what was acknowledged before, in whole transactions.
        for read_only in (True, False):
            with Ledger.open(path, read_only=read_only) as reading:
                finished = {r.id for r in reading.calls() if r.error_kind is None}
                assert set(told) <= finished
                assert len(reading.deliveries()) >= 2 * len(told)
        told += [process.stdout.readline().strip() for _ in range(100)]
    finally:
        os.kill(process.pid, signal.SIGKILL)
        rest, errors = process.communicate(timeout=30)
    assert errors == ""
    told += rest.rpartition("\n")[0].splitlines()
    with Ledger.open(path) as ledger:
        finished = {r.id for r in ledger.calls() if r.error_kind is None}
        assert set(told) <= finished
        read = [d.call_id for d in ledger.deliveries()]
        assert sorted(read) == sorted([*finished, *finished])
        assert "never-ends" in {r.id for r in ledger.pending()}
        assert ledger.usage().unknown_calls == len(ledger.pending())
        anyio.run(ledger.finish_call, answered("zz-after"))
        assert "zz-after" in {r.id for r in ledger.calls()}


def test_a_ledger_in_a_read_only_folder_can_be_read_but_not_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        anyio.run(ledger.finish_call, answered())
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write anywhere")
        anyio.run(reads_but_does_not_write, path)
    finally:
        tmp_path.chmod(0o700)


READ_ONLY_MOUNT = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" -c "$3" "$4"'

CHECK_READ_ONLY = """
import anyio, sys
from pathlib import Path
from tests.ledger.test_writer import reads_but_does_not_write
anyio.run(reads_but_does_not_write, Path(sys.argv[1]))
"""


def test_a_ledger_on_a_read_only_disk_can_be_read_but_not_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        anyio.run(ledger.finish_call, answered())
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-m", "sh", "-c", READ_ONLY_MOUNT, "-", str(tmp_path), "true"],
            capture_output=True,
            check=False,
        ).returncode
    ):
        pytest.skip("needs the right to mount")
    done = subprocess.run(
        [
            *("unshare", "-m", "sh", "-c", READ_ONLY_MOUNT, "-"),
            *(str(tmp_path), sys.executable, CHECK_READ_ONLY, str(path)),
        ],
        capture_output=True,
        text=True,
        env=_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def reads_but_does_not_write(path: Path) -> None:
    with Ledger.open(path) as ledger:
        assert ledger.calls() == [answered()]
        with pytest.raises(LedgerError, match="open for reading only"):
            ledger.start_call(call("c2"))
        with pytest.raises(LedgerError, match="open for reading only"):
            await ledger.finish_call(answered("c2"))
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.calls() == [answered()]


def test_a_ledger_nobody_closed_is_closed_when_it_is_forgotten(tmp_path: Path) -> None:
    before = threading.active_count()
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    ledger.start_call(call("c1"))
    del ledger
    assert threading.active_count() == before
    with Ledger.open(tmp_path / "ledger.sqlite") as again:
        assert [r.id for r in again.pending()] == ["c1"]


def test_what_is_queued_when_python_ends_is_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    done = _python(
        "import sys; from pathlib import Path; from agentcomm.ledger.store import Ledger\n"
        "from tests.ledger.rows import call\n"
        "ledger = Ledger.open(Path(sys.argv[1])); ledger.start_call(call('c1'))",
        str(path),
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Ledger.open(path) as ledger:
        assert [r.id for r in ledger.pending()] == ["c1"]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=_environment(),
        check=False,
    )
