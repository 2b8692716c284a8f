"""A desk that counts and answers without an episode, and texts that make trouble."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentcomm.backends.scripted import count_words
from agentcomm.channels.base import Compressed, Compressor
from agentcomm.graph import Agent
from agentcomm.message import Reply
from agentcomm.prompting import Prompt, Turn
from agentcomm.task import Item

QUESTION = "What pet does Ben have?"
TEXT = (
    "Ada lives in Oslo and works as a nurse at the old hospital. Ben lives in a house by the river. "
    "Ben has a pet goat that he likes very much. The weather was fine all week long. "
    "Nobody knows why the bridge was closed. Cara plays the violin every evening."
)


@dataclass
class Desk:
    """Counts words (or as ``counter`` says) and says the ``replies`` in order; an exception is raised."""

    replies: list[str | Reply | Exception] = field(default_factory=list)
    counter: Callable[[str], int | None] = count_words
    asked: list[tuple[Prompt, dict[str, Any]]] = field(default_factory=list)
    counts_by: str = "words"

    async def ask(self, prompt: Prompt, **how: Any) -> Reply:
        self.asked.append((prompt, how))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Reply) else Reply(reply, finish_reason="stop")

    async def count(self, text: str) -> int | None:
        return self.counter(text)


def turn(desk: Desk | None = None, **more: Any) -> Turn:
    values = {
        "item": Item("q", QUESTION),
        "agent": Agent("reader"),
        "round": 1,
        "desk": desk or Desk(),
        **more,
    }
    return Turn(**values)


async def compress(
    channel: Compressor, text: str, *replies: str | Reply | Exception, **more: Any
) -> Compressed:
    return await channel.compress(text, turn=turn(Desk(list(replies)), **more))


TROUBLE = (
    "👩‍👩‍👧‍👦 family 👍🏽 thumbs 🇩🇪🇫🇷🇯🇵 flags 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f e\u0301a\u0328\u0301 accents",
    "수도는 서울이다. ᄒᆞᆫ글 क्षत्रिय हिन्दी ଓଡ଼ିଆ தமிழ் ไทยไม่มีช่องว่าง",
    "価格は3000円です。東京タワーは高い！大阪はどう？雨が降る。",
    "العربية من اليمين إلى اليسار. שלום עולם, מה נשמע? \u202eabc\u202c done",
    "half \ud83d pair \udc00 and nul \x00 and\r\nlines\r\n\r\nand \u2028 separators\u2029",
    "a" * 300,
    "word " * 200,
    '{"a": [1, 2, {"b": "x"}], "c": null} and "a quote, kept" with `code(x)` at https://a.b/c?d=1#e, 3.5 % of 1,000',
    "```python\ndef f(x):\n    return x + 1\n```\nThen **bold** text.\n\n\n\n# Head\n## Two\n---\nline line\nline line\n",
    "[[[[[[ {{{{ not json ]]] " * 20,
    "",
    " \n\t ",
    "x",
)
"""Texts that a careless channel would split, break or choke on."""
