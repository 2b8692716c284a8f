"""CountingServer: a real OpenAI-compatible server on loopback that counts what it serves, and misbehaves on order.

    with CountingServer() as server:                       # started; stopped at the end
        OpenAI(model="test-model", base_url=server.url)    # .url ends in /v1; .root does not
        server.script(status(429, retry_after="1"), cut()) # the next two chat requests fail so, then all is well
        server.script(hang(), when=lambda request: "critic" in request["messages"][0]["content"])
        ...
        server.served      # [Served(request, reply, status, headers)], in order of arrival, faults included
        server.tokens      # Totals(requests, prompt, completion): what it *reported* in replies it sent whole
        server.peak        # most chat requests it ever had in hand at once

Constructor: ``model`` (name it offers under /v1/models), ``reply`` (callable: request dict ->
text; default: echoes the first words of the last message), ``api_key`` (401 for any other),
``latency_s`` (of each chat), ``tokenize`` (``"llama"``, ``"vllm"`` or ``None`` for a 404),
``models`` (whether /v1/models exists), ``root`` (the folder it says the model came from, as vLLM does),
``adapters`` (LoRA modules by name, with their folders), ``loaded`` (whether they make a difference).

Faults: ``status(code, body=, retry_after=, headers=)``, ``hang(seconds)``, ``cut(after)`` (connection
closed in mid-reply, ``after`` bytes of it sent; 0: before any), ``body(bytes, content_type=)``
(sent with 200 as it is), and by its name: ``broken_json()``, ``not_utf8()``, ``no_choices()``, ``huge(n)``,
``no_usage()``, ``answer(text, **message_fields)``, ``usage(dict)``, ``drip(seconds)`` (a byte at a time), ``ok()``.

Faults of ``script`` without ``when`` are used up one a chat request; with ``when`` a fault stays
and befalls every request for which ``when(request)`` is true (checked first).

``/v1/embeddings`` is served as well (see :func:`embeddings`); its requests count as chat requests.

Tokens: ``count(text)`` is words and punctuation marks; a prompt costs its messages' counts plus
``TEMPLATE`` for each message. A stub tokenizer, so that tests can compute every number by hand.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

TEMPLATE = 4
"""Tokens that the pretended chat template adds to each message."""


def count(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def prompt_tokens(request: dict[str, Any]) -> int:
    return sum(count(m.get("content") or "") + TEMPLATE for m in request.get("messages", []))


def echo(request: dict[str, Any]) -> str:
    last = request["messages"][-1]["content"] if request.get("messages") else ""
    return "You said: " + " ".join(last.split()[:8])


def embeddings(texts: list[str]) -> dict[str, Any]:
    """What /v1/embeddings replies: [letters, words, 1] for each text, last text first."""
    data = [
        {"object": "embedding", "index": i, "embedding": [float(len(t)), float(count(t)), 1.0]}
        for i, t in enumerate(texts)
    ]
    used = sum(map(count, texts))
    return {"object": "list", "data": data[::-1], "usage": {"prompt_tokens": used, "total_tokens": used}}


@dataclass
class Served:
    """One chat request as it came and what went back (``reply`` is ``None`` unless it was JSON)."""

    request: dict[str, Any]
    reply: dict[str, Any] | None
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    whole: bool = True


class Totals(NamedTuple):
    requests: int
    prompt: int
    completion: int


Fault = Callable[["_Handler", dict[str, Any]], None]


def ok() -> Fault:
    return lambda handler, request: handler.send_reply(request, handler.owner.completion(request))


def status(
    code: int,
    *,
    body: Any = None,
    retry_after: str | None = None,
    headers: dict[str, str] | None = None,
) -> Fault:
    def fault(handler: _Handler, request: dict[str, Any]) -> None:
        extra = dict(headers or {})
        if retry_after is not None:
            extra["Retry-After"] = retry_after
        reply = body if body is not None else {"error": {"message": f"scripted {code}", "code": code}}
        handler.send_reply(request, reply, code, extra)

    return fault


def hang(seconds: float = 60.0) -> Fault:
    """Nothing comes back; the connection is closed after ``seconds`` or when the server stops."""

    def fault(handler: _Handler, request: dict[str, Any]) -> None:
        handler.note(request, None, 0, whole=False)
        handler.owner.stopping.wait(seconds)
        handler.close_connection = True

    return fault


def drip(seconds: float = 60.0, every: float = 0.05) -> Fault:
    """A byte now and then: never silent long enough for a read timeout, never done."""

    def fault(handler: _Handler, request: dict[str, Any]) -> None:
        handler.note(request, None, 200, whole=False)
        handler.start(200, "application/json", 10_000_000, {})
        end = time.monotonic() + seconds
        while time.monotonic() < end and not handler.owner.stopping.wait(every):
            handler.wfile.write(b" ")
        handler.close_connection = True

    return fault


def cut(after: int = 40) -> Fault:
    def fault(handler: _Handler, request: dict[str, Any]) -> None:
        reply = handler.owner.completion(request)
        data = json.dumps(reply).encode()
        handler.note(request, reply, 200 if after else 0, whole=False)
        if after:
            handler.start(200, "application/json", len(data), {})
            handler.wfile.write(data[:after])
            handler.wfile.flush()
        # A reset rather than a tidy end: what a crashed server looks like.
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True

    return fault


def body(data: bytes, *, content_type: str = "application/json") -> Fault:
    def fault(handler: _Handler, request: dict[str, Any]) -> None:
        handler.note(request, None, 200)
        handler.start(200, content_type, len(data), {})
        handler.wfile.write(data)

    return fault


def broken_json() -> Fault:
    return body(b'{"choices": [{"message": {"role": "assistant", "content": "hal')


def not_utf8() -> Fault:
    return body(b'{"choices":[{"message":{"role":"assistant","content":"caf\xe9 \xff\xfe"}}]}')


def no_choices() -> Fault:
    return _changed(lambda reply: reply.update(choices=[]))


def no_usage() -> Fault:
    return _changed(lambda reply: reply.pop("usage"))


def usage(buckets: dict[str, Any]) -> Fault:
    return _changed(lambda reply: reply.update(usage=buckets))


def huge(characters: int = 5_000_000) -> Fault:
    return answer("x" * characters)


def answer(text: Any, *, finish_reason: str = "stop", **message: Any) -> Fault:
    def change(reply: dict[str, Any]) -> None:
        reply["choices"][0]["message"].update(content=text, **message)
        reply["choices"][0]["finish_reason"] = finish_reason
        made = count(text) if isinstance(text, str) else 0
        reply["usage"]["completion_tokens"] = made
        reply["usage"]["total_tokens"] = reply["usage"]["prompt_tokens"] + made

    return _changed(change)


def _changed(change: Callable[[dict[str, Any]], Any]) -> Fault:
    def fault(handler: _Handler, request: dict[str, Any]) -> None:
        reply = handler.owner.completion(request)
        change(reply)
        handler.send_reply(request, reply)

    return fault


class CountingServer:
    def __init__(
        self,
        *,
        model: str = "test-model",
        reply: Callable[[dict[str, Any]], str] = echo,
        api_key: str | None = None,
        latency_s: float = 0.0,
        tokenize: str | None = None,
        models: bool = True,
        root: str | None = None,
        adapters: dict[str, str] | None = None,
        loaded: bool = True,
    ) -> None:
        self.model_root = root
        self.adapters, self.loaded = adapters or {}, loaded
        self.model, self.reply, self.api_key = model, reply, api_key
        self.latency_s, self.tokenize, self.models = latency_s, tokenize, models
        self.served: list[Served] = []
        self.tokenized: list[dict[str, Any]] = []
        self.tokenize_latency_s = 0.0
        self.peak = 0
        self.stopping = threading.Event()
        self._queue: deque[Fault] = deque()
        self._standing: list[tuple[Callable[[dict[str, Any]], bool], Fault]] = []
        self._lock = threading.Lock()
        self._in_hand = 0
        self._connections: set[socket.socket] = set()
        self._http: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def tokens(self) -> Totals:
        with self._lock:
            told = [(s.reply or {}).get("usage") for s in self.served if s.whole and s.status == 200]
            return Totals(
                requests=len(self.served),
                prompt=sum(u.get("prompt_tokens") or 0 for u in told if u),
                completion=sum(u.get("completion_tokens") or 0 for u in told if u),
            )

    def script(self, *faults: Fault, when: Callable[[dict[str, Any]], bool] | None = None) -> None:
        with self._lock:
            if when is None:
                self._queue.extend(faults)
            else:
                self._standing += [(when, fault) for fault in faults]

    def forgive(self) -> None:
        """Misbehave no more."""
        with self._lock:
            self._queue.clear()
            self._standing.clear()

    def start(self) -> CountingServer:
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = _Http(("127.0.0.1", self.port), handler)
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        if self._http is None or self._thread is None:
            return
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:  # clients that keep a connection alive
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._http = None

    def __enter__(self) -> CountingServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def completion(self, request: dict[str, Any]) -> dict[str, Any]:
        if "input" in request:
            return embeddings(request["input"])
        text = self.reply(request)
        prompt, made = prompt_tokens(request), count(text)
        logprobs = None
        if request.get("logprobs"):
            likely = -2.0 if self.loaded and request.get("model") in self.adapters else -1.0
            logprobs = {"content": [{"top_logprobs": [{"token": "You", "logprob": likely}]}]}
        return {
            "id": "chatcmpl-test",
            "object": "chat.completion",
            "created": 0,
            "model": self.model,
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text},
                    "logprobs": logprobs,
                }
            ],
            "usage": {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made},
        }

    def _fault(self, request: dict[str, Any]) -> Fault:
        with self._lock:
            for when, fault in self._standing:
                if when(request):
                    return fault
            return self._queue.popleft() if self._queue else ok()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is not news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: CountingServer

    def setup(self) -> None:
        super().setup()
        with self.owner._lock:
            self.owner._connections.add(self.connection)

    def finish(self) -> None:
        with self.owner._lock:
            self.owner._connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send({"status": "ok"})
        elif self.path == "/v1/models" and self.owner.models:
            if self._authorised():
                entry = {"id": self.owner.model, "object": "model", "root": self.owner.model_root}
                more = [
                    {"id": name, "object": "model", "root": root, "parent": self.owner.model}
                    for name, root in self.owner.adapters.items()
                ]
                self._send({"object": "list", "data": [entry, *more]})
        else:
            self._send({"error": {"message": "not found"}}, 404)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = json.loads(raw)
        if self.path == "/tokenize" and self.owner.tokenize:
            self._tokenize(request)
        elif self.path in ("/v1/chat/completions", "/v1/embeddings"):
            if self._authorised():
                self._chat(request)
        else:
            self._send({"error": {"message": "not found"}}, 404)

    def _authorised(self) -> bool:
        expected = self.owner.api_key
        if expected is None or self.headers.get("Authorization") == f"Bearer {expected}":
            return True
        got = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self._send(
            {"error": {"message": f"Incorrect API key provided: {got}", "code": "invalid_api_key"}}, 401
        )
        return False

    def _chat(self, request: dict[str, Any]) -> None:
        owner = self.owner
        with owner._lock:
            owner._in_hand += 1
            owner.peak = max(owner.peak, owner._in_hand)
        try:
            if owner.latency_s:
                owner.stopping.wait(owner.latency_s)
            owner._fault(request)(self, request)
        finally:
            with owner._lock:
                owner._in_hand -= 1

    def _tokenize(self, request: dict[str, Any]) -> None:
        self.owner.tokenized.append(request)
        self.owner.stopping.wait(self.owner.tokenize_latency_s)
        if self.owner.tokenize == "llama":
            if "content" in request:
                self._send({"tokens": list(range(count(request["content"])))})
            else:
                self._send({"tokens": []})
        elif "prompt" in request:
            n = count(request["prompt"])
            self._send({"count": n, "max_model_len": 4096, "tokens": list(range(n))})
        else:
            self._send({"error": {"message": "Field required: prompt"}}, 400)

    def note(self, request: dict[str, Any], reply: Any, code: int, *, whole: bool = True) -> None:
        served = Served(request, reply if isinstance(reply, dict) else None, code, dict(self.headers), whole)
        with self.owner._lock:
            self.owner.served.append(served)

    def send_reply(
        self, request: dict[str, Any], reply: Any, code: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.note(request, reply, code)
        self._send(reply, code, headers)

    def _send(self, reply: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.start(code, "application/json", len(data), headers or {})
        self.wfile.write(data)

    def start(self, code: int, content_type: str, length: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
