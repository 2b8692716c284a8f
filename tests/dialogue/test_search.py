"""Format search: finds a planted format within its budget, or keeps natural language."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from agentcomm.dialogue.formats import BANDIT, NATURAL, Format, pool
from agentcomm.dialogue.reward import Dialogue, RewardConfig, Utterance
from agentcomm.dialogue.search import FormatSearch, SearchPlan, break_even, net_saving
from agentcomm.errors import ConfigError, TaskError

CONFIG = RewardConfig(loss_weight=0.0, min_tokens=8)
pytestmark = pytest.mark.anyio


class Scripted:
    """Formats with fixed tokens and chances of success; what was asked is kept."""

    def __init__(self, arms: Mapping[str, tuple[int, float]], seed: int = 0, failing: str = "") -> None:
        self.arms, self.seed, self.failing = arms, seed, failing
        self.asked: list[tuple[str, tuple[int, ...], str]] = []

    async def play(self, format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
        self.asked.append((format.id, tuple(items), purpose))
        tokens, chance = self.arms.get(format.id, (78, 0.9))
        if format.id == self.failing:
            return [None] * len(items)
        place = sum(map(ord, format.id + purpose))
        made: list[Dialogue | None] = []
        for i in items:
            luck = np.random.default_rng([self.seed, place, i]).random()
            said = (Utterance("alice", f"{i}"),)
            made.append(Dialogue(float(luck < chance), said, {"message": tokens, "total": 3 * tokens}))
        return made


PLANTED = {NATURAL: (80, 1.0), "json": (50, 1.0), "abbreviations": (20, 0.4)}


async def test_the_worked_example_adopts_json_within_its_budget() -> None:
    arena = Scripted(PLANTED)
    found = await FormatSearch(config=CONFIG).run(arena)
    assert found.normaliser == 81.0 and found.adopted == "json"
    rewards = {s.format: s.reward for s in found.standings if s.rung == 4}
    assert rewards == {"json": pytest.approx(0.630, abs=1e-3), NATURAL: pytest.approx(0.407, abs=1e-3)}
    assert 30 + 288 + 64 <= found.dialogues <= 430
    assert found.spent is not None and found.saved_per_item == 90.0
    assert found.break_even == pytest.approx(found.spent / 90)
    assert found.verdict == "use json: its reward is higher and its score not lower"


async def test_a_format_that_loses_score_is_not_adopted_however_short() -> None:
    found = await FormatSearch(config=CONFIG).run(Scripted({**PLANTED, "json": (50, 0.6)}))
    assert found.adopted == NATURAL and found.break_even is None
    assert found.verdict.startswith("keep natural language")


@pytest.mark.parametrize("seed", range(10))
async def test_a_planted_best_format_is_found_with_noise(seed: int) -> None:
    arms = {id: (60 + 3 * k, 0.8) for k, id in enumerate(BANDIT)}
    found = await FormatSearch(config=CONFIG, seed=seed).run(Scripted({**arms, "logic": (15, 0.95)}, seed))
    assert found.adopted == "logic" and found.dialogues <= 430


async def test_the_front_has_who_is_not_beaten_in_both_score_and_tokens() -> None:
    arms = {NATURAL: (80, 1.0), "json": (50, 0.0), "code": (50, 1.0), "logic": (20, 0.0), "table": (90, 1.0)}
    found = await FormatSearch(formats=pool([*arms][1:]), config=CONFIG).run(Scripted(arms))
    assert found.front == ("logic", "code")


async def test_formats_of_a_rung_play_the_same_items_each_rung_fresh_ones_and_natural_is_in_all() -> None:
    arena = Scripted(PLANTED)
    await FormatSearch(config=CONFIG).run(arena)
    rungs: dict[tuple[int, ...], list[str]] = {}
    for format, items, purpose in arena.asked:
        if purpose == "search":
            rungs.setdefault(items, []).append(format)
    sizes = [len(items) for items in rungs]
    assert sizes == [8, 16, 32] and next(len(f) for f in rungs.values()) == 12
    assert all(NATURAL in formats for formats in rungs.values())
    used = [i for items in rungs for i in items]
    assert len(set(used)) == len(used) and min(used) == 30  # nothing it was calibrated on
    finals = [(f, i) for f, i, purpose in arena.asked if purpose == "accept"]
    assert [f for f, _ in finals] == ["json", NATURAL] and finals[0][1] == finals[1][1]


class Together(Scripted):
    """Answers a rung only once all its formats have been asked, the last one first."""

    def __init__(self, arms: Mapping[str, tuple[int, float]], refuses: str = "") -> None:
        super().__init__(arms)
        self.refuses, self.waiting, self.all = refuses, 0, anyio.Event()

    async def play(self, format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
        if purpose == "search" and min(items) == SearchPlan().calibrate:
            self.waiting += 1
            if self.waiting == 12:
                self.all.set()
            await self.all.wait()
            for _ in range(12 - BANDIT.index(format.id)):
                await anyio.lowlevel.checkpoint()
        if format.id == self.refuses:
            raise ConfigError("the server is gone")
        return await super().play(format, items, purpose)


async def test_formats_of_a_rung_are_played_beside_each_other_and_the_result_is_the_same() -> None:
    with anyio.fail_after(10):
        assert await FormatSearch(config=CONFIG).run(Together(PLANTED)) == await FormatSearch(
            config=CONFIG
        ).run(Scripted(PLANTED))


async def test_an_error_of_one_format_beside_others_comes_alone() -> None:
    with anyio.fail_after(10), pytest.raises(ConfigError, match="gone"):
        await FormatSearch(config=CONFIG).run(Together(PLANTED, refuses="code"))


async def test_an_absurdly_long_format_leaves_the_others_rewards_alone() -> None:
    def rewards(found: object) -> dict[str, float]:
        return {s.format: s.reward for s in found.standings if s.rung == 1}  # type: ignore[attr-defined]

    plain = await FormatSearch(config=CONFIG).run(Scripted(PLANTED))
    absurd = await FormatSearch(config=CONFIG).run(Scripted({**PLANTED, "code": (1900, 1.0)}))
    a, b = rewards(plain), rewards(absurd)
    assert {k: v for k, v in a.items() if k != "code"} == {k: v for k, v in b.items() if k != "code"}


async def test_a_format_whose_calls_fail_drops_out_and_is_counted() -> None:
    found = await FormatSearch(config=CONFIG).run(Scripted(PLANTED, failing="code"))
    (row,) = [s for s in found.standings if s.format == "code"]
    assert (row.items, row.failed, row.reward, row.kept) == (0, 8, None, False)
    assert found.adopted == "json"


class Unread(Scripted):
    """json's shortest dialogues have a message whose likelihood is not known."""

    async def play(self, format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
        made = await super().play(format, items, purpose)
        nll = math.nan if format.id == "json" else 1.0
        first = made[0]
        assert first is not None
        said = tuple(replace(m, nll=1.0) for m in first.messages)
        lost = replace(first, messages=(replace(said[0], nll=nll), *said[1:]))
        rest = [d and replace(d, messages=tuple(replace(m, nll=1.0) for m in d.messages)) for d in made[1:]]
        return [lost, *rest]


async def test_a_likelihood_that_is_not_known_takes_one_dialogue_out_and_not_a_format() -> None:
    found = await FormatSearch(config=RewardConfig(min_tokens=8)).run(Unread(PLANTED))
    first = {s.format: s for s in found.standings if s.rung == 1}
    assert (first["json"].items, first["json"].failed, first["code"].failed) == (7, 1, 0)
    assert found.adopted == "json" and found.reward.items == 31


async def test_tokens_that_a_server_does_not_tell_are_an_error_that_says_so() -> None:
    class Silent(Scripted):
        async def play(self, format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
            return [d and replace(d, tokens={}) for d in await super().play(format, items, purpose)]

    with pytest.raises(ConfigError, match="message tokens of this dialogue are not known"):
        await FormatSearch(config=CONFIG).run(Silent(PLANTED))


async def test_when_natural_language_fails_everywhere_nothing_is_calibrated() -> None:
    with pytest.raises(TaskError, match="calibrated"):
        await FormatSearch(config=CONFIG).run(Scripted(PLANTED, failing=NATURAL))


async def test_equal_rewards_keep_natural_language() -> None:
    found = await FormatSearch(config=CONFIG).run(Scripted(dict.fromkeys(BANDIT, (80, 1.0))))
    assert found.adopted == NATURAL


@pytest.mark.parametrize("others", [["json"], ["json", "code"], ["json", "code", "logic", "table"]])
async def test_where_natural_language_wins_a_round_the_best_other_still_meets_it(others: list[str]) -> None:
    best = {NATURAL: (20, 1.0), "json": (50, 1.0), "code": (60, 1.0)}
    arena = Scripted(best)
    found = await FormatSearch(formats=pool(others), config=CONFIG).run(arena)
    assert (found.adopted, found.winner) == (NATURAL, "json")
    assert found.dialogues <= SearchPlan().most(len(others) + 1)


async def test_natural_language_alone_is_nothing_to_search_among() -> None:
    with pytest.raises(ConfigError, match="beside natural language"):
        await FormatSearch(formats=pool([]), config=CONFIG).run(Scripted(PLANTED))
    with pytest.raises(ConfigError, match="items in every step"):
        SearchPlan(rungs=())


def test_learning_is_paid_back_as_in_the_worked_example() -> None:
    assert break_even(1_200_000, 640 - 400) == 5000
    assert break_even(1_200_000, 0) is None
    assert net_saving(10_000, 640, 400, 1_200_000) == 1_200_000
    assert net_saving(10_000, 640, 400, 1_200_000) / (10_000 * 640) == pytest.approx(0.1875)
