"""The fast path gives what scoring each pair afresh gives, and counts what it reads."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcomm.errors import ConfigError, ScorerUnsupported, UserError
from agentcomm.information import draw_candidates, estimate_mi, rows_of
from agentcomm.information.compressing import GENERAL, QUESTION
from agentcomm.information.scorers import Ask, CellStore, open_scorer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from agentcomm.information.scorers.hf import HFScorer  # noqa: E402
from tests.information.scorers.models import CHAT, byte_tokenizer, save, word_tokenizer  # noqa: E402

CONTEXTS = [
    "Ada lives in Oslo and has a cat.",
    "Ben lives in Rome. He has no pet that anybody knows of.",
    "",
    "x",
    "東京に住んでいる。Она живёт в Осло. 👩‍👩‍👧 ok",
]
QUERIES = ["Where does Ada live?", "What pet does Ben have?", "Who?", "Who?", "¿Dónde vive Ána?"]
TEXTS: list[list[str | None]] = [
    ["Oslo", "Ada lives in Oslo, with a cat."],
    ["none", "No pet."],
    ["", "nothing"],
    [None, "x"],
    ["東京 👩‍👩‍👧", "Осло"],
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scorer(folder: Path, **options: Any) -> HFScorer:
    # A random model finds no sentence more probable than its reverse: the probe would refuse it.
    return HFScorer(folder, probing=False, device="cpu", **options)


def afresh(made: HFScorer, contexts: list[str], queries: list[str], texts: Any) -> np.ndarray[Any, Any]:
    rows = rows_of(queries, texts)
    cells = [
        [
            math.nan if row.text is None else 0.0 if row.text == "" else made.afresh(c, row.query, row.text)
            for c in contexts
        ]
        for row in rows
    ]
    return np.array([[getattr(cell, "sum_logprob", cell) for cell in row] for row in cells])


@pytest.mark.parametrize("model", ["chat", "plain", "sliding"])
@pytest.mark.parametrize("rows", [1, 3, 32])
def test_the_matrix_is_that_of_scoring_each_pair_afresh(
    model: str, rows: int, request: pytest.FixtureRequest
) -> None:
    made = scorer(request.getfixturevalue(model), rows=rows)
    matrix = made.score_matrix(CONTEXTS, QUERIES, TEXTS, prior=True)
    expected = afresh(made, CONTEXTS, QUERIES, TEXTS)
    np.testing.assert_allclose(matrix.logp, expected, atol=1e-4)
    assert np.ptp(expected[0]) > 0.1, "contexts matter to this model, so a wrong cache would be seen"
    assert matrix.prior is not None
    assert matrix.prior[0] == pytest.approx(made.afresh(None, QUERIES[0], "Oslo").sum_logprob, abs=1e-4)


def test_a_sum_is_that_of_the_continuations_own_ids(chat: Path) -> None:
    # Markers, and the words before the reply, stand in context, question and message.
    texts = ["<|im_end|>\n<|im_start|>assistant\nOslo", "assistant\nText:\n", "\n<|im_end|>"]
    context = "<|im_start|>assistant\nOslo<|im_end|>"
    made = scorer(chat)
    tokenizer, model = made._tokenizer, made._model
    before = [*made.spans.head(context), *made.spans.tail("<|im_end|> who?")]
    for text in texts:
        ids = [*text.encode()]
        encoded = [made.spans.text(chr(b))[0] if b < 128 else -1 for b in ids]
        assert list(made.spans.text(text)) == encoded, "a marker in a message is text: a token a byte"
        with torch.no_grad():
            logits = model(torch.tensor([before + encoded])).logits[0].double().log_softmax(-1)
        expected = sum(logits[len(before) - 1 + k, token].item() for k, token in enumerate(encoded))
        got = made.score(context, "<|im_end|> who?", text)
        assert got.sum_logprob == pytest.approx(expected, abs=1e-4)
        assert got.n_tokens == len(ids)
    markers = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert [i for i in before if i in markers] == [markers[0], markers[1], markers[0]], "only the template's"


def test_template_tokens_condition_but_are_not_summed(folders: Path) -> None:
    """With logits that don't depend on what came before, sums are the same under any template."""
    sums = []
    for name, template in (("a", CHAT), ("b", CHAT.replace("assistant\n", "reply: ")), ("c", None)):
        folder = save(folders / f"template-{name}", byte_tokenizer(template))
        made = scorer(folder)
        fixed = torch.linspace(-3, 3, len(made._tokenizer))
        forward = made._forward

        def constant(forward: Any = forward, fixed: Any = fixed, **inputs: Any) -> Any:
            out = forward(**inputs)
            out.logits = fixed.expand(out.logits.shape).clone()
            return out

        made._forward = constant  # type: ignore[method-assign]
        sums.append(made.score_matrix(["c", "d"], "q?", [["one", "two words"], ["three"]]).logp)
    np.testing.assert_allclose(sums[1], sums[0], atol=1e-5)
    np.testing.assert_allclose(sums[2], sums[0], atol=1e-5)


def test_every_column_has_the_rows_own_question(chat: Path) -> None:
    questions = [f"what is {i}?" for i in range(6)]
    made = scorer(chat)
    matrix = made.score_matrix(["the same"] * 6, questions, [[f"you ask {q}"] for q in questions])
    assert estimate_mi(matrix).mc_nats == pytest.approx(0, abs=1e-9)
    defect = [
        [made.afresh("the same", asked, f"you ask {own}").sum_logprob for asked in questions]
        for own in questions
    ]
    assert abs(estimate_mi(np.array(defect)).mc_nats or 0) > 1e-3, (
        "scoring column l with q_l is another number"
    )


def test_contexts_and_tails_are_read_once(chat: Path) -> None:
    contexts = [f"{i} " + "Ada lives in Oslo. " * 30 for i in range(6)]
    questions = [f"Where is {i}{'!' * i}?" for i in range(6)]
    texts = [[f"in a town, number {i}, {j}" for j in range(3)] for i in range(6)]
    made = scorer(chat, rows=4)
    made.score_matrix(contexts, questions, texts)
    heads = sum(len(made.spans.head(c)) for c in contexts)
    tails = 6 * sum(len(made.spans.tail(q)) for q in questions)
    of_texts = 6 * sum(len(made.spans.text(t)) for row in texts for t in row)
    assert made.prefilled <= heads + tails + of_texts
    assert made.prefilled == heads + tails + of_texts - 6 * 18, "a continuation's last token is never read"
    cost = made.cost(contexts, rows_of(questions, texts), np.ones((18, 6), dtype=np.bool_))
    assert cost is not None
    assert (cost.reuse, cost.cells) == (heads + tails + of_texts, 108)
    assert cost.afresh == 18 * heads + 3 * tails + of_texts


def test_with_one_question_its_tail_is_read_once_a_context(chat: Path) -> None:
    contexts = [f"{i} " + "Ada lives in Oslo. " * 30 for i in range(4)]
    texts = [["in a town", "not here"] for _ in range(4)]
    made = scorer(chat)
    made.score_matrix(contexts, "Where?", texts)
    of_contexts = sum(len(c) for c in contexts)
    bound = of_contexts + 4 * 2 * len(b"in a townnot here") * 2
    around = len(made.spans.head("")) + len(made.spans.tail("Where?"))
    assert made.prefilled <= bound + 4 * around


def test_the_same_message_twice_is_read_once(chat: Path) -> None:
    made = scorer(chat)
    one = made.score_matrix(["a", "b"], "q", [["same"], ["same"]])
    read = made.prefilled
    five = made.score_matrix(["a", "b"], "q", [["same"] * 5, ["same"] * 5])
    assert made.prefilled == 2 * read
    assert (five.logp == one.logp[0]).all()


def test_a_context_longer_than_the_model_fails_alone_and_is_never_cut(folders: Path) -> None:
    folder = save(folders / "short", byte_tokenizer(CHAT), max_position_embeddings=400)
    made = scorer(folder)
    room = 400 - len(made.spans.head("")) - len(made.spans.tail("q")) + 1
    contexts = ["short", "y" * (room - 3), "y" * (room - 2), "y" * 5_000]
    matrix = made.score_matrix(contexts, "q", [["abc"], ["a"], ["ab"], ["z"]])
    failed = {(r, c) for r, c in np.argwhere(np.isnan(matrix.logp)).tolist()}
    # The second context has room for three tokens, the third for two, the last for none.
    assert failed == {(0, 2), *((r, 3) for r in range(4))}
    assert "more than the model's 400" in matrix.reasons[0, 2]
    assert made.prefilled > 0
    np.testing.assert_allclose(matrix.logp[0, 1], made.afresh(contexts[1], "q", "abc").sum_logprob, atol=1e-4)


def test_what_the_tokenizer_cannot_represent_is_a_failure(worded: Path) -> None:
    made = scorer(worded)
    # Its own instruction has words that it doesn't know, so not even the context can be read.
    matrix = made.score_matrix(["red"], "green", [["blue"]])
    assert np.isnan(matrix.logp).all()
    assert "can't represent" in matrix.reasons[0, 0]

    class Bare:
        id = "bare"
        head = staticmethod(lambda context: f"{context}")
        tail = staticmethod(lambda query: f" {query}")

    known = HFScorer(worded, probing=False, device="cpu")
    known._spans = type(made.spans)(Bare(), made.spans.template, made._tokenise)  # type: ignore[arg-type]
    known._spans.template = type(made.spans.template)((), (1,), "none")
    matrix = known.score_matrix(["red", "purple"], "green", [["blue", "mauve blue", " "], ["pink"]])
    assert matrix.reasons == {
        (0, 1): "the context: the scorer's tokenizer can't represent 1 of its 1 tokens",
        (1, 1): matrix.reasons[0, 1],
        (2, 1): matrix.reasons[0, 1],
        (3, 1): matrix.reasons[0, 1],
        (1, 0): "the message: the scorer's tokenizer can't represent 1 of its 2 tokens",
        (2, 0): "the scorer's tokenizer makes no tokens of the message",
    }


def test_half_a_surrogate_pair_is_a_failure_with_its_reason(chat: Path) -> None:
    matrix = scorer(chat).score_matrix(["fine", "bad \ud800"], ["q"] * 2, [["bad \udfff", "good"], ["good"]])
    assert "half a surrogate pair" in matrix.reasons[0, 0]
    assert "the context" in matrix.reasons[1, 1]
    assert np.isfinite(matrix.logp[1, 0])


def test_one_context_gives_no_information(chat: Path) -> None:
    estimate = estimate_mi(scorer(chat).score_matrix(["only"], "q", [["a", "b"]]))
    assert (estimate.mc_nats, estimate.interval, estimate.N, estimate.M) == (0.0, None, 1, 2)


def test_the_end_token_is_summed_only_if_asked(chat: Path) -> None:
    without, with_end = scorer(chat), scorer(chat, include_eos=True)
    end = with_end.score("c", "q", "")
    assert (end.n_tokens, without.score("c", "q", "").sum_logprob) == (1, 0.0)
    assert end.sum_logprob < 0
    both = [made.score("c", "q", "text") for made in (without, with_end)]
    assert both[1].sum_logprob < both[0].sum_logprob
    matrix = with_end.score_matrix(["c", "d"], "q", [["text", ""], [None]], prior=True)
    assert matrix.include_eos
    np.testing.assert_allclose(matrix.logp[1, 0], end.sum_logprob, atol=1e-4)
    assert matrix.prior is not None and matrix.prior[1] < 0 and math.isnan(matrix.prior[2])
    assert without.score_matrix(["c"], "q", [["text"]]).scorer_id == matrix.scorer_id
    with pytest.raises(UserError, match="exact=True"):
        without.score_matrix(["c"], "q", [["text"]], exact=True)


def test_scoring_its_own_samples_brackets_the_information(folders: Path) -> None:
    """Ancestral samples of whole words, so that text and ids are one: mc is below loo."""
    words = ["red", "green", "blue", "pink", "black", "white"]
    vocabulary = [*words, *QUESTION.head("red").split(), *QUESTION.tail("red").split()]
    tokenizer = word_tokenizer(list(dict.fromkeys(vocabulary)))
    folder = save(folders / "own", tokenizer, scale=1.5)
    made = scorer(folder, include_eos=True)
    rng = torch.Generator().manual_seed(0)
    contexts = [" ".join(words[(i * k + k) % 6] for k in range(1, 4)) + " red" * i for i in range(12)]
    banned = [i for i in range(len(tokenizer)) if tokenizer.convert_ids_to_tokens(i) in ("<unk>", "<begin>")]
    made._model.get_output_embeddings()
    forward = made._forward

    def without_banned(**inputs: Any) -> Any:
        out = forward(**inputs)
        out.logits[..., banned] = -1e9
        out.logits[..., 1] += 3.0  # messages end
        return out

    made._forward = without_banned  # type: ignore[method-assign]

    def sample(context: str) -> str:
        ids = list(made.spans.head(context) + made.spans.tail("red"))
        start = len(ids)
        with torch.no_grad():
            while True:
                logits = without_banned(input_ids=torch.tensor([ids])).logits[0, -1]
                token = int(torch.multinomial(logits.softmax(-1), 1, generator=rng))
                if token == 1:
                    return " ".join(tokenizer.convert_ids_to_tokens(ids[start:]))
                ids.append(token)

    texts = [[sample(context) for _ in range(4)] for context in contexts]
    estimate = estimate_mi(made.score_matrix(contexts, "red", texts, exact=True, prior=True))
    assert estimate.exact and estimate.upper_label == "upper bound"
    assert estimate.mc_nats is not None and estimate.loo_nats is not None
    assert 0 < estimate.mc_nats <= estimate.loo_nats
    assert (estimate.top1 or 0) > 1.5 / 12


def test_sampled_candidates_are_the_only_cells_read(chat: Path) -> None:
    contexts = [f"context {i}" for i in range(6)]
    candidates = draw_candidates(range(6), 6, 3, np.random.default_rng(0))
    made = scorer(chat)
    texts = [[f"it was {i}"] for i in range(6)]
    part = made.score_matrix(contexts, "q", texts, candidates=candidates)
    whole = made.score_matrix(contexts, "q", texts)
    assert (np.isnan(part.logp) == ~candidates).all()
    assert not part.reasons
    np.testing.assert_allclose(part.logp[candidates], whole.logp[candidates], atol=1e-4)


def test_a_general_request_has_no_question(chat: Path) -> None:
    made = scorer(chat, prompt=GENERAL)
    matrix = made.score_matrix(CONTEXTS, "", TEXTS)
    np.testing.assert_allclose(matrix.logp, afresh(made, CONTEXTS, [""] * 5, TEXTS), atol=1e-4)
    assert matrix.prompt_id.startswith("general:")
    assert matrix.design == "shared"


def test_ids_change_with_weights_prompt_and_dtype(chat: Path, folders: Path, plain: Path) -> None:
    made = scorer(chat)
    other = folders / "touched"
    shutil.copytree(chat, other)
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    ids = [made.id, scorer(other).id, scorer(chat, dtype="bfloat16").id]
    assert len(set(ids)) == 3
    prompts = [made, scorer(plain), scorer(chat, prompt=GENERAL), scorer(chat, prompt=QUESTION.within(9))]
    assert len({m.prompt_id for m in prompts}) == 4


def test_half_precision_is_near_the_exact_one(chat: Path) -> None:
    exact, half = scorer(chat), scorer(chat, dtype="bfloat16")
    assert half.half_precision
    a = exact.score_matrix(["c", "d"], "q", [["text"], ["more"]]).logp
    b = half.score_matrix(["c", "d"], "q", [["text"], ["more"]]).logp
    assert np.abs(a - b).max() < 1.0
    assert not (a == b).all()


def test_a_model_that_finds_nonsense_as_probable_is_refused(chat: Path) -> None:
    made = HFScorer(chat, device="cpu")
    logprobs = made.logprobs

    def backwards_is_better(ids: Any, start: int) -> list[float]:
        better = 0.0 if ids[start] == made.spans.text("T")[0] else 50.0  # the sentence begins with a T
        return [min(v + better, -0.01 * k) for k, v in enumerate(logprobs(ids, start), 1)]

    made.logprobs = backwards_is_better  # type: ignore[method-assign]
    with pytest.raises(ScorerUnsupported, match="no more probable .* than its words backwards"):
        made.score_matrix(["a"], "q", [["b"]])


def test_a_cache_that_is_not_what_it_should_be_is_refused(
    chat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentcomm.information.scorers import probe

    monkeypatch.setattr(probe, "_language", lambda scorer, values: None)  # a random model
    HFScorer(chat, device="cpu").check()
    broken = HFScorer(chat, device="cpu")
    read_head = broken._read_head

    def stale(head: Any) -> tuple[Any, Any]:
        return read_head((*head[:-1], 5))

    monkeypatch.setattr(broken, "_read_head", stale)
    with pytest.raises(ScorerUnsupported, match="its cache can't be reused"):
        broken.check()


def test_the_probe_costs_nothing_in_the_count(chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentcomm.information.scorers import probe

    monkeypatch.setattr(probe, "_language", lambda scorer, values: None)
    made = HFScorer(chat, device="cpu")
    made.check()
    assert made.prefilled == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"dtype": "int8"}, "dtype"), ({"rows": 0}, "rows"), ({"ceiling": 0}, "ceiling")],
)
def test_an_option_that_makes_no_sense_is_named(chat: Path, options: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        HFScorer(chat, **options)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no config.json"):
        open_scorer(f"hf/{tmp_path}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="no safetensors"):
        open_scorer(f"hf/{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="can't be loaded"):
        open_scorer(f"hf/{tmp_path}")


def test_a_matrix_above_the_ceiling_is_refused_before_it_starts(chat: Path) -> None:
    heard: list[str] = []
    made = scorer(chat, ceiling=1_000, note=heard.append)
    with pytest.raises(ConfigError, match="more than the ceiling of 1,000"):
        made.score_matrix(["a" * 400, "b" * 400], "q", [["c"], ["d"]])
    assert made.prefilled == 0
    assert "tokens with every context read once" in heard[0]


def test_an_interrupted_matrix_resumes_bit_by_bit(chat: Path, tmp_path: Path) -> None:
    contexts = [f"context {i} " + "of some length " * i for i in range(4)]
    texts = [[f"text {i} {j} " + "and more " * (i + j) for j in range(3)] for i in range(4)]
    whole = scorer(chat, rows=5)
    expected = whole.score_matrix(contexts, "which?", texts, prior=True)
    cells = CellStore(tmp_path / "cells.sqlite")
    broken = scorer(chat, rows=5, cells=cells)
    read_pack, calls = broken._read_pack, []

    def dies(*words: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:  # in the middle of the third column
            raise KeyboardInterrupt
        return read_pack(*words)

    broken._read_pack = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.score_matrix(contexts, "which?", texts, prior=True)
    kept = len(cells)
    assert 24 < kept < 36
    # Cells lost within a batch: it is computed whole again.
    with cells._db as db:
        db.execute("DELETE FROM cells WHERE key IN (SELECT key FROM cells ORDER BY key LIMIT 5)")
    resumed = scorer(chat, rows=5, cells=cells)
    matrix = resumed.score_matrix(contexts, "which?", texts, prior=True)
    assert (matrix.logp == expected.logp).all()
    assert (matrix.prior == expected.prior).all()  # type: ignore[union-attr]
    assert resumed.prefilled < whole.prefilled
    cells.close()


def test_a_column_keeps_what_it_was_asked_in_order(chat: Path) -> None:
    made = scorer(chat, rows=2)
    asks = [Ask("q", text) for text in ("a long message indeed", "b", "ccc", "dd")]
    cells = dict(cell for batch in made.column("ctx", asks, ()) for cell in batch)
    for i, ask in enumerate(asks):
        assert cells[i].sum_logprob == pytest.approx(made.afresh("ctx", *ask).sum_logprob, abs=1e-4)
