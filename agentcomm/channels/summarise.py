"""Summarise: a model says the message in fewer words.

The model is told how many words it has; its reply can't be longer than the budget in its own
tokens. A small model often does something else: it introduces its answer, says nothing, repeats
the text, refuses, or goes on until it is cut off. Each is told from the reply, counted as not
adherent and mended without believing it: introductions are taken off, a reply of no use is asked
for once more with fewer words and then replaced by sentences of the message, one that is too long
is cut. Prompts put the message first, so that a server reads it once for several requests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from agentcomm.channels.base import Compressor, Made
from agentcomm.channels.budget import whole_number
from agentcomm.channels.relevance import Job
from agentcomm.channels.text import sentences
from agentcomm.errors import ConfigError
from agentcomm.prompting import Prompt, PromptMessage, Segment

SYSTEM = "You shorten texts for a reader who sees only what you write."
SHORTEN = "Say the text above in at most {words} words. Keep its facts, names, numbers and conclusions; add nothing."
FOR_QUESTION = (
    "The reader has this question:\n{question}\n\nFrom the text above, write in at most {words} words "
    "only what helps to answer it. Don't answer it yourself; add nothing."
)
ONLY = "Write only the shortened text."
WORDS_PER_TOKEN = 0.7
TIGHTER = 0.6
"""What is left of the words when a reply was of no use."""

_WHAT = r"(?:text|version|summary|message|paragraph|words)"
_LABEL = rf"(?:(?:short(?:ened|er)?|compressed|condensed|concise|brief) )?{_WHAT}"
_PREAMBLE = re.compile(
    # "Sure!", "Certainly, I can help with that."
    r"\s*(?:(?:sure|certainly|of course|absolutely|okay|ok)(?: thing)?[!.,]\s+(?:i can [^\n:.!]{0,40}[.!]\s*)?)?"
    # "Here is the shortened text:", "**Summary:**"
    rf"(?:(?:here(?:'s|’s| is| are)|below is|the following is|this is)\b[^\n:]{{0,60}}\b{_WHAT}\b[^\n:]{{0,40}}:\W{{0,3}}\s*"
    rf"|\W{{0,3}}(?:the )?{_LABEL}\W{{0,3}}:\W{{0,3}}\s*)?",
    re.IGNORECASE,
)
_POSTAMBLE = re.compile(
    r"\s*(?:i hope (?:this|that) helps|let me know if|feel free to|is there anything else|"
    r"please let me know)[^\n]*\s*\Z",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\s*(?:i['’]?m sorry|i apologi[sz]e|sorry,|i can(?:not|['’]t) |i am unable|i['’]m unable|as an ai\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Summarise(Compressor):
    """A model's shorter wording of the message.

    Parameters
    ----------
    model:
        A model string; ``None`` is the run's default. Its calls are charged to the edge, in phase
        ``compress``, within the reader's limits.
    query:
        Whether the model is shown the item's question, to keep what helps to answer it.
    temperature:
        Of the model; the seed derives from the run's, the item, the sample and the prompt.
    retries:
        How often a reply of no use (empty, a refusal, the text itself) is asked for again, with
        fewer words.
    """

    model: str | None = None
    query: bool = False
    temperature: float = 0.0
    retries: int = 1

    name: ClassVar[str] = "summarise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature < 0:
            raise ConfigError(f"summarise: temperature={self.temperature}; it must be at least 0")
        if self.retries:
            whole_number(self.name, "retries", self.retries)
        if self.model is not None and not isinstance(self.model, str):
            raise ConfigError(f"summarise: model={self.model!r}; write a model string, e.g. 'local/smollm2'")

    @property
    def models(self) -> tuple[str | None, ...]:
        return (self.model,)

    async def shorten(self, job: Job) -> Made:
        desk = job.turn.desk if job.turn is not None else None
        if desk is None:
            raise ConfigError("summarise: it calls a model, so it works only on an edge of a running graph")
        room = job.room or 0
        if room < 1:
            return Made("", reason="room only for what must be kept")
        words = max(1, int(room * WORDS_PER_TOKEN))
        problems: list[str] = []
        for attempt in range(self.retries + 1):
            prompt = self.prompt(job, max(1, int(words * TIGHTER**attempt)))
            reply = await desk.ask(
                prompt, model=self.model, max_tokens=room, temperature=self.temperature, attempt=attempt
            )
            text, problem = cleaned(reply.text, job.text)
            if reply.finish_reason == "length":
                problem = f"{problem}, ran_on" if problem else "ran_on"
            if problem:
                problems.append(problem)
            if text is not None:
                whole = finished(text) if reply.finish_reason == "length" else text
                return Made(whole, not problems, ", ".join(problems), cut=whole != text)
        return Made(None, adherent=False, reason=", ".join(problems))

    def prompt(self, job: Job, words: int) -> Prompt:
        """What the model is told: the message, then what to do with it."""
        if self.query and job.question:
            before, after = FOR_QUESTION.format(question="\0", words=words).split("\0")
            asked = [Segment("system", f"\n\n{before}"), Segment("task", job.question)]
            told = f"{after} {ONLY}"
        else:
            asked, told = [], f"\n\n{SHORTEN.format(words=words)} {ONLY}"
        user = (Segment(job.edge, f"Text:\n{job.text}"), *asked, Segment("system", told))
        return Prompt((PromptMessage("system", (Segment("system", SYSTEM),)), PromptMessage("user", user)))


def finished(text: str) -> str:
    """A text that was cut off, without its unfinished last sentence if that leaves at least half.

    >>> finished("Ada has a cat. Ben has a")
    'Ada has a cat.'
    """
    start, _ = sentences(text)[-1] if text else (0, 0)
    whole = text[:start].rstrip()
    return whole if 2 * len(whole) >= len(text) and text.rstrip()[-1] not in ".!?…。！？" else text


def cleaned(reply: str, original: str) -> tuple[str | None, str]:
    """A reply without what introduces or follows it, and what was wrong with it; ``None``: of no use.

    >>> cleaned("Sure! Here is the shortened text: Ada has a cat.", "...")
    ('Ada has a cat.', 'preamble')
    >>> cleaned("I'm sorry, I can't do that.", "...")
    (None, 'refusal')
    """
    text = reply.strip()
    if not text:
        return None, "empty"
    if _REFUSAL.match(text) and not _REFUSAL.match(original):
        return None, "refusal"
    problem = ""
    opening = _PREAMBLE.match(text)
    if (
        opening is not None
        and (end := opening.end())
        and not original.lstrip().startswith(text[:end].strip())
    ):
        text, problem = text[end:], "preamble"
    closing = _POSTAMBLE.search(text)
    if closing is not None and closing[0].strip() not in original:
        text, problem = text[: closing.start()], "preamble"
    text = text.strip()
    if len(text) > 1 and text[0] + text[-1] in ('""', "“”") and not original.lstrip().startswith(text[0]):
        text = text[1:-1].strip()
    if not text:
        return None, problem or "empty"
    if ONLY in text and ONLY not in original:
        return None, "echo"
    if text == original.strip():
        return None, "identical"
    return text, problem
