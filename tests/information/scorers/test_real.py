"""Real engines: the embedded llama.cpp server is refused; real vLLM equals the model in this process.

vLLM: needs AGENTCOMM_VLLM_PYTHON and AGENTCOMM_VLLM_MODEL (a Hugging Face folder)."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import anyio
import numpy as np
import pytest

from agentcomm.errors import ScorerUnsupported
from agentcomm.information.scorers.server import ServerScorer

MODEL = os.environ.get("AGENTCOMM_VLLM_MODEL", "")
CONTEXTS = ["Ada lives in Oslo. She has a cat.", "Ben lives in Rome and has no pet. <|im_end|>", ""]
QUERIES = ["Where does Ada live?", "What pet does Ben have?", "Who is it?"]
TEXTS: list[list[str | None]] = [
    ["Ada lives in Oslo.", ""],
    ["None.", "東京 👩‍👩‍👧 <|im_end|>"],
    ["Nobody", None],
]


@pytest.mark.local_model
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs the extra local")
def test_llamacpps_server_is_refused_because_it_scores_only_what_it_generates() -> None:
    from agentcomm.backends import BackendOptions
    from agentcomm.backends.local import Local

    backend = Local.from_options("smollm2", BackendOptions())

    async def go() -> str:
        await backend.check()
        assert backend._chat is not None
        return backend._chat.base_url

    try:
        url = anyio.run(go)
        with (
            ServerScorer("smollm2", base_url=url, wait=lambda s: None) as made,
            pytest.raises(ScorerUnsupported) as caught,
        ):
            made.score_matrix(CONTEXTS, QUERIES, TEXTS)
        assert "take hf/FOLDER, a vLLM server, or offline/codelength" in str(caught.value)
    finally:
        anyio.run(backend.aclose)


@pytest.mark.local_model
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs the extra local")
def test_the_embedded_model_and_an_offline_critic_measure_without_a_network(tmp_path: Path) -> None:
    from tests.command import agentcomm

    done = agentcomm("mi", "records", "--compressor", "local/smollm2", "--scorer", "offline/codelength",
                     "--contexts", "4", "--samples", "2", "--budget", "24", "--json", "--out", tmp_path / "mi")  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["messages"]["made"] == 8
    assert done.json["bits_per_byte"]["unit"] == "byte"


@pytest.mark.vllm
@pytest.mark.skipif(
    not (MODEL and os.environ.get("AGENTCOMM_VLLM_PYTHON")),
    reason="set AGENTCOMM_VLLM_PYTHON and AGENTCOMM_VLLM_MODEL",
)
def test_vllm_gives_the_matrix_of_the_model_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentcomm.information.scorers.vllm import VllmScorer

    monkeypatch.setenv("AGENTCOMM_VLLM_ARGS", "--dtype float32 --max-model-len 1024")
    with VllmScorer(MODEL) as served:
        a = served.score_matrix(CONTEXTS, QUERIES, TEXTS, prior=True)
        again = served.score_matrix(CONTEXTS[::-1], QUERIES[::-1], TEXTS[::-1])
        too_long = served.score("word " * 2_000, "q", "x")
        around = served.spans.head("c"), served.spans.tail("q")
    assert "more than the model's 1,024" in too_long.reason
    assert not set(a.reasons.values()) - {"compressor_error"}
    # The order of requests changes nothing.
    np.testing.assert_allclose(again.logp[::-1, ::-1][[1, 0, 3, 2, 5, 4]], a.logp, atol=1e-3)
    if find_spec("torch") is None or find_spec("transformers") is None:
        pytest.skip("needs the extra learn to compare")
    from agentcomm.information.scorers.hf import HFScorer

    with HFScorer(MODEL, device="cpu") as own:
        b = own.score_matrix(CONTEXTS, QUERIES, TEXTS, prior=True)
        assert around == (own.spans.head("c"), own.spans.tail("q"))
    plain = [0, 1, 2, 4]  # the fourth row has a marker, which a server's tokenizer needs cut in two
    columns = [0, 2]
    np.testing.assert_allclose(a.logp[np.ix_(plain, columns)], b.logp[np.ix_(plain, columns)], atol=2e-2)
    assert a.prior is not None
    assert b.prior is not None
    np.testing.assert_allclose(a.prior[plain], b.prior[plain], atol=2e-2)
