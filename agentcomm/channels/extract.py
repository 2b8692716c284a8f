"""Extract: the sentences of a message that say most about the question, as they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from agentcomm.channels.base import Compressor, Made
from agentcomm.channels.budget import one_of
from agentcomm.channels.relevance import Job, by_relevance, choose
from agentcomm.channels.text import sentences
from agentcomm.errors import ConfigError

By = Literal["bm25", "embedding"]


@dataclass(frozen=True, kw_only=True)
class Extract(Compressor):
    """Whole sentences, in their own order, by relevance and against repetition.

    Parameters
    ----------
    by:
        ``"bm25"`` needs nothing. ``"embedding"`` compares sentence vectors of ``model``: a folder or
        hub name of a transformers encoder (extra ``learn``); it runs in this process, makes no model
        call and is in no total.
    query:
        Whether sentences are measured against the item's question, or against the whole message.
    """

    by: By = "bm25"
    model: str | None = None
    query: bool = True

    name: ClassVar[str] = "extract"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self.name, "by", self.by, get_args(By))
        if (self.by == "embedding") != (self.model is not None):
            raise ConfigError(
                "extract: by='embedding' and model=FOLDER_OR_HUB_NAME (an encoder) go together; "
                "by='bm25' takes no model"
            )

    async def shorten(self, job: Job) -> Made:
        query = job.question if self.query else ""
        if self.model is None:
            return Made(await by_relevance(job, query))
        from agentcomm.channels import hf

        listed = sentences(job.text, job.places)
        texts = [job.text[a:b].strip() for a, b in listed]
        return Made(await choose(job, listed, await hf.similarities(self.model, query or job.text, texts)))
