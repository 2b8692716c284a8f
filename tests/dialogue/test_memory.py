"""Memory: each agent is shown its own side of the best dialogues, and that must pay for itself."""

from collections.abc import Sequence

import pytest

from agentcomm.dialogue.formats import NATURAL, Format
from agentcomm.dialogue.memory import Memory, memories, memory_search, own_sides
from agentcomm.dialogue.reward import Dialogue, RewardConfig, Utterance
from agentcomm.dialogue.search import SearchPlan
from agentcomm.errors import ConfigError, TaskError
from agentcomm.loading import load_graph
from agentcomm.task import Item

CONFIG = RewardConfig(loss_weight=0.0, min_tokens=1, count="total")
PLAN = SearchPlan(calibrate=6, rungs=(4,), accept=32)
pytestmark = pytest.mark.anyio


def talk(task: float, total: int, name: str = "x") -> Dialogue:
    said = (Utterance("alice", f"I see {name}."), Utterance("bob", f"<A>{name}</A>"))
    return Dialogue(task, said, {"message": total // 4, "total": total})


ITEMS = [Item(f"i{n}", f"Where {n}? Answer on a line.", metadata={"asked": f"Where {n}?"}) for n in range(6)]


def test_the_best_by_reward_are_remembered_and_none_that_was_wrong() -> None:
    dialogues = [
        talk(1, 100, "a"),
        talk(1, 60, "b"),
        talk(0, 20, "wrong"),
        None,
        talk(1, 80, "d"),
        talk(0.4, 30, "e"),
    ]
    one, two = memories(ITEMS, dialogues, CONFIG)
    assert one.items == ("i1",) and two.items == ("i1", "i4")
    assert one.id != two.id and "memory-2" in two.id
    assert one.shown[0]["alice"] == "An earlier question: Where 1?\nYou wrote: I see b."


def test_each_agent_is_shown_its_own_side_only() -> None:
    sides = own_sides(ITEMS[0], talk(1, 50, "secret"))
    assert set(sides) == {"alice", "bob"} and "I see" not in sides["bob"] and "<A>" not in sides["alice"]
    graph = Memory("m", (sides,), ("i0",)).apply(load_graph("information_exchange"))
    plain = load_graph("information_exchange")
    assert graph.by_name["alice"].role == plain.by_name["alice"].role + "\n\n" + sides["alice"]
    assert graph.by_name["agreement"] == plain.by_name["agreement"]


def test_nothing_good_leaves_nothing_to_remember() -> None:
    assert memories(ITEMS[:2], [talk(0, 20), talk(0.2, 30)], CONFIG) == []
    with pytest.raises(ConfigError, match="good enough to remember"):
        memory_search([], PLAN, CONFIG, 0)
    with pytest.raises(TaskError, match="every dialogue failed"):
        memories(ITEMS[:1], [None], CONFIG)
    with pytest.raises(ConfigError, match="shows 1 or 2"):
        memories(ITEMS[:1], [talk(1, 30)], CONFIG, most=3)
    with pytest.raises(ConfigError, match="count total tokens"):
        memory_search([Memory("m", (), ())], PLAN, RewardConfig(), 0)


class Shown:
    """Natural language takes 200 tokens; a memory takes what it is told to, prompts included."""

    def __init__(self, tokens: dict[str, int]) -> None:
        self.tokens, self.asked = tokens, list[tuple[str, int, str]]()

    async def play(self, format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
        self.asked.append((format.id[:8], len(items), purpose))
        return [talk(1.0, self.tokens[format.id[:8]]) for _ in items]


@pytest.mark.parametrize(
    ("tokens", "adopted"),
    [
        ({NATURAL[:8]: 200, "memory-1": 120, "memory-2": 150}, "memory-1"),
        ({NATURAL[:8]: 200, "memory-1": 260, "memory-2": 320}, NATURAL),  # longer prompts lose what they save
    ],
)
async def test_a_memory_pays_for_its_prompts_or_natural_language_stays(
    tokens: dict[str, int], adopted: str
) -> None:
    found = memories(ITEMS, [talk(1, 100)] * 6, CONFIG)
    search, ways = memory_search(found, PLAN, CONFIG, 0)
    arena = Shown(tokens)
    result = await search.run(arena)
    assert result.adopted.startswith(adopted) and set(ways) == {m.id for m in found}
    assert result.dialogues == PLAN.most(3) == 6 + 3 * 4 + 2 * 32
    assert (result.break_even is None) == (adopted == NATURAL)
