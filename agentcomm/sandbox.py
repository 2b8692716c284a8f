"""Run Python that a model wrote, and judge it, without trusting it.

:func:`run_python` runs a program; :func:`run_tests` judges one by hidden tests. Both start
``sandboxed/guard.py`` in a fresh interpreter, which fences the program in and ends by killing
everything it started. What is in force is *reported* with every result, never assumed:

==============  ============================================================================
protection      meaning
==============  ============================================================================
``environment`` no variable of this process is inherited
``session``     own session and process group: no terminal, no signals by group
``folder``      starts in an empty folder that goes away with it
``limits``      CPU, wall time, memory, output, processes, open files, file size
``tree``        the whole tree is dead when the result is there, daemons included
``signals``     can't see or signal any process outside
``files``       sees only system libraries and this Python, read-only; writes only its folder
``network``     a network of its own with nobody on it
``tcp``         no TCP; UDP is not covered
``user``        runs under a user id that nobody else has (when started by root)
``privileges``  no capabilities, and no setuid program gives any back
==============  ============================================================================

On Linux the fence is made of namespaces, as root or as an ordinary user; where the system refuses
them to ordinary users, of bubblewrap if it is installed (``bwrap``); else ("plain") of Landlock, a child subreaper and,
for root, another user id. Which of the three works is found once per process. On macOS only
``environment``, ``session``, ``folder`` and ``limits`` hold (no address-space limit), and processes
that leave the process group survive: do not score untrusted code there. Windows is refused.

**Why a program can't fake a pass.** The tests run in a second sandbox. It asks the program for
values over a socket and compares plain data rebuilt from JSON (see ``sandboxed/judging.py``), so
exiting, printing, patching ``assert``, or returning an object equal to everything changes nothing
where the verdict is made. The verdict is the judge's exit code.

**What remains.** A program that guesses the expected values passes: tests are not proofs. It may
notice that it is being tested. Without ``preamble`` the tests use helpers out of the program itself,
which may lie. A kernel bug reachable without privileges breaks any namespace (there is no seccomp
filter and no virtual machine). Timing channels between sandboxes on one machine exist. In plain mode
Landlock does not stop UDP, nor, before Linux 6.12, signals to processes of the same user; then the
program could kill this process, and ``signals`` is missing from the list. Pass ``require`` to
refuse to run with less than you need.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import anyio
from anyio.abc import ByteReceiveStream, Process

from agentcomm.errors import SandboxError, TaskError, UserError
from agentcomm.sandboxed.judging import PASSED, UNABLE

Protection = Literal[
    "environment",
    "session",
    "folder",
    "limits",
    "tree",
    "signals",
    "files",
    "network",
    "tcp",
    "user",
    "privileges",
]
Status = Literal["ok", "error", "timeout", "limit", "killed"]
Mode = Literal["namespaces", "bubblewrap", "plain"]

GUARD = Path(__file__).with_name("sandboxed") / "guard.py"
JUDGING = GUARD.with_name("judging.py")

FOLDER = "/sandbox"
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/nix/store")
"""The same as in the guard, which can't import this package."""

GRACE = 5.0
"""Seconds the guard gets to clean up by itself before it is killed from outside."""


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """What a program may use."""

    wall: float = 10.0
    """Seconds from its start to its end."""
    cpu: float = 10.0
    """Seconds of CPU time of one process, rounded up; the wall limit bounds all together."""
    memory: int = 512 << 20
    """Bytes of address space of one process, and of resident memory of all together."""
    output_bytes: int = 1 << 20
    """Bytes of standard output and standard error together."""
    processes: int = 16
    """Processes and threads at a time."""
    files: int = 256
    """Files and folders it may create (needs its own file system: namespaces)."""
    file_bytes: int = 64 << 20
    """Bytes of one file; with its own file system, of all files together."""
    open_files: int = 64
    """Files open at a time in one process."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"sandbox limit {name} must be a positive number, not {value!r}")


@dataclass(frozen=True)
class SandboxResult:
    """How a program ended.

    Attributes
    ----------
    status:
        ``"ok"`` (exit code 0), ``"error"`` (another exit code), ``"timeout"`` (wall time),
        ``"limit"`` (CPU time, output or memory of the whole tree), ``"killed"`` (a signal ended it,
        or it ended the guard).
    exit_code:
        ``None`` where the program did not exit by itself.
    stdout, stderr:
        Cut at ``limits.output_bytes`` together; bytes that are no UTF-8 are replaced.
    wall, cpu:
        Seconds; ``cpu`` sums all processes of the tree and is ``None`` if nobody was left to ask.
    protections:
        What was in force, see the module's docstring.
    detail:
        One sentence on a status that is not ``"ok"``.
    """

    status: Status
    exit_code: int | None
    stdout: str
    stderr: str
    wall: float
    cpu: float | None
    protections: tuple[Protection, ...]
    detail: str = ""


@dataclass(frozen=True)
class TestOutcome:
    """The verdict of hidden tests; ``reason`` is empty when they passed."""

    __test__: ClassVar[bool] = False  # not a test class, whatever pytest thinks of its name

    passed: bool
    reason: str
    candidate: SandboxResult
    """How the program itself fared; ``"ok"`` also when it was stopped because judging was over."""


# ------------------------------------------------------------------------------------- public


async def run_python(
    code: str,
    *,
    stdin: str = "",
    limits: SandboxLimits | None = None,
    require: Iterable[Protection] = (),
    mode: Mode | None = None,
) -> SandboxResult:
    """Run a program as ``__main__`` under every protection this system grants.

    Parameters
    ----------
    code:
        Python source. Only the standard library is there to import; hashes are seeded with 0, so a
        program runs the same way twice.
    stdin:
        What it reads from standard input.
    limits:
        Defaults to :class:`SandboxLimits`.
    require:
        Protections without which it must not run.
    mode:
        Which fence to use; by default the first that works here.

    Raises
    ------
    SandboxError
        If no sandbox can be started here, or only one without a required protection.

    Examples
    --------
    >>> import anyio
    >>> result = anyio.run(run_python, "print(6 * 7)")
    >>> result.status, result.stdout
    ('ok', '42\\n')
    """
    chosen = mode or await find_mode(require)
    return await _run(_Job(code, limits or SandboxLimits(), stdin=stdin), chosen)


async def run_tests(
    code: str,
    tests: str,
    entry_point: str | None = None,
    *,
    preamble: str | None = None,
    limits: SandboxLimits | None = None,
    require: Iterable[Protection] = (),
    mode: Mode | None = None,
) -> TestOutcome:
    """Judge a program by hidden tests it can neither see nor touch.

    Parameters
    ----------
    code:
        The whole program, imports included.
    tests:
        Trusted source: either defines ``check(candidate)``, as HumanEval does, or asserts about names
        the program defines, as MBPP does.
    entry_point:
        The function handed to ``check``; needed for it.
    preamble:
        Trusted source the tests may use, run before them in the judge: for HumanEval the prompt, whose
        helpers some tests call. With it nothing but ``entry_point`` is taken from the program.
    limits:
        For the program; the tests get two seconds more. Defaults to :class:`SandboxLimits`.

    Raises
    ------
    TaskError
        If the tests are no Python, or define ``check`` and no ``entry_point`` is given.
    SandboxError
        As for :func:`run_python`; also if the tests pass the program something that is no data.

    Examples
    --------
    >>> import anyio
    >>> tests = "def check(candidate):\\n    assert candidate(2) == 4"
    >>> anyio.run(run_tests, "def double(x): return 2 * x", tests, "double").passed
    True
    >>> anyio.run(run_tests, "def double(x): return x + 1", tests, "double").reason
    'a test failed at line 2: assert candidate(2) == 4'
    """
    _check_tests(tests, entry_point, preamble)
    chosen = mode or await find_mode(require)
    limits = limits or SandboxLimits()
    program = await anyio.Path(JUDGING).read_text(encoding="utf-8")
    judging = SandboxLimits(wall=limits.wall + 2, cpu=limits.cpu + 2)
    theirs, ours = socket.socketpair()
    with theirs, ours:
        serving = {"code": code, "fd": theirs.fileno()}
        trusted = {"tests": tests, "entry_point": entry_point, "preamble": preamble, "fd": ours.fileno()}
        candidate_job = _Job(program, limits, call="serve", arguments=serving, link=theirs)
        judge_job = _Job(program, judging, call="judge", arguments=trusted, link=ours, private=True)
        over = anyio.Event()
        results: list[SandboxResult | SandboxError] = [SandboxError("not started")] * 2

        async def run(index: int, job: _Job, stop: anyio.Event | None) -> None:
            try:
                results[index] = await _run(job, chosen, stop)
            except SandboxError as error:
                results[index] = error
            over.set()  # the judge hears of the program's end through the socket and ends by itself

        async with anyio.create_task_group() as group:
            group.start_soon(run, 0, candidate_job, over)
            group.start_soon(run, 1, judge_job, None)
    candidate, verdict = results
    for result in (candidate, verdict):
        if isinstance(result, SandboxError):
            raise result
    assert isinstance(candidate, SandboxResult)
    assert isinstance(verdict, SandboxResult)
    return _outcome(verdict, candidate)


async def protections() -> tuple[Protection, ...]:
    """The protections in force on this machine, found by running a program that does nothing."""
    return (await run_python("")).protections


_probed: dict[Mode, SandboxResult | SandboxError] = {}


async def find_mode(require: Iterable[Protection] = ()) -> Mode:
    """The first fence that works here and has what is required; each is tried once per process."""
    needed = frozenset(require)
    reasons: list[str] = []
    modes: tuple[Mode, ...] = get_args(Mode)
    for mode in modes:
        if mode not in _probed:
            try:
                _probed[mode] = await _run(_Job("", SandboxLimits()), mode)
            except SandboxError as error:
                _probed[mode] = error
        result = _probed[mode]
        if isinstance(result, SandboxError):
            reasons.append(str(result))
        elif missing := needed - set(result.protections):
            reasons.append(f"the sandbox ({mode}) has no protection for {', '.join(sorted(missing))}")
        else:
            return mode
    raise SandboxError("untrusted code can't be run here: " + "; ".join(reasons))


def _check_tests(tests: str, entry_point: str | None, preamble: str | None) -> None:
    for name, source in (("tests", tests), ("preamble", preamble or "")):
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError) as error:
            raise TaskError(f"the {name} are no Python: {error}") from None
        checks = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
        if name == "tests" and checks and entry_point is None:
            raise TaskError("the tests define check(candidate): say which function is the candidate")


def _outcome(verdict: SandboxResult, candidate: SandboxResult) -> TestOutcome:
    """Passed only if the judge said so with its own exit code."""
    if verdict.exit_code == UNABLE:
        raise SandboxError(f"these tests can't be run in two sandboxes: {verdict.stderr}")
    if verdict.exit_code == PASSED:
        return TestOutcome(True, "", candidate)
    if candidate.status in ("timeout", "limit", "killed"):
        reason = f"the program was stopped: {candidate.detail}"
    else:
        reason = verdict.stderr.strip() or f"the tests did not end: {verdict.detail}"
    return TestOutcome(False, reason, candidate)


# ---------------------------------------------------------------------------------- the guard


@dataclass(frozen=True)
class _Job:
    """One program and the way it is started."""

    code: str
    limits: SandboxLimits
    stdin: str = ""
    call: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    link: socket.socket | None = None
    """A socket handed to the program; closed here as soon as it has it."""
    private: bool = False
    """Whether other processes of the same user must be kept from reading its memory."""

    def kept(self) -> list[int]:
        return [] if self.link is None else [self.link.fileno()]


class _Output:
    """Standard output and standard error, cut where they pass the limit together."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.too_much = False
        self._parts: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def add(self, stream: str, data: bytes) -> None:
        self._parts[stream] += data[: self.left]
        self.too_much = self.too_much or len(data) > self.left
        self.left = max(0, self.left - len(data))

    def text(self, stream: str) -> str:
        return self._parts[stream].decode("utf-8", "replace")


async def _run(job: _Job, mode: Mode, stop: anyio.Event | None = None) -> SandboxResult:
    """Run one job behind one fence; ``stop`` ends it early, which is no failure of the program."""
    output = _Output(job.limits.output_bytes)
    started = anyio.current_time()
    answer = await _ask_guard(job, mode, output, stop or anyio.Event())
    if answer is None:
        answer = {
            "status": "killed",
            "detail": "the guard was killed",
            "exit_code": None,
            "wall": anyio.current_time() - started,
            "cpu": None,
            "protections": (),
        }
    if "refused" in answer:
        raise SandboxError(f"the sandbox ({mode}) can't be started: {answer['refused']}")
    if output.too_much:
        answer |= {"status": "limit", "detail": f"more than {job.limits.output_bytes} bytes of output"}
    elif answer["status"] == "stopped":
        answer |= {"status": "ok", "detail": ""} if stop and stop.is_set() else {"status": "killed"}
    return SandboxResult(
        status=answer["status"],
        exit_code=answer["exit_code"],
        stdout=output.text("stdout"),
        stderr=output.text("stderr"),
        wall=answer["wall"],
        cpu=answer["cpu"],
        protections=tuple(p for p in get_args(Protection) if p in answer["protections"]),
        detail=answer["detail"],
    )


async def _ask_guard(job: _Job, mode: Mode, output: _Output, stop: anyio.Event) -> dict[str, Any] | None:
    """Start the guard, let it run the job, and return its report (``None`` if it left none)."""
    token = secrets.token_hex(16)
    report, report_end = os.pipe()
    with _Closing(report), _Closing(report_end) as its_end:
        async with anyio.TemporaryDirectory(prefix="agentcomm-", ignore_cleanup_errors=True) as folder:
            request = {
                "mode": mode,
                "folder": folder,
                "code": job.code,
                "stdin": job.stdin,
                "call": job.call,
                "arguments": job.arguments,
                "keep": job.kept(),
                "private": job.private,
                "limits": asdict(job.limits),
            }
            command = _command(mode, report_end)
            async with _guard(command, mode, folder, token, [report_end, *job.kept()]) as process:
                its_end.close()
                if job.link is not None:
                    job.link.close()
                await _converse(process, json.dumps(request).encode(), job.limits, output, stop)
            if mode == "plain":
                _sweep(token)
        data = os.read(report, 65536)  # the guard is gone: this can't block
    answer: dict[str, Any] | None = json.loads(data) if data else None
    return answer


@asynccontextmanager
async def _guard(
    command: list[str], mode: Mode, folder: str, token: str, handed_over: list[int]
) -> AsyncIterator[Process]:
    """The running guard; when the block is left, by cancellation too, it is dead."""
    inside = folder if mode == "plain" else FOLDER
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": inside,
        "TMPDIR": inside,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AGENTCOMM_SANDBOX": token,
    }
    try:
        process = await anyio.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=folder,
            start_new_session=True,
            pass_fds=handed_over,
        )
    except OSError as error:
        raise SandboxError(f"the sandbox ({mode}) can't be started: {error}") from error
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None and process.stdin is not None:
                await process.stdin.aclose()
                with anyio.move_on_after(GRACE):
                    await process.wait()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            await process.aclose()


async def _converse(
    process: Process, request: bytes, limits: SandboxLimits, output: _Output, stop: anyio.Event
) -> None:
    """Send the request and read the output. Closing the guard's input tells it to end."""
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    enough = anyio.Event()

    async def hang_up_when(event: anyio.Event) -> None:
        await event.wait()
        await stdin.aclose()

    async def collect(name: str, stream: ByteReceiveStream) -> None:
        async for data in stream:
            output.add(name, data)
            if output.too_much:
                enough.set()

    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await stdin.send(struct.pack(">I", len(request)) + request)
    async with anyio.create_task_group() as waiting:
        waiting.start_soon(hang_up_when, stop)
        waiting.start_soon(hang_up_when, enough)
        with anyio.move_on_after(limits.wall + 2 * GRACE):  # the guard keeps time; this is for its death
            async with anyio.create_task_group() as reading:
                reading.start_soon(collect, "stdout", stdout)
                reading.start_soon(collect, "stderr", stderr)
                await process.wait()
                # The output ends with the tree; a survivor that holds the pipes must not hold us.
                reading.cancel_scope.deadline = anyio.current_time() + 1
        waiting.cancel_scope.cancel()


class _Closing:
    """A file descriptor that is closed once, at the latest when the block is left."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> _Closing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _command(mode: Mode, report: int) -> list[str]:
    if os.name != "posix":
        raise SandboxError("model-written code can only be run on Linux and, with less protection, macOS")
    if not sys.executable:
        raise SandboxError("this Python does not know its own executable, which the sandbox starts")
    interpreter = os.path.realpath(sys.executable)
    guard = [interpreter, "-S", "-s", "-P", str(GUARD), str(report)]
    if mode != "bubblewrap":
        return guard
    if os.geteuid() == 0:  # bubblewrap would leave it root's user id, which no process limit binds
        raise SandboxError("the sandbox (bubblewrap) can't be started: it is for ordinary users")
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise SandboxError("the sandbox (bubblewrap) can't be started: bwrap is not installed")
    options = ["--unshare-all", "--as-pid-1", "--die-with-parent", "--proc", "/proc", "--dev", "/dev"]
    for path in (*SYSTEM_FOLDERS, sys.base_prefix, sys.base_exec_prefix, str(GUARD)):
        options += ["--ro-bind-try", path, path]
    return [bubblewrap, *options, "--tmpfs", FOLDER, "--remount-ro", "/", "--chdir", FOLDER, "--", *guard]


def _sweep(token: str) -> None:
    """Without namespaces: kill what still carries this run's mark, should the guard have been killed."""
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"AGENTCOMM_SANDBOX={token}".encode() in entry.read_bytes():
                os.kill(int(entry.parent.name), signal.SIGKILL)
