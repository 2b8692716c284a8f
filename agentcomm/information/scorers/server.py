"""Server: prompt log-probabilities from an OpenAI-compatible server, one request a cell.

Two dialects of ``/v1/completions`` are tried, in this order:

    vLLM       ``prompt_logprobs: 0``: one entry a prompt token, by id; the first is null
    echo       ``echo: true, logprobs: 0``: ``token_logprobs`` of the prompt, the first null

Everything else is refused by the probe. llama.cpp's server gives log-probabilities of what it
generates only; hosted chat APIs give none of the prompt.

Prompts are sent as token ids, made of the server's own ``/tokenize``, which reads chat markers in a
text as markers. To keep text text, such a marker is cut after its first character and both parts are
tokenised by themselves.

A server reads each cell's whole prompt: N²·M·(Tx + Tq + Tz) tokens. For anything large take ``hf/``.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any, Literal

import httpx

from agentcomm.errors import ConfigError, ScorerError, ScorerUnsupported
from agentcomm.information.scorers.base import Ask, Scored
from agentcomm.information.scorers.language import LanguageScorer
from agentcomm.information.scorers.spans import PLAIN_AFTER, SENTINEL, Ids, Spans, Template

Dialect = Literal["prompt_logprobs", "echo"]

ATTEMPTS = 4
FIRST_WAIT_S = 1.0
UNREACHABLE_IN_A_ROW = 3
"""So many cells in a row for which nobody listened, and the matrix stops; what is scored is kept."""
PLACEHOLDER = -9998.0
"""vLLM writes -9999 for a value that JSON can't hold."""

_MARKER = re.compile(r"(?<=<)(?=[|/\w])|(?<=\[)(?=[A-Z/])")
_UNKNOWN = ("<unk>", "[UNK]")


class ServerScorer(LanguageScorer):
    """A model on a server.

    Parameters
    ----------
    model:
        Its name there.
    base_url:
        Ends in ``/v1`` as a rule.
    api_key_env:
        The environment variable with the key, where one is needed.
    timeout_s:
        Longest wait for one cell.
    concurrency:
        Requests in flight.
    wait:
        Called with seconds before a failed request is repeated; tests pass one that doesn't.
    """

    name_of_engine = "openai"

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key_env: str | None = None,
        timeout_s: float = 300.0,
        concurrency: int = 8,
        wait: Callable[[float], None] = time.sleep,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if self.include_eos:
            raise ConfigError("include_eos needs hf/FOLDER: a server doesn't say which token ends a message")
        if concurrency < 1 or timeout_s <= 0:
            raise ConfigError("concurrency must be at least 1 and timeout_s above 0")
        self.model = model
        self.base_url = base_url.rstrip("/")
        self.root = self.base_url.removesuffix("/v1")
        self._wait, self._concurrency, self._timeout_s = wait, concurrency, timeout_s
        key = os.environ.get(api_key_env, "").strip() if api_key_env else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # This machine's server is not behind a proxy, and without TLS there are no certificates to load.
        plain = self.base_url.startswith("http://")
        self._http = httpx.Client(timeout=timeout_s, headers=headers, trust_env=not plain, verify=not plain)
        self._lock = threading.Lock()
        self._unreachable = 0
        self._dialect: Dialect | None = None
        self._spans: Spans | None = None
        self._max_length: int | None = None
        self._version = ""
        self._ids_of: dict[str, Ids] = {}

    @property
    def id(self) -> str:
        return f"{self.name_of_engine}/{self.model}@{self._served()}{self._version}"

    @property
    def spans(self) -> Spans:
        if self._spans is None:
            self._spans = Spans(self.prompt, self._template(), self._tokenise)
        return self._spans

    @property
    def max_length(self) -> int | None:
        _ = self.spans
        return self._max_length

    @property
    def half_precision(self) -> bool:
        return True  # a server doesn't say

    def close(self) -> None:
        self._http.close()

    def _served(self) -> str:
        return self.root.partition("://")[2]

    def probe(self) -> None:
        self._version = self._ask_version()
        super().probe()

    def logprobs(self, ids: Ids, start: int) -> list[float]:
        if self._dialect is None:
            self._dialect = self._find_dialect(ids)
        return self._prompt_logprobs(ids, self._dialect)[start:]

    def column(
        self, context: str | None, asks: Sequence[Ask], known: Collection[int]
    ) -> Iterator[list[tuple[int, Scored]]]:
        head = self.spans.head(context)
        good, failed = self.readable(asks)
        yield list(failed.items())
        todo = [i for i in good if i not in known]

        def one(i: int) -> tuple[int, Scored]:
            tail, text = good[i]
            try:
                before = head + tail
                self.fits(len(before), len(text) + 2)  # one more is generated
                return i, self.summed(asks[i].text, self.logprobs(before + text, len(before)))
            except ScorerError as error:
                return i, Scored.failed(asks[i].text, str(error))

        with ThreadPoolExecutor(self._concurrency) as pool:
            for at in range(0, len(todo), 4 * self._concurrency):
                for cell in pool.map(one, todo[at : at + 4 * self._concurrency]):
                    yield [cell]

    # -- requests -----------------------------------------------------------------------------

    def _find_dialect(self, ids: Ids) -> Dialect:
        """The first dialect in which the server gives one value a prompt token."""
        reasons = []
        dialects: tuple[Dialect, ...] = ("prompt_logprobs", "echo")
        for dialect in dialects:
            try:
                self._prompt_logprobs(ids, dialect)
            except ScorerUnsupported:
                raise
            except ScorerError as error:
                reasons.append(f"{dialect}: {error}")
            else:
                return dialect
        raise ScorerUnsupported(
            f"the server at {self._served()} gives no log-probabilities of a prompt ({'; '.join(reasons)}); "
            "take hf/FOLDER, a vLLM server, or offline/codelength"
        )

    def _prompt_logprobs(self, ids: Ids, dialect: Dialect) -> list[float]:
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": list(ids),
            "max_tokens": 1,
            "temperature": 0,
        }
        body |= {"prompt_logprobs": 0} if dialect == "prompt_logprobs" else {"echo": True, "logprobs": 0}
        reply = self._post(f"{self.base_url}/completions", body)
        usage = reply.get("usage")
        read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if isinstance(read, int) and read != len(ids):
            raise ScorerError(f"the server read {read} of {len(ids)} prompt tokens")
        choices = reply.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            raise ScorerError("the reply has no choices")
        read_values = _by_id if dialect == "prompt_logprobs" else _echoed
        values = read_values(choice, ids)
        with self._lock:
            self.prefilled += len(ids)
        return values

    def _post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._http.post(url, json=body)
            except httpx.ConnectError as error:
                self._nobody(error, last=attempt == ATTEMPTS)
                reason = f"nobody answers at {self._served()}"
            except httpx.HTTPError as error:
                reason = f"{self._served()} did not answer ({type(error).__name__})"
            else:
                with self._lock:
                    self._unreachable = 0
                if answer.status_code in (401, 403):
                    raise ScorerUnsupported(
                        f"{self._served()} refused the key ({answer.status_code}); set the variable that holds it"
                    )
                if answer.status_code == 200:
                    return _object(answer)
                reason = f"{self._served()} said {answer.status_code}: {_said(answer)}"
                if answer.status_code < 500 and answer.status_code != 429:
                    raise ScorerError(reason)
            if attempt < ATTEMPTS:
                self._wait(FIRST_WAIT_S * 2 ** (attempt - 1))
        raise ScorerError(reason)

    def _nobody(self, error: Exception, *, last: bool) -> None:
        if not last:
            return
        with self._lock:
            self._unreachable += 1
            gone = self._unreachable >= UNREACHABLE_IN_A_ROW
        if gone or not self._checked:
            raise ConfigError(
                f"nobody answers at {self._served()} ({error}); start the server there and repeat: what was "
                "scored is kept"
            )

    def _ask_version(self) -> str:
        try:
            answer = self._http.get(f"{self.root}/version")
            version = _object(answer).get("version") if answer.status_code == 200 else None
        except (httpx.HTTPError, ScorerError):
            return ""
        return f",{version}" if isinstance(version, str) else ""

    # -- tokens -------------------------------------------------------------------------------

    def _tokenise(self, text: str) -> Ids:
        with self._lock:
            known = self._ids_of.get(text)
        if known is not None:
            return known
        ids: list[int] = []
        for part in _MARKER.split(text):
            found, names = self._remote_ids({"prompt": part})
            if unknown := sum(name in _UNKNOWN for name in names):
                raise ScorerError(
                    f"the scorer's tokenizer can't represent {unknown} of its {len(found)} tokens"
                )
            ids += found
        with self._lock:
            self._ids_of[text] = tuple(ids)
        return tuple(ids)

    def _remote_ids(self, what: dict[str, Any]) -> tuple[list[int], list[str]]:
        body = {
            "model": self.model,
            "add_special_tokens": False,
            "return_token_strs": True,
            "content": what.get("prompt"),
            **what,
        }
        reply = self._post(f"{self.root}/tokenize", body)
        ids, names = reply.get("tokens"), reply.get("token_strs") or []
        if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
            raise ScorerError("/tokenize gives no token ids")
        if isinstance(length := reply.get("max_model_len"), int):
            self._max_length = length
        return ids, [str(name) for name in names]

    def _template(self) -> Template:
        """The chat template's pieces, seen by rendering it once; a plain prompt for a model without one."""
        try:
            _ = self._remote_ids({"prompt": "a"})
        except ScorerError as error:
            raise ScorerUnsupported(
                f"the server at {self._served()} can't be scored with, because it gives no token ids ({error}); "
                "take hf/FOLDER, a vLLM server, or offline/codelength"
            ) from error
        try:
            whole, _ = self._remote_ids({"messages": [{"role": "user", "content": SENTINEL}]})
            reply = self._post(f"{self.root}/detokenize", {"model": self.model, "tokens": whole})
            rendered = str(reply.get("prompt"))
        except ScorerError:
            rendered = ""
        before, found, after = rendered.partition(SENTINEL)
        if found and SENTINEL not in after:
            pieces = [
                tuple(self._remote_ids({"prompt": text})[0]) if text else () for text in (before, after)
            ]
            name = f"chat:{sha256(f'{before}|{after}'.encode()).hexdigest()[:12]}"
            return Template(pieces[0], pieces[1], name)
        with_special = {"prompt": "a", "add_special_tokens": True}
        opening = self._remote_ids(with_special)[0]
        bare = self._remote_ids({"prompt": "a"})[0]
        begin = tuple(opening[: len(opening) - len(bare)]) if opening[-len(bare) :] == bare else ()
        return Template(begin, tuple(self._remote_ids({"prompt": PLAIN_AFTER})[0]), "plain")


def _by_id(choice: dict[str, Any], ids: Ids) -> list[float]:
    """vLLM's ``prompt_logprobs``; the first token has none and is given as NaN."""
    entries = choice.get("prompt_logprobs")
    if not isinstance(entries, list):
        raise ScorerError("the reply has no prompt_logprobs")
    if len(entries) != len(ids):
        raise ScorerError(f"{len(entries)} log-probabilities for {len(ids)} prompt tokens")
    values = [math.nan]
    for token, entry in zip(ids[1:], entries[1:], strict=True):
        found = entry.get(str(token)) if isinstance(entry, dict) else None
        values.append(_number(found.get("logprob") if isinstance(found, dict) else None))
    return values


def _echoed(choice: dict[str, Any], ids: Ids) -> list[float]:
    """``token_logprobs`` of an echoed prompt, with one more where a token was generated."""
    block = choice.get("logprobs")
    entries = block.get("token_logprobs") if isinstance(block, dict) else None
    if not isinstance(entries, list):
        raise ScorerError("the reply does not echo the prompt's log-probabilities")
    if len(entries) not in (len(ids), len(ids) + 1):
        raise ScorerError(f"{len(entries)} log-probabilities for {len(ids)} prompt tokens")
    return [math.nan, *(_number(entry) for entry in entries[1 : len(ids)])]


def _number(value: Any) -> float:
    """A log-probability; what is none is a failure, never 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ScorerError("a prompt token has no log-probability")
    if value <= PLACEHOLDER:
        raise ScorerError(f"a prompt token has the placeholder {value:g} for a log-probability")
    return float(value)


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        reply = answer.json()
    except ValueError:
        raise ScorerError("the reply is not JSON") from None
    if not isinstance(reply, dict):
        raise ScorerError("the reply is not a JSON object")
    return reply


def _said(answer: httpx.Response) -> str:
    return " ".join(answer.text.split())[:200]
