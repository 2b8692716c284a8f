"""WebSearch: sources from any search service that answers a request with JSON.

Services differ in names, hardly in shape: a list of results, each with a title, an address and a text.
With ``{query}`` in the address it is a GET (SearXNG: ``http://HOST/search?q={query}&format=json``),
without it a POST of ``{"query": ..., "max_results": ...}`` (Tavily and those like it). Pages themselves
are not fetched: what a service returns as text is the source, so ask it for the whole content.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import anyio
import httpx
import tenacity

from agentcomm.calls import Retry
from agentcomm.errors import BackendError, ConfigError
from agentcomm.research.search import Source, short_hash
from agentcomm.task import Item

LISTS = ("results", "web.results", "items", "organic", "organic_results", "data", "webPages.value")
TEXTS = ("raw_content", "content", "text", "markdown", "snippet", "description", "body")
ADDRESSES = ("url", "link", "href", "id")
TITLES = ("title", "name", "heading")


@dataclass(frozen=True)
class WebSearch:
    """A search service on the web.

    Parameters
    ----------
    url:
        Its address, with ``{query}`` (and ``{most}``) where they go; without, the query is posted.
    key_env:
        The environment variable that holds its key, or ``None``. The key is never stored.
    header:
        Where the key goes: as ``Authorization: Bearer KEY``, or as it is in a header of this name.
    timeout_s, retry:
        Seconds for one attempt, and how often a failed one is repeated.
    """

    url: str
    key_env: str | None = None
    header: str = "Authorization"
    timeout_s: float = 30.0
    retry: Retry = Retry(attempts=3)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(
                f"search service {self.url!r}: write its address, e.g. http://127.0.0.1:8080/search?q={{query}}"
                "&format=json"
            )
        if self.key_env is not None and not os.environ.get(self.key_env):
            raise ConfigError(f"the search service's key is missing: set the variable {self.key_env}")

    def spec(self) -> str:
        # An address may hold a key: it is told apart, not shown.
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{parts.path} ({short_hash(self.url)})"

    async def search(self, query: str, most: int, item: Item) -> Sequence[Source]:
        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.retry.attempts),
            retry=tenacity.retry_if_exception(self.retry.again),
            wait=lambda state: self.retry.wait(
                state.attempt_number, state.outcome.exception() if state.outcome else None
            ),
            sleep=anyio.sleep,
            reraise=True,
        )

        async def attempt() -> Any:
            return await self._ask(query, most)

        return read_results(await attempts(attempt), most)

    async def _ask(self, query: str, most: int) -> Any:
        headers = {"Accept": "application/json"}
        if self.key_env is not None:
            key = os.environ.get(self.key_env, "")
            headers[self.header] = f"Bearer {key}" if self.header.casefold() == "authorization" else key
        where = self.spec()
        try:
            async with httpx.AsyncClient(timeout=self.timeout_s, follow_redirects=True) as client:
                if "{query}" in self.url:
                    asked = quote(query.encode("utf-8", "replace"), safe="")
                    url = self.url.replace("{query}", asked).replace("{most}", str(most))
                    response = await client.get(url, headers=headers)
                else:
                    body = {"query": query, "max_results": most}
                    response = await client.post(self.url, json=body, headers=headers)
        except httpx.TimeoutException as error:
            raise BackendError(f"{where} did not answer in time", kind="timeout", retryable=True) from error
        except httpx.HTTPError as error:
            raise BackendError(
                f"{where} can't be reached: {type(error).__name__}", kind="unreachable", retryable=True
            ) from error
        if response.status_code != 200:
            code = response.status_code
            again = code == 429 or code >= 500
            raise BackendError(
                f"{where} answered {code}",
                kind="rate_limit" if code == 429 else "server" if again else "refused",
                retryable=again,
                retry_after=_seconds(response.headers.get("Retry-After")),
                status=code,
                fatal=code in (401, 403),
            )
        try:
            return response.json()
        except ValueError as error:
            raise BackendError(f"{where} answered with no JSON", kind="broken_reply") from error


def read_results(data: Any, most: int) -> list[Source]:
    """The sources in a service's answer, in its order; results without a text or an address are left out.

    >>> read_results({"results": [{"title": "Goats", "url": "http://a.b", "content": "They climb."}]}, 5)
    [Source(name='http://a.b', title='Goats', text='They climb.')]

    Raises
    ------
    BackendError
        If there is no list of results in it.
    """
    found_lists = [data] if isinstance(data, list) else [_at(data, path) for path in LISTS]
    listed = next((value for value in found_lists if isinstance(value, list)), None)
    if listed is None:
        raise BackendError(
            f"the search service's answer has no list of results under any of: {', '.join(LISTS)}",
            kind="broken_reply",
        )
    found: dict[str, Source] = {}
    for entry in listed:
        if not isinstance(entry, Mapping):
            continue
        name, text = _first(entry, ADDRESSES), _first(entry, TEXTS)
        if name and text:
            found.setdefault(name, Source(name, _first(entry, TITLES) or name, text))
    return list(found.values())[:most]


def _at(data: Any, path: str) -> Any:
    for key in path.split("."):
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _first(entry: Mapping[str, Any], names: Sequence[str]) -> str:
    values = (entry.get(name) for name in names)
    return next((v.strip() for v in values if isinstance(v, str) and v.strip()), "")


def _seconds(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
