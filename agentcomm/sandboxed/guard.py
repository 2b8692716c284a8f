"""The fence: a stand-alone script that takes away what untrusted code must not have, then runs it.

``agentcomm.sandbox`` starts this file in a fresh interpreter (``python -S -s -P guard.py FD``) and
writes one JSON request to its standard input. Three kinds of process follow:

    supervisor   makes the namespaces, waits
      warden     process 1 of the new process namespace: mounts, keeps time, kills, reports
        program  drops every right, then runs the code

Invariants:

- The program never shares memory, standard input, control pipe or process group with the warden.
- The warden ends by killing everything the program started and reaping it; with a process
  namespace the kernel guarantees that nothing is left.
- Standard input stays open as a lifeline: when the host closes it (or dies), the warden kills.
- A protection is reported only by the line that made it succeed, so the list is what *is*, not
  what was asked for.

Without namespaces (``mode = "plain"``) the warden is an ordinary process: it adopts orphans (child
subreaper), kills descendants by walking ``/proc``, and the program is held by Landlock, resource
limits and, when the host is root, by another user id. On macOS only the limits and the process
group remain.

Deliberately absent: seccomp filters, cgroups (they need delegation that few machines give), third
party packages inside, and anything that asks for privileges the user does not have.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import linecache
import math
import os
import random
import resource
import select
import signal
import struct
import sys
import threading
import time
import traceback
import types
from pathlib import Path
from typing import Any, NoReturn

CLONE_NEWNS = 0x00020000
CLONE_ISOLATED = 0x08000000 | 0x04000000 | 0x20000000 | 0x40000000  # IPC, UTS, PID, NET
CLONE_NEWUSER = 0x10000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE, AT_EMPTY_PATH = -100, 0x8000, 0x1000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = (
    1,
    4,
    24,
    36,
    38,
)
SYS_MOUNT_SETATTR, SYS_LANDLOCK_CREATE, SYS_LANDLOCK_ADD, SYS_LANDLOCK_RESTRICT = 442, 444, 445, 446

FOLDER = "/sandbox"
"""Where the program starts when it has a file system of its own."""

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/nix/store")
"""What an interpreter needs to load its libraries; visible and read-only. No ``/etc``, no homes."""

TICK = 0.05
"""Seconds between two looks at the memory of the whole tree."""

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The system did not grant something; the message names it."""


def _checked(what: str, result: int) -> int:
    if result < 0:
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def _text(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    result = _libc.mount(_text(source), _text(target), _text(kind), ctypes.c_ulong(flags), _text(data))
    _checked(f"mount on {target}", result)


def _prctl(option: int, value: int) -> bool:
    return bool(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)


# ---------------------------------------------------------------------------------- namespaces


def enter_namespaces() -> None:
    """Leave the host's process, network, IPC, host-name and mount namespaces.

    Root does it directly. Anybody else first gets a user namespace in which only their own user
    exists. The process namespace starts with the next child.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and _libc.unshare(CLONE_NEWNS | CLONE_ISOLATED) == 0:
        return
    _checked("unshare", _libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_ISOLATED))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")


def _visible_paths() -> list[str]:
    """System folders and the interpreter's own, each once, outer ones first."""
    wanted = [*SYSTEM_FOLDERS, sys.base_prefix, sys.base_exec_prefix, *(p for p in sys.path if p)]
    kept: list[str] = []
    for path in wanted:
        covered = any(path == k or path.startswith(k.rstrip("/") + "/") for k in kept)
        if not covered and path != "/" and os.path.lexists(path):
            kept.append(path)
    return kept


def _bind_read_only(source: str, target: str) -> None:
    if Path(source).is_dir():
        Path(target).mkdir(parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
    _mount(source, target, None, MS_BIND | MS_REC)
    _set_attributes(target, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, AT_RECURSIVE)


def _set_attributes(path: str, attributes: int, flags: int) -> None:
    request = struct.pack("QQQQ", attributes, 0, 0, 0)
    arguments = (ctypes.c_int(AT_FDCWD), _text(path), ctypes.c_uint(flags), request, ctypes.c_size_t(32))
    _checked(f"mount_setattr on {path}", _libc.syscall(ctypes.c_long(SYS_MOUNT_SETATTR), *arguments))


def build_private_root(root: str, owner: int, group: int, limits: dict[str, Any]) -> None:
    """Replace the file system: system folders read-only, one empty writable folder in memory."""
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in _visible_paths():
        if Path(path).is_symlink():
            (Path(root) / path.lstrip("/")).symlink_to(Path(path).readlink())
        else:
            _bind_read_only(path, root + path)
    for device in ("null", "zero", "full", "random", "urandom"):
        target = Path(root) / "dev" / device
        target.parent.mkdir(exist_ok=True)
        target.touch()
        _mount(f"/dev/{device}", str(target), None, MS_BIND)
    folder = Path(root + FOLDER)
    folder.mkdir()
    size = f"size={limits['file_bytes']},nr_inodes={limits['files'] + 1},mode=700,uid={owner},gid={group}"
    _mount("tmpfs", str(folder), "tmpfs", MS_NOSUID | MS_NODEV, size)
    (Path(root) / "proc").mkdir()
    with contextlib.suppress(Refused):  # containers that mask /proc refuse a new one; none is safe too
        _mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _set_attributes(root, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0)
    os.chdir(root)
    _checked("pivot_root", _libc.pivot_root(b".", b"."))
    _checked("umount of the old root", _libc.umount2(b".", MNT_DETACH))
    os.chdir("/")


# ------------------------------------------------------------------------- dropping rights


def restrict_with_landlock(folder: str) -> set[str]:
    """Hold this process by Landlock (Linux 5.13+): no privilege and no namespace needed.

    Files outside the system folders can't be read, nothing outside ``folder`` can be written; newer
    kernels also refuse TCP (6.7) and signals to processes outside (6.12).
    """
    abi = _libc.syscall(ctypes.c_long(SYS_LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint(1))
    if abi < 1:
        return set()
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    read, write = 1 << 2, 1 << 1
    look = 1 | read | 1 << 3
    attributes = struct.pack("QQQ", everything, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    create = (attributes, ctypes.c_size_t(size), ctypes.c_uint(0))
    rules = _checked("landlock", _libc.syscall(ctypes.c_long(SYS_LANDLOCK_CREATE), *create))
    allowed = [(path, look) for path in _visible_paths()]
    allowed += [("/dev/null", read | write | 1 << 14), ("/dev/urandom", read), (folder, everything)]
    for path, access in allowed:
        access &= everything if Path(path).is_dir() else everything & (1 | read | write | 1 << 14)
        handle = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
        rule = struct.pack("=Qi", access, handle)
        added = _libc.syscall(ctypes.c_long(SYS_LANDLOCK_ADD), rules, 1, rule, ctypes.c_uint(0))
        _checked(f"landlock rule for {path}", added)
        os.close(handle)
    _checked("landlock", _libc.syscall(ctypes.c_long(SYS_LANDLOCK_RESTRICT), rules, ctypes.c_uint(0)))
    os.close(rules)
    gained = {"files"}
    if abi >= 4:
        gained.add("tcp")
    if abi >= 6:
        gained.add("signals")
    return gained


def set_limits(limits: dict[str, Any], already_running: int) -> None:
    """Resource limits of one process; its children inherit them and can't raise them."""
    wanted = {
        "RLIMIT_CPU": math.ceil(limits["cpu"]),
        "RLIMIT_AS": limits["memory"],
        "RLIMIT_FSIZE": limits["file_bytes"],
        "RLIMIT_NOFILE": limits["open_files"],
        "RLIMIT_NPROC": already_running + limits["processes"],
        "RLIMIT_CORE": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_MEMLOCK": 0,
    }
    for name, value in wanted.items():
        which = getattr(resource, name, None)
        if which is None:
            continue
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard - (name == "RLIMIT_CPU"))
        # macOS refuses some of them (address space); the warden watches memory besides.
        with contextlib.suppress(ValueError, OSError):
            # One second more for CPU: first comes the signal that says why, then the one nobody survives.
            resource.setrlimit(which, (value, value + 1 if name == "RLIMIT_CPU" else value))


def _running_of_this_user() -> int:
    """Tasks this user runs already: without namespaces the process limit counts them too."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry.stat().st_uid == os.getuid():
                count += len(list((entry / "task").iterdir()))
    return count


def spare_user() -> int | None:
    """A user id nobody has: no two sandboxes share a process count or can signal each other.

    ``None`` where this user namespace has no such id (a nested container).
    """
    try:
        ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except OSError:
        return 65534  # not Linux
    for first, _, count in ranges:
        low, high = max(int(first), 100_000), min(int(first) + int(count), 1 << 31)
        if high - low > 1:
            return random.SystemRandom().randrange(low, high)
    nobody = any(int(first) <= 65534 < int(first) + int(count) for first, _, count in ranges)
    return 65534 if nobody else None


def become_user(uid: int | None) -> bool:
    """Become ``uid`` for good; ``False`` where that user does not exist here (nested containers)."""
    if uid is None:
        return False
    try:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    except OSError:
        return False
    return True


def forget_capabilities() -> None:
    """Empty the set of capabilities a program could ever gain; only root (also a namespace's) can."""
    capability = 0
    while sys.platform.startswith("linux") and _prctl(PR_CAPBSET_DROP, capability):
        capability += 1


def drop_privileges() -> bool:
    """No capability now, none by any later ``exec``."""
    if not sys.platform.startswith("linux"):
        return False
    header, empty = struct.pack("Ii", 0x20080522, 0), bytes(24)
    dropped = _libc.capset(header, empty) == 0
    return _prctl(PR_SET_NO_NEW_PRIVS, 1) and dropped


# ------------------------------------------------------------------------------ the program


def run_program(request: dict[str, Any]) -> int:
    """Run the code as ``__main__`` and return its exit status, like the interpreter would."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    module.__dict__["__builtins__"] = __builtins__
    sys.argv = ["main.py"]
    code: str = request["code"]
    linecache.cache["main.py"] = (len(code), None, code.splitlines(keepends=True), "main.py")
    status: object
    try:
        exec(compile(code, "main.py", "exec", dont_inherit=True), module.__dict__)
        if request["call"] is not None:
            module.__dict__[request["call"]](**request["arguments"])
        status = 0
    except SystemExit as end:
        status = end.code
    except BaseException as error:
        ours = error.__traceback__
        error.__traceback__ = ours.tb_next if ours is not None else None
        traceback.print_exception(error)
        status = 1
    if status is not None and not isinstance(status, int):
        sys.stderr.write(f"{status}\n")
        status = 1
    with contextlib.suppress(Exception):
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    return (status or 0) & 0xFF


def start_program(request: dict[str, Any], fence: Fence) -> int:
    """Fork the program; in the child, drop everything first and never return."""
    ready, report_ready = os.pipe()
    pid = os.fork()
    if pid:
        os.close(report_ready)
        fence.protections |= _read_protections(ready)
        return pid
    status = 125
    try:
        os.setsid()
        _close_all_but({0, 1, 2, report_ready, *request["keep"]})
        _provide_stdin(request["stdin"])
        os.chdir(fence.folder)
        os.umask(0o077)
        for number in (signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        gained = {"environment", "session", "folder", "limits"}
        # Warden and supervisor count too when they are the same user.
        counted = 0 if fence.uid is not None else 2 if fence.namespaces else _running_of_this_user()
        forget_capabilities()
        if become_user(fence.uid):
            gained.add("user")
        if drop_privileges():
            gained.add("privileges")
        if sys.platform.startswith("linux"):
            _prctl(PR_SET_DUMPABLE, 0 if request["private"] else 1)  # 0: no debugger, no /proc/PID/mem
            if not fence.namespaces:
                with contextlib.suppress(Refused):
                    gained |= restrict_with_landlock(".")
        set_limits(request["limits"], counted)
        os.write(report_ready, " ".join(sorted(gained)).encode())
        os.close(report_ready)
        status = run_program(request)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(report_ready, f"!{error}".encode())
    finally:
        os._exit(status)


def _read_protections(ready: int) -> set[str]:
    with os.fdopen(ready, encoding="utf-8") as lines:
        text = lines.read()
    if text.startswith("!"):
        raise Refused(text[1:])
    if not text:
        raise Refused("the program ended while its rights were being dropped")
    return set(text.split())


def _close_all_but(kept: set[int]) -> None:
    start = 0
    for fd in [*sorted(kept), max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4096)]:
        if fd > start:  # an empty range would close everything
            os.closerange(start, fd)
        start = fd + 1


def _provide_stdin(text: str) -> None:
    """Standard input from memory (a file that has no name), so that nobody has to feed a pipe."""
    name = f"stdin-{os.getpid()}"
    if hasattr(os, "memfd_create"):
        source = os.memfd_create(name)
    else:
        source = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(name)  # noqa: PTH108
    with os.fdopen(os.dup(source), "wb") as stream:
        stream.write(text.encode("utf-8", "replace"))
    os.lseek(source, 0, os.SEEK_SET)
    os.dup2(source, 0)
    os.close(source)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115


# ------------------------------------------------------------------------------- the warden


class Fence:
    """What the warden knows about its cage."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.mode: str = request["mode"]
        self.namespaces = self.mode in ("namespaces", "bubblewrap")
        self.folder: str = request["folder"]
        self.uid = spare_user() if os.geteuid() == 0 else None
        self.protections: set[str] = set()

    def prepare(self, request: dict[str, Any]) -> None:
        linux = sys.platform.startswith("linux")
        if self.mode == "namespaces":
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            owner = os.getuid() if self.uid is None else self.uid
            group = os.getgid() if self.uid is None else self.uid
            build_private_root(self.folder, owner, group, request["limits"])
            self.folder = FOLDER
        elif self.mode == "bubblewrap":
            self.folder = FOLDER
        elif linux:
            _prctl(PR_SET_CHILD_SUBREAPER, 1)
        if self.mode == "plain" and self.uid is not None:
            os.chown(self.folder, self.uid, self.uid)
            if not _readable_by(self.uid, os.__file__):
                raise Refused(
                    "running as root without namespaces, and other users can't read this Python; "
                    "use an ordinary user or an interpreter outside root's home"
                )
        if linux:
            _prctl(PR_SET_DUMPABLE, 0)
        if self.namespaces:
            self.protections |= {"tree", "signals", "network", "files"}
        elif linux:
            self.protections.add("tree")

    def kill_everything(self, program: int) -> None:
        """Kill all the program started, wherever it hid, and reap it."""
        if self.namespaces:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        elif self.uid is not None:
            _kill_all_of(self.uid)
        elif not sys.platform.startswith("linux"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(program, signal.SIGKILL)
        for _ in range(400):
            if not self.namespaces:
                for pid in _descendants(os.getpid()):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, 0 if self.namespaces else os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(0.005)


def _readable_by(uid: int, path: str) -> bool:
    pid = os.fork()
    if not pid:
        readable = become_user(uid) and os.access(path, os.R_OK)
        os._exit(0 if readable else 1)
    return os.waitpid(pid, 0)[1] == 0


def _kill_all_of(uid: int) -> None:
    """One signal to every process of a user id nobody else has: no race with a fork bomb."""
    pid = os.fork()
    if not pid:
        try:
            if become_user(uid):
                os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _status_fields(pid: str) -> tuple[int, int] | None:
    """Parent and resident bytes of a process, or ``None`` when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return int(fields[1]), int(fields[21]) * resource.getpagesize()


def _descendants(root: int) -> dict[int, int]:
    """Every process below ``root`` with its resident bytes; empty where there is no ``/proc``."""
    table = {int(p.name): _status_fields(p.name) for p in Path("/proc").glob("[0-9]*")}
    children: dict[int, list[int]] = {}
    for pid, fields in table.items():
        if fields is not None:
            children.setdefault(fields[0], []).append(pid)
    found: dict[int, int] = {}
    frontier = [root]
    while frontier:
        for pid in children.get(frontier.pop(), []):
            fields = table[pid]
            found[pid] = fields[1] if fields is not None else 0
            frontier.append(pid)
    return found


def watch(program: int, limits: dict[str, Any], wake: int) -> tuple[str, str, int | None]:
    """Wait for the program, the clock, the memory limit or the host; status, detail, exit code."""
    deadline = time.monotonic() + limits["wall"]
    while True:
        try:
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                if reaped[0] == program:
                    return _judge_exit(reaped[1], limits)
        except ChildProcessError:
            return "killed", "the program was lost", None
        left = deadline - time.monotonic()
        if left <= 0:
            return "timeout", f"still running after {limits['wall']:g} s", None
        tree = _descendants(os.getpid())
        if sum(tree.values()) > limits["memory"]:
            return "limit", f"more than {limits['memory']} bytes of memory in all processes together", None
        if len(tree) > limits["processes"]:  # the system's own limit spares the real root
            return "limit", f"more than {limits['processes']} processes", None
        if 0 in select.select([0, wake], [], [], min(left, TICK))[0]:
            return "stopped", "stopped by the host", None
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)


def _judge_exit(status: int, limits: dict[str, Any]) -> tuple[str, str, int | None]:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
        if number == signal.SIGXCPU or (
            number == signal.SIGKILL and cpu.ru_utime + cpu.ru_stime >= limits["cpu"]
        ):
            return "limit", f"more than {limits['cpu']:g} s of CPU time", None
        return "killed", f"killed by {signal.Signals(number).name}", None
    code = os.WEXITSTATUS(status)
    return ("ok", "", code) if code == 0 else ("error", f"exit code {code}", code)


def be_warden(request: dict[str, Any], report: int) -> None:
    """Prepare the cage, run the program in it, kill what is left, report once."""
    answer: dict[str, Any]
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # process 1 ignores from inside what has no handler
        wake, wake_end = os.pipe()
        for fd in (wake, wake_end):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        fence = Fence(request)
        fence.prepare(request)
        started = time.monotonic()
        program = start_program(request, fence)
        for fd in (1, 2, *request["keep"]):
            os.close(fd)  # only the program may hold these, so that its end is seen
        status, detail, code = watch(program, request["limits"], wake)
        fence.kill_everything(program)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = {
            "status": status,
            "detail": detail,
            "exit_code": code,
            "wall": time.monotonic() - started,
            "cpu": usage.ru_utime + usage.ru_stime,
            "protections": sorted(fence.protections),
        }
    except (Refused, OSError) as error:
        answer = {"refused": str(error)}
    os.write(report, json.dumps(answer).encode())


def read_request() -> dict[str, Any]:
    """One JSON object with its length before it; the pipe stays open as the lifeline."""
    length = struct.unpack(">I", _read_exactly(4))[0]
    request: dict[str, Any] = json.loads(_read_exactly(length))
    return request


def _read_exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            raise EOFError("the request ended early")
        data += piece
    return data


def main() -> NoReturn:
    report = int(sys.argv[1])
    request = read_request()
    code = 0
    try:
        if request["mode"] == "bubblewrap":
            be_warden(request, report)  # bubblewrap made the namespaces; this is process 1 already
            os._exit(0)
        if request["mode"] == "namespaces":
            enter_namespaces()
        warden = os.fork()
        if not warden:
            be_warden(request, report)
            os._exit(0)
        for fd in (1, 2, *request["keep"]):
            os.close(fd)
        os.waitpid(warden, 0)
    except (Refused, OSError) as error:
        os.write(report, json.dumps({"refused": str(error)}).encode())
        code = 1
    os._exit(code)


if __name__ == "__main__":
    main()
