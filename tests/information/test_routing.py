"""Routing: an informative score is used, a useless one disabled, and what fails goes in full."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcomm.errors import ChannelError, ConfigError, UserError
from agentcomm.information.routing import Router, RoutingData, halves, learn_router, send

pytestmark = pytest.mark.anyio
IDS = {"scorer": "hf/a", "compressor": "local/b + openai/c", "predictor": "openai/d", "data": "squad"}
N = 900


def planted(
    *, useful: bool = True, lengths_tell: bool = False, full_right: float = 0.9, seed: int = 0
) -> RoutingData:
    """Items whose summary holds the answer (or not): then all routes are right equally often.

    The information says so with noise if ``useful``; three items a document.
    """
    rng = np.random.default_rng(seed)
    holds = rng.random((N, 2)) < (0.5, 0.75)
    holds[:, 1] |= holds[:, 0]
    right = rng.random(N) < full_right
    scores = np.stack([holds[:, 0] & right, holds[:, 1] & right, right], axis=1).astype(float)
    information = rng.normal(size=(N, 2)) + (5 * holds if useful else 0)
    lengths = 100 + rng.random(N) + (100 * ~holds[:, 0] + 100 * ~holds[:, 1] if lengths_tell else 0)
    alone = np.tile([110.0, 160.0, 1000.0], (N, 1))
    costs = np.tile([120.0, 290.0, 1290.0], (N, 1))
    return RoutingData.of(
        scores, costs, information, lengths, [f"text {i // 3}" for i in range(N)], alone=alone
    )


def test_a_planted_informative_score_is_enabled_and_beats_random_and_length_only_routing() -> None:
    learned = learn_router(planted(), identifiers=IDS, resamples=300)
    assert learned.router.enabled, learned
    by_name = {p.name: p for p in learned.policies}
    router, full = by_name["router"], by_name["never compress"]
    assert router.cost < 0.8 * full.cost
    assert router.difference.difference is not None
    assert router.difference.difference > -0.02
    assert all(lower > 0.05 for lower in learned.beats.values())
    random, length = by_name["random, equal rates"], by_name["length only, equal rates"]
    assert random.rates == pytest.approx(router.rates)
    assert length.rates == pytest.approx(router.rates)
    assert by_name["always local"].score.mean < random.score.mean < router.score.mean  # type: ignore[operator]
    assert learned.calibration_items + learned.test_items == N
    assert abs(learned.calibration_items - N / 2) < 10


def test_a_useless_score_is_disabled_and_sends_everything_in_full() -> None:
    learned = learn_router(planted(useful=False), identifiers=IDS, resamples=300)
    assert not learned.router.enabled
    assert learned.router.why
    assert learned.router.after_local(1e9)[0] == "full"
    assert "disabled" in learned.router.after_local(1e9)[1]


def test_a_score_that_length_does_as_well_as_is_disabled() -> None:
    # Both lengths and information tell which items are easy: information adds nothing.
    learned = learn_router(planted(lengths_tell=True), identifiers=IDS, resamples=300)
    assert learned.beats["random"] > 0
    assert learned.beats["length only"] <= 0
    assert not learned.router.enabled
    assert "length only" in learned.router.why


def test_thresholds_come_from_one_half_of_the_documents_and_results_from_the_other() -> None:
    data = planted()
    first = halves(data.documents, seed=0)
    groups: dict[Any, set[bool]] = {}
    for name, taken in zip(data.documents, first.tolist(), strict=True):
        groups.setdefault(name, set()).add(taken)
    assert all(len(sides) == 1 for sides in groups.values()), "a document lies in one half"
    spoiled = data.scores.copy()
    spoiled[~first] = 0  # another test half
    other = RoutingData.of(
        spoiled, data.costs, data.information, data.lengths, data.documents, alone=data.alone
    )
    a = learn_router(data, identifiers=IDS, resamples=200)
    b = learn_router(other, identifiers=IDS, resamples=200)
    assert (a.router.local, a.router.large) == (b.router.local, b.router.large)
    assert a.policies != b.policies
    again = learn_router(data, identifiers=IDS, resamples=200)
    assert again == a


def test_a_router_that_would_cost_as_much_as_the_full_context_sends_it_always() -> None:
    data = planted()
    dear = RoutingData.of(
        data.scores, data.costs + 5000, data.information, data.lengths, data.documents, alone=data.alone
    )
    learned = learn_router(dear, identifiers=IDS, resamples=200)
    assert math.isinf(learned.router.local)
    assert "less cost" in learned.router.why


def test_what_thresholds_never_try_is_not_paid() -> None:
    data = RoutingData.of(
        [[1, 1, 1]] * 2,
        [[10, 30, 100]] * 2,
        [[5, 5], [0, 5]],
        [7, 7],
        alone=[[8, 18, 70]] * 2,
        straight=[80, 80],
    )
    assert send(data, data, 1.0, 1.0).costs.tolist() == [10, 30]
    assert send(data, data, 1.0, 9.0).costs.tolist() == [10, 100]
    assert send(data, data, 1.0, math.inf).costs.tolist() == [10, 80]
    assert send(data, data, math.inf, math.inf).costs.tolist() == [70, 70]


def test_items_whose_score_failed_are_sent_in_full() -> None:
    data = planted()
    information = data.information.copy()
    information[::2] = np.nan
    holed = RoutingData.of(
        data.scores, data.costs, information, data.lengths, data.documents, alone=data.alone
    )
    learned = learn_router(holed, identifiers=IDS, resamples=200)
    assert learned.policies[0].rates[2] >= 0.45


def test_it_is_kept_with_what_it_was_learned_for_and_disabled_for_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    router = Router(1.5, math.inf, True, IDS)
    router.save(path)
    assert Router.load(path, IDS) == router
    other = Router.load(path, {**IDS, "scorer": "hf/z"})
    assert not other.enabled
    assert "scorer was 'hf/a', is 'hf/z'" in other.why
    assert other.after_local(9.0)[0] == "full"
    fewer = Router.load(path, {"scorer": "hf/a"})
    assert not fewer.enabled
    path.write_text("{}")
    with pytest.raises(ConfigError, match="holds no router"):
        Router.load(path, IDS)


async def test_at_run_time_each_step_is_tried_only_when_its_turn_comes() -> None:
    asked: list[str] = []

    def attempt(name: str, information: float | Exception | None) -> Any:
        async def go() -> tuple[str, float | None]:
            asked.append(name)
            if isinstance(information, Exception):
                raise information
            return f"{name} text", information

        return go

    router = Router(1.0, 2.0, True, IDS)
    sent = await router.send(attempt("local", 1.0), attempt("large", 9.0))
    assert (sent.route, sent.text, asked) == ("local", "local text", ["local"])
    asked.clear()
    sent = await router.send(attempt("local", 0.5), attempt("large", 2.5))
    assert (sent.route, sent.text, asked) == ("large", "large text", ["local", "large"])
    sent = await router.send(attempt("local", 0.5), attempt("large", 1.9))
    assert (sent.route, sent.text) == ("full", None)
    for failing in (None, math.nan, ChannelError("the scorer is gone")):
        asked.clear()
        sent = await router.send(attempt("local", failing), attempt("large", 9.0))
        assert (sent.route, sent.text, asked) == ("full", None, ["local"])
        assert "could not be scored" in sent.reason
    assert "the scorer is gone" in sent.reason
    asked.clear()
    off = await Router(1.0, 2.0, False, IDS, why="useless").send(attempt("local", 9), attempt("large", 9))
    assert (off.route, asked) == ("full", [])
    assert "useless" in off.reason
    cautious = await Router(1.0, math.inf, True, IDS).send(attempt("local", 0.0), attempt("large", 9.0))
    assert cautious.route == "full"


def test_the_report_is_json_and_lies_on_the_score_cost_plane() -> None:
    learned = learn_router(planted(), identifiers=IDS, resamples=100)
    facts = json.loads(json.dumps(learned.facts(), allow_nan=False))
    assert [p["name"] for p in facts["policies"]][-1] == "never compress"
    assert facts["identifiers"] == IDS
    svg = learned.picture()
    for name in ("router", "random, equal rates", "always local", "never compress"):
        assert name in svg
    assert "never compress: score" in str(learned)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"scores": np.full((4, 3), 2.0)}, "between 0 and 1"),
        ({"scores": np.full((4, 3), np.nan)}, "not finite"),
        ({"costs": np.zeros((4, 2))}, "shape"),
        ({"information": np.zeros((4, 3))}, "shape"),
        ({"documents": ["a"]}, "as many documents"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any], complaint: str) -> None:
    fine: dict[str, Any] = {
        "scores": np.zeros((4, 3)),
        "costs": np.zeros((4, 3)),
        "information": np.zeros((4, 2)),
        "lengths": np.zeros(4),
    }
    with pytest.raises(UserError, match=complaint):
        RoutingData.of(**{**fine, **change})


def test_it_needs_two_documents_and_all_its_identifiers() -> None:
    data = RoutingData.of(np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((4, 2)), np.zeros(4), ["a"] * 4)
    with pytest.raises(UserError, match="two documents"):
        learn_router(data, identifiers=IDS)
    with pytest.raises(UserError, match="scorer"):
        learn_router(data, identifiers={**IDS, "scorer": ""})
    with pytest.raises(UserError, match="pointwise"):
        learn_router(data, identifiers=IDS, kind="vibes")
