"""Readability: nats per token of each message, from a model or without one."""

import math
from pathlib import Path

import pytest

from agentcomm.dialogue.readability import ByScorer, Off, _Alone, open_readability
from agentcomm.dialogue.reward import Dialogue, Utterance, reward
from agentcomm.errors import ConfigError
from agentcomm.information.scorers import open_scorer
from agentcomm.information.scorers.base import Scored
from agentcomm.information.scorers.offline import NGram

ENGLISH = "The nurse has a fever and needs to rest."
SHUFFLED = "hTe erusn sah a efevr dna eednss ot ersst."


def test_without_weights_english_is_more_readable_than_its_letters_shuffled() -> None:
    reader = open_readability("auto", "openai/gpt-5-mini")
    assert reader.name == "ngram"
    read = reader.read([ENGLISH, SHUFFLED])
    assert read.nlls[0] < read.nlls[1] and read.tokens == 0
    assert all(0 < nll < 12 for nll in read.nlls)


def test_off_scores_nothing_and_unknown_words_are_refused() -> None:
    assert open_readability("off") == Off() and math.isnan(Off().read(["a"]).nlls[0])
    for word in ("perplexity", "local/smollm2"):
        with pytest.raises(ConfigError, match="ngram"):
            open_readability(word)


def test_a_message_is_scored_per_token_alone_and_what_it_took_is_counted(tmp_path: Path) -> None:
    models = pytest.importorskip("tests.information.scorers.models")
    folder = models.save(tmp_path / "m", models.byte_tokenizer(models.CHAT))
    # A random model fails the scorer's own check of its weights, which is not what is tested here.
    scorer = open_scorer(f"hf/{folder}", prompt=_Alone("alone", ""), probing=False)
    reader = ByScorer(scorer, "frozen")
    first = reader.read(["abc", "abcabc", "abc"])
    again = reader.read(["abc"])
    assert first.nlls[0] == pytest.approx(first.nlls[2]) == pytest.approx(again.nlls[0])
    assert first.nlls[0] == pytest.approx(-scorer.afresh("", "", "abc").sum_logprob / 3)
    assert first.tokens > again.tokens > 0
    assert reader.read([]).nlls == []
    reader.close()


def test_the_model_itself_reads_where_it_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    scorer, asked = open_scorer("offline/ngram"), []

    def opened(word: str, **more: object) -> object:
        asked.append(word)
        return scorer

    monkeypatch.setattr("agentcomm.dialogue.readability.open_scorer", opened)
    assert open_readability("auto", f"hf/{tmp_path}").name == f"hf/{tmp_path}"
    assert open_readability("auto", "hf/nowhere").name == "ngram"
    assert asked == [f"hf/{tmp_path}", "offline/ngram"]


def test_a_fallback_is_said_aloud_and_an_adapted_model_is_read_by_its_frozen_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for model in ("local/smollm2", "openai/x", "hf/nowhere", None):
        assert open_readability("auto", model, note=said.append).name == "ngram"
    assert len(said) == 4 and "local/smollm2 can't score given text" in said[0]
    open_readability("off", note=said.append)
    assert "readability is off" in said[-1] and len(said) == 5
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("agentcomm.dialogue.readability.open_scorer", lambda word, **more: NGram())
    for model in (f"hf/{tmp_path}+{tmp_path}/iter1", f"vllm/{tmp_path}"):
        assert open_readability("auto", model, note=said.append).name == f"hf/{tmp_path}"
    assert len(said) == 5


class Deaf(NGram):
    """Fails on texts with an x."""

    def column(self, context, asks, known):  # type: ignore[no-untyped-def]
        for i, ask in enumerate(asks):
            yield [(i, Scored.failed(ask.text, "no") if "x" in ask.text else Scored(-3.0, None, 4))]


def test_what_can_not_be_scored_is_nan_and_its_dialogue_is_never_selected() -> None:
    nlls = ByScorer(Deaf(), "deaf").read(["fine", "x"]).nlls
    assert nlls[0] == 3.0 / 4 and math.isnan(nlls[1])
    said = tuple(Utterance("ab"[n], text, nlls[n]) for n, text in enumerate("fx"))
    terms = reward(Dialogue(1.0, said, {"message": 60}), 100)
    assert math.isnan(terms.total) and not terms.selectable
