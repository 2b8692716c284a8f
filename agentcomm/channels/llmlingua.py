"""LLMLingua-2: an encoder marks each word as worth keeping or not (Pan et al. 2024, arXiv 2403.12968).

The package ``llmlingua`` has had no release since April 2024 and asks for versions of transformers
that others can't live with, so this loads the published models themselves, e.g.
``microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank``. The method asks for a rate; here
the words with the highest marks are kept that fit the budget together. Protected pieces count as
one word each that is always kept.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar

from agentcomm.channels import hf
from agentcomm.channels.base import Compressor, Made
from agentcomm.channels.relevance import Job
from agentcomm.channels.text import Place
from agentcomm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LLMLingua2(Compressor):
    """Words by the marks of ``model``: a folder or hub name of an LLMLingua-2 classifier (extra ``learn``)."""

    model: str = ""

    name: ClassVar[str] = "llmlingua2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise ConfigError("llmlingua2: it needs model=, a folder or hub name of an LLMLingua-2 model")

    async def shorten(self, job: Job) -> Made:
        words, fixed = _words(job.text, job.places if job.kept else ())
        marks = await hf.keep_probabilities(self.model, words)
        ranked = [math.inf if f else m for m, f in zip(marks, fixed, strict=True)]
        order = sorted(range(len(words)), key=lambda i: (-ranked[i], i))

        def first(n: int) -> str:
            return " ".join(words[i] for i in sorted(order[:n]))

        low, high = 0, len(words)
        while low < high:
            middle = (low + high + 1) // 2
            if await job.fits(first(middle)):
                low = middle
            else:
                high = middle - 1
        return Made(first(low)) if low else Made(None, reason="nothing_fits")


def _words(text: str, places: tuple[Place, ...]) -> tuple[list[str], list[bool]]:
    """Words, each protected piece one of them; and which are protected."""
    words: list[str] = []
    fixed: list[bool] = []
    at = 0
    for start, end in [*places, (len(text), len(text))]:
        for word in re.findall(r"\S+", text[at:start]):
            words.append(word)
            fixed.append(False)
        if start < end:
            words.append(text[start:end])
            fixed.append(True)
        at = end
    return words, fixed
