"""A Hugging Face folder in this process: what it answers, alone and in a batch, with adapters, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from agentcomm.backends import Backend, BackendOptions, ChatRequest, hf, resolve  # noqa: E402
from agentcomm.backends.adapters import CARD, ModelRef, adapter_card, stacked, with_adapter  # noqa: E402
from agentcomm.backends.chat_template import has_system_role, prompt_ids  # noqa: E402
from agentcomm.errors import BackendError, ConfigError  # noqa: E402
from agentcomm.message import ChatMessage, Reply  # noqa: E402
from tests.information.scorers.models import CHAT, byte_tokenizer, save  # noqa: E402

pytestmark = pytest.mark.anyio

Open = Callable[..., Backend]
CHAT_WITHOUT_SYSTEM = CHAT.replace(
    "{% for m in messages %}",
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}",
)
PROMPTS = ("What is the capital?", "Say it shorter, please, and again: A", "Zürich ✓")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("hf") / "a+b", byte_tokenizer(CHAT))


@pytest.fixture
async def open_model() -> AsyncIterator[Open]:
    opened: list[Backend] = []

    def open_it(model: object, **options: Any) -> Backend:
        opened.append(resolve(f"hf/{model}", BackendOptions(**options)))
        return opened[-1]

    yield open_it
    for backend in opened:
        await backend.aclose()
    assert not hf._models


def request(text: str = PROMPTS[0], **more: Any) -> ChatRequest:
    chat = (ChatMessage("system", "Be short."), ChatMessage("user", text))
    return ChatRequest("hf", chat, **{"max_tokens": 12, **more})


def by_hand(folder: Path, asked: ChatRequest) -> list[int]:
    """The most probable tokens, each by a forward pass of its own."""
    tokenizer, model = hf.load_tokenizer(folder), hf.load_model(ModelRef(str(folder)))
    ids = prompt_ids(tokenizer, asked.messages)
    made: list[int] = []
    with torch.inference_mode():
        while len(made) < (asked.max_tokens or 0) and tokenizer.eos_token_id not in made:
            made.append(int(model(torch.tensor([ids + made])).logits[0, -1].argmax()))
    return made


async def together(backend: Backend, requests: list[ChatRequest]) -> list[Reply]:
    replies: list[Reply | None] = [None] * len(requests)

    async def one(place: int) -> None:
        replies[place] = await backend.chat(requests[place])

    async with anyio.create_task_group() as tasks:
        for place in range(len(requests)):
            tasks.start_soon(one, place)
    return [reply for reply in replies if reply is not None]


async def test_greedy_replies_are_the_most_probable_tokens_alone_and_in_a_batch(
    folder: Path, open_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request(text, max_tokens=4 + 4 * n) for n, text in enumerate(PROMPTS)]
    tokenizer = hf.load_tokenizer(folder)
    expected = [by_hand(folder, asked) for asked in requests]
    alone = open_model(folder)
    for asked, made in zip(requests, expected, strict=True):
        reply = await alone.chat(asked)
        assert reply.text == tokenizer.decode(made, skip_special_tokens=True)
        assert reply.usage.output_tokens == len(made)
        assert reply.usage.input_tokens == len(prompt_ids(tokenizer, asked.messages))
        assert reply.finish_reason == ("stop" if tokenizer.eos_token_id in made else "length")
    sizes: list[int] = []
    generate = hf._Model._generate
    monkeypatch.setattr(hf, "GATHER_S", 5.0)
    monkeypatch.setattr(
        hf._Model, "_generate", lambda self, jobs: sizes.append(len(jobs)) or generate(self, jobs)
    )
    batch = await together(open_model(folder, max_concurrency=3), requests)
    assert sizes == [3]
    assert [r.text for r in batch] == [tokenizer.decode(m, skip_special_tokens=True) for m in expected]


async def test_a_draw_depends_on_its_seed_and_not_on_its_neighbours(folder: Path, open_model: Open) -> None:
    warm = [request(text, temperature=1.0, seed=7 + n) for n, text in enumerate(PROMPTS)]
    model = open_model(folder, max_concurrency=3)
    alone = [(await model.chat(asked)).text for asked in warm]
    assert [r.text for r in await together(model, warm)] == alone
    assert [(await model.chat(asked)).text for asked in warm] == alone
    others = [(await model.chat(replace(asked, seed=99))).text for asked in warm]
    assert others != alone
    assert (await model.chat(replace(warm[0], temperature=0.0))).text != alone[0]


async def test_top_p_leaves_out_what_is_improbable(folder: Path, open_model: Open) -> None:
    model = open_model(folder)
    greedy = (await model.chat(request())).text
    narrow = {(await model.chat(request(temperature=1.0, top_p=1e-6, seed=s))).text for s in range(3)}
    assert narrow == {greedy}


async def test_a_reply_ends_before_its_stop_string(folder: Path, open_model: Open) -> None:
    model = open_model(folder)
    whole = await model.chat(request())
    stop = whole.text[3:5]
    cut = await model.chat(request(stop=(stop, "not there")))
    assert cut.text == whole.text[: whole.text.index(stop)] and cut.finish_reason == "stop"
    assert (cut.usage.output_tokens or 0) < (whole.usage.output_tokens or 0)


async def test_log_probabilities_are_the_models_own(folder: Path) -> None:
    model = hf.Hf(hf.Settings(ModelRef(str(folder))), logprobs=True)
    asked = request(temperature=0.5, seed=3)
    reply = await model.chat(asked)
    await model.aclose()
    assert reply.raw is not None
    made = reply.raw["token_ids"]
    ids = prompt_ids(hf.load_tokenizer(folder), asked.messages)
    with torch.inference_mode():
        logits = hf.load_model(ModelRef(str(folder)))(torch.tensor([ids + made])).logits[0].log_softmax(-1)
    expected = [float(logits[len(ids) + n - 1, token]) for n, token in enumerate(made)]
    assert reply.raw["logprobs"] == pytest.approx(expected, abs=1e-4)


async def test_a_folders_own_sampling_advice_is_not_followed(
    folder: Path, tmp_path: Path, open_model: Open
) -> None:
    advised = save(tmp_path / "advised", byte_tokenizer(CHAT))
    (advised / "generation_config.json").write_text(
        '{"do_sample": true, "top_k": 1, "repetition_penalty": 50.0, "eos_token_id": [257]}'
    )
    asked = request(temperature=1.0, seed=1)
    assert (await open_model(advised).chat(asked)).text == (await open_model(folder).chat(asked)).text


async def test_what_does_not_fit_the_context_is_refused_and_a_reply_ends_with_it(
    folder: Path, open_model: Open
) -> None:
    length = len(prompt_ids(hf.load_tokenizer(folder), request().messages))
    model = open_model(folder, context_tokens=length + 3)
    reply = await model.chat(request())
    assert (reply.usage.output_tokens, reply.finish_reason) == (3, "length")
    with pytest.raises(BackendError, match=rf"too long .* {length + 8} tokens, its context holds"):
        await model.chat(request(PROMPTS[0] + "12345678"))
    with pytest.raises(BackendError) as caught:
        await open_model(folder).chat(request("x" * 5000))
    assert caught.value.kind == "too_long" and not caught.value.retryable


async def test_one_bad_request_does_not_spoil_its_batch(
    folder: Path, open_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf, "GATHER_S", 5.0)
    model = open_model(folder, max_concurrency=2)
    failures: list[str] = []

    async def bad() -> None:
        try:
            await model.chat(request("x" * 5000))
        except BackendError as error:
            failures.append(error.kind)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bad)
        reply = await model.chat(request())
    assert failures == ["too_long"] and reply.usage.output_tokens


async def test_what_is_no_model_is_said_before_anything_runs(
    tmp_path: Path, open_model: Open, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="no config.json"):
        open_model(tmp_path)
    bare = open_model(save(tmp_path / "bare", byte_tokenizer(None)))
    with pytest.raises(ConfigError, match="no chat template"):
        await bare.check()  # type: ignore[attr-defined]
    broken = save(tmp_path / "broken", byte_tokenizer(CHAT))
    (broken / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ConfigError, match="no model can be read from .*broken"):
        await open_model(broken).check()  # type: ignore[attr-defined]
    monkeypatch.setenv("AGENTCOMM_HF_DTYPE", "int4")
    with pytest.raises(ConfigError, match="AGENTCOMM_HF_DTYPE.*float32"):
        open_model(folder)
    monkeypatch.setenv("AGENTCOMM_HF_DTYPE", "float32")
    monkeypatch.setenv("AGENTCOMM_HF_DEVICE", "tpu9")
    with pytest.raises(ConfigError, match="AGENTCOMM_HF_DEVICE"):
        await open_model(folder).check()  # type: ignore[attr-defined]


async def test_a_schema_is_refused_and_a_slow_answer_is_given_up(folder: Path, open_model: Open) -> None:
    with pytest.raises(BackendError, match="JSON schema"):
        await open_model(folder).chat(request(schema={"type": "object"}))
    slow = open_model(folder, timeout_s=0.01)
    await slow.check()  # type: ignore[attr-defined]
    with pytest.raises(BackendError) as caught:
        await slow.chat(request(max_tokens=1500))
    assert (caught.value.kind, caught.value.retryable) == ("timeout", True)


async def test_backends_of_the_same_model_share_it_and_tokens_are_its_tokenizers(
    folder: Path, open_model: Open
) -> None:
    first, second = open_model(folder), open_model(folder)
    assert await first.count_tokens("Zürich") == 7  # type: ignore[attr-defined]
    assert await second.count_tokens("") == 0  # type: ignore[attr-defined]
    assert len(hf._models) == 1
    await first.aclose()
    assert len(hf._models) == 1
    assert (await second.chat(request())).text
    await second.aclose()
    assert not hf._models


async def test_a_template_without_a_system_role_gets_that_text_in_the_first_user_message(
    tmp_path: Path, open_model: Open, folder: Path
) -> None:
    strict = save(tmp_path / "strict", byte_tokenizer(CHAT_WITHOUT_SYSTEM))
    assert not has_system_role(hf.load_tokenizer(strict)) and has_system_role(hf.load_tokenizer(folder))
    folded = replace(request(), messages=(ChatMessage("user", f"Be short.\n\n{PROMPTS[0]}"),))
    reply = await open_model(strict).chat(request())
    assert reply.text == (await open_model(folder).chat(folded)).text
    assert reply.usage == (await open_model(folder).chat(folded)).usage


# ----------------------------------------------------------------------------- adapters


def adapter(base: ModelRef, out: Path, seed: int, scale: float = 0.3) -> Path:
    """A random adapter on ``base``, as the trainer saves one."""
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    with hf.quiet(transformers):
        made = peft.get_peft_model(hf.load_model(base, merge=True), lora)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    made.save_pretrained(str(out))
    (out / CARD).write_text(json.dumps(adapter_card(base, out, {})))
    return out


async def test_naming_the_last_adapter_brings_those_before_it_also_after_a_move(
    folder: Path, tmp_path: Path, open_model: Open
) -> None:
    base = ModelRef(str(folder))
    first = stacked(base, adapter(base, tmp_path / "x" / "1", 1))
    second = stacked(base, adapter(first, tmp_path / "x" / "2", 2))
    assert second.adapters == (str(tmp_path / "x" / "1"), str(tmp_path / "x" / "2"))
    (tmp_path / "x").rename(tmp_path / "y")
    moved = with_adapter(f"hf/{folder}", tmp_path / "y" / "2")
    assert moved == f"hf/{folder}+{tmp_path / 'y' / '1'}+{tmp_path / 'y' / '2'}"
    ref = ModelRef.of(moved.removeprefix("hf/"))
    assert len(ref.adapters) == 2  # although the folder's own name has a + in it
    plain, taught = open_model(folder), open_model(ref)
    asked = request(max_tokens=8)
    assert taught.name == moved and taught.endpoint != plain.endpoint
    reply = await taught.chat(asked)
    assert reply.text != (await plain.chat(asked)).text
    detailed = hf.Hf(hf.Settings(ref), logprobs=True)
    raw = (await detailed.chat(asked)).raw
    await detailed.aclose()
    ids = prompt_ids(hf.load_tokenizer(folder), asked.messages)
    with torch.inference_mode():
        logits = hf.load_model(ref)(torch.tensor([ids])).logits[0, -1]
    assert raw is not None and raw["token_ids"][0] == int(logits.argmax())
    assert raw["logprobs"][0] == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-3)
    (tmp_path / "y" / "1" / CARD).unlink()
    with pytest.raises(ConfigError, match="keep the adapters of all iterations together"):
        stacked(base, tmp_path / "y" / "2")


async def test_an_adapter_of_another_model_or_without_effect_or_out_of_order_is_refused(
    folder: Path, tmp_path: Path, open_model: Open
) -> None:
    base = ModelRef(str(folder))
    one = adapter(base, tmp_path / "1", 1)
    two = adapter(stacked(base, one), tmp_path / "2", 2)
    other = save(tmp_path / "other", byte_tokenizer(CHAT), scale=2.0)
    with pytest.raises(ConfigError, match="trained on another base model than .*other"):
        await open_model(ModelRef(str(other), (str(one),))).check()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="trained on another base model"):
        await open_model(ModelRef(str(folder), (str(two),))).check()  # type: ignore[attr-defined]
    nothing = adapter(base, tmp_path / "0", 1, scale=0.0)
    with pytest.raises(ConfigError, match="changes nothing"):
        await open_model(stacked(base, nothing)).check()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="no adapter of agentcomm train"):
        await open_model(ModelRef(str(folder), (str(tmp_path),))).check()  # type: ignore[attr-defined]
    for model in ("local/smollm2", None, "openai/x"):
        with pytest.raises(ConfigError, match="--model hf/FOLDER or vllm/FOLDER"):
            with_adapter(model, one)
