"""Token ids of prompt and continuation, by concatenation.

A prompt is four pieces: [template] [text and instruction] [question] [template up to where the reply
begins]. The first two are a context's *head*, the last two a question's *tail*; a continuation is a
third run of ids behind them. Each is tokenised by itself and the ids are joined, so it is known by
counting which ids are the continuation's: nothing is searched for, whatever the texts contain. Every
column has the same continuation ids.

Template tokens condition and are never summed. What a context, question or continuation contains is
text: a chat marker written in it does not become a marker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from agentcomm.errors import ScorerError
from agentcomm.information.compressing import CompressPrompt
from agentcomm.information.scorers.base import NO_DOCUMENT

Ids = tuple[int, ...]

SENTINEL = "THE-REQUEST-STANDS-HERE-5d1f"
"""Stands in the user's place when a chat template is rendered, once, to see what is around it."""

PLAIN_AFTER = "\n\nNotes:\n"
"""Before the continuation, for models without a chat template."""


@dataclass(frozen=True)
class Template:
    """Ids around the user's text, and what they are called in a prompt's id."""

    before: Ids
    after: Ids
    name: str


class Spans:
    """Ids of heads, tails and continuations for one tokenizer.

    Parameters
    ----------
    tokenise:
        Text to ids, without special tokens and without reading any in the text. Raises
        :class:`~agentcomm.errors.ScorerError` for what the tokenizer can't represent.
    """

    def __init__(self, prompt: CompressPrompt, template: Template, tokenise: Callable[[str], Ids]) -> None:
        self.prompt, self.template = prompt, template
        self._tokenise = tokenise
        # A failure is not cached, and a text is asked for once a column.
        self.head = lru_cache(maxsize=4096)(self._head)
        self.tail = lru_cache(maxsize=4096)(self._tail)
        self.text = lru_cache(maxsize=65_536)(self._text)

    @property
    def id(self) -> str:
        return f"{self.prompt.id}/{self.template.name}"

    def _head(self, context: str | None) -> Ids:
        return self.template.before + self._ids(
            "the context", self.prompt.head(NO_DOCUMENT if context is None else context)
        )

    def _tail(self, query: str) -> Ids:
        text = self.prompt.tail(query)
        return (self._ids("the question", text) if text else ()) + self.template.after

    def _text(self, text: str) -> Ids:
        if not text:
            return ()
        ids = self._ids("the message", text)
        if not ids:
            raise ScorerError("the scorer's tokenizer makes no tokens of the message")
        return ids

    def _ids(self, what: str, text: str) -> Ids:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ScorerError(f"{what} holds half a surrogate pair, which is no character") from None
        try:
            return self._tokenise(text)
        except ScorerError as error:
            raise ScorerError(f"{what}: {error}") from error
