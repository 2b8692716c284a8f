"""Compressing a context: the one place where the words of the request stand, and the plainest compressors.

A compressor is asked, and a scorer reads, in the same layout: the text first, then what to do with it,
then the question, so that all questions about a text share its beginning. A scorer that is the
compressor itself then reads exactly what the compressor read.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from agentcomm.channels.text import whole_at
from agentcomm.errors import ConfigError
from agentcomm.information.scorers.offline import words

WORDS_PER_TOKEN = 0.75
"""English, roughly: models count words better than tokens."""

_FOR_A_QUESTION = (
    "Write down what someone needs from the text above to answer the question below: the key points and "
    "the details that support them, in as few words as you can. Do not answer the question."
)
_FOR_ANY_QUESTION = (
    "Shorten the text above for someone who will be asked about it and sees only your version. Keep what "
    "likely questions need, add nothing, and answer nothing."
)


@dataclass(frozen=True)
class CompressPrompt:
    """What a compressor is asked.

    Attributes
    ----------
    name:
        ``"question"``: with respect to a question; ``"general"``: whatever will be asked.
    instruction:
        What to do with the text above.
    lead:
        What introduces the question, still the same for all of them.
    budget:
        Tokens asked for, or ``None``.

    Examples
    --------
    >>> print(QUESTION.user("Ada has a cat.", "What pet does Ada have?"))  # doctest: +ELLIPSIS
    Text:
    Ada has a cat.
    <BLANKLINE>
    Write down what someone needs ... Do not answer the question.
    Question: What pet does Ada have?
    """

    name: str
    instruction: str
    lead: str = ""
    budget: int | None = None

    @property
    def id(self) -> str:
        """Changes with any word of it."""
        words = self.head("\0") + self.tail("\0")
        return f"{self.name}:{sha256(words.encode()).hexdigest()[:12]}"

    def head(self, context: str) -> str:
        """What is the same for all questions about a text."""
        return f"Text:\n{context}\n\n{self.instruction}{self._limit()}{self.lead}"

    def tail(self, query: str) -> str:
        """The question, or nothing where there is none."""
        return f" {query}" if query else ""

    def user(self, context: str, query: str) -> str:
        """The whole request."""
        return self.head(context) + self.tail(query)

    def within(self, budget: int | None) -> CompressPrompt:
        """The same request for at most ``budget`` tokens.

        Raises
        ------
        ConfigError
            If that is less than one.
        """
        if budget is not None and budget < 1:
            raise ConfigError(f"a budget of {budget} tokens holds no message; it must be at least 1")
        return replace(self, budget=budget)

    def _limit(self) -> str:
        if self.budget is None:
            return ""
        return f" Use at most {max(1, int(self.budget * WORDS_PER_TOKEN))} words."


QUESTION = CompressPrompt("question", _FOR_A_QUESTION, "\nQuestion:")
GENERAL = CompressPrompt("general", _FOR_ANY_QUESTION)


def prompt_for(queries: Sequence[str]) -> CompressPrompt:
    """``QUESTION`` if there is a question among ``queries``, else ``GENERAL``."""
    return QUESTION if any(queries) else GENERAL


# -- compressors without a model -------------------------------------------------------------

_PIECE = re.compile(r"[぀-ヿ㐀-鿿]|[^\W぀-ヿ㐀-鿿]+|[^\w\s]")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")


def pieces(text: str) -> int:
    """Words and punctuation marks: tokens of no model, the same on every machine.

    >>> pieces("Ada's cat, 東京.")
    8
    """
    return len(_PIECE.findall(text))


def identity(text: str) -> str:
    """Everything: what no compressor can exceed."""
    return text


def truncate(text: str, budget: int) -> str:
    """The first ``budget`` pieces; no character is split from its accents or joined ones.

    >>> truncate("Ada has a cat. Ben has none.", 4)
    'Ada has a cat'
    """
    _must_hold(budget)
    found = list(_PIECE.finditer(text))
    if len(found) <= budget:
        return text
    at = found[budget - 1].end()
    while not whole_at(text, at):  # back to where a written character ends
        at -= 1
    return text[:at].rstrip()


def extract(text: str, query: str, budget: int) -> str:
    """Whole sentences that share rare words with the question, in their order, at most ``budget`` pieces.

    Without a question, or where nothing fits, sentences come from the beginning.

    >>> extract("Ada has a cat. Ben has a dog.", "Which dog does Ben have?", 6)
    'Ben has a dog.'
    """
    _must_hold(budget)
    sentences = [s for s in _SENTENCE.split(text) if s.strip()]
    having = [set(words(s)) for s in sentences]
    asked = set(words(query))

    def relevance(i: int) -> float:
        return sum(1 / sum(word in others for others in having) for word in asked & having[i])

    chosen: list[int] = []
    left = budget
    for i in sorted(range(len(sentences)), key=lambda i: (-relevance(i), i)):
        if (length := pieces(sentences[i])) <= left:
            chosen.append(i)
            left -= length
    return " ".join(sentences[i].strip() for i in sorted(chosen)) or truncate(text, budget)


def randomly(contexts: Sequence[str], budget: int, seed: str) -> str:
    """Words drawn from all contexts, whatever the context: a message that says nothing."""
    _must_hold(budget)
    rng = random.Random(seed)
    known = sorted({word for context in contexts for word in context.split()})
    drawn = " ".join(rng.choice(known) for _ in range(budget)) if known else ""
    return truncate(drawn, budget)  # a word may have marks on it


def _must_hold(budget: int) -> None:
    if budget < 1:
        raise ConfigError(f"a budget of {budget} holds no message; it must be at least 1")
