"""Hf: a Hugging Face folder answers in this process, with adapters if it has any (extra ``learn``).

    hf/FOLDER              config.json, model.safetensors, tokenizer.json; nothing is downloaded
    hf/FOLDER+ADAPTER      with what ``agentcomm train`` made of it, merged (extra ``train``)

Prompts are rendered by the function that renders training rows (:mod:`agentcomm.backends.chat_template`):
what a model was trained on is what it is asked.

**Batches.** ``--concurrency N`` lets up to N requests be worked on as one batch; those that wait when
the model gets free go together. The default is 1, the reproducible choice: in a batch the last digits
of a probability depend on who else is in it. Every request samples with a generator of its own, seeded
with its seed, so a draw does not depend on its neighbours.

Temperature 0 takes the most probable token. ``AGENTCOMM_HF_DTYPE`` is ``float32`` (default), ``bfloat16``
or ``float16``, ``AGENTCOMM_HF_DEVICE`` e.g. ``cpu``; default: a GPU if there is one. Backends of one
process that ask for the same model share it.

Deliberately absent: an inference engine. For more than a few requests at a time take ``vllm/FOLDER``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
from safetensors import SafetensorError

from agentcomm.backends.adapters import ModelRef, check_adapters
from agentcomm.backends.base import BackendOptions, ChatRequest
from agentcomm.backends.chat_template import has_system_role, prompt_ids, require_template
from agentcomm.errors import BackendError, ConfigError, MissingExtraError
from agentcomm.message import ChatMessage, Reply, Usage

DTYPES = ("float32", "bfloat16", "float16")
GATHER_S = 0.05
"""How long a batch that isn't full waits for requests that are on their way."""


@dataclass(frozen=True)
class Settings:
    """What makes two models in this process the same one."""

    ref: ModelRef
    dtype: str = "float32"
    device: str = ""
    context_tokens: int | None = None


class Hf:
    """A model in this process. Made by :meth:`from_options`.

    Parameters
    ----------
    batch:
        Requests worked on together.
    logprobs:
        Whether replies carry ``raw["token_ids"]`` and ``raw["logprobs"]``, the log-probability of each
        token at temperature 1.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        name: str | None = None,
        batch: int = 1,
        timeout_s: float = 120.0,
        logprobs: bool = False,
    ) -> None:
        require("torch", "transformers", *(("peft",) if settings.ref.adapters else ()))
        if settings.dtype not in DTYPES:
            raise ConfigError(f"dtype {settings.dtype!r} (AGENTCOMM_HF_DTYPE); use {', '.join(DTYPES)}")
        require_folder(Path(settings.ref.base))
        self.settings = settings
        self._name = name or f"hf/{settings.ref}"
        self._batch, self._timeout_s, self._logprobs = batch, timeout_s, logprobs
        self._opening = threading.Lock()
        self._model: _Model | None = None

    @classmethod
    def from_options(cls, model: str, options: BackendOptions) -> Hf:
        """The backend of ``hf/MODEL``.

        Raises
        ------
        MissingExtraError
            If torch, transformers or (for an adapter) peft are not installed.
        ConfigError
            If there is no such folder.
        """
        settings = Settings(
            ModelRef.of(model),
            dtype=os.environ.get("AGENTCOMM_HF_DTYPE", "").strip() or "float32",
            device=os.environ.get("AGENTCOMM_HF_DEVICE", "").strip(),
            context_tokens=options.context_tokens,
        )
        batch = options.max_concurrency or options.slots or 1
        return cls(settings, name=f"hf/{model}", batch=batch, timeout_s=options.timeout_s)

    @property
    def name(self) -> str:
        return self._name

    @property
    def endpoint(self) -> str:
        return f"hf:{self.settings}"

    @property
    def max_concurrency(self) -> int:
        return self._batch

    async def chat(self, request: ChatRequest) -> Reply:
        if request.schema is not None:
            raise BackendError(
                f"{self.name} can't be held to a JSON schema; use vllm/ or local/ for this agent",
                kind="refused",
                fatal=True,
            )
        model = await self._ready()
        job = _Job(request, time.perf_counter())
        try:
            with anyio.fail_after(self._timeout_s):
                await anyio.to_thread.run_sync(model.answer, job, self._batch, abandon_on_cancel=True)
        except TimeoutError:
            raise BackendError(
                f"{self.name} did not answer within {self._timeout_s:g} s; raise --timeout or lower --max-tokens",
                kind="timeout",
                retryable=True,
            ) from None
        finally:
            job.given_up = True
        if job.error is not None:
            raise job.error
        assert job.reply is not None
        return job.reply if self._logprobs else _without_raw(job.reply)

    async def check(self) -> None:
        """Load the model, so that what is wrong with it is known before anything runs."""
        await self._ready()

    async def count_tokens(self, text: str) -> int | None:
        """Tokens of ``text`` alone, without special tokens."""
        model = await self._ready()
        return len(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    async def aclose(self) -> None:
        """Let go of the model; it is unloaded with its last user. A later request loads it anew."""
        with self._opening:
            model, self._model = self._model, None
        if model is not None:
            _release(self.settings)

    async def _ready(self) -> _Model:
        model = self._model
        return await anyio.to_thread.run_sync(self._open) if model is None else model

    def _open(self) -> _Model:
        with self._opening:  # several agents ask at once
            if self._model is None:
                self._model = _acquire(self.settings)
            return self._model


# ------------------------------------------------------------------------------ loading


def require(*names: str) -> None:
    """Refuse to go on without these libraries.

    Raises
    ------
    MissingExtraError
        If one is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            extra = "learn" if name in ("torch", "transformers") else "train"
            raise MissingExtraError(f"hf/ models need {name}; run: pip install 'agentcomm[{extra}]'")


def require_folder(folder: Path) -> None:
    """Refuse what is no Hugging Face folder with safetensors.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} is no Hugging Face folder (no config.json); scripts/gguf_to_hf.py makes one from a GGUF file"
        )
    if not list(folder.glob("*.safetensors")):
        raise ConfigError(f"{folder} holds no safetensors; weights in other formats are not read")


def load_tokenizer(base: str | Path) -> Any:
    """A folder's tokenizer.

    Raises
    ------
    ConfigError
        If it can't be read, has no chat template, or no stop token.
    """
    transformers = import_module("transformers")
    try:
        with quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"no tokenizer can be read from {base}: {first_line(error)}") from error
    require_template(tokenizer)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"the tokenizer in {base} names no stop token (eos_token); add it to its config")
    return tokenizer


def load_model(ref: ModelRef, *, merge: bool = False) -> Any:
    """A model with its adapters in float32: all but the last merged into its weights; with ``merge`` that one too.

    Raises
    ------
    ConfigError
        If the folder holds no model, or an adapter was trained on other weights.
    """
    require_folder(Path(ref.base))
    check_adapters(ref)
    torch, transformers = import_module("torch"), import_module("transformers")
    try:
        with quiet(transformers):
            model = transformers.AutoModelForCausalLM.from_pretrained(
                ref.base, local_files_only=True, dtype=torch.float32, use_safetensors=True
            )
    except (OSError, ValueError, LookupError, RuntimeError, TypeError, SafetensorError) as error:
        raise ConfigError(f"no model can be read from {ref.base}: {first_line(error)}") from error
    if ref.adapters:
        require("peft")
        peft = import_module("peft")
        for place, adapter in enumerate(ref.adapters):
            try:
                with quiet(transformers):
                    model = peft.PeftModel.from_pretrained(model, adapter)
            except (OSError, ValueError, LookupError, RuntimeError, TypeError, SafetensorError) as error:
                raise ConfigError(f"no adapter can be read from {adapter}: {first_line(error)}") from error
            if merge or place < len(ref.adapters) - 1:
                model = model.merge_and_unload()
    return model


def stop_ids(tokenizer: Any, model: Any = None) -> tuple[int, ...]:
    """Tokens that end a reply: the tokenizer's, then those of the model's generation config."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    more = [named] if isinstance(named, int) else list(named or ())
    return tuple(dict.fromkeys([int(tokenizer.eos_token_id), *map(int, more)]))


def context_of(model: Any) -> int | None:
    """Longest prompt and reply together, where the model's config says so."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Loading without progress bars, advice and what libraries have to say to each other; then as it was."""
    words = transformers.utils.logging
    bars, level = words.is_progress_bar_enabled(), words.get_verbosity()
    words.disable_progress_bar()
    words.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        words.set_verbosity(level)
        if bars:
            words.enable_progress_bar()


# --------------------------------------------------------------------------- generating


@dataclass
class _Job:
    """A request on its way; ``ids`` are its prompt's tokens, ``made`` those of the reply so far."""

    request: ChatRequest
    began: float
    ids: list[int] = field(default_factory=list)
    room: int = 0
    made: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reply: Reply | None = None
    error: Exception | None = None
    given_up: bool = False

    @property
    def settled(self) -> bool:
        return self.reply is not None or self.error is not None


class _Model:
    """A loaded model: takes what waits, up to a batch, and answers it."""

    def __init__(self, settings: Settings) -> None:
        torch = self._torch = import_module("torch")
        self._transformers = import_module("transformers")
        self.users = 0
        self._name = f"hf/{settings.ref}"
        self.tokenizer = load_tokenizer(settings.ref.base)
        self.device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = self._load(settings.ref).to(getattr(torch, settings.dtype))
        try:
            self.model = model.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"{self._name} can't be put on {self.device!r} (AGENTCOMM_HF_DEVICE): {first_line(error)}"
            ) from error
        self._system = has_system_role(self.tokenizer)
        self._stops = stop_ids(self.tokenizer, model)
        self._decides_itself(model)
        limits = [n for n in (context_of(model), settings.context_tokens) if n]
        self._context = min(limits, default=None)
        self._waiting: list[_Job] = []
        self._lock, self._working = threading.Lock(), threading.Lock()

    def _load(self, ref: ModelRef) -> Any:
        """The model with its last adapter merged too, after a look whether that changes anything.

        Merged in float32, then rounded: an adapter's changes are smaller than a step in half precision.
        """
        model = load_model(ref)
        if not ref.adapters:
            return model
        ids = self._torch.tensor([prompt_ids(self.tokenizer, [ChatMessage("user", "Hello")])])
        with self._torch.inference_mode():
            taught = model(ids).logits
            with model.disable_adapter():
                plain = model(ids).logits
        if self._torch.equal(taught, plain):
            raise ConfigError(
                f"the adapter {ref.adapters[-1]} changes nothing; it is empty or was not loaded, train it again"
            )
        return model.merge_and_unload()

    def answer(self, job: _Job, batch: int) -> None:
        """Come back when the job is settled: answered by this thread or in another one's batch."""
        with self._lock:
            self._waiting.append(job)
        with self._working:
            if job.settled:
                return
            until = time.perf_counter() + GATHER_S
            while len(self._waiting) < batch and time.perf_counter() < until and batch > 1:
                time.sleep(GATHER_S / 10)
            with self._lock:
                # The own one first: this thread works for whoever waits for it.
                others = [j for j in self._waiting if j is not job and not j.given_up]
                taken = [job, *others[: batch - 1]]
                self._waiting = others[batch - 1 :]
            try:
                self._answer_all(taken)
            except Exception as error:
                failure = self._failure(error)
                for one in taken:
                    if not one.settled:
                        one.error = failure

    def _answer_all(self, jobs: list[_Job]) -> None:
        for job in jobs:
            try:
                self._prepare(job)
            except (BackendError, ConfigError) as error:
                job.error = error
        ready = [job for job in jobs if not job.settled]
        if ready:
            self._generate(ready)
        for job in ready:
            job.reply = self._reply(job)

    def _prepare(self, job: _Job) -> None:
        request = job.request
        try:
            job.ids = prompt_ids(self.tokenizer, request.messages, system=self._system)
        except ConfigError as error:
            raise BackendError(str(error), kind="refused") from error
        room = None if self._context is None else self._context - len(job.ids)
        if room is not None and room < 1:
            raise BackendError(
                f"the prompt is too long for {self._name}: {len(job.ids)} tokens, its context holds {self._context}",
                kind="too_long",
            )
        wanted = [n for n in (room, request.max_tokens) if n is not None]
        if not wanted:
            raise BackendError(
                f"{self._name} doesn't say how long its context is; set --max-tokens",
                kind="refused",
                fatal=True,
            )
        job.room = min(wanted)

    def _generate(self, jobs: list[_Job]) -> None:
        torch = self._torch
        width = max(len(job.ids) for job in jobs)
        pad = self._stops[0]
        # Padding stands on the left, so that all rows go on at the same place; the mask hides it.
        ids = torch.tensor([[pad] * (width - len(j.ids)) + j.ids for j in jobs], device=self.device)
        mask = torch.tensor([[0] * (width - len(j.ids)) + [1] * len(j.ids) for j in jobs], device=self.device)
        with torch.inference_mode():
            self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max(job.room for job in jobs),
                do_sample=False,
                pad_token_id=pad,
                eos_token_id=list(self._stops),
                logits_processor=self._transformers.LogitsProcessorList([self._sampler(jobs)]),
                stopping_criteria=self._transformers.StoppingCriteriaList([self._ender(jobs, width)]),
            )

    def _decides_itself(self, model: Any) -> None:
        """Sampling is ours: a folder's own advice (top_k, a repetition penalty) is not what was asked."""
        model.generation_config = self._transformers.GenerationConfig(
            bos_token_id=getattr(model.generation_config, "bos_token_id", None)
        )

    def _sampler(self, jobs: Sequence[_Job]) -> Any:
        """Leaves of each row's logits only the token that its request draws."""
        torch = self._torch
        generators = [torch.Generator() for _ in jobs]
        for job, generator in zip(jobs, generators, strict=True):
            if job.request.seed is None:
                generator.seed()
            else:
                generator.manual_seed(job.request.seed % 2**63)

        def sample(input_ids: Any, scores: Any) -> Any:
            logits = scores.float().cpu()
            chosen = []
            for job, generator, row in zip(jobs, generators, logits, strict=True):
                if self._ended(job):
                    chosen.append(self._stops[0])
                    continue
                token = _draw(torch, row, job.request, generator)
                job.made.append(token)
                job.logprobs.append(float(row[token] - row.logsumexp(-1)))
                chosen.append(token)
            only = torch.full_like(scores, -torch.inf)
            only[torch.arange(len(chosen)), torch.tensor(chosen)] = 0.0
            return only

        return sample

    def _ender(self, jobs: Sequence[_Job], width: int) -> Any:
        torch = self._torch

        def ended(input_ids: Any, scores: Any, **more: Any) -> Any:
            return torch.tensor([self._ended(job) for job in jobs], device=input_ids.device)

        return ended

    def _ended(self, job: _Job) -> bool:
        if not job.made:
            return job.given_up
        if job.given_up or len(job.made) >= job.room or job.made[-1] in self._stops:
            return True
        stops = job.request.stop
        # A token has a byte at least, so a stop string that is new here lies in the last few.
        last = max((len(stop.encode()) for stop in stops), default=0)
        text = self._decode(job.made[-last - 8 :]) if stops else ""
        return any(stop in text for stop in stops)

    def _reply(self, job: _Job) -> Reply:
        stopped = job.made[-1:] != [] and job.made[-1] in self._stops
        text = self._decode(job.made[:-1] if stopped else job.made)
        cuts = [text.index(stop) for stop in job.request.stop if stop in text]
        return Reply(
            text=text[: min(cuts)] if cuts else text,
            usage=Usage(len(job.ids), len(job.made), cached_tokens=0, reasoning_tokens=0),
            finish_reason="stop" if stopped or cuts else "length",
            model=self._name,
            latency_s=time.perf_counter() - job.began,
            raw={"token_ids": job.made, "logprobs": job.logprobs},
        )

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _failure(self, error: Exception) -> BackendError:
        torch = self._torch
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
            return BackendError(
                f"{self._name}: memory is too small for this batch; lower --concurrency or --max-tokens "
                f"({first_line(error)})"
            )
        return BackendError(f"{self._name} failed: {type(error).__name__}: {first_line(error)}")


def _draw(torch: Any, logits: Any, request: ChatRequest, generator: Any) -> int:
    """The next token of one row of logits, shape (vocabulary,)."""
    if request.temperature == 0:
        return int(logits.argmax())
    probabilities = (logits / request.temperature).softmax(-1)
    if request.top_p is not None and request.top_p < 1:
        ordered, places = probabilities.sort(descending=True)
        # What lies before a token is less than top_p: so at least one is left.
        ordered[ordered.cumsum(-1) - ordered >= request.top_p] = 0.0
        return int(places[torch.multinomial(ordered, 1, generator=generator)])
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _without_raw(reply: Reply) -> Reply:
    return Reply(reply.text, reply.usage, reply.finish_reason, model=reply.model, latency_s=reply.latency_s)


# -- the models of this process ----------------------------------------------------------

_models: dict[Settings, _Model] = {}
_lock = threading.Lock()


def _acquire(settings: Settings) -> _Model:
    with _lock:
        model = _models.get(settings)
        if model is None:
            model = _models[settings] = _Model(settings)
        model.users += 1
        return model


def _release(settings: Settings) -> None:
    with _lock:
        model = _models.get(settings)
        if model is not None:
            model.users -= 1
            if model.users <= 0:
                del _models[settings]
