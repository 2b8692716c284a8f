"""Scripted and Echo: models that say what a test tells them to, and count like a server.

Both are part of the product: a user's own graphs and tasks can be tested without a model, a key
or a network. Tokens are counted by :func:`count_words`, whose counts add up: a prompt costs the
sum of its pieces, plus ``TEMPLATE_TOKENS`` for each chat message, as a chat template would.

A scripted file (``scripted/replies.json``, or ``.toml`` with the same keys)::

    {"replies": ["first call", "second call"],          # in order, over all agents
     "by_role": {"Find the first mistake": ["No mistake.", "None left."],   # by text in the prompt
                 "Give the final answer": "42"},         # a single text: the same each time
     "default": "I have nothing to add.",                # when nothing else fits; else an error
     "latency_s": 0.0}

``by_role`` is tried first, in order: its keys are looked for in the prompt. A reply may also be
an error: ``{"error": "rate_limit", "retryable": true}``.
"""

from __future__ import annotations

import copy
import json
import math
import re
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import anyio

from agentcomm.backends.base import DEFAULT_CONCURRENCY, ChatRequest
from agentcomm.errors import BackendError, ConfigError
from agentcomm.message import Reply, Usage

TEMPLATE_TOKENS = 4
"""What the pretended chat template adds to each message."""

Line = str | Reply | Exception
"""What a script says to one request: a text, a whole reply, or an error to raise."""

Script = Iterable[Line] | Mapping[str, Line | Iterable[Line]] | Callable[[ChatRequest], Line]

_WORD = re.compile(r"\w+|[^\w\s]")


def count_words(text: str) -> int:
    """Words and punctuation marks. Pieces that meet at a space or line break add up.

    >>> count_words("It's 4 o'clock.")
    8
    """
    return len(_WORD.findall(text))


class _Pretended:
    """What Scripted and Echo share: usage, latency, and a record of what they were asked."""

    def __init__(self, name: str, *, latency_s: float, max_concurrency: int, report_usage: bool) -> None:
        self._name = name
        self._max_concurrency = max_concurrency
        self.latency_s = latency_s
        self.report_usage = report_usage
        self.requests: list[ChatRequest] = []
        """Every request, in order of arrival."""

    @property
    def name(self) -> str:
        return self._name

    @property
    def endpoint(self) -> str:
        return f"{self._name}#{id(self)}"

    @property
    def max_concurrency(self) -> int:
        return self._max_concurrency

    async def chat(self, request: ChatRequest) -> Reply:
        self.requests.append(request)
        if self.latency_s:
            await anyio.sleep(self.latency_s)
        line = self._line(request)
        if isinstance(line, Exception):
            # A copy: whoever catches it may mark it (as fatal, say), and a script is said again.
            raise copy.copy(line) if isinstance(line, BackendError) else line
        return line if isinstance(line, Reply) else self._reply(request, line)

    async def count_tokens(self, text: str) -> int | None:
        return count_words(text)

    async def aclose(self) -> None:
        """Nothing to close; it can be used again."""

    def _line(self, request: ChatRequest) -> Line:
        raise NotImplementedError

    def _reply(self, request: ChatRequest, text: str) -> Reply:
        text, finish = _cut(text, request)
        usage = Usage(
            input_tokens=sum(count_words(m.content) + TEMPLATE_TOKENS for m in request.messages),
            output_tokens=count_words(text),
        )
        return Reply(
            text=text,
            usage=usage if self.report_usage else Usage(),
            finish_reason=finish,
            model=self._name,
            latency_s=self.latency_s,
        )


class Scripted(_Pretended):
    """Says what it is told to.

    Parameters
    ----------
    script:
        A list: its lines in order, over all agents. A mapping from a text that the prompt
        contains (an agent's role, say) to a line said each time, or to a list of lines said in
        order. Or a function of the request. A line is a text, a :class:`Reply` or an exception,
        which is raised.
    default:
        Said when the script has nothing (more) to say. Without it that is a ``BackendError`` of
        kind ``"script"``.
    report_usage:
        ``False``: like a server that reports no usage.

    Examples
    --------
    >>> import anyio
    >>> from agentcomm.message import ChatMessage
    >>> model = Scripted({"critic": "Step 2 is wrong."})
    >>> request = ChatRequest(model.name, (ChatMessage("user", "You are the critic."),))
    >>> anyio.run(model.chat, request).text
    'Step 2 is wrong.'
    """

    def __init__(
        self,
        script: Script = (),
        *,
        default: Line | None = None,
        name: str = "scripted",
        latency_s: float = 0.0,
        max_concurrency: int = DEFAULT_CONCURRENCY,
        report_usage: bool = True,
    ) -> None:
        super().__init__(
            name, latency_s=latency_s, max_concurrency=max_concurrency, report_usage=report_usage
        )
        self._default = default
        self._function: Callable[[ChatRequest], Line] | None = None
        self._by_text: dict[str, Line | deque[Line]] = {}
        self._in_order: deque[Line] = deque()
        if isinstance(script, str):
            raise ConfigError("a script is a list, a mapping or a function; for one text use default=")
        if callable(script):
            self._function = script
        elif isinstance(script, Mapping):
            self._by_text = {
                text: line if isinstance(line, Line) else deque(line) for text, line in script.items()
            }
        else:
            self._in_order = deque(script)

    @classmethod
    def from_file(cls, path: str | Path, *, max_concurrency: int | None = None) -> Scripted:
        """Read a script file (the format is at the top of this module).

        Raises
        ------
        ConfigError
            If the file can't be read or isn't a script.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        except (OSError, ValueError) as error:
            raise ConfigError(f"script {path} can't be read: {error}") from error
        known = {"replies", "by_role", "default", "latency_s"}
        if not isinstance(data, dict) or set(data) - known or not (set(data) & (known - {"latency_s"})):
            raise ConfigError(
                f"script {path} is not one: it needs an object with 'replies', 'by_role' or 'default'"
            )
        by_role = data.get("by_role", {})
        replies = data.get("replies", [])
        if not isinstance(by_role, dict) or not isinstance(replies, list):
            raise ConfigError(f"script {path}: 'replies' is a list, 'by_role' an object")
        latency_s = data.get("latency_s", 0.0)
        if not isinstance(latency_s, int | float) or not 0 <= latency_s < math.inf:
            raise ConfigError(f"script {path}: latency_s is a number of seconds, not {latency_s!r}")
        model = cls(
            {text: _lines(path, line) for text, line in by_role.items()},
            default=_line(path, data["default"]) if "default" in data else None,
            name=f"scripted/{path}",
            latency_s=latency_s,
            max_concurrency=max_concurrency or DEFAULT_CONCURRENCY,
        )
        model._in_order = deque(_line(path, line) for line in replies)
        return model

    def _line(self, request: ChatRequest) -> Line:
        if self._function is not None:
            return self._function(request)
        prompt = "\n".join(m.content for m in request.messages)
        for text, line in self._by_text.items():
            if text in prompt:
                if not isinstance(line, deque):
                    return line
                if line:
                    return line.popleft()
        if self._in_order:
            return self._in_order.popleft()
        if self._default is not None:
            return self._default
        return BackendError(
            f"the script has no reply (left) for: {prompt[-200:]!r}; add one or a default", kind="script"
        )


class Echo(_Pretended):
    """Answers with the last line it was sent, ``"Echo: ..."``: the model string ``mock/echo``.

    An echo of an echo gets no longer, so that teams of echoes don't talk themselves to death.
    """

    def __init__(
        self, *, latency_s: float = 0.0, max_concurrency: int = DEFAULT_CONCURRENCY, report_usage: bool = True
    ) -> None:
        super().__init__(
            "mock/echo", latency_s=latency_s, max_concurrency=max_concurrency, report_usage=report_usage
        )

    def _line(self, request: ChatRequest) -> Line:
        said = [m.content for m in request.messages if m.role == "user"]
        lines = [line.strip() for line in said[-1].splitlines() if line.strip()] if said else []
        return f"Echo: {lines[-1].removeprefix('Echo:').strip()}" if lines else "Echo:"


def _cut(text: str, request: ChatRequest) -> tuple[str, str]:
    """``text`` as a server would end it: at a stop text or after ``max_tokens``."""
    ends = [at for stop in request.stop if stop and (at := text.find(stop)) >= 0]
    finish = "stop"
    if ends:
        text = text[: min(ends)]
    if request.max_tokens is not None:
        words = list(_WORD.finditer(text))
        if len(words) > request.max_tokens:
            text = text[: words[request.max_tokens - 1].end()] if request.max_tokens else ""
            finish = "length"
    return text, finish


def _lines(path: Path, value: Any) -> Line | list[Line]:
    return [_line(path, v) for v in value] if isinstance(value, list) else _line(path, value)


def _line(path: Path, value: Any) -> Line:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("error"), str):
        return BackendError(
            str(value.get("message", f"scripted {value['error']}")),
            kind=value["error"],
            retryable=bool(value.get("retryable", False)),
            fatal=bool(value.get("fatal", False)),
        )
    raise ConfigError(f"script {path}: a reply is a text or {{'error': KIND}}, not {value!r}")
