"""Dialogues played with a scripted model, and the prompts that it was asked."""

from __future__ import annotations

from collections.abc import Sequence

import agentcomm as ac
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.dialogue.rows import digest
from agentcomm.graph import AgentGraph
from agentcomm.schedule import TurnRecord
from agentcomm.task import Item


async def played(graph: AgentGraph, item: Item, texts: Sequence[str]) -> tuple[list[TurnRecord], list[str]]:
    """An episode's records, and the hash of each prompt as the backend got it."""
    asked: list[str] = []

    def say(request: ChatRequest) -> str:
        asked.append(digest(request.messages))
        return texts[len(asked) - 1]

    episode = await ac.run(graph, item, Scripted(say))
    assert episode.ok
    return list(episode.records), asked
