"""A search service that answers with JSON, whatever it calls things, and one that does not."""

from __future__ import annotations

import pytest

from agentcomm.calls import Retry
from agentcomm.errors import BackendError, ConfigError
from agentcomm.research.search import Source
from agentcomm.research.web import WebSearch, read_results
from agentcomm.task import Item
from tests.research.services import Service

pytestmark = pytest.mark.anyio
ITEM = Item("q", "?")
RESULTS = {"results": [{"title": "Goats", "url": "http://a.b/c", "content": "They climb."}]}
FOUND = [Source("http://a.b/c", "Goats", "They climb.")]
FAST = Retry(attempts=3, scale=0.0)


async def test_a_query_goes_into_the_address_whole() -> None:
    with Service(RESULTS) as service:
        search = WebSearch(f"{service.url}/search?q={{query}}&n={{most}}&format=json", retry=FAST)
        assert await search.search("goats & sheep? 山羊", 7, ITEM) == FOUND
        (asked,) = service.asked
        assert asked.method == "GET"
        assert asked.path == "/search?q=goats%20%26%20sheep%3F%20%E5%B1%B1%E7%BE%8A&n=7&format=json"


async def test_without_a_place_for_it_the_query_is_posted_with_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEARCH_KEY", "secret-key-123")
    with Service(RESULTS) as service:
        assert await WebSearch(service.url, "SEARCH_KEY", retry=FAST).search("goats", 4, ITEM) == FOUND
        other = WebSearch(service.url, "SEARCH_KEY", header="X-Token", retry=FAST)
        await other.search("goats", 4, ITEM)
        bearer, plain = service.asked
        assert bearer.body == {"query": "goats", "max_results": 4}
        assert bearer.headers["Authorization"] == "Bearer secret-key-123"
        assert plain.headers["X-Token"] == "secret-key-123"
        assert "secret" not in other.spec()


async def test_a_busy_service_is_asked_again_and_a_refusal_is_not() -> None:
    with Service(RESULTS) as service:
        service.answers += [(429, {}, {"Retry-After": "0"}), (503, {}, {})]
        search = WebSearch(service.url, retry=FAST)
        assert await search.search("goats", 4, ITEM) == FOUND
        assert len(service.asked) == 3
        service.answers.append((401, {}, {}))
        with pytest.raises(BackendError, match="answered 401") as refused:
            await search.search("goats", 4, ITEM)
        assert refused.value.fatal
        assert len(service.asked) == 4
        service.answers += [(500, {}, {})] * 3
        with pytest.raises(BackendError, match="answered 500"):
            await search.search("goats", 4, ITEM)


@pytest.mark.parametrize("said", [b"<html>", {"error": "quota"}, b"\xff\xfe", "text"])
async def test_an_answer_without_results_is_an_error_and_not_an_empty_list(said: object) -> None:
    with Service(said) as service:
        with pytest.raises(BackendError) as error:
            await WebSearch(service.url, retry=FAST).search("goats", 4, ITEM)
        assert error.value.kind == "broken_reply"


async def test_nobody_there_is_said_so() -> None:
    with Service() as service:
        url = service.url
    with pytest.raises(BackendError, match="can't be reached") as error:
        await WebSearch(url, retry=FAST).search("goats", 4, ITEM)
    assert error.value.kind == "unreachable"


def test_results_are_found_under_the_names_that_services_use() -> None:
    entry = {"name": "N", "link": "http://x", "snippet": "S", "content": ""}
    for data in ({"web": {"results": [entry]}}, {"organic": [entry]}, [entry], {"data": [entry]}):
        assert read_results(data, 5) == [Source("http://x", "N", "S")]
    assert read_results({"results": []}, 5) == []
    several = [
        {"url": "u", "text": "1"},
        {"url": "u", "text": "2"},
        {"url": "v"},
        "x",
        {"url": "w", "text": "3"},
    ]
    assert [s.text for s in read_results(several, 5)] == ["1", "3"]
    assert len(read_results(several, 1)) == 1


def test_a_wrong_address_or_a_missing_key_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEARCH_KEY", raising=False)
    for url in ("google", "ftp://a", "http://"):
        with pytest.raises(ConfigError, match="write its address"):
            WebSearch(url)
    with pytest.raises(ConfigError, match="set the variable SEARCH_KEY"):
        WebSearch("http://a", "SEARCH_KEY")
