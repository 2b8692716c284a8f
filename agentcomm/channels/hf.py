"""hf: transformers models that run in this process, for channels that need vectors or keep-or-drop marks.

Needs the extra ``learn``. Models are loaded once a process, from a folder or the hub (with the network,
only if they aren't in the hub's cache), and used by one thread at a time, away from the event loop.
They make no model calls in the sense of the ledger: they cost time, and are in no total.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import anyio.to_thread

from agentcomm.errors import ChannelError, ConfigError, MissingExtraError

WINDOW = 510
"""Longest input in tokens; longer texts are read piece by piece."""
_one_at_a_time = threading.Lock()


async def similarities(model: str, query: str, texts: Sequence[str]) -> list[float]:
    """Cosine of each text's mean vector with the query's, shifted to 0..1.

    Raises
    ------
    MissingExtraError, ConfigError
        If transformers or the model is missing.
    ChannelError
        If the model fails.
    """
    found: list[float] = await _away(_similarities, model, query, list(texts))
    return found


async def keep_probabilities(model: str, words: Sequence[str]) -> list[float]:
    """For each word of a text the probability that it should be kept (LLMLingua-2's classifier).

    A word's probability is the mean of its tokens'; the words are read in their order, in windows.
    """
    found: list[float] = await _away(_keep_probabilities, model, list(words))
    return found


async def _away(function: Any, *args: Any) -> Any:
    def run() -> Any:
        with _one_at_a_time:
            try:
                return function(*args)
            except (MissingExtraError, ConfigError, ChannelError):
                raise
            except Exception as error:
                raise ChannelError(f"{args[0]}: {type(error).__name__}: {error}") from error

    return await anyio.to_thread.run_sync(run)


@cache
def _load(model: str, head: str) -> tuple[Any, Any]:
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            f"{model} needs transformers and torch: pip install 'agentcomm[learn]' ({error})"
        ) from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        network = getattr(transformers, head).from_pretrained(model)
    except Exception as error:  # a folder without a model, no network, a damaged file
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"no model of that kind at {model}: {first}; name a folder or a hub model"
        ) from error
    return tokenizer, network.eval()


def _similarities(model: str, query: str, texts: list[str]) -> list[float]:
    tokenizer, network = _load(model, "AutoModel")
    import torch

    vectors = []
    with torch.inference_mode():
        for text in [query, *texts]:
            read = tokenizer(text, return_tensors="pt", truncation=True, max_length=WINDOW)
            hidden = network(**read).last_hidden_state[0].float()
            vectors.append(torch.nn.functional.normalize(hidden.mean(dim=0), dim=0))
        cosines = torch.stack(vectors[1:]) @ vectors[0] if texts else torch.zeros(0)
    return [(1 + float(c)) / 2 for c in cosines]


def _keep_probabilities(model: str, words: list[str]) -> list[float]:
    tokenizer, network = _load(model, "AutoModelForTokenClassification")
    import torch

    totals, counts = [0.0] * len(words), [0] * len(words)
    start = 0
    while start < len(words):
        read = tokenizer(
            words[start : start + WINDOW],
            is_split_into_words=True,
            return_tensors="pt",
            truncation=True,
            max_length=WINDOW,
        )
        owners = read.word_ids(0)
        with torch.inference_mode():
            kept = network(**read).logits[0].float().softmax(-1)[:, 1]
        reached = start
        for owner, probability in zip(owners, kept.tolist(), strict=True):
            if owner is not None:
                totals[start + owner] += probability
                counts[start + owner] += 1
                reached = max(reached, start + owner + 1)
        # A word that was cut off at the window's end is read again, unless it is a window by itself.
        more = reached < len(words) and reached - start > 1
        following = reached - 1 if more else max(reached, start + 1)
        if more:
            totals[following], counts[following] = 0.0, 0
        start = following
    return [t / c if c else 0.0 for t, c in zip(totals, counts, strict=True)]
