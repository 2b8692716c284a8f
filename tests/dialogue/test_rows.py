"""Training rows: the prompts of calls, own turns only, no format instruction."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentcomm.dialogue.formats import POOL
from agentcomm.dialogue.rows import (
    Meta,
    PreferenceRow,
    digest,
    folded,
    preference_rows,
    read_rows,
    rows,
    split,
    without_formats,
    write_rows,
)
from agentcomm.dialogue.select import Pair, select_pairs
from agentcomm.dialogue.tree import DialogueTree, Said
from agentcomm.errors import ConfigError, RunError
from agentcomm.graph import AgentGraph
from agentcomm.loading import load_graph
from agentcomm.message import ChatMessage, Message
from agentcomm.task import Item
from tests.dialogue.talks import played

ITEM = Item("i1", "Which river?", "Po", views={"s1": "Ada lives in Turin.", "s2": "Turin lies on the Po."})
TALK = [
    Said("alice", "Ada: Turin. River?"),
    Said("bob", "Turin: Po. <A>Po</A>"),
    Said("alice", "<A>Po</A>"),
]


def exchange(**options: object) -> AgentGraph:
    return load_graph("information_exchange", options)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["information_exchange", "debate_pair"])
async def test_a_rows_prompt_is_the_calls_prompt_byte_for_byte(name: str) -> None:
    graph = load_graph(name)
    records, asked = await played(graph, ITEM, ["one", "two", "three", "four", "five", "six"])
    made = rows(graph, ITEM, records, reward=1.0)
    assert [digest(row.prompt) for row in made] == asked and len(asked) == 6
    assert [row.meta.prompt_sha256 for row in made] == asked
    said = [Said(r.outcome.sender, r.outcome.text) for r in records if isinstance(r.outcome, Message)]
    assert rows(graph, ITEM, said, reward=1.0) == made


def test_a_row_for_each_own_turn_with_alternating_roles_and_the_speakers_own_view() -> None:
    made = rows(exchange(), ITEM, TALK, reward=1.385, iteration=2)
    assert [(row.meta.agent, row.meta.turn) for row in made] == [("alice", 1), ("bob", 2), ("alice", 3)]
    assert [row.completion for row in made] == [said.text for said in TALK]
    assert [m.role for m in made[2].prompt] == ["system", "user", "assistant", "user"]
    for row in made:
        talk = [m.role for m in row.prompt if m.role != "system"]
        assert talk == ["user", "assistant"] * (len(talk) // 2) + ["user"]
        shown = "".join(m.content for m in row.prompt)
        assert ("Ada lives" in shown, "lies on the Po" in shown) == (
            row.meta.agent == "alice",
            row.meta.agent == "bob",
        )
    assert made[2].prompt[-1].content == "From bob:\nTurin: Po. <A>Po</A>"
    assert made[0].meta == Meta("i1", 2, "alice", 1, 1.385, digest(made[0].prompt))


def test_an_agents_own_name_tag_is_taken_off_wherever_the_message_stands() -> None:
    tagged = [Said(a, f"{a.title()}: {text}") for a, text in TALK]
    assert rows(exchange(), ITEM, tagged, reward=1.0) == rows(exchange(), ITEM, TALK, reward=1.0)


@pytest.mark.parametrize("name", [n for n, f in POOL.items() if f.text])
def test_no_format_instruction_reaches_a_row(name: str) -> None:
    told, plain = exchange(instruction=POOL[name].text), exchange()
    with pytest.raises(ConfigError, match="stands in the prompt"):
        rows(told, ITEM, TALK, reward=1.0)
    assert without_formats(told) == plain
    assert rows(without_formats(told), ITEM, TALK, reward=1.0) == rows(plain, ITEM, TALK, reward=1.0)


def test_turns_without_a_word_have_no_row_and_the_verdict_none() -> None:
    made = rows(
        exchange(), ITEM, [Said("alice", " "), *TALK[1:], Said("agreement", "Answer: Po")], reward=1.0
    )
    assert [row.meta.turn for row in made] == [2, 3]


def test_what_does_not_fit_the_graph_is_refused() -> None:
    with pytest.raises(ConfigError, match="message 1 is by 'bob', where this graph lets 'alice'"):
        rows(exchange(), ITEM, TALK[1:], reward=1.0)
    with pytest.raises(ConfigError, match="2 messages more than 1 rounds"):
        rows(exchange(rounds=1), ITEM, [*TALK, Said("bob", "y")], reward=1.0)
    with pytest.raises(ConfigError, match="reward of nan"):
        rows(exchange(), ITEM, TALK, reward=float("nan"))
    from agentcomm.channels.truncate import Truncate

    with pytest.raises(ConfigError, match="pass the episode's records"):
        rows(exchange().with_channel(Truncate(5)), ITEM, TALK, reward=1.0)


def test_pairs_share_the_history_from_the_speakers_view() -> None:
    tree = DialogueTree(ITEM.id)
    first, bad = Said("bob", "Turin is in Italy, I think"), Said("bob", "Turin: Po. <A>Po</A>")
    tree.add(0, [TALK[0], bad, Said("alice", "<A>Po</A>")], 1.2)
    tree.add(0, [TALK[0], first, Said("alice", "<A>Rhine</A>")], 0.3)
    pairs, _ = select_pairs(tree)
    (row,) = preference_rows(exchange(), ITEM, pairs, iteration=1)
    assert (row.chosen, row.rejected) == ("Turin: Po. <A>Po</A>", "Turin is in Italy, I think")
    assert row.prompt == rows(exchange(), ITEM, TALK, reward=1.0)[1].prompt
    assert (row.meta.agent, row.meta.turn, row.meta.reward) == ("bob", 2, 1.2)


def test_pairs_that_are_the_same_text_have_no_row_and_pairs_of_two_speakers_are_refused() -> None:
    same = Pair((), Said("alice", "x"), Said("alice", "Alice: x"), 1.0, 0.5, 0)
    assert preference_rows(exchange(), ITEM, [same]) == []
    with pytest.raises(ConfigError, match="both must be one agent's turn"):
        preference_rows(exchange(), ITEM, [same._replace(rejected=Said("bob", "y"))])


def test_rows_come_back_from_their_file_and_every_line_has_the_same_keys(tmp_path: Path) -> None:
    made = rows(exchange(), ITEM, [*TALK[:2], Said("alice", "Zürich \u2028 ✓")], reward=1.0)
    write_rows(tmp_path / "sft.jsonl", made)
    lines = [json.loads(line) for line in (tmp_path / "sft.jsonl").read_text().split("\n")[:-1]]
    assert {tuple(line) for line in lines} == {("prompt", "completion", "meta")}
    assert all(None not in line["meta"].values() for line in lines)
    assert len({tuple(line["meta"]) for line in lines}) == 1
    assert read_rows(tmp_path / "sft.jsonl") == made
    pair = PreferenceRow(made[0].prompt, "a", "b", made[0].meta)
    write_rows(tmp_path / "dpo.jsonl", [pair])
    assert read_rows(tmp_path / "dpo.jsonl") == [pair]
    (tmp_path / "dpo.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(ConfigError, match=r"dpo\.jsonl, line 1: not a training row"):
        read_rows(tmp_path / "dpo.jsonl")


def test_a_file_that_can_not_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rows(exchange(), ITEM, TALK, reward=1.0)
    write_rows(tmp_path / "x.jsonl", made)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left"):
        write_rows(tmp_path / "x.jsonl", made[:1])
    assert read_rows(tmp_path / "x.jsonl") == made and len(list(tmp_path.iterdir())) == 1


def test_validation_rows_are_split_off_by_item() -> None:
    one = rows(exchange(), ITEM, TALK, reward=1.0)
    found = [replace(row, meta=replace(row.meta, item=f"i{k}")) for k in range(50) for row in one]
    parts = split(found, 10, seed=3)
    held = {row.meta.item for row in parts.validation}
    assert len(held) == 5 and not held & {row.meta.item for row in parts.train}
    assert len(parts.train) + len(parts.validation) == len(found)
    assert split(found, 10, seed=3) == parts and split(found, 10, seed=4) != parts
    assert split(one, 10).validation == [] and len(split(found[:6], 2).validation) == 3
    with pytest.raises(ConfigError, match="0 to 99"):
        split(found, 100)


def test_a_template_without_a_system_role_gets_that_text_in_the_first_user_message() -> None:
    chat = (ChatMessage("system", "S"), ChatMessage("user", "U"), ChatMessage("assistant", "A"))
    assert folded(chat) == (ChatMessage("user", "S\n\nU"), ChatMessage("assistant", "A"))
    assert folded(chat[1:]) == chat[1:]
