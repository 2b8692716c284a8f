"""OpenAI: any server that speaks OpenAI's chat protocol, through the openai SDK.

One ``chat`` is one request: the SDK's own retries are off. Everything that can go wrong is
turned into a :class:`BackendError` in one place, :meth:`OpenAI._failure`:

    nobody listens                        unreachable   again
    connection cut                        cut           again
    no answer in time                     timeout       again
    429                                   rate_limit    again, after Retry-After
    5xx, 408, 409                         server        again
    200 without a usable reply            broken_reply  again
    400, 422 and other 4xx                refused       not again
    prompt too long                       too_long      not again
    401, 403, 402, quota used up          refused       fatal: every later request ends so too
    404                                   refused       fatal

What the *model* says is data, however odd: nothing, a refusal, a tool call nobody offered, half
a surrogate pair. The reply's bytes are parsed here and not by the SDK, which guesses where a
server's answer is not what it should be.

Deliberately absent: streaming, tools, several choices.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
import openai
from anyio.lowlevel import current_token

from agentcomm.backends.base import DEFAULT_CONCURRENCY, BackendOptions, ChatRequest, TokenCounter
from agentcomm.errors import BackendError, ConfigError
from agentcomm.message import Reply, Usage

OPENAI_URL = "https://api.openai.com/v1"
SIDE_REQUEST_S = 10.0
"""Longest wait for what is only nice to know: the list of models, whether a server counts tokens."""
COUNTS_KEPT = 4096
COUNT_FAILURES = 3
"""So many failed counts in a row, and the server is not asked again."""

_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|maximum model length|max_model_len|prompt is too long|too many tokens",
    re.IGNORECASE,
)
_SECRET = re.compile(r"\bsk-[\w*.-]{4,}|(?<=Bearer )\S+", re.IGNORECASE)
_SALT = secrets.token_bytes(16)


class OpenAI:
    """A model on an OpenAI-compatible server.

    Parameters
    ----------
    model:
        The model's name as the server knows it.
    base_url:
        Ends in ``/v1`` as a rule. Default: ``OPENAI_BASE_URL``, else OpenAI itself.
    api_key_env:
        Name of the environment variable with the key; ``None`` sends none. A server on this
        machine needs none, nor does any if ``key_needed`` is false.
    name:
        The model string; default ``openai/MODEL``.
    shown_as:
        What messages call the server; default: its URL.
    extra_body:
        Fields of the server's own that go with every request.

    Raises
    ------
    ConfigError
        If the URL is none or the key is missing.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        key_needed: bool = True,
        timeout_s: float = 120.0,
        max_concurrency: int | None = None,
        name: str | None = None,
        shown_as: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).rstrip("/")
        self.api_key_env = api_key_env
        self.timeout_s = timeout_s
        self._name = name or f"openai/{model}"
        self._extra_body = dict(extra_body or {})
        self._max_concurrency = max_concurrency or DEFAULT_CONCURRENCY
        self._host = _host(self.base_url)
        self._loopback = _is_loopback(self._host)
        self._is_openai = self._host.endswith((".openai.com", ".openai.azure.com"))
        self.shown_url = shown_as or _shown(self.base_url)
        """The URL without anything secret: what messages say."""
        self._key_needed = key_needed and not self._loopback
        self._key = self._read_key()
        self._client: openai.AsyncOpenAI | None = None
        self._loop: object = None
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._can_count: bool | None = None
        self._count_failures = 0
        self._tiktoken: TokenCounter | None = None

    @classmethod
    def from_options(cls, model: str, options: BackendOptions) -> OpenAI:
        return cls(
            model,
            base_url=options.base_url,
            api_key_env=options.api_key_env,
            timeout_s=options.timeout_s,
            max_concurrency=options.max_concurrency,
        )

    @property
    def name(self) -> str:
        return self._name

    @property
    def endpoint(self) -> str:
        key = hashlib.sha256(_SALT + (self._key or "").encode()).hexdigest()[:8]
        return f"{_shown(self.base_url)}#{key}"

    @property
    def max_concurrency(self) -> int:
        return self._max_concurrency

    async def chat(self, request: ChatRequest) -> Reply:
        began = time.perf_counter()
        failure: BackendError
        try:
            with anyio.fail_after(self.timeout_s):
                answer = await self._open().chat.completions.with_raw_response.create(**self._body(request))
                return self._reply(answer.content, time.perf_counter() - began)
        except openai.NotFoundError as error:
            failure = await self._not_found(error)
        except (openai.OpenAIError, TimeoutError) as error:
            failure = self._failure(error)
        # Raised out here, so that no traceback shows the SDK's own error: servers put keys into it.
        raise failure

    async def check(self) -> None:
        """Ask whether the server is there and has the model. Costs nothing.

        A server that doesn't list models, or is too busy to, is given the benefit of the doubt.

        Raises
        ------
        ConfigError
            If nobody listens, the key is refused or the model isn't offered.
        """
        try:
            listing = await self._get_models()
        except (openai.OpenAIError, TimeoutError) as error:
            failure = self._failure(error)
        else:
            if missing := self._missing(listing):
                raise ConfigError(missing)
            return
        if failure.kind == "unreachable" or failure.status in (401, 403):
            raise ConfigError(str(failure))

    async def listed(self) -> list[Mapping[str, Any]]:
        """What the server says about each model it offers; nothing if it can't be asked."""
        try:
            listing = await self._get_models()
        except (openai.OpenAIError, TimeoutError):
            return []
        data = listing.get("data") if isinstance(listing, Mapping) else None
        return [e for e in data if isinstance(e, Mapping)] if isinstance(data, list) else []

    async def count_tokens(self, text: str) -> int | None:
        """Tokens of ``text`` by the server's ``/tokenize`` (llama.cpp, vLLM, SGLang) or tiktoken (OpenAI).

        Whether the server can is found out once; a failure is ``None`` and disturbs nothing.
        """
        if not text:
            return 0
        if text in self._counts:
            self._counts.move_to_end(text)
            return self._counts[text]
        tokens = await (self._count_locally(text) if self._is_openai else self._count_remotely(text))
        if tokens is not None:
            self._counts[text] = tokens
            if len(self._counts) > COUNTS_KEPT:
                self._counts.popitem(last=False)
        return tokens

    async def aclose(self) -> None:
        """Close the connections. A later request opens new ones."""
        client, self._client = self._client, None
        if client is not None and self._loop == current_token():
            await client.close()

    # -- the request ------------------------------------------------------------------------

    def _read_key(self) -> str | None:
        key = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if key:
            if not (key.isascii() and key.isprintable()):
                raise ConfigError(f"the key in {self.api_key_env} has characters no key has; set it anew")
            return key
        if not self._key_needed or self.api_key_env is None:
            return None
        raise ConfigError(
            f"no key for {self.shown_url}: set the environment variable {self.api_key_env}, "
            "or name the one that holds the key with --api-key-env"
        )

    def _open(self) -> openai.AsyncOpenAI:
        loop = current_token()
        if self._client is None or self._loop != loop:
            # A proxy from the environment is no way to reach this machine. Without TLS there are
            # no certificates to load either, which takes longer than a request.
            plain = openai.DefaultAsyncHttpxClient(trust_env=False, verify=False) if self._is_plain else None
            self._client = openai.AsyncOpenAI(
                api_key=self._key or "none",
                base_url=self.base_url,
                timeout=self.timeout_s,
                max_retries=0,
                http_client=plain,
            )
            self._loop = loop
        return self._client

    @property
    def _is_plain(self) -> bool:
        return self._loopback and self.base_url.startswith("http://")

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": m.role, "content": _sound(m.content)} for m in request.messages],
            "temperature": request.temperature,
        }
        if request.top_p is not None:
            body["top_p"] = request.top_p
        if request.max_tokens is not None:
            # OpenAI's newer models refuse max_tokens; other servers know nothing else.
            body["max_completion_tokens" if self._is_openai else "max_tokens"] = request.max_tokens
        if request.stop:
            body["stop"] = list(request.stop)
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None:
            body["response_format"] = _response_format(request.schema)
        if self._extra_body:
            body["extra_body"] = self._extra_body
        return body

    # -- the reply --------------------------------------------------------------------------

    def _reply(self, data: bytes, latency_s: float) -> Reply:
        try:
            reply = json.loads(data.decode("utf-8"))
        except UnicodeDecodeError:
            raise self._broken("is not UTF-8") from None
        except (ValueError, RecursionError):
            raise self._broken(f"is not JSON: {self._excerpt(data)}") from None
        if not isinstance(reply, dict):
            raise self._broken(f"is not a JSON object: {self._excerpt(data)}")
        choices = reply.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            usage = read_usage(reply.get("usage"))
            raise self._broken(f"has no choices: {self._excerpt(data)}", usage)
        finish, text = choice.get("finish_reason"), _text(message.get("content"))
        if not text and isinstance(message.get("refusal"), str):
            text, finish = message["refusal"], "refusal"
        model = reply.get("model")
        return Reply(
            text=_sound(text),
            usage=read_usage(reply.get("usage")),
            finish_reason=finish if isinstance(finish, str) else None,
            model=model if isinstance(model, str) else None,
            latency_s=latency_s,
            raw=reply,
        )

    def _broken(self, what: str, usage: Usage | None = None) -> BackendError:
        return BackendError(
            self._clean(f"the reply of {self.shown_url} {what}"),
            kind="broken_reply",
            retryable=True,
            status=200,
            usage=usage,
        )

    # -- what goes wrong --------------------------------------------------------------------

    def _failure(self, error: Exception) -> BackendError:
        """The one place where the SDK's errors become ours."""
        if isinstance(error, openai.APIStatusError):
            return self._refusal(error)
        if isinstance(error, BackendError):
            return error
        causes = _causes(error)
        if causes & {"ConnectError", "ConnectTimeout", "ConnectionRefusedError"}:
            return BackendError(
                f"nobody answers at {self.shown_url} ({_reason(error)}); start the server there, "
                "or say where it is with --base-url",
                kind="unreachable",
                retryable=True,
            )
        if isinstance(error, openai.APITimeoutError | TimeoutError):
            message = f"{self.shown_url} did not answer within {self.timeout_s:g} s"
            return BackendError(message, kind="timeout", retryable=True)
        if "DecodingError" in causes:
            return self._broken("can't be decompressed")
        if isinstance(error, openai.APIConnectionError):
            message = f"{self.shown_url} cut the connection ({_reason(error)})"
            return BackendError(self._clean(message), kind="cut", retryable=True)
        return self._broken(f"is not what it should be ({type(error).__name__})")

    def _refusal(self, error: openai.APIStatusError) -> BackendError:
        status, said = error.status_code, self._clean(_said(error))
        codes = {str(error.code), str(error.type)}
        where = self.shown_url

        def refused(message: str, kind: str = "refused", *, fatal: bool = False) -> BackendError:
            return BackendError(message, kind=kind, status=status, fatal=fatal)

        if status in (401, 403):
            held = self.api_key_env if self._key else f"{self.api_key_env}, which is not set"
            return refused(
                f"{where} refused the key in {held} ({status}, {said}); set the right key, "
                "or name the variable that holds it with --api-key-env",
                fatal=True,
            )
        if status == 402 or codes & {"insufficient_quota", "billing_hard_limit_reached"}:
            return refused(f"{where} wants payment first: {said} ({status}); add credit there", fatal=True)
        if status == 413 or (
            status in (400, 422)
            and (codes & {"context_length_exceeded", "exceed_context_size_error"} or _TOO_LONG.search(said))
        ):
            return refused(f"the prompt is too long for {self.model}: {said} ({status})", "too_long")
        if status == 429 or status >= 500 or status in (408, 409):
            return BackendError(
                f"{where} answered {status}: {said}",
                kind="rate_limit" if status == 429 else "server",
                retryable=True,
                retry_after=read_retry_after(error.response.headers),
                status=status,
            )
        # A parameter that this model doesn't take: every request has it.
        always = bool(codes & {"unsupported_value", "unsupported_parameter"})
        return refused(f"{where} refused the request: {said} ({status})", fatal=always)

    async def _not_found(self, error: openai.NotFoundError) -> BackendError:
        try:
            missing = self._missing(await self._get_models())
        except (openai.OpenAIError, TimeoutError):
            missing = None
        message = missing or (
            f"{self.shown_url} has no model {self.model!r} or no chat at that address: "
            f"{self._clean(_said(error))} (404); check the model's name and --base-url (it ends in /v1 as a rule)"
        )
        return BackendError(message, kind="refused", status=404, fatal=True)

    async def _get_models(self) -> object:
        with anyio.fail_after(min(SIDE_REQUEST_S, self.timeout_s)):
            return await self._open().get("/models", cast_to=object)

    def _missing(self, listing: object) -> str | None:
        """What to tell the user if a list of models lacks ours; ``None`` if it has it or can't tell."""
        data = listing.get("data") if isinstance(listing, Mapping) else None
        if not isinstance(listing, Mapping) or not isinstance(data, list) or listing.get("has_more"):
            return None
        entries = [e for e in data if isinstance(e, Mapping) and isinstance(e.get("id"), str)]
        if any(e.get("owned_by") == "llamacpp" for e in entries):
            return None  # it serves its one model under any name
        offered = sorted({cast(str, e["id"]) for e in entries})
        # "name:tag" is a variant that lists may not spell out (Ollama's :latest, OpenRouter's :free).
        bases = {o.partition(":")[0] for o in offered} | set(offered)
        if (
            not offered
            or any("*" in o for o in offered)
            or {self.model, self.model.partition(":")[0]} & bases
        ):
            return None
        near = get_close_matches(self.model, offered, n=10, cutoff=0.3)
        first = [*near, *(o for o in offered if o not in near)][:10]
        more = f" and {len(offered) - len(first)} more" if len(offered) > len(first) else ""
        return f"{self.shown_url} has no model {self.model!r}; it offers: {', '.join(first)}{more}"

    def _clean(self, text: str, length: int = 300) -> str:
        """``text`` without the key and without what looks like one, on one line, and then cut."""
        text = text[:10_000]
        if self._key and len(self._key) >= 4:
            text = text.replace(self._key, "[key]")
        text = _SECRET.sub("[key]", " ".join(_sound(text).split()))
        return text if len(text) <= length else text[:length] + "..."

    def _excerpt(self, data: bytes) -> str:
        text = self._clean(data[:10_000].decode("utf-8", "replace"), 120)
        return repr(text) if text else "it is empty"

    # -- counting tokens --------------------------------------------------------------------

    async def _count_remotely(self, text: str) -> int | None:
        if self._can_count is False:
            return None
        root = self.base_url.removesuffix("/v1")
        # One body for all: llama.cpp reads "content", vLLM and SGLang "prompt".
        body = {
            "model": self.model,
            "content": _sound(text),
            "prompt": _sound(text),
            "add_special": False,
            "add_special_tokens": False,
        }
        # A server that has counted before and is slow is busy: a count is waited for as a reply would be.
        wait = self.timeout_s if self._can_count else min(SIDE_REQUEST_S, self.timeout_s)
        try:
            with anyio.fail_after(wait):
                answer = await self._open().post(f"{root}/tokenize", cast_to=object, body=body)
        except openai.APIStatusError as error:
            if error.status_code < 500 and error.status_code not in (408, 409, 429):
                self._can_count = False
            self._no_count()
            return None
        except (openai.OpenAIError, TimeoutError):
            self._no_count()
            return None
        count = answer.get("count") if isinstance(answer, Mapping) else None
        tokens = answer.get("tokens") if isinstance(answer, Mapping) else None
        if count is None and isinstance(tokens, list) and tokens:
            count = len(tokens)
        if _bucket(count) is None:
            self._can_count = False
            return None
        self._can_count, self._count_failures = True, 0
        return cast(int, count)

    def _no_count(self) -> None:
        self._count_failures += 1
        if self._count_failures >= COUNT_FAILURES:
            self._can_count = False

    async def _count_locally(self, text: str) -> int | None:
        if self._can_count is None:
            from agentcomm.ledger.tokens import TiktokenCounter

            self._tiktoken = TiktokenCounter.for_model(self.model)
            self._can_count = self._tiktoken is not None
        return await self._tiktoken.count_tokens(text) if self._tiktoken is not None else None


def read_usage(buckets: object) -> Usage:
    """Usage as the server reports it: inclusive with subsets, absent or absurd buckets ``None``.

    >>> read_usage({"prompt_tokens": 12, "prompt_tokens_details": {"cached_tokens": 8}})
    Usage(input_tokens=12, output_tokens=None, cached_tokens=8, reasoning_tokens=None)
    """
    if not isinstance(buckets, Mapping):
        return Usage()
    whole_in, whole_out = _bucket(buckets.get("prompt_tokens")), _bucket(buckets.get("completion_tokens"))
    return Usage(
        input_tokens=whole_in,
        output_tokens=whole_out,
        cached_tokens=_subset(buckets.get("prompt_tokens_details"), "cached_tokens", whole_in),
        reasoning_tokens=_subset(buckets.get("completion_tokens_details"), "reasoning_tokens", whole_out),
    )


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date).

    >>> read_retry_after({"retry-after-ms": "1500"}), read_retry_after({"retry-after": "soon"})
    (1.5, None)
    """
    for header, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(header, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        then = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, then.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _bucket(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _subset(details: object, name: str, whole: int | None) -> int | None:
    part = _bucket(details.get(name)) if isinstance(details, Mapping) else None
    # A part larger than its whole is a mistake of the server's; better unknown than wrong.
    return None if part is not None and whole is not None and part > whole else part


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # some servers answer in parts
        return "".join(
            p["text"] for p in content if isinstance(p, Mapping) and isinstance(p.get("text"), str)
        )
    return ""


def _sound(text: str) -> str:
    """``text`` with halves of surrogate pairs replaced: they are valid JSON but not valid UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    title = re.sub(r"\W", "_", str(schema.get("title", "")))[:64] or "answer"
    named: dict[str, Any] = {"name": title, "schema": dict(schema)}
    if schema.get("additionalProperties") is False:
        named["strict"] = True  # OpenAI takes strict schemas only if they close their objects
    return {"type": "json_schema", "json_schema": named}


def _said(error: openai.APIStatusError) -> str:
    """The server's own words."""
    body: Any = error.body
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        body = body["error"]
    for key in ("message", "detail", "error"):
        if isinstance(body, Mapping) and body.get(key):
            body = body[key]
            break
    text = body if isinstance(body, str) else json.dumps(body, default=str) if body else ""
    return re.sub(r"<[^>]*>", " ", text).strip() or "no reason given"


def _causes(error: BaseException) -> set[str]:
    names: set[str] = set()
    cause: BaseException | None = error
    while cause is not None and len(names) < 10:
        names.add(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    return names


def _reason(error: BaseException) -> str:
    """The innermost cause that says something."""
    said, cause, depth = "", error.__cause__, 0
    while cause is not None and depth < 10:
        said, cause, depth = str(cause) or said, cause.__cause__ or cause.__context__, depth + 1
    return said or "no reason given"


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise ConfigError(f"base URL {_shown(url)!r} is no address; write e.g. http://127.0.0.1:8000/v1")
    return host


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(url: str) -> str:
    """``url`` without user, password and query."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])
