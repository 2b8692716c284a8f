"""AGP learns teams for items: reproducibly, within its budget, and refuses what can't be learned."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from agentcomm.errors import AgentCommError, ConfigError, LimitExceeded, TaskError  # noqa: E402
from agentcomm.evaluation.splits import SplitGuard, hash_of  # noqa: E402
from agentcomm.graph import Topology  # noqa: E402
from agentcomm.message import Usage  # noqa: E402
from agentcomm.pruning import imitation  # noqa: E402
from agentcomm.pruning.agp import AGP, PAIRS, accuracy_tokens, choose, fit_records  # noqa: E402
from agentcomm.pruning.environment import Budget, Metered, Outcome  # noqa: E402
from agentcomm.pruning.imitation import Targets, Thresholds, Training  # noqa: E402
from agentcomm.pruning.inference import Architecture, NetworkPolicy  # noqa: E402
from agentcomm.pruning.network import TopologyNetwork  # noqa: E402
from agentcomm.pruning.planted import PlantedWorld  # noqa: E402
from agentcomm.pruning.policy import Card, load  # noqa: E402
from agentcomm.pruning.records import Collector, Origin, Record, Records  # noqa: E402
from agentcomm.pruning.static import GPTSwarm  # noqa: E402
from agentcomm.task import Item  # noqa: E402

pytestmark = pytest.mark.anyio

WORLD = PlantedWorld(103, agents=5, domains=1, misleaders=1)
ITEMS = WORLD.items(16)
GUARD = SplitGuard.of([*ITEMS, *WORLD.items(20, "validate"), *WORLD.items(20, "score")])
SMALL = AGP(embedder=WORLD, rounds=2, candidates=6, first=1, second=2, training=Training(epochs=4))


def weights(policy: NetworkPolicy) -> dict[str, Any]:
    return {k: v.tobytes() for k, v in policy.state()[1].items()}


# ------------------------------------------------------------------------------ reproducible


async def test_one_seed_gives_equal_records_and_weights_and_another_others(tmp_path: Path) -> None:
    def collector(name: str) -> Collector:
        return Collector(WORLD, Records(tmp_path / name), GUARD, Origin("run", "agp", "planted", "planted"))

    async def fit(name: str, seed: int) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
        to = collector(name)
        policy = await dataclasses.replace(SMALL, seed=seed).fit(ITEMS, to, Budget())
        to.records.close()
        return (tmp_path / name).read_bytes(), weights(policy), policy.spec()

    first = await fit("a", 4)
    torch.rand(100)
    np.random.seed(5)  # a used process is no other process
    assert await fit("b", 4) == first
    other = await fit("c", 5)
    assert other[0] != first[0] and other[1] != first[1]


async def test_training_directly_is_reproducible_too() -> None:
    learner = AGP(embedder=WORLD, mode="reinforce", iterations=3, queries=2, group=4)
    a, b = [await learner.fit(ITEMS, WORLD, Budget()) for _ in range(2)]
    assert weights(a) == weights(b)
    assert len(a.card.trace["batches"]["loss"]) == 3


# ------------------------------------------------------------------------------------ budget


@pytest.mark.parametrize("mode", ["paper", "reinforce"])
@pytest.mark.parametrize("budget", [64, 400])
async def test_a_plan_is_cut_to_the_budget_before_it_starts(mode: Any, budget: int) -> None:
    metered = Metered(WORLD, Budget(rollouts=budget))
    learner = AGP(embedder=WORLD, mode=mode, training=Training(epochs=2), iterations=5)
    policy = await learner.fit(ITEMS, metered, metered.budget)
    assert 0.5 * budget <= metered.rollouts <= budget
    assert policy.card.spent["rollouts"] == metered.rollouts
    if mode == "paper":
        assert any("use mode 'reinforce'" in note for note in policy.card.notes)
    assert any("method 'frugal'" in note for note in policy.card.notes)


async def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(LimitExceeded, match="raise it"):
        await SMALL.fit(ITEMS, WORLD, Budget(rollouts=0))


async def test_the_card_says_what_was_learned_from_and_spent_and_how() -> None:
    policy = await SMALL.fit(ITEMS, WORLD, Budget(rollouts=600))
    card = policy.card
    assert card.learned_from == {hash_of(item) for item in ITEMS}
    assert card.method == "agp" and card.paper
    assert card.settings["candidates"] == 6 and card.settings["training"]["weight_decay"] == 0.03
    assert [r["round"] for r in card.trace["rounds"]] == [1, 2]
    assert {"loss", "edge", "node", "held_out"} <= set(card.trace["rounds"][0]["losses"][0])
    tokens = [point["tokens"] for point in card.trace["curve"]]
    assert tokens == sorted(tokens) and len(tokens) >= 5


async def test_a_fitted_policy_is_stored_and_decides_alike(tmp_path: Path) -> None:
    policy = await SMALL.fit(ITEMS, WORLD, Budget())
    policy.save(tmp_path)
    back = load(tmp_path, WORLD.graph, WORLD)
    assert back.spec() == policy.spec() and back.card == policy.card
    assert [back(item) for item in WORLD.items(20, "score")] == [policy(i) for i in WORLD.items(20, "score")]


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("split", ["validate", "score"])
@pytest.mark.parametrize("mode", ["paper", "reinforce"])
async def test_only_learn_items_are_learned_from(mode: Any, split: Any) -> None:
    watched = Metered(WORLD, Budget())
    with pytest.raises(TaskError, match=split):
        await AGP(embedder=WORLD, mode=mode).fit([*ITEMS, *WORLD.items(1, split)], watched, Budget())
    assert watched.rollouts == 0


async def test_an_environment_that_only_fails_is_a_clear_error() -> None:
    dead = dataclasses.replace(WORLD, failure_rate=1.0)
    for mode in ("paper", "reinforce"):
        with pytest.raises(TaskError, match="nothing to learn from"):
            await AGP(embedder=WORLD, mode=mode, candidates=4, iterations=20).fit(ITEMS, dead, Budget())


async def test_losses_that_are_no_numbers_stop_learning() -> None:
    learner = dataclasses.replace(SMALL, training=Training(lr=1e30))
    with pytest.raises(AgentCommError, match=r"pass \d+ is (nan|inf)"):
        await learner.fit(ITEMS, WORLD, Budget())


@pytest.mark.parametrize(
    "bad", [{"mode": "fast"}, {"calibration": "eye"}, {"frugality": 0.0}, {"rule": "luck"}]
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        AGP(**bad)


# ------------------------------------------------------------------------------ stage II alone


async def stored(
    path: Path, teams: Callable[[Item], Topology], world: PlantedWorld, count: int
) -> list[Record]:
    """Records of ``teams`` on the first ``count`` items, with weight 1."""
    items = world.items(count)
    guard = SplitGuard.of(items)
    with Records(path) as records:
        to = Collector(world, records, guard, Origin("run", "test", "planted", "planted"))
        for item in items:
            await to.rollout(item, teams(item), 0)
        return [dataclasses.replace(r, weight=1.0) for r in records]


async def test_keep_masks_survive_from_record_to_decision(tmp_path: Path) -> None:
    """The oracle's records, imitated, give the oracle: 1 means kept everywhere, rows send."""
    world = PlantedWorld(104, agents=6, domains=2)
    records = await stored(tmp_path / "r", lambda i: world.oracle(world.domain_of(i)), world, 60)
    oracle = world.oracle(world.domain_of(world.items(1)[0]))
    assert records[0].keep == world.pool.arrays(oracle).keep.astype(int).tolist()
    policy = fit_records(records, world.pool, world, SplitGuard.of(world.items(60)))
    result = world.assess(policy, world.items(60, "validate"))
    assert result.node_f1 > 0.97 and result.edge_f1 > 0.9
    assert policy.card.learned_from == {r.item_hash for r in records}
    assert policy.card.spent == {"rollouts": 0}


async def test_records_that_cannot_teach_are_refused(tmp_path: Path) -> None:
    def whole(item: Item) -> Topology:
        return WORLD.oracle(0, nodes=False)

    records = await stored(tmp_path / "whole", whole, WORLD, 6)
    guard = SplitGuard.of(WORLD.items(6))
    with pytest.raises(TaskError, match="none has a weight above 0"):
        fit_records([dataclasses.replace(r, weight=0.0) for r in records], WORLD.pool, WORLD, guard)
    with pytest.raises(TaskError, match="nothing to learn from: of 0 records"):
        fit_records([], WORLD.pool, WORLD, guard)
    with pytest.raises(TaskError, match="a single class: all 6 labels keep every agent"):
        fit_records(records, WORLD.pool, WORLD, guard)
    lone = np.zeros(5, dtype=bool)
    lone[2:4] = True
    same = WORLD.pool.topology(lone, np.zeros((5, 5), dtype=bool))
    records = await stored(tmp_path / "same", lambda item: same, WORLD, 6)
    with pytest.raises(TaskError, match="one and the same graph with no edge"):
        fit_records(records, WORLD.pool, WORLD, guard)
    failed = [dataclasses.replace(r, status="failed") for r in records]
    with pytest.raises(TaskError, match="6 failed"):
        fit_records(failed, WORLD.pool, WORLD, guard)


async def test_records_of_other_splits_and_teams_are_refused(tmp_path: Path) -> None:
    records = await stored(tmp_path / "r", lambda item: WORLD.oracle(0), WORLD, 6)
    scored = SplitGuard(frozenset(), score=frozenset([records[0].item_hash]))
    with pytest.raises(TaskError, match="split score"):
        fit_records(records, WORLD.pool, WORLD, scored)
    other = PlantedWorld(1, agents=6, domains=1)
    with pytest.raises(ConfigError, match="another team"):
        fit_records(records, other.pool, other, SplitGuard.of(WORLD.items(6)))


def some_targets(rows: int = 13) -> Targets:
    rng = np.random.default_rng(0)
    keep = rng.random((rows, 4)) < 0.5
    keep[:, 0] = True
    spatial = np.triu(rng.random((rows, 4, 4)) < 0.5, 1) & keep[:, :, None] & keep[:, None, :]
    queries = rng.normal(size=(rows, 8))
    allowed = ~np.eye(4, dtype=bool)
    return Targets(queries, keep, spatial, spatial & False, np.ones(rows), allowed, allowed & False)


def test_the_last_smaller_batch_counts() -> None:
    roles = np.eye(4, 8)
    seen: list[int] = []
    network = TopologyNetwork(Architecture(4, 8))
    network.register_forward_hook(lambda module, args, out: seen.append(len(args[1])))
    imitation.train(
        network, roles, some_targets(13), None, Training(batch=4, epochs=1), np.random.default_rng(0)
    )
    assert seen == [4, 4, 4, 1]


def test_the_weights_of_the_best_held_out_loss_are_kept() -> None:
    roles, held = np.eye(4, 8), some_targets(40).part(np.arange(40) >= 30)
    inside = some_targets(40).part(np.arange(40) < 30)
    network = TopologyNetwork(Architecture(4, 8))
    training = Training(lr=0.02, patience=3)
    trace = imitation.train(network, roles, inside, held, training, np.random.default_rng(0))
    losses = [row["held_out"] for row in trace]
    assert len(trace) < training.epochs
    assert losses.index(min(losses)) < len(losses) - 1  # it went on for a while
    again = TopologyNetwork(Architecture(4, 8))
    again.load(network.arrays())
    frozen = Training(lr=1e-12, epochs=1, weight_decay=0.0)
    (row,) = imitation.train(again, roles, inside, held, frozen, np.random.default_rng(0))
    assert row["held_out"] == pytest.approx(min(losses), abs=2e-4)


def test_a_fifth_of_the_items_is_held_out_by_hash_whatever_their_order() -> None:
    items = WORLD.items(50)
    held = {i.id for i, out in zip(items, imitation.hold_out(items), strict=True) if out}
    assert len(held) == 10
    turned = items[::-1]
    assert {i.id for i, out in zip(turned, imitation.hold_out(turned), strict=True) if out} == held
    assert imitation.hold_out(items[:1]) == [False]
    assert sum(imitation.hold_out(items[:2])) == 1


def test_released_losses_are_those_of_the_released_code() -> None:
    """Squared error on pairs of kept agents, squared p on all others, and kept apart from edges of the removed."""
    targets = some_targets(3)
    network = TopologyNetwork(
        Architecture(4, 8, profile="as_released"), message_graph=np.triu(np.ones((4, 4)))
    )
    roles = np.eye(4, 8)
    with torch.no_grad():
        node, edge = network(
            torch.tensor(roles, dtype=torch.float32), torch.tensor(targets.queries, dtype=torch.float32)
        )
    p, y = torch.sigmoid(edge).double().numpy(), targets.keep.astype(float)
    on = y[:, :, None] * y[:, None, :] * ~np.eye(4, dtype=bool)
    off = (1 - y[:, :, None] * y[:, None, :]) * ~np.eye(4, dtype=bool)
    expected = (on * (p - targets.spatial) ** 2).sum() / on.sum() + (off * p**2).sum() / off.sum()
    expected += 0.01 * ((1 - y)[:, :, None] * p).mean(axis=(1, 2)).mean()
    q = torch.sigmoid(node).double().numpy()
    cross = -(y * np.log(q) + (1 - y) * np.log(1 - q)).mean()
    (row,) = imitation.train(
        network,
        roles,
        targets,
        None,
        dataclasses.replace(Training.released(), epochs=1),
        np.random.default_rng(0),
    )
    assert row["loss"] == pytest.approx(expected + cross, rel=1e-4)


# ---------------------------------------------------------------------------------- thresholds


def test_thresholds_are_those_most_like_the_labels_and_frugality_raises_them() -> None:
    targets = some_targets(60)
    rng = np.random.default_rng(1)
    keep = np.where(targets.keep, 0.35, 0.2) + 0.02 * rng.random(targets.keep.shape)
    edge = np.where(targets.spatial, 0.85, 0.7) + 0.02 * rng.random(targets.spatial.shape)
    found = imitation.calibrate(keep, edge, targets)
    assert 0.22 <= found.node <= 0.35 and 0.72 <= found.edge <= 0.85
    noisy = np.clip(targets.keep * 0.3 + rng.random(targets.keep.shape) * 0.7, 0, 1)
    lavish, even, frugal = (imitation.calibrate(noisy, edge, targets, frugality=f).node for f in (0.3, 1, 4))
    assert lavish <= even <= frugal and lavish < frugal


async def test_the_accuracy_token_curve_runs_each_graph_once_and_counts_failures_out() -> None:
    policy = await SMALL.fit(ITEMS, WORLD, Budget())

    class Twice:
        pool = WORLD.pool
        seen: list[Any]

        async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
            self.seen.append((item.id, topology))
            if item.id == ITEMS[0].id:
                return Outcome(None, None, Usage(None, None), status="failed")
            return WORLD.outcome(item, topology, seed)

    watched = Twice()
    watched.seen = []
    pairs = [Thresholds(0.5, 0.5), Thresholds(0.5, 0.5), Thresholds(0.0, 0.0), Thresholds(0.9, 0.9)]
    points = await accuracy_tokens(policy, ITEMS, watched, pairs)
    assert len(watched.seen) == len(set(watched.seen))
    assert {point["n"] for point in points} == {15}
    assert points[-1]["agents"] == 5 and points[-1]["node_threshold"] == 0.0
    assert await accuracy_tokens(policy, ITEMS, watched, pairs, most=3) == []


async def test_calibration_by_rollouts_chooses_among_twelve_pairs() -> None:
    learner = dataclasses.replace(SMALL, calibration="rollout")
    policy = await learner.fit(ITEMS, WORLD, Budget())
    assert len(PAIRS) == len(policy.card.trace["curve"]) == 12
    assert (policy.node_threshold, policy.edge_threshold) == choose(policy.card.trace["curve"])


async def test_as_released_thresholds_are_fixed() -> None:
    policy = await dataclasses.replace(SMALL, profile="as_released").fit(ITEMS, WORLD, Budget())
    assert (policy.node_threshold, policy.edge_threshold) == (0.55, 0.5)
    assert policy.card.profile == "as_released"
    for item in ITEMS:
        p = policy.propose(item).spatial
        assert 0.2689 < p.min() <= p.max() < 0.7311


# -------------------------------------------------------------------------------------- learns


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["paper", "reinforce"])
async def test_a_small_world_is_learned(mode: Any) -> None:
    world = PlantedWorld(103, agents=5, domains=1, misleaders=1)
    learner = AGP(embedder=world, mode=mode, iterations=150)
    policy = await learner.fit(world.items(40), world, Budget(rollouts=24_000))
    assert world.assess(policy).regret < 0.1


DEFAULT_WORLDS = range(5)


async def planted(seed: int, **more: Any) -> tuple[PlantedWorld, NetworkPolicy]:
    """The standard world and AGP on 160 of its items, within 95,000 rollouts."""
    world = PlantedWorld(seed)
    learner = AGP(seed=seed, embedder=world, **more)
    return world, await learner.fit(world.items(160), world, Budget(rollouts=95_000))


def at_a_half(policy: NetworkPolicy) -> NetworkPolicy:
    policy.node_threshold = policy.edge_threshold = 0.5
    return policy


def matched_random(
    world: PlantedWorld, policy: NetworkPolicy, rng: np.random.Generator
) -> Callable[[Item], Topology]:
    """As many agents and edges as the policy's graph, at random."""

    def draw(item: Item) -> Topology:
        chosen = policy.realise(item)
        agents, edges = int(chosen.keep.sum()), int(chosen.spatial.sum())
        kept = rng.permutation(world.agents)[:agents]
        keep = np.zeros(world.agents, dtype=bool)
        keep[kept] = True
        spatial = np.zeros((world.agents, world.agents), dtype=bool)
        pairs = list(itertools.combinations(kept.tolist(), 2))
        for at in rng.permutation(len(pairs))[:edges].tolist():
            spatial[pairs[at]] = True
        return world.pool.topology(keep, spatial)

    return draw


@pytest.mark.slow
async def test_agp_recovers_the_plant_and_beats_what_it_must() -> None:
    found = []
    for seed in DEFAULT_WORLDS:
        start = time.process_time()
        world, policy = await planted(seed)
        assert time.process_time() - start < 60
        assert (policy.card.spent["rollouts"] or 0) <= 95_000
        result = world.assess(at_a_half(policy))
        found.append(result)
        assert result.regret <= 0.15
        rng = np.random.default_rng([seed, 1])
        for _ in range(3):
            assert world.assess(matched_random(world, policy, rng)).regret > result.regret
        static = await GPTSwarm(seed=seed, learn_nodes=True).fit(world.items(160), world, Budget())
        assert world.assess(static).regret >= 0.3
    assert np.mean([r.regret for r in found]) <= 0.08
    assert np.mean([r.node_f1 for r in found]) >= 0.90
    assert np.mean([r.edge_f1 for r in found]) >= 0.65


@pytest.mark.slow
@pytest.mark.parametrize(
    "control",
    [{"head": "symmetric"}, {"layers": "gcn"}, {"rule": "cheapest"}],
    ids=lambda c: next(iter(c.values())),
)
async def test_what_lacks_a_part_of_agp_fails(control: dict[str, Any]) -> None:
    world, policy = await planted(0, curve=False, **control)
    assert world.assess(at_a_half(policy)).regret >= 0.4


@pytest.mark.slow
def test_an_untrained_network_fails() -> None:
    for seed in DEFAULT_WORLDS:
        world = PlantedWorld(seed)
        architecture = Architecture(world.agents, world.dimensions)
        arrays = TopologyNetwork(architecture, seed).arrays()
        assert (
            world.assess(NetworkPolicy(world.pool, Card("none"), architecture, arrays, world)).regret >= 0.4
        )
