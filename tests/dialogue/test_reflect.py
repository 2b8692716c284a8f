"""Reflective search: a planted better example is found, nonsense is survived, limits hold."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import pytest

from agentcomm.dialogue.formats import NATURAL, POOL, Format
from agentcomm.dialogue.reflect import ReflectiveSearch, ReflectPlan, example_in
from agentcomm.dialogue.reward import Dialogue, RewardConfig, Utterance
from agentcomm.errors import ConfigError, MissingExtraError, TaskError

pytest.importorskip("gepa")
pytestmark = pytest.mark.anyio

CONFIG = RewardConfig(loss_weight=0.0, min_tokens=1, count="total")
PLAN = ReflectPlan(calibrate=4, train=6, watch=4, minibatch=2, dialogues=60, reflections=6, accept=32)


class Arena:
    """Tokens and score of a dialogue follow from the example that was shown; natural language takes 100."""

    def __init__(self, worth: Callable[[str], tuple[int, float]], failing: Sequence[int] = ()) -> None:
        self.worth, self.failing = worth, failing
        self.asked: list[tuple[str, tuple[int, ...], str]] = []

    async def play(self, format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
        self.asked.append((format.id, tuple(items), purpose))
        tokens, task = (100, 1.0) if format.id == NATURAL else self.worth(format.example)
        said = (Utterance("alice", "hm"), Utterance("bob", "<A>x</A>"))
        made = Dialogue(task, said, {"message": tokens, "total": tokens})
        return [None if i in self.failing and purpose == "reflect" else made for i in items]

    @property
    def reflected(self) -> int:
        return sum(len(items) for _, items, purpose in self.asked if purpose == "reflect")


class Writer:
    """Says its lines in order, then the last one for ever."""

    def __init__(self, *lines: str | Exception | None) -> None:
        self.lines, self.prompts = lines, list[str]()

    async def __call__(self, prompt: str) -> str | None:
        self.prompts.append(prompt)
        line = self.lines[min(len(self.prompts), len(self.lines)) - 1]
        if isinstance(line, Exception):
            raise line
        return line


def planted(example: str) -> tuple[int, float]:
    return {"pump 3 dry": (50, 1.0), "long": (180, 1.0), "terse": (20, 0.2)}.get(example, (95, 1.0))


async def search(arena: Arena, writer: Writer, **plan: int) -> tuple[ReflectiveSearch, object]:
    made = ReflectiveSearch(plan=ReflectPlan(**{**vars(PLAN), **plan}), config=CONFIG)
    return made, await made.run(arena, writer)


async def test_a_planted_example_is_found_and_only_the_example_changes() -> None:
    arena = Arena(planted)
    writer = Writer(
        "<example>long</example>", "<example>terse</example>", "so: <example>pump 3 dry</example>"
    )
    made, found = await search(arena, writer)
    best = made.candidates[found.adopted]  # type: ignore[attr-defined]
    assert best.example == "pump 3 dry" and best.instruction == POOL["natural_terse"].instruction
    assert best.id.startswith("natural_terse-")
    assert found.saved_per_item == 50 and found.break_even == found.spent / 50  # type: ignore[attr-defined]
    assert "long" not in {f.example for f in made.candidates.values()}  # it did worse on a few items


async def test_mutations_are_tried_on_learn_items_and_accepted_on_held_out_ones() -> None:
    arena = Arena(planted)
    await search(arena, Writer("<example>pump 3 dry</example>"))
    by_purpose: dict[str, set[int]] = {}
    for _, items, purpose in arena.asked:
        by_purpose.setdefault(purpose, set()).update(items)
    assert by_purpose["calibrate"] == set(range(4)) and by_purpose["accept"] == set(range(32))
    assert min(by_purpose["reflect"]) == 4 and max(by_purpose["reflect"]) < PLAN.learn_items
    finals = [f for f, _, purpose in arena.asked if purpose == "accept"]
    assert finals[1] == NATURAL and len(finals) == 2
    played = [(f, i) for f, items, purpose in arena.asked if purpose == "reflect" for i in items]
    assert len(set(played)) == len(played)  # nothing is played twice


async def test_shorter_examples_that_lose_the_answer_keep_natural_language() -> None:
    arena = Arena(lambda example: (20, 0.2) if example == "terse" else (130, 1.0))
    _, found = await search(arena, Writer("<example>terse</example>"))
    assert found.adopted == NATURAL and found.verdict.startswith("keep natural language")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        "I can't do that.",
        "",
        None,
        "<example></example>",
        f"<example>{'x ' * 300}</example>",
        "<example>... -- ...</example>",
    ],
)
async def test_a_model_that_writes_nonsense_ends_after_its_calls_with_what_was_there(
    line: str | None,
) -> None:
    arena, writer = Arena(planted), Writer(line)
    made, found = await search(arena, writer)
    assert len(writer.prompts) == made.reflections == made.useless == PLAN.reflections
    assert found.winner == "natural_terse" and list(made.candidates) == ["natural_terse"]  # type: ignore[attr-defined]


async def test_the_same_example_again_is_not_played_again() -> None:
    arena, writer = Arena(planted), Writer("<example>long</example>")
    made, _ = await search(arena, writer)
    assert made.useless == PLAN.reflections - 1
    assert "long" in writer.prompts[1]  # it is told what was tried


@pytest.mark.parametrize("dialogues", [8, 9, 16, 30])
async def test_no_more_dialogues_are_played_than_the_limit_allows(dialogues: int) -> None:
    counter = iter(range(1000))

    class Inventive(Writer):
        async def __call__(self, prompt: str) -> str | None:
            self.prompts.append(prompt)
            return f"<example>word{next(counter)}</example>"

    plan = {"minibatch": 1, "watch": 2, "dialogues": dialogues, "reflections": 100}
    arena = Arena(lambda example: (99 - int(example[4:]) if example.startswith("word") else 100, 1.0))
    await search(arena, Inventive(), **plan)
    assert dialogues - 4 < arena.reflected <= dialogues  # 4: a mutation's worst case


async def test_a_limit_that_strikes_while_reflecting_is_raised_and_not_swallowed() -> None:
    writer = Writer(
        "<example>long</example>", ConfigError("reflect-1: the run's limit of 10 calls is reached")
    )
    with pytest.raises(ConfigError, match="limit of 10 calls"):
        await search(Arena(planted), writer)
    assert len(writer.prompts) == 2  # the call that struck is not made again


async def test_a_limit_that_strikes_while_playing_is_raised() -> None:
    class Poor(Arena):
        async def play(self, format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
            if self.reflected >= 6:
                raise ConfigError("reflect: the run's limit of 99 tokens is reached")
            return await super().play(format, items, purpose)

    with pytest.raises(ConfigError, match="limit of 99 tokens"):
        await search(Poor(planted), Writer("<example>long</example>"))


async def test_a_dialogue_that_failed_is_no_zero() -> None:
    arena = Arena(planted, failing=[5, 11])
    made, found = await search(arena, Writer("<example>pump 3 dry</example>"))
    assert made.candidates[found.adopted].example == "pump 3 dry"  # type: ignore[attr-defined]
    row = next(s for s in found.standings if s.rung == 1)  # type: ignore[attr-defined]
    assert (row.items, row.failed) == (3, 1)


async def test_when_natural_language_fails_everywhere_nothing_is_calibrated() -> None:
    class Broken(Arena):
        async def play(self, format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
            return [None] * len(items)

    with pytest.raises(TaskError, match="calibrated"):
        await search(Broken(planted), Writer("x"))


async def test_equal_searches_ask_equal_things() -> None:
    lines = ("<example>long</example>", "<example>pump 3 dry</example>", "no")
    a, b = Writer(*lines), Writer(*lines)
    (_, one), (_, two) = await search(Arena(planted), a), await search(Arena(planted), b)
    assert a.prompts == b.prompts and one == two


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="no example to rewrite"):
        ReflectiveSearch(start=POOL[NATURAL])
    with pytest.raises(ConfigError, match="count total tokens"):
        ReflectiveSearch(config=RewardConfig())
    with pytest.raises(ConfigError, match="don't last for one mutation"):
        ReflectPlan(dialogues=10)
    with pytest.raises(ConfigError, match="items in every step"):
        ReflectPlan(minibatch=30)


def test_the_last_readable_example_counts() -> None:
    assert example_in("<example>a</example> or <EXAMPLE> b c\nd </EXAMPLE>") == "b c\nd"
    assert all(example_in(f"<example>{f.example}</example>") for f in POOL.values() if f.example)


async def test_without_gepa_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gepa.api", None)
    arena = Arena(planted)
    with pytest.raises(MissingExtraError, match=r"agentcomm\[gepa\]"):
        await search(arena, Writer("x"))
    assert not arena.asked  # found out before anything is paid
