"""Defects of the specification's list that belong to no single file, and bad input to measurements.

``design/information_checklist.md`` says for every defect which test would catch it.
"""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path

import anyio
import pytest

import agentcomm
from agentcomm import channels
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted, count_words
from agentcomm.evaluation.run import evaluate
from agentcomm.graph import Agent, AgentGraph
from agentcomm.information import estimate_mi
from agentcomm.information.scorers.offline import NGram
from agentcomm.ledger.store import Ledger
from agentcomm.task import Item, Score, Task
from tests.channels.doubles import TEXT, Desk, turn

PACKAGE = Path(agentcomm.__file__).parent
DYNAMIC = {"exec", "eval", "compile", "__import__"}
BACKGROUND = "plain words that name nothing in particular. " * 20


@pytest.mark.parametrize("room", ["channels", "information", "research"])
def test_no_room_that_handles_model_text_runs_any_of_it(room: str) -> None:
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else ""
                assert called not in DYNAMIC, f"{path.name}:{node.lineno} calls {called}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "marshal", "dill"} & set(names), f"{path.name}:{node.lineno}"


def test_every_message_is_a_request_of_its_own_and_no_job_sees_another() -> None:
    texts = [f"{TEXT} The number is {i}{i}{i}." for i in range(3)]
    desk = Desk(["Short 1.", "Short 2.", "Short 3."])
    channel = channels.summarise(budget=20, protect=())

    async def all_of_them() -> list[str]:
        return [(await channel.compress(text, turn=turn(desk))).text for text in texts]

    assert anyio.run(all_of_them) == ["Short 1.", "Short 2.", "Short 3."]
    assert len(desk.asked) == len(texts)
    for i, (prompt, _) in enumerate(desk.asked):
        said = "\n".join(m.content for m in prompt.messages)
        assert re.findall(r"The number is (\d+)", said) == [f"{i}{i}{i}"]


def test_tokens_are_counted_by_the_readers_tokenizer_and_no_other() -> None:
    async def shortened(counter: object) -> tuple[str, int | None]:
        desk = Desk([], counter=counter)  # type: ignore[arg-type]
        got = await channels.extract(budget=30, protect=()).compress(TEXT, turn=turn(desk))
        return got.text, got.compression.tokens

    words, tokens = anyio.run(shortened, count_words)
    letters, signs = anyio.run(shortened, len)
    assert tokens == count_words(words) <= 30 and signs == len(letters) <= 30
    assert len(letters) < len(words), "a reader whose tokens are letters gets less"


def test_originals_come_back_byte_for_byte_from_the_ledger_of_a_run_that_has_ended(tmp_path: Path) -> None:
    original = "Zwölf 👩‍👩‍👧‍👦 crossed.\r\n\tThen 3.50 € were paid. " * 4

    def say(request: ChatRequest) -> str:
        return original if "Tell." in request.messages[-1].content else "yes"

    graph = AgentGraph([Agent("a", "Tell."), Agent("b")], [("a", "b")], "b")
    graph = graph.with_channel(channels.truncate(tokens=5))
    task = Task("one", [Item("q", "Who?", "yes")], lambda item, text: Score(1.0))
    anyio.run(lambda: evaluate(graph, task, Scripted(say), out=tmp_path / "r", executor="plain"))
    with Ledger.open(tmp_path / "r" / "ledger.sqlite") as ledger:
        (row,) = ledger.channels()
        assert row.text != original and ledger.body(hashlib.sha256(original.encode()).hexdigest()) == original
        assert ledger.body(row.message_id) == original


def test_a_beginning_of_a_hash_names_nothing_so_that_no_two_originals_can_be_taken_for_each_other() -> None:
    with (
        Ledger.in_memory() as ledger,
        pytest.raises(agentcomm.errors.LedgerError, match="no text or message"),
    ):
        ledger.body(hashlib.sha256(b"x").hexdigest()[:12])


@pytest.mark.parametrize(
    "contexts", [["", "", ""], ["", "a", "b"], ["a", "b", "c"], ["x"], ["👩‍👩‍👧‍👦", "ę", "\ud83d"]]
)
def test_empty_and_one_token_contexts_have_defined_results(contexts: list[str]) -> None:
    matrix = NGram(background=BACKGROUND).score_matrix(contexts, "q", [[c, ""] for c in contexts])
    found = estimate_mi(matrix)
    assert found.n_failed == 0 and found.mc_nats is not None and found.mc_nats <= found.log_n + 1e-9
    if len(set(contexts)) == 1:
        assert found.mc_nats == pytest.approx(0, abs=1e-9)
