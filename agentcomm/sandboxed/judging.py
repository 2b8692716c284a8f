"""Judging a program without sharing an interpreter with it.

Two sandboxes, one socket between them:

    candidate   ``serve``: loads the program, answers "call f with these values" with a plain value
    judge       ``judge``: runs the hidden tests, in which ``f`` is a stand-in that asks the candidate

The judge rebuilds every answer from JSON as exact built-in values, so nothing of the program's ever
runs beside the tests: no object with an ``__eq__`` that always agrees, no patched ``assert``, no
look at the expected answers, no exit that looks like success. What a program can still do is what
any program can: return values. Arguments are copies, so a test that looks at a changed argument
sees the old one.

This file is handed to the sandbox as text and uses the standard library only.
"""

from __future__ import annotations

import ast
import builtins
import json
import math
import os
import socket
import struct
import sys
import traceback
from collections.abc import Iterator
from itertools import islice
from typing import Any, NoReturn

PASSED, FAILED, UNABLE = 42, 1, 43
"""Exit codes of the judge. Not 0: an accidental clean exit is no success."""

MOST_BYTES = 16_000_000
"""Longest answer the judge reads."""

MOST_ITEMS = 100_000
"""How far an iterator that a program returned is read."""


class Unplain(Exception):
    """A value that can't travel as data."""


class CandidateFault(BaseException):
    """The program ended, answered nonsense or something that is no data.

    Not an ``Exception``: a test that expects the program to raise must not mistake it for that.
    """


# ------------------------------------------------------------------------------------ values


def encode(value: object) -> Any:
    """Plain values as JSON: containers carry their kind, so that ``(1,)`` comes back as a tuple."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value) if abs(value) < 1 << 53 else {"int": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, complex):
        return {"complex": [repr(value.real), repr(value.imag)]}
    if isinstance(value, list):
        return [encode(v) for v in value]
    if isinstance(value, dict):
        return {"dict": [[encode(k), encode(v)] for k, v in value.items()]}
    if isinstance(value, bytes | bytearray):
        return {type(value).__name__: bytes(value).hex()}
    if isinstance(value, range):
        return {"range": [encode(v) for v in (value.start, value.stop, value.step)]}
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [encode(v) for v in value]}
    if isinstance(value, Iterator):
        return {"iterator": [encode(v) for v in islice(value, MOST_ITEMS)]}
    raise Unplain(f"a {type(value).__name__} object, where only plain values can be compared")


def decode(data: Any) -> Any:
    """The inverse of :func:`encode`; anything unexpected raises ``ValueError`` or ``TypeError``."""
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return [decode(v) for v in data]
    if not isinstance(data, dict) or len(data) != 1:
        raise ValueError("not an encoded value")
    ((kind, content),) = data.items()
    if kind == "int":
        return int(content, 16)
    if kind == "float":
        return float(content)
    if kind == "complex":
        return complex(float(content[0]), float(content[1]))
    if kind == "dict":
        return {decode(k): decode(v) for k, v in content}
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "bytearray":
        return bytearray.fromhex(content)
    if kind == "range":
        return range(*[decode(v) for v in content])
    containers: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset, "iterator": iter}
    return containers[kind]([decode(v) for v in content])


# -------------------------------------------------------------------------------------- wire


def send(link: socket.socket, message: Any) -> None:
    data = json.dumps(message).encode()
    link.sendall(struct.pack(">I", len(data)) + data)


def receive(link: socket.socket) -> Any:
    """The next message; ``EOFError`` when the other side is gone, ``ValueError`` when it's nonsense."""
    (length,) = struct.unpack(">I", _exactly(link, 4))
    if length > MOST_BYTES:
        raise ValueError(f"an answer of {length} bytes")
    return json.loads(_exactly(link, length))


def _exactly(link: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = link.recv(min(count - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


# --------------------------------------------------------------------------------- candidate


def serve(code: str, fd: int) -> NoReturn:
    """Load the program and answer calls until the judge hangs up."""
    link = socket.socket(fileno=fd)
    namespace: dict[str, Any] = {"__name__": "candidate"}
    module = type(sys)("candidate")
    module.__dict__.update(namespace)
    sys.modules["candidate"] = module
    try:
        exec(compile(code, "candidate.py", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        send(link, {"failed": _describe(error)})
        os._exit(1)
    callables = [k for k, v in module.__dict__.items() if callable(v) and not k.startswith("__")]
    send(link, {"names": callables})
    while True:
        try:
            request = receive(link)
        except EOFError:
            os._exit(0)
        send(link, _answer(module.__dict__, request))


def _answer(namespace: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    try:
        function = namespace[request["call"]]
        arguments, named = decode(request["arguments"]), decode(request["named"])
        return {"value": encode(function(*arguments, **named))}
    except Unplain as error:
        return {"unplain": str(error)}
    except Exception as error:
        return {"raised": [kind.__name__ for kind in type(error).__mro__], "text": str(error)}
    except BaseException as error:
        return {"ended": _describe(error)}


def _describe(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()[-2000:]


# ------------------------------------------------------------------------------------- judge


class Candidate:
    """The other end of the socket, and what went wrong there, for good."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.calls = 0
        self.fault = ""
        greeting = self._receive()
        if "failed" in greeting:
            self._give_up(f"the program does not load: {greeting['failed']}")
        self.names: set[str] = {n for n in greeting.get("names", ()) if isinstance(n, str)}

    def function(self, name: str) -> Any:
        """A stand-in that asks the candidate."""

        def stand_in(*arguments: Any, **named: Any) -> Any:
            return self._call(name, arguments, named)

        stand_in.__name__ = stand_in.__qualname__ = name
        return stand_in

    def _call(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """One question to the candidate, and its answer as a value or an exception."""
        if self.fault:
            raise CandidateFault(self.fault)
        self.calls += 1
        request = {"call": name, "arguments": encode(arguments), "named": encode(named)}
        try:
            send(self.link, request)
        except OSError:
            self._give_up("the program ended before the tests did")
        reply = self._receive()
        if "value" in reply:
            try:
                return decode(reply["value"])
            except Exception as error:
                self._give_up(f"{name} gave a value that can't be read: {_describe(error)}")
        if "raised" in reply:
            raise _same_kind(reply["raised"], f"{reply.get('text', '')}")
        if "unplain" in reply:
            return self._give_up(f"{name} returned {reply['unplain']}")
        return self._give_up(f"{name} ended the program: {reply.get('ended')}")

    def _receive(self) -> dict[str, Any]:
        try:
            message = receive(self.link)
        except (EOFError, OSError):
            self._give_up("the program ended before the tests did")
        except Exception as error:
            self._give_up(f"the program's answer can't be read: {_describe(error)}")
        if not isinstance(message, dict):
            self._give_up("the program's answer can't be read")
        return message

    def _give_up(self, fault: str) -> NoReturn:
        self.fault = fault
        raise CandidateFault(fault)


def _same_kind(names: object, text: str) -> Exception:
    """The nearest built-in exception, so that a test may expect it."""
    for name in names if isinstance(names, list) else []:
        kind = getattr(builtins, name, None) if isinstance(name, str) else None
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(text)
            except TypeError:
                break  # UnicodeDecodeError wants five arguments
    return RuntimeError(text)


def free_names(tests: str) -> set[str]:
    """Names the tests use and don't bind; built-in ones left out.

    >>> sorted(free_names("import math\\nassert math.fabs(f(x) - abs(1)) < 1"))
    ['f', 'x']
    """
    used: set[str] = set()
    bound: set[str] = set(dir(builtins))
    for node in ast.walk(ast.parse(tests)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return used - bound


def judge(tests: str, entry_point: str | None, preamble: str | None, fd: int) -> NoReturn:
    """Run the tests against the candidate; the exit code is the verdict, standard error the reason."""
    code, reason = FAILED, ""
    candidate: Candidate | None = None
    try:
        candidate = Candidate(socket.socket(fileno=fd))
        _run_tests(tests, entry_point, preamble, candidate)
        if candidate.fault:
            reason = candidate.fault
        elif not candidate.calls:
            reason = "the tests never called the program"
        else:
            code = PASSED
    except CandidateFault as fault:
        reason = str(fault)
    except Unplain as error:
        code, reason = UNABLE, f"the tests pass {error}"
    except AssertionError as error:
        said = f" ({error})" if str(error) else ""
        reason = f"a test failed{_where(error, tests)}{said}"
    except BaseException as error:
        reason = f"{_describe(error)}{_where(error, tests)}"
    sys.stderr.write(reason[:4000])
    sys.stderr.flush()
    os._exit(code)


def _run_tests(tests: str, entry_point: str | None, preamble: str | None, candidate: Candidate) -> None:
    namespace: dict[str, Any] = {"__name__": "tests"}
    if preamble is not None:
        exec(compile(preamble, "preamble.py", "exec", dont_inherit=True), namespace)
    else:
        for name in sorted(free_names(tests) & candidate.names):
            namespace[name] = candidate.function(name)
    if entry_point is not None:
        namespace[entry_point] = candidate.function(entry_point)
    exec(compile(tests, "tests.py", "exec", dont_inherit=True), namespace)
    if entry_point is not None and callable(namespace.get("check")):
        namespace["check"](namespace[entry_point])


def _where(error: BaseException, tests: str) -> str:
    lines = tests.splitlines()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == "tests.py" and frame.lineno:
            return f" at line {frame.lineno}: {lines[frame.lineno - 1].strip()}"
    return ""
