"""What learning may spend, and what an outcome says when something is unknown."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentcomm.errors import ConfigError, LimitExceeded
from agentcomm.graph import Topology
from agentcomm.message import Usage
from agentcomm.pruning.environment import Budget, Metered, Outcome, utility_of
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.pool import Pool
from agentcomm.task import Item

pytestmark = pytest.mark.anyio


class Told:
    """Rollouts that cost what they are told to."""

    def __init__(self, tokens: Usage, cost: float | None = None) -> None:
        self.world = PlantedWorld()
        self.tokens, self.cost = tokens, cost

    @property
    def pool(self) -> Pool:
        return self.world.pool

    async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return Outcome(1.0, 1.0, self.tokens, cost=self.cost)


async def spend(metered: Metered, rollouts: int) -> None:
    world = PlantedWorld()
    for seed in range(rollouts):
        await metered.rollout(world.items(1)[0], world.oracle(0), seed)


async def test_a_budget_of_rollouts_is_exact_and_can_be_raised() -> None:
    world = PlantedWorld()
    metered = Metered(world, Budget(rollouts=3))
    reading = world.reading(world.domain_of(world.items(1)[0]), world.oracle(0))
    with pytest.raises(LimitExceeded, match="rollouts=3 is spent") as error:
        await spend(metered, 5)
    assert (error.value.scope, error.value.limit) == ("learn", "rollouts")
    assert metered.rollouts == 3 and metered.tokens == 3 * reading.tokens
    metered.budget = Budget(rollouts=4)
    with pytest.raises(LimitExceeded):
        await spend(metered, 5)
    assert metered.rollouts == 4


async def test_rollouts_in_flight_count_before_they_end() -> None:
    metered = Metered(Told(Usage(1, 1)), Budget(rollouts=2))
    refused = 0

    async def one() -> None:
        nonlocal refused
        try:
            await spend(metered, 1)
        except LimitExceeded:
            refused += 1

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(one)
    assert (metered.rollouts, refused) == (2, 3)


@pytest.mark.parametrize(
    ("budget", "tokens", "cost", "done"),
    [
        (Budget(tokens=100), Usage(30, 10), None, 3),
        (Budget(cost=1.0), Usage(), 0.5, 2),
        (Budget(), Usage(), None, 9),
    ],
)
async def test_tokens_and_money_end_learning_before_the_next_rollout(
    budget: Budget, tokens: Usage, cost: Any, done: int
) -> None:
    metered = Metered(Told(tokens, cost), budget)
    with contextlib.suppress(LimitExceeded):
        await spend(metered, 9)
    assert metered.rollouts == done


@pytest.mark.parametrize(("budget", "name"), [(Budget(tokens=100), "tokens"), (Budget(cost=1.0), "cost")])
async def test_a_limit_on_what_nobody_tells_is_refused_and_not_taken_for_zero(
    budget: Budget, name: str
) -> None:
    metered = Metered(Told(Usage(5, None)), budget)
    with pytest.raises(LimitExceeded, match=f"did not tell their {name}"):
        await spend(metered, 2)
    assert metered.rollouts == 1 and metered.tokens == 0 and metered.unknown_tokens == 1


def test_the_utility_of_what_is_unknown_is_unknown() -> None:
    assert utility_of(1.0, 500, price=0.2, reference=1000) == pytest.approx(0.9)
    assert utility_of(None, 500, price=0.2, reference=1000) is None
    assert utility_of(1.0, None, price=0.2, reference=1000) is None
    assert utility_of(1.0, None, price=0.0, reference=1000) == 1.0
    assert Outcome(1.0, None, Usage(5, None)).total_tokens is None
    with pytest.raises(ConfigError, match="above 0"):
        utility_of(1.0, 1, price=0.1, reference=0)
    with pytest.raises(ConfigError, match="rollouts=-1"):
        Budget(rollouts=-1)
