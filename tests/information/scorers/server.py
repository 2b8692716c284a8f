"""ScoringServer: stands in for a vLLM server that scores prompts, on loopback, and misbehaves on order.

One token a byte, and two chat markers. The "model" likes the pairs of letters of one English sentence
and letters that it has seen, so contexts matter and every value can be computed by hand with :func:`logprob`.

``mode``: ``ok``, ``echo`` (the older dialect only), ``generated`` (as llama.cpp: log-probabilities of what
it generates), ``zeros``, ``positive``, ``nan``, ``short`` (one value too few), ``stale`` (values depend on
how often it was asked), ``cut`` (reads less than it was sent), ``backwards``, ``placeholder``, ``no_tokens`` (404 for
/tokenize), ``unknown`` (a tokenizer that knows no capitals). ``statuses`` are used up one a scoring request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from agentcomm.information.scorers.probe import SENTENCE

MARKERS = {"<|im_start|>": 256, "<|im_end|>": 257}
_PAIRS = set(zip(SENTENCE.encode(), SENTENCE.encode()[1:], strict=False))


def logprob(prefix: Sequence[int], token: int) -> float:
    likes = (prefix[-1], token) in _PAIRS
    return -(0.25 if likes else 3.0) - (0.25 if token in prefix else 1.0) - 0.01 * (token % 7)


def encode(text: str) -> list[int]:
    """As a server's tokenizer does: markers in the text are markers."""
    ids: list[int] = []
    while text:
        for marker, token in MARKERS.items():
            if text.startswith(marker):
                ids.append(token)
                text = text[len(marker) :]
                break
        else:
            ids += text[0].encode()
            text = text[1:]
    return ids


def decode(ids: Sequence[int]) -> str:
    names = {token: marker.encode() for marker, token in MARKERS.items()}
    return b"".join(names.get(i) or bytes([i]) for i in ids).decode()


def rendered(messages: Sequence[dict[str, str]]) -> str:
    said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return said + "<|im_start|>assistant\n"


class ScoringServer:
    def __init__(
        self,
        mode: str = "ok",
        *,
        max_length: int = 2_000,
        chat: bool = True,
        caching: str | None = "False",
        key: str | None = None,
        model: str = "test-model",
    ) -> None:
        self.mode, self.max_length, self.chat, self.caching = mode, max_length, chat, caching
        self.key, self.model = key, model
        self.scored: list[list[int]] = []
        self.statuses: list[int] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> ScoringServer:
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def values(self, ids: list[int]) -> list[float | None]:
        if self.mode == "zeros":
            return [None, *([0.0] * (len(ids) - 1))]
        found = [logprob(ids[:k], ids[k]) for k in range(1, len(ids))]
        if self.mode == "positive":
            found = [-v for v in found]
        if self.mode == "stale":
            found = [v - 0.1 * len(self.scored) for v in found]
        if self.mode == "nan":
            found[-1] = float("nan")
        if self.mode == "placeholder":
            found[-1] = -9999.0
        if self.mode == "backwards":
            found = [-8.0 - v for v in found]
        return [None, *found]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: ScoringServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        owner = self.owner
        if self.path == "/v1/models":
            self._send({"data": [{"id": owner.model, "root": "folder", "max_model_len": owner.max_length}]})
        elif self.path == "/version":
            self._send({"version": "9.9"})
        elif self.path == "/metrics" and owner.caching is not None:
            text = f'vllm:cache_config_info{{block_size="16",enable_prefix_caching="{owner.caching}"}} 1.0\n'
            self._send(text.encode())
        else:
            self._send({"error": {"message": "not found"}}, 404)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        owner = self.owner
        if self.path == "/tokenize" and owner.mode != "no_tokens":
            self._tokenize(request)
        elif self.path == "/detokenize":
            self._send({"prompt": decode(request["tokens"])})
        elif self.path == "/v1/completions":
            if owner.key is not None and self.headers.get("Authorization") != f"Bearer {owner.key}":
                self._send({"error": "Unauthorized"}, 401)
                return
            self._score(request)
        else:
            self._send({"detail": "Not Found"}, 404)

    def _tokenize(self, request: dict[str, Any]) -> None:
        owner = self.owner
        if "messages" in request:
            if not owner.chat:
                self._send({"error": {"message": "no chat template"}}, 400)
                return
            text = rendered(request["messages"])
        else:
            text = request["prompt"]
        ids = encode(text)
        names = ["<unk>" if owner.mode == "unknown" and 65 <= i <= 90 else "x" for i in ids]
        self._send({"tokens": ids, "token_strs": names, "max_model_len": owner.max_length, "count": len(ids)})

    def _score(self, request: dict[str, Any]) -> None:
        owner, ids = self.owner, request["prompt"]
        with owner.lock:
            status = owner.statuses.pop(0) if owner.statuses else 200
            if status == 200:
                owner.scored.append(ids)
        if status != 200:
            self._send({"error": {"message": f"scripted {status}"}}, status)
            return
        if len(ids) > owner.max_length:
            self._send({"error": {"message": "This model's maximum context length is less"}}, 400)
            return
        values = owner.values(ids)
        choice: dict[str, Any] = {"index": 0, "text": "x", "finish_reason": "length", "logprobs": None}
        if owner.mode == "generated":
            choice["logprobs"] = {"content": [{"token": "x", "logprob": -0.5}]}
        elif owner.mode == "echo":
            if request.get("echo"):
                choice["logprobs"] = {"token_logprobs": [*values, -0.5]}
        elif "prompt_logprobs" in request:
            entries = [
                None if v is None else {str(i): {"logprob": v, "rank": 1}}
                for i, v in zip(ids, values, strict=True)
            ]
            choice["prompt_logprobs"] = entries[:-1] if owner.mode == "short" else entries
        read = len(ids) - 3 if owner.mode == "cut" else len(ids)
        self._send({"choices": [choice], "usage": {"prompt_tokens": read, "completion_tokens": 1}})

    def _send(self, reply: Any, code: int = 200) -> None:
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
