"""Model-written programs can't fake a pass and can't harm; every protection that is reported holds."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentcomm
from agentcomm.errors import SandboxError, TaskError, UserError
from agentcomm.sandbox import (
    Mode,
    SandboxLimits,
    SandboxResult,
    find_mode,
    protections,
    run_python,
    run_tests,
)
from agentcomm.sandboxed.judging import PASSED, decode, encode, free_names

pytestmark = pytest.mark.anyio

LINUX = sys.platform.startswith("linux")
QUICK = SandboxLimits(wall=1.5, cpu=1, memory=256 << 20, output_bytes=50_000, processes=12)
SLEEP = shutil.which("sleep") or "/bin/sleep"


async def until_running(mark: str) -> None:
    """Nobody tells us when a process of a sandbox appears, so we look."""
    while not running(mark):  # noqa: ASYNC110
        await anyio.sleep(0.02)


async def _fences() -> list[Mode]:
    """Every fence that can be put up on this machine by this user."""
    found: list[Mode] = []
    for mode in get_args(Mode):
        with contextlib.suppress(SandboxError):
            await run_python("", mode=mode)
            found.append(mode)
    return found


@pytest.fixture(params=anyio.run(_fences))
def fence(request: pytest.FixtureRequest) -> Mode:
    mode: Mode = request.param
    return mode


def running(mark: str, where: str = "cmdline") -> list[int]:
    """Processes of this machine with the mark in their command line or name."""
    found = []
    for entry in Path("/proc").glob(f"[0-9]*/{where}"):
        try:
            if mark.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


# ---------------------------------------------------------------------------------- ordinary use


async def test_a_program_reads_its_input_and_prints(fence: Mode) -> None:
    code = "import sys\nprint(input().upper(), len(sys.stdin.read()))\nprint('!', file=sys.stderr)"
    result = await run_python(code, stdin="grüße\nabc", mode=fence)
    assert (result.status, result.exit_code, result.detail) == ("ok", 0, "")
    assert (result.stdout, result.stderr) == ("GRÜSSE 3\n", "!\n")
    assert 0 < result.wall < 10
    assert result.cpu is not None


async def test_an_exception_is_an_error_with_a_traceback_of_the_program_only(fence: Mode) -> None:
    result = await run_python("def f():\n    return 1 / 0\nf()", mode=fence)
    assert (result.status, result.exit_code) == ("error", 1)
    assert "return 1 / 0" in result.stderr
    assert "ZeroDivisionError" in result.stderr
    assert "guard.py" not in result.stderr


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("raise SystemExit(3)", 3),
        ("import sys; sys.exit('no')", 1),
        ("import os; os._exit(7)", 7),
        ("def", 1),
    ],
)
async def test_the_exit_code_is_the_programs(code: str, exit_code: int) -> None:
    assert (await run_python(code)).exit_code == exit_code


async def test_threads_end_and_exit_handlers_run_like_in_a_real_interpreter() -> None:
    code = (
        "import atexit, threading, time\natexit.register(print, 'bye')\n"
        "def late():\n    time.sleep(.05)\n    print('thread')\nthreading.Thread(target=late).start()"
    )
    assert (await run_python(code)).stdout == "thread\nbye\n"


async def test_the_same_program_hashes_the_same_way_twice() -> None:
    code = "print(hash('a'), list({'x', 'y', 'z', 'long'}))"
    assert (await run_python(code)).stdout == (await run_python(code)).stdout


async def test_many_programs_run_side_by_side() -> None:
    results: dict[int, SandboxResult] = {}

    async def one(number: int) -> None:
        results[number] = await run_python(f"print({number})")

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(one, number)
    assert [results[n].stdout for n in range(8)] == [f"{n}\n" for n in range(8)]


@pytest.mark.parametrize("wrong", [{"wall": 0}, {"memory": -1}, {"cpu": float("nan")}])
def test_a_limit_that_is_no_positive_number_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="positive"):
        SandboxLimits(**wrong)


async def test_code_does_not_run_without_the_protection_it_requires() -> None:
    with pytest.raises(SandboxError, match="no protection for telepathy"):
        await run_python("print(1)", require=["telepathy"])  # type: ignore[list-item]


async def test_a_sandbox_that_cant_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    mode = await find_mode()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(SandboxError, match="can't be started"):
        await run_python("print(1)", mode=mode)


# ---------------------------------------------------------------------------------------- harm


async def test_the_essential_protections_are_always_there(fence: Mode) -> None:
    active = set((await run_python("", mode=fence)).protections)
    assert {"environment", "session", "folder", "limits"} <= active
    if LINUX:
        assert {"tree", "privileges"} <= active
    if fence != "plain":
        assert {"signals", "files", "network"} <= active
    if fence == "namespaces" and os.geteuid() == 0:
        assert "user" in active


@pytest.mark.skipif(not LINUX, reason="macOS has less to offer")
async def test_this_machine_gives_what_scoring_needs() -> None:
    assert {"tree", "signals", "files"} <= set(await protections())


async def test_the_environment_is_not_inherited(fence: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-4711")
    code = (
        "import os\nprint(dict(os.environ))\n"
        "for p in ('/proc/self/environ', f'/proc/{os.getppid()}/environ', '/proc/1/environ'):\n"
        "    try: print(open(p).read())\n    except OSError as e: print(e)"
    )
    result = await run_python(code, mode=fence)
    assert result.status == "ok"
    assert "PYTHONHASHSEED" in result.stdout
    assert "4711" not in result.stdout


async def test_it_starts_in_an_empty_folder_that_goes_away(fence: Mode) -> None:
    code = (
        "import os\nprint(os.listdir('.'))\nopen('here', 'w').write('x')\nprint(os.listdir('.'), os.getcwd())"
    )
    first = await run_python(code, mode=fence)
    empty, full = first.stdout.splitlines()
    assert empty == "[]"
    assert full.startswith("['here'] ")
    assert not os.path.exists(full.removeprefix("['here'] ") + "/here")  # noqa: PTH110, ASYNC240
    assert (await run_python(code, mode=fence)).stdout.startswith("[]\n")


@pytest.fixture
def world_folder() -> Iterator[Path]:
    """A folder everybody may write to, outside any sandbox."""
    folder = Path(tempfile.mkdtemp(prefix="outside-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


async def test_nothing_outside_its_folder_is_written_or_read(fence: Mode, world_folder: Path) -> None:
    if "files" not in (await run_python("", mode=fence)).protections:
        pytest.skip("this system can't protect files")
    secret = world_folder / "secret"
    secret.write_text("swordfish")
    secret.chmod(0o666)
    code = f"""
import os
for path, mode in [({str(secret)!r}, 'r'), ({str(secret)!r}, 'a'), ({str(world_folder / "new")!r}, 'w'),
                   ('/usr/planted', 'w'), ('/etc/passwd', 'r'), ('/etc/shadow', 'r'), ('/root/x', 'w')]:
    try:
        with open(path, mode) as f:
            print('GOT IN', path, f.read() if mode == 'r' else f.write('harm'))
    except OSError as error:
        print(type(error).__name__)
try:
    os.unlink({str(secret)!r})
    print('GOT IN')
except OSError:
    print('kept')
"""
    result = await run_python(code, mode=fence)
    assert (result.status, "GOT IN" in result.stdout) == ("ok", False)
    assert result.stdout.count("\n") == 8
    assert os.listdir(world_folder) == ["secret"]  # noqa: PTH208
    assert secret.read_text() == "swordfish"


async def test_there_is_no_network_not_even_to_this_machine(fence: Mode) -> None:
    active = (await run_python("", mode=fence)).protections
    if not {"network", "tcp"} & set(active):
        pytest.skip("this system can't take the network away")
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        code = (
            f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)\nprint('connected')"
        )
        result = await run_python(code, mode=fence)
        async with await anyio.connect_tcp("127.0.0.1", port):
            pass  # somebody listens there, so it was the fence
    assert result.status == "error"
    assert "OSError" in result.stderr or "PermissionError" in result.stderr or "Refused" in result.stderr
    assert "connected" not in result.stdout


async def test_endless_output_is_cut(fence: Mode) -> None:
    result = await run_python("while True: print('x' * 999)", limits=QUICK, mode=fence)
    assert (result.status, "output" in result.detail) == ("limit", True)
    assert len(result.stdout) == QUICK.output_bytes


async def test_endless_output_on_both_streams_counts_together() -> None:
    code = "import sys\nwhile True:\n    print('x' * 99); print('y' * 99, file=sys.stderr)"
    result = await run_python(code, limits=QUICK)
    assert result.status == "limit"
    assert len(result.stdout) + len(result.stderr) == QUICK.output_bytes


async def test_a_program_that_sleeps_runs_into_the_wall_limit(fence: Mode) -> None:
    limits = SandboxLimits(wall=0.3)
    result = await run_python(
        "print('a', flush=True)\nimport time; time.sleep(60)", limits=limits, mode=fence
    )
    assert (result.status, result.stdout, result.exit_code) == ("timeout", "a\n", None)
    assert 0.3 <= result.wall < 20


async def test_a_program_that_computes_forever_runs_into_the_cpu_limit(fence: Mode) -> None:
    limits = SandboxLimits(wall=20, cpu=0.5)
    code = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    result = await run_python(code, limits=limits, mode=fence)
    assert (result.status, "CPU" in result.detail) == ("limit", True)


async def test_memory_is_limited_in_one_process_and_in_all_together(fence: Mode) -> None:
    hoard = "hoard = []\nwhile True: hoard.append(bytes(8 << 20))"
    alone = await run_python(hoard, limits=SandboxLimits(wall=20, memory=128 << 20), mode=fence)
    assert alone.status in ("error", "limit")
    assert "MemoryError" in alone.stderr or "memory" in alone.detail
    if LINUX:
        many = (
            "import os, time\nfor _ in range(4):\n    if not os.fork():\n"
            "        hoard = bytes(range(256)) * (60 << 12)\n        time.sleep(60)\ntime.sleep(60)"
        )
        together = await run_python(many, limits=SandboxLimits(wall=20, memory=128 << 20), mode=fence)
        assert (together.status, "memory" in together.detail) == ("limit", True)


async def test_files_are_limited_in_size_and_number(fence: Mode) -> None:
    limits = SandboxLimits(wall=20, file_bytes=1 << 20, files=20)
    big = await run_python("open('big', 'wb').write(bytes(2 << 20))", limits=limits, mode=fence)
    assert "OSError" in big.stderr
    if fence == "namespaces":
        code = "for n in range(30): open(str(n), 'w').close()"
        assert "No space left" in (await run_python(code, limits=limits, mode=fence)).stderr
    code = "kept = []\nfor n in range(500): kept.append(open('same', 'w'))"
    assert "Too many open files" in (await run_python(code, limits=limits, mode=fence)).stderr


FORK_BOMB = """
import ctypes, os
libc = ctypes.CDLL(None)
if hasattr(libc, "prctl"): libc.prctl(15, {name!r}.encode(), 0, 0, 0)
while True:
    try: os.fork()
    except OSError: pass
"""


@pytest.mark.skipif(not LINUX, reason="needs /proc")
async def test_a_fork_bomb_ends_and_leaves_nothing(fence: Mode) -> None:
    name = f"bomb{secrets.randbelow(10**9)}"
    most, results = 0, []

    async def run() -> None:
        results.append(await run_python(FORK_BOMB.format(name=name), limits=QUICK, mode=fence))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        while not results:
            most = max(most, len(running(name, "comm")))
            await anyio.sleep(0.02)
    assert 1 < most <= 3 * QUICK.processes, "it never went off, or nothing held it"
    assert running(name, "comm") == []
    assert results[0].status in ("timeout", "limit")
    assert (await run_python("print('fine')", mode=fence)).stdout == "fine\n"


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 64)
        os.execv({sleep!r}, ['sleep', {mark!r}])
    os._exit(0)
time.sleep({then})
"""


@pytest.mark.skipif(not LINUX, reason="needs /proc")
@pytest.mark.parametrize("then", [0.6, 60])
async def test_a_double_forked_daemon_dies_with_the_program(fence: Mode, then: float) -> None:
    mark = f"9{secrets.randbelow(10**9)}"
    seen: list[int] = []
    results: list[SandboxResult] = []

    async def run() -> None:
        code = DAEMON.format(sleep=SLEEP, mark=mark, then=then)
        results.append(await run_python(code, limits=QUICK, mode=fence))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        while not results:
            seen += running(mark)
            await anyio.sleep(0.02)
    assert seen, "the daemon never ran, so this test says nothing"
    assert running(mark) == []
    assert results[0].status == ("ok" if then < 1 else "timeout")


@pytest.mark.skipif(not LINUX, reason="needs /proc")
async def test_cancelling_kills_the_whole_tree(fence: Mode) -> None:
    mark = f"9{secrets.randbelow(10**9)}"
    with anyio.move_on_after(20) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: run_python(DAEMON.format(sleep=SLEEP, mark=mark, then=60), mode=fence))
            await until_running(mark)
            group.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert running(mark) == []


KILL_PARENT = """
import os, signal
for pid in (os.getppid(), 1, {host}):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
        try: os.kill(pid, number)
        except OSError: pass
print('still here')
try: os.kill(-1, signal.SIGKILL)
except OSError: pass
"""


async def test_the_parent_and_the_host_cant_be_killed(fence: Mode) -> None:
    if "signals" not in (await run_python("", mode=fence)).protections:
        pytest.skip("this system can't keep signals in: it would kill this test")
    async with await anyio.open_process([SLEEP, "60"]) as bystander:
        result = await run_python(KILL_PARENT.format(host=bystander.pid), limits=QUICK, mode=fence)
        assert bystander.returncode is None
        bystander.kill()
    assert result.status == "ok"
    assert result.stdout == "still here\n"


async def test_a_crash_of_the_interpreter_is_reported_as_killed(fence: Mode) -> None:
    result = await run_python("import ctypes\nctypes.string_at(0)", mode=fence)
    assert (result.status, result.detail, result.exit_code) == ("killed", "killed by SIGSEGV", None)


async def test_no_capability_and_no_open_descriptor_is_left(fence: Mode) -> None:
    if fence == "plain" or not LINUX:
        pytest.skip("/proc is hidden")
    code = (
        "import os\nprint([l.split()[1] for l in open('/proc/self/status')"
        " if l.startswith(('CapPrm', 'CapEff', 'CapBnd', 'CapInh', 'NoNewPrivs'))])\n"
        "print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
    )
    lines = (await run_python(code, mode=fence)).stdout.splitlines()
    assert lines == [str(["0" * 16] * 4 + ["1"]), "[0, 1, 2]"]


# --------------------------------------------------------------- as an ordinary user, when root


ORDINARY = """
import anyio, json, os, sys
from agentcomm.errors import SandboxError
from agentcomm.sandbox import SandboxLimits, run_python, run_tests

async def main():
    report = {}
    for mode in ("namespaces", "bubblewrap", "plain"):
        try:
            report[mode] = (await run_python("", mode=mode)).protections
        except SandboxError as error:
            continue
        limits = SandboxLimits(wall=1.5, cpu=1, processes=12)
        for name, code in json.loads(sys.argv[1]).items():
            result = await run_python(code, limits=limits, mode=mode)
            report[mode + " " + name] = [result.status, result.stdout]
        test = "def check(c): assert c(2) == 4"
        right = await run_tests("def f(x): return 2 * x", test, "f", mode=mode)
        wrong = await run_tests("import os; os._exit(0)", test, "f", mode=mode)
        report[mode + " verdicts"] = [right.passed, wrong.passed]
    print(json.dumps(report))

anyio.run(main)
"""


@pytest.fixture
def ordinary_python(world_folder: Path) -> list[str]:
    """A Python with this package that user 65534 can start, or a skip."""
    if os.geteuid() != 0 or not LINUX:
        pytest.skip("not root: every other test already runs as an ordinary user")
    source = Path(agentcomm.__file__).parent
    package = world_folder / "agentcomm"
    shutil.copytree(source / "sandboxed", package / "sandboxed")
    for name in ("errors.py", "sandbox.py"):
        shutil.copy(source / name, package / name)
    (package / "__init__.py").touch()
    subprocess.run(["chmod", "-R", "a+rX", str(world_folder)], check=True)
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        path = f"{world_folder}:{Path(anyio.__file__).parent.parent}"
        command = ["env", "-i", f"PYTHONPATH={path}", python]
        probe = [*command, "-c", "import sys, agentcomm.sandbox; assert sys.version_info >= (3, 11)"]
        try:
            if (
                subprocess.run(
                    probe, user=65534, group=65534, extra_groups=[], capture_output=True
                ).returncode
                == 0
            ):
                return command
        except OSError:
            continue
    pytest.skip("no Python 3.11 here that another user can read")


def test_an_ordinary_user_is_protected_as_well(ordinary_python: list[str], world_folder: Path) -> None:
    secret = world_folder / "secret"
    secret.write_text("swordfish")
    secret.chmod(0o666)
    mark = f"9{secrets.randbelow(10**9)}"
    attacks = {
        "fork bomb": FORK_BOMB.format(name="bomb"),
        "daemon": DAEMON.format(sleep=SLEEP, mark=mark, then=0.2),
        "secret": f"open('mine', 'w').close()\nprint(open({str(secret)!r}).read())",
        "parent": KILL_PARENT.format(host=0x7FFFFFF),
    }
    command = [*ordinary_python, "-c", ORDINARY, json.dumps(attacks)]
    done = subprocess.run(
        command,
        user=65534,
        group=65534,
        extra_groups=[],
        capture_output=True,
        text=True,
        cwd="/",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert running(mark) == []
    modes = [mode for mode in ("namespaces", "bubblewrap", "plain") if mode in report]
    assert "plain" in modes
    for mode in modes:
        assert report[f"{mode} fork bomb"][0] in ("timeout", "limit")
        assert report[f"{mode} daemon"][0] == "ok"
        assert report[f"{mode} verdicts"] == [True, False]
        if "files" in report[mode]:
            assert report[f"{mode} secret"] == ["error", ""]
        if "signals" in report[mode]:
            assert report[f"{mode} parent"] == ["ok", "still here\n"]


# ------------------------------------------------------------------------------------- judging

TESTS = """
def check(candidate):
    assert candidate(2) == 4
    assert candidate(-1) == -2, "negative"
"""


async def test_a_right_program_passes_and_a_wrong_one_fails_with_the_line(fence: Mode) -> None:
    right = await run_tests("def double(x): return 2 * x", TESTS, "double", mode=fence)
    assert (right.passed, right.reason, right.candidate.status) == (True, "", "ok")
    wrong = await run_tests("def double(x): return abs(2 * x)", TESTS, "double", mode=fence)
    assert not wrong.passed
    assert wrong.reason == 'a test failed at line 4: assert candidate(-1) == -2, "negative" (negative)'


ALWAYS_EQUAL = """
class Yes:
    def __eq__(self, other): return True
    def __bool__(self): return True
    __req__ = __eq__
    __hash__ = None
def double(x): return Yes()
"""
EQUAL_NUMBER = """
class Yes(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 1
def double(x): return Yes(7)
"""
PATCHED = """
import builtins, sys, json, os, unittest
class Never(Exception): pass
builtins.AssertionError = Never
builtins.len = builtins.abs = lambda *a: 4
builtins.__build_class__ = None
json.dumps = lambda *a: '{"value": 4}'
for name in list(sys.modules):
    try: sys.modules[name].AssertionError = Never
    except Exception: pass
def double(x): return 5
"""
LOOKING = """
import gc, sys
def double(x):
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if isinstance(value, str) and 'candidate' + '(2)' in value:
                return 4 if x == 2 else -2
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, dict) and any('candidate' + '(2)' in v[:9999] for v in list(thing.values())
                                           if isinstance(v, str)):
            return 4 if x == 2 else -2
    return 0
"""
CALLED = """
import os, sys
def double(x):
    {action}
"""
FORGED = """
import json, os, struct
for message in ({"names": ["double"]}, {"passed": True}, {"value": {"passed": []}}, {"verdict": 42}):
    data = json.dumps(message).encode()
    for fd in range(3, 20):
        try: os.write(fd, struct.pack('>I', len(data)) + data)
        except OSError: pass
def double(x): return 0
"""


@pytest.mark.parametrize(
    "attack",
    [
        "import os\nos._exit(0)",
        f"import os\nos._exit({PASSED})",
        "import sys\nsys.exit(0)",
        f"raise SystemExit({PASSED})",
        "print('PASSED\\nOK\\n1 passed\\nAll tests passed')\ndef double(x): return 0",
        ALWAYS_EQUAL,
        EQUAL_NUMBER,
        PATCHED,
        LOOKING,
        FORGED,
        CALLED.format(action=f"os._exit({PASSED})"),
        CALLED.format(action="sys.exit(0)"),
        CALLED.format(action="os.kill(os.getppid(), 9)"),
        CALLED.format(action="os.kill(os.getpid(), 9)"),
        CALLED.format(action="raise AssertionError"),
        CALLED.format(action="return object()"),
        CALLED.format(action="os.closerange(3, 99); return 4"),
        "def check(candidate): pass\ndef double(x): return 0",
        "double = 4",
        "",
        "def double(x) return 2 * x",
        "__import__('sys').modules['__main__'].__dict__['encode'] = lambda v: {'tuple': [[[]]]}\ndef double(x): return 4",
    ],
)
async def test_a_program_cant_fake_a_pass(attack: str) -> None:
    outcome = await run_tests(attack, TESTS, "double", limits=SandboxLimits(wall=5))
    assert not outcome.passed
    assert outcome.reason


async def test_a_program_that_never_answers_is_stopped_and_fails() -> None:
    outcome = await run_tests("def double(x):\n    while True: pass", TESTS, "double", limits=QUICK)
    assert not outcome.passed
    assert outcome.candidate.status in ("timeout", "limit")
    assert outcome.reason.startswith("the program was stopped")


async def test_tests_that_swallow_every_exception_still_fail_a_program_that_ended() -> None:
    tests = "def check(c):\n    try:\n        c(1)\n    except BaseException:\n        pass"
    assert not (await run_tests("import os\ndef f(x): os._exit(0)", tests, "f")).passed
    assert (await run_tests("def f(x): raise ValueError", tests, "f")).passed


async def test_tests_that_never_call_the_program_pass_nobody() -> None:
    outcome = await run_tests("def f(x): return 1", "def check(candidate): pass", "f")
    assert (outcome.passed, outcome.reason) == (False, "the tests never called the program")


async def test_expected_exceptions_arrive_as_their_nearest_built_in_kind() -> None:
    code = "class Own(ValueError): pass\ndef f(x):\n    raise Own('bad ' + x)"
    tests = """
def check(c):
    try:
        c("luck")
    except ValueError as error:
        assert str(error) == "bad luck"
    else:
        assert False
"""
    assert (await run_tests(code, tests, "f")).passed


async def test_helpers_in_the_prompt_are_trusted_and_the_programs_own_are_not_used() -> None:
    preamble = 'import math\ndef poly(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\ndef root(xs):\n    """doc"""\n'
    tests = "def check(candidate):\n    assert math.fabs(poly([-4, 2], candidate([-4, 2]))) < 1e-6"
    honest = preamble + "    return -xs[0] / xs[1]"
    liar = "class math: fabs = staticmethod(lambda x: 0)\ndef poly(xs, x): return 0\ndef fabs(x): return 0\ndef root(xs): return 99"
    assert (await run_tests(honest, tests, "root", preamble=preamble)).passed
    assert not (await run_tests(liar, tests, "root", preamble=preamble)).passed


async def test_plain_asserts_find_the_programs_functions_by_name() -> None:
    tests = "assert add(1, 2) == 3\nassert sorted(twice([1])) == [1, 1]"
    code = "def add(a, b): return a + b\ndef twice(x): return x * 2\ndef sorted(x): return [1, 1]"
    assert (await run_tests(code, tests)).passed
    assert not (await run_tests(code.replace("x * 2", "x"), tests)).passed  # its ``sorted`` is not ours


async def test_a_returned_iterator_and_every_plain_kind_arrive_as_what_they_are() -> None:
    tests = """
def check(c):
    assert list(c("gen")) == [0, 1, 2]
    assert c("tuple") == (1, [2], {3: "x"}, {4}, None, 1.5, b"b") and type(c("tuple")) is tuple
    assert c("nan") != c("nan")
    assert c("big") == 10**5000
"""
    code = """
def f(kind):
    return {"gen": (i for i in range(3)), "tuple": (1, [2], {3: "x"}, {4}, None, 1.5, b"b"),
            "nan": float("nan"), "big": 10**5000}[kind]
"""
    outcome = await run_tests(code, tests, "f")
    assert outcome.passed, outcome.reason


@pytest.mark.parametrize(
    ("tests", "entry_point"), [("def check(c) assert", "f"), ("def check(c): pass", None), ("x = \0", "f")]
)
async def test_tests_that_cant_be_run_are_the_tasks_mistake(tests: str, entry_point: str | None) -> None:
    with pytest.raises(TaskError):
        await run_tests("def f(x): pass", tests, entry_point)


async def test_tests_that_pass_a_function_are_refused_rather_than_failed() -> None:
    with pytest.raises(SandboxError, match="function"):
        await run_tests("def f(g): return g(1)", "def check(c): assert c(lambda x: x) == 1", "f")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**20, max_value=10**40)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner, max_size=3)
        | st.sets(st.integers() | st.text(), max_size=3)
        | st.frozensets(st.integers(), max_size=3)
        | st.builds(range, st.integers(-9, 9), st.integers(-9, 9))
    ),
    max_leaves=12,
)


def kinds(value: Any) -> object:
    """The types inside: ``1 == 1.0 == True``, and all three must stay apart."""
    if isinstance(value, dict):
        return dict, [(kinds(k), kinds(v)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [kinds(v) for v in value]
    if isinstance(value, set | frozenset):
        return type(value), {(type(v), v) for v in value}
    return type(value), repr(value)


@given(PLAIN)
def test_a_value_survives_the_wire_with_its_type(value: object) -> None:
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value
    assert kinds(back) == kinds(value)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.floats(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    ["int", "float", "tuple", "set", "dict", "bytes", "range", "iterator", "complex", "x"]
                ),
                x,
                max_size=2,
            )
        ),
    )
)
def test_forged_answers_decode_to_plain_values_or_raise(data: object) -> None:
    try:
        value = decode(data)
    except Exception:
        return
    assert type(value).__module__ == "builtins"


def test_free_names_are_those_the_tests_neither_bind_nor_inherit() -> None:
    source = "import a.b as c\nfrom d import e\ndef g(h, *i): return h + j\nk = [l for l in m]\nlen(k)"
    assert free_names(source) == {"j", "m"}


def test_the_guard_dies_when_its_host_does(tmp_path: Path) -> None:
    if not LINUX:
        pytest.skip("needs /proc")
    mark = f"9{secrets.randbelow(10**9)}"
    host = (
        "import anyio, sys\nfrom agentcomm.sandbox import run_python\n"
        f"anyio.run(run_python, {DAEMON.format(sleep=SLEEP, mark=mark, then=60)!r})"
    )
    path = [str(Path(agentcomm.__file__).parent.parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    process = subprocess.Popen([sys.executable, "-c", host], env=environment, cwd=tmp_path)
    try:
        for _ in range(500):
            if any(pid != process.pid for pid in running(mark)):
                break
            anyio.run(anyio.sleep, 0.02)
        else:
            pytest.fail("the daemon never ran")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for _ in range(250):
        if not running(mark):
            return
        anyio.run(anyio.sleep, 0.02)
    pytest.fail("the program outlived its host")
