"""Scorers: log q(z|x, q), how probable a message is under a context.

    hf/FOLDER              a language model in this process, each context computed once: the fast path
    vllm/FOLDER-OR-NAME    prompt log-probabilities of a vLLM server, running or started for it
    openai/NAME            any other server with --base-url, if its probe shows that it can
    offline/codelength     critics without a model, to be tempered: also offline/ngram, offline/bm25

The engines are imported when they are asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentcomm.errors import ConfigError, ScorerUnsupported
from agentcomm.information.scorers.base import NO_DOCUMENT, Ask, Capabilities, Cost, Scored
from agentcomm.information.scorers.scorer import Scorer
from agentcomm.information.scorers.store import CellStore

__all__ = [
    "NO_DOCUMENT",
    "Ask",
    "Capabilities",
    "CellStore",
    "Cost",
    "Scored",
    "Scorer",
    "ScorerUnsupported",
    "open_scorer",
]

EXAMPLES = {
    "hf": "hf/FOLDER",
    "vllm": "vllm/FOLDER-OR-NAME",
    "openai": "openai/NAME",
    "offline": "offline/codelength",
}


def open_scorer(name: str, *, base_url: str | None = None, **options: Any) -> Scorer:
    """The scorer called ``name``.

    Parameters
    ----------
    name:
        ``engine/model``, split on the first ``/`` only.
    base_url:
        Where a server is that runs already.
    options:
        The scorer's: ``cells``, ``ceiling``, ``note``; of language models ``prompt``, ``include_eos``;
        of ``hf/`` also ``dtype`` and ``device``.

    Raises
    ------
    ConfigError
        If there is no such scorer or model.
    ScorerUnsupported
        If the server can't score prompts.
    MissingExtraError
        If it needs packages that are not installed.
    """
    engine, slash, model = name.partition("/")
    if engine not in EXAMPLES or not slash or not model.strip():
        known = ", ".join(EXAMPLES.values())
        raise ConfigError(f"unknown scorer {name!r}; there are: {known}")
    if engine == "hf":
        from agentcomm.information.scorers.hf import HFScorer

        return HFScorer(Path(model), **options)
    if engine == "offline":
        from agentcomm.information.scorers.offline import critic

        options.pop("prompt", None)  # a critic reads no instruction
        return critic(model, **options)
    if engine == "vllm":
        from agentcomm.information.scorers.vllm import VllmScorer

        return VllmScorer(model, base_url=base_url, **options)
    from agentcomm.information.scorers.server import ServerScorer

    if base_url is None:
        raise ConfigError(
            "hosted chat servers give no log-probabilities of a prompt; say where one is that does "
            "(--scorer-url), or take hf/FOLDER or offline/codelength"
        )
    return ServerScorer(model, base_url=base_url, **options)
