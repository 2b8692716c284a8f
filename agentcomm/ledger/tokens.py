"""Attribution: which part of a prompt each of a call's input tokens was spent on.

The provider's total is the truth. Local counts, by the serving model's own tokenizer, give each
piece of text its share; what the total has beyond them is the part ``template`` (the chat
template's markers). Always, and exactly::

    sum(parts.values()) == input_tokens,   every part >= 0

Where local counts exceed the total (text tokenized piece by piece merges less than as a whole),
they are scaled down by the largest remainder and ``template`` is 0. Without a tokenizer the
total is shared by UTF-8 length, with an estimate for the template, and is marked as estimated.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from agentcomm.backends.base import TokenCounter
from agentcomm.prompting import Prompt

TEMPLATE = "template"
COUNTS_KEPT = 20_000
"""Texts whose count is remembered, per counter."""

MARKERS_PER_MESSAGE, MARKERS_PER_PROMPT = 4, 3
"""Estimated template tokens where no tokenizer is at hand: role markers of a message, and the
opening of the reply."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who pays for a call's input.

    ``parts`` maps ``"system"``, ``"task"``, ``"memory"``, ``"sender->reader"`` and ``"template"``
    to tokens that sum to the total; ``None`` where the total is unknown. ``delivery_tokens`` is
    aligned with the prompt's segments that show a message. ``estimated``: shared by length.
    """

    parts: dict[str, int] | None
    delivery_tokens: list[int | None]
    estimated: bool


async def attribute(prompt: Prompt, input_tokens: int | None, counter: TokenCounter | None) -> Attribution:
    """Split a call's input tokens over the parts of its prompt.

    Parameters
    ----------
    input_tokens:
        The provider's total; ``None`` if it reported none. Then ``parts`` is ``None`` and messages
        have their local count, or ``None`` without a tokenizer.
    counter:
        Counts text with the serving model's tokenizer. If it is ``None``, answers ``None`` or
        fails, shares are by length: the call is paid and must be recorded.
    """
    segments = prompt.segments
    counts = await _counts([s.text for s in segments], counter) if counter is not None else None
    if input_tokens is None or input_tokens < 0:
        local: Sequence[int | None] = counts if counts is not None else [None] * len(segments)
        return Attribution(None, [n for s, n in zip(segments, local, strict=True) if s.delivery], False)
    if counts is None:
        shares = _by_length([s.text for s in segments], input_tokens, len(prompt.messages))
    elif sum(counts) > input_tokens:
        shares = apportion(counts, input_tokens)
    else:
        shares = counts
    parts: dict[str, int] = {}
    for segment, share in zip(segments, shares, strict=True):
        part = str(segment.part)
        parts[part] = parts.get(part, 0) + share
    parts[TEMPLATE] = input_tokens - sum(shares)
    read: list[int | None] = [n for s, n in zip(segments, shares, strict=True) if s.delivery]
    return Attribution(parts, read, counts is None)


async def count(text: str, counter: TokenCounter | None) -> int | None:
    """Tokens of ``text`` by ``counter``; ``None`` if there is none, or it can't tell or fails."""
    counts = await _counts([text], counter) if counter is not None else None
    return None if counts is None else counts[0]


def apportion(weights: Sequence[int], total: int) -> list[int]:
    """``total`` in whole shares proportional to ``weights``, by the largest remainder.

    The shares sum to ``total`` exactly and differ from exact proportion by less than 1; ties go
    to the earlier. All weights 0: all shares 0.

    >>> apportion([1, 1, 1], 5)
    [2, 2, 1]
    """
    whole = sum(weights)
    if whole == 0:
        return [0] * len(weights)
    pairs = [divmod(w * total, whole) for w in weights]
    shares = [q for q, _ in pairs]
    left = total - sum(shares)
    for i in sorted(range(len(pairs)), key=lambda i: (-pairs[i][1], i))[:left]:
        shares[i] += 1
    return shares


def _by_length(texts: Sequence[str], total: int, messages: int) -> list[int]:
    template = min(MARKERS_PER_MESSAGE * messages + MARKERS_PER_PROMPT, total // 2)
    return apportion([len(t.encode("utf-8", "surrogatepass")) for t in texts], total - template)


async def _counts(texts: Sequence[str], counter: TokenCounter) -> list[int] | None:
    memory = _memory_of(counter)
    counts: list[int] = []
    for text in texts:
        if not text:
            counts.append(0)
            continue
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        known = memory.get(key)
        if known is None:
            try:
                known = await counter.count_tokens(text)
            except Exception:
                # Whatever a tokenizer (a server's, a user's) fails with, the call was paid for:
                # it is recorded with estimated shares rather than lost.
                return None
            if known is None or known < 0:
                return None
            memory[key] = known
            if len(memory) > COUNTS_KEPT:
                memory.popitem(last=False)
        else:
            memory.move_to_end(key)
        counts.append(known)
    return counts


_Counts = OrderedDict[bytes, int]
_memories: dict[int, tuple[weakref.ref[TokenCounter], _Counts]] = {}


def _memory_of(counter: TokenCounter) -> _Counts:
    """What was counted with this counter; forgotten when the counter is."""
    key = id(counter)
    held = _memories.get(key)
    if held is not None and held[0]() is counter:
        return held[1]
    memory: _Counts = OrderedDict()
    try:
        reference = weakref.ref(counter, lambda _: _memories.pop(key, None))
    except TypeError:  # an object with slots and no weak references: counted anew each time
        return memory
    _memories[key] = (reference, memory)
    return memory


_ENCODINGS = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
"""Encodings of OpenAI's models and the SHA-256 of their files, as tiktoken names them."""

_ENCODINGS_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"


class TiktokenCounter:
    """Counts text of an OpenAI model, if tiktoken and the encoding's file are already at hand.

    tiktoken fetches a missing or damaged file over the network when an encoding is made; this
    class looks first and then makes none.
    """

    def __init__(self, encoding: Any) -> None:
        self._encoding = encoding

    @classmethod
    def for_model(cls, model: str) -> TiktokenCounter | None:
        """The counter of ``"openai/NAME"`` (or plain ``NAME``), or ``None`` if it can't be had offline."""
        provider, slash, name = model.partition("/")
        if slash and provider != "openai":
            return None
        try:
            tiktoken = import_module("tiktoken")
            encoding = tiktoken.encoding_name_for_model(name if slash else model)
        except (ImportError, KeyError):
            return None
        if not _at_hand(encoding):
            return None
        return cls(tiktoken.get_encoding(encoding))

    async def count_tokens(self, text: str) -> int | None:
        """Tokens of ``text``; what looks like a special token is counted as text."""
        return len(self._encoding.encode(text, disallowed_special=()))


def _at_hand(encoding: str) -> bool:
    expected = _ENCODINGS.get(encoding)
    if expected is None:
        return False
    # The same places as tiktoken.load.read_file_cached; an empty variable turns its cache off.
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder == "":
        return False
    place = Path(folder) if folder else Path(tempfile.gettempdir()) / "data-gym-cache"
    url = _ENCODINGS_URL.format(encoding)
    file = place / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() == expected
    except OSError:
        return False
