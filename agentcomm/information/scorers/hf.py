"""HF: a Hugging Face folder in this process, each context computed once for all its continuations.

    hf/FOLDER        config.json, model.safetensors, tokenizer.json; nothing is downloaded

A column is scored like this: the context's head is read once; for each question a copy of its
key-value cache reads the question's tail; copies of that read the continuations, several at a time,
padded on the right. The first token of a continuation is predicted by the tail's last position, so its
last token is never read. Only positions that predict a continuation's token go through the output
head, and the normalisation is in float32.

Questions whose tails have the same number of tokens go together, so there is never padding *between*
tokens: models with a sliding window count positions in the cache. Padding at the end is after
everything that is scored, and a causal model does not look ahead.

Only public methods of the cache are used (a deep copy and ``batch_select_indices`` of its layers);
architectures whose state can't be copied so, e.g. recurrent ones, are refused by the probe.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from agentcomm.errors import ConfigError, MissingExtraError, ScorerError, ScorerUnsupported
from agentcomm.information.scorers.base import Ask, Capabilities, Scored
from agentcomm.information.scorers.language import LanguageScorer, weights_hash
from agentcomm.information.scorers.spans import PLAIN_AFTER, SENTINEL, Ids, Spans, Template

DTYPES = ("float32", "bfloat16", "float16")
LOGIT_BYTES = 256 << 20
"""Logits of one batch, in float32."""
CACHE_BYTES = 512 << 20
"""Copies of a context's cache in one batch."""
ROWS = 32


class HFScorer(LanguageScorer):
    """A causal language model in a folder.

    Parameters
    ----------
    folder:
        A Hugging Face folder with safetensors.
    dtype:
        ``"float32"``, the exact choice, or ``"bfloat16"``, ``"float16"``.
    device:
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``; default: a GPU if there is one.
    rows:
        Most continuations read at a time.

    Raises
    ------
    MissingExtraError
        If torch or transformers are not installed.
    ConfigError
        If the folder holds no such model.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        dtype: str = "float32",
        device: str | None = None,
        rows: int = ROWS,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if dtype not in DTYPES:
            raise ConfigError(f"dtype={dtype!r}; use {', '.join(DTYPES)}")
        if rows < 1:
            raise ConfigError(f"rows={rows} at a time; it must be at least 1")
        torch, transformers = _libraries()
        self.folder = Path(folder)
        _require_folder(self.folder)
        self._torch, self._rows, self._dtype = torch, rows, dtype
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer, self._model = _load(transformers, self.folder, getattr(torch, dtype), self.device)
        self._config = self._model.config.get_text_config()
        takes = inspect.signature(self._model.forward).parameters
        self._keeps = "logits_to_keep" in takes
        self._cache = "cache" if "cache" in takes else "past_key_values"  # renamed in transformers 5.2x
        self._version = f"transformers-{transformers.__version__},torch-{torch.__version__}"
        self._weights = weights_hash(self.folder)
        self._spans = Spans(self.prompt, self._template(), self._tokenise)
        self._end = _end_id(self._tokenizer) if self.include_eos else None

    @property
    def id(self) -> str:
        return f"hf/{self.folder.name}@{self._weights[:12]},{self._dtype},{self._version}"

    @property
    def spans(self) -> Spans:
        return self._spans

    @property
    def max_length(self) -> int | None:
        length = getattr(self._config, "max_position_embeddings", None)
        return int(length) if length else None

    @property
    def half_precision(self) -> bool:
        return self._dtype != "float32"

    @property
    def end_ids(self) -> Ids:
        return () if self._end is None else (self._end,)

    def capabilities(self) -> Capabilities:
        return Capabilities(
            prompt_logprobs=True,
            prefix_reuse=True,
            deterministic=True,
            discrete=True,
            null_context=True,
            exact_for=self.id,
        )

    def logprobs(self, ids: Ids, start: int) -> list[float]:
        with self._torch.inference_mode():
            read = self._tensor([ids[:-1]])
            kept = len(ids) - start
            more = {"logits_to_keep": kept} if self._keeps else {}
            logits = self._forward(input_ids=read, use_cache=False, **more).logits[:, -kept:]
            self.prefilled += len(ids) - 1
            values: list[float] = self._picked(logits, self._tensor([ids[start:]]))[0].tolist()
        return values

    def column(
        self, context: str | None, asks: Sequence[Ask], known: Collection[int]
    ) -> Iterator[list[tuple[int, Scored]]]:
        head = self.spans.head(context)
        good, failed = self.readable(asks)
        for i, (tail, text) in list(good.items()):
            try:
                self.fits(len(head) + len(tail), len(text))
            except ScorerError as error:
                failed[i] = Scored.failed(asks[i].text, str(error))
                del good[i]
        yield list(failed.items())
        cache: Any = None
        for group in self._plan(len(head), good):
            if all(i in known for batch in group.batches for i in batch):
                continue
            with self._torch.inference_mode():
                if cache is None:
                    cache = self._read_head(head)
                tail_cache, first = self._read_tails(cache, group.tails)
                for batch in group.batches:
                    if not all(i in known for i in batch):
                        places = [group.tails.index(good[i][0]) for i in batch]
                        texts = [good[i][1] for i in batch]
                        sums = self._read_texts(tail_cache, first, places, texts)
                        yield [(i, self.summed(asks[i].text, v)) for i, v in zip(batch, sums, strict=True)]

    # -- reading ------------------------------------------------------------------------------

    def _plan(self, head: int, good: dict[int, tuple[Ids, Ids]]) -> list[_Group]:
        """Which tails are read together, and which continuations then are: the same whatever is known."""
        by_length: dict[int, dict[Ids, list[int]]] = {}
        for i, (tail, _) in good.items():
            by_length.setdefault(len(tail), {}).setdefault(tail, []).append(i)
        groups: list[_Group] = []
        for length, of_tail in sorted(by_length.items()):
            widest = max(len(good[i][1]) for members in of_tail.values() for i in members)
            rows = self._rows_at_once(head + length + widest, max(widest, 1))
            tails: list[Ids] = []
            members: list[int] = []
            for tail, positions in of_tail.items():
                if tails and len(members) + len(positions) > rows:
                    groups.append(_Group(tails, _batches(members, good, rows)))
                    tails, members = [], []
                tails.append(tail)
                members += positions
            groups.append(_Group(tails, _batches(members, good, rows)))
        return groups

    def _rows_at_once(self, length: int, width: int) -> int:
        config = self._config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        bytes_each: int = 4 if self._dtype == "float32" else 2
        of_row = 2 * config.num_hidden_layers * heads * size * bytes_each * length
        by_cache = CACHE_BYTES // max(1, int(of_row))
        by_logits = LOGIT_BYTES // (4 * int(config.vocab_size) * width)
        return max(1, min(self._rows, by_cache, by_logits))

    def _read_head(self, head: Ids) -> Any:
        more = {"logits_to_keep": 1} if self._keeps else {}
        out = self._forward(input_ids=self._tensor([head]), use_cache=True, **more)
        self.prefilled += len(head)
        cache = getattr(out, self._cache, None)
        if not callable(getattr(cache, "batch_select_indices", None)):
            raise ScorerUnsupported(
                f"{self.id}: this architecture's cache can't be copied for several texts; take another model "
                "or vllm/FOLDER"
            )
        return cache

    def _read_tails(self, cache: Any, tails: list[Ids]) -> tuple[Any, Any]:
        """The cache behind each tail, and the logits that predict what comes first after it."""
        copied = self._copied(cache, [0] * len(tails))
        more: dict[str, Any] = {"logits_to_keep": 1} if self._keeps else {}
        more[self._cache] = copied
        out = self._forward(input_ids=self._tensor(tails), use_cache=True, **more)
        self.prefilled += sum(map(len, tails))
        return getattr(out, self._cache), out.logits[:, -1]

    def _read_texts(self, cache: Any, first: Any, places: list[int], texts: list[Ids]) -> list[list[float]]:
        """Log-probabilities of each text's tokens; text k follows tail ``places[k]``."""
        torch = self._torch
        firsts = self._picked(first[places][:, None], self._tensor([text[:1] for text in texts]))[:, 0]
        values: list[list[float]] = [[float(value)] for value in firsts.tolist()]
        width = max(len(text) for text in texts) - 1
        if width == 0:
            return values
        read = torch.zeros((len(texts), width), dtype=torch.long)
        wanted = torch.zeros((len(texts), width), dtype=torch.long)
        for k, text in enumerate(texts):
            read[k, : len(text) - 1] = torch.tensor(text[:-1], dtype=torch.long)
            wanted[k, : len(text) - 1] = torch.tensor(text[1:], dtype=torch.long)
        more = {self._cache: self._copied(cache, places)}
        out = self._forward(input_ids=read.to(self.device), use_cache=True, **more)
        self.prefilled += sum(len(text) - 1 for text in texts)
        rest = self._picked(out.logits, wanted.to(self.device)).tolist()
        for k, text in enumerate(texts):
            values[k] += rest[k][: len(text) - 1]
        return values

    def _copied(self, cache: Any, rows: list[int]) -> Any:
        copied = copy.deepcopy(cache)
        if rows != list(range(len(rows))) or len(rows) > 1:
            copied.batch_select_indices(self._torch.tensor(rows, device=self.device))
        return copied

    def _forward(self, **inputs: Any) -> Any:
        try:
            return self._model(**inputs)
        except self._torch.OutOfMemoryError as error:
            self._torch.cuda.empty_cache()
            raise ScorerError(
                f"the GPU's memory is too small for {self._rows} rows of these contexts; take fewer rows"
            ) from error

    def _picked(self, logits: Any, ids: Any) -> Any:
        """log p of ``ids`` under ``logits``, shape (rows, positions), normalised in float32."""
        logits = logits.float()
        return logits.gather(-1, ids[..., None])[..., 0] - logits.logsumexp(-1)

    def _tensor(self, rows: Sequence[Ids]) -> Any:
        return self._torch.tensor([list(row) for row in rows], dtype=self._torch.long, device=self.device)

    # -- tokens -------------------------------------------------------------------------------

    def _tokenise(self, text: str) -> Ids:
        ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        unknown = self._tokenizer.unk_token_id
        if unknown is not None and unknown in ids:
            raise ScorerError(
                f"the scorer's tokenizer can't represent {ids.count(unknown)} of its {len(ids)} tokens"
            )
        return tuple(ids)

    def _template(self) -> Template:
        tokenizer = self._tokenizer

        def ids(text: str) -> Ids:
            return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

        if tokenizer.chat_template:
            rendered = tokenizer.apply_chat_template(
                [{"role": "user", "content": SENTINEL}], tokenize=False, add_generation_prompt=True
            )
            before, found, after = rendered.partition(SENTINEL)
            if found and SENTINEL not in after:
                name = f"chat:{sha256(f'{before}|{after}'.encode()).hexdigest()[:12]}"
                return Template(ids(before), ids(after), name)
        begin = tokenizer.bos_token_id
        opening = tokenizer("a")["input_ids"]
        starts = begin is not None and opening[:1] == [begin]
        return Template((begin,) if starts else (), ids(PLAIN_AFTER), "plain")


class _Group(NamedTuple):
    """Tails of equal length that are read together, and their continuations, batch by batch."""

    tails: list[Ids]
    batches: list[list[int]]


def _batches(members: list[int], good: dict[int, tuple[Ids, Ids]], rows: int) -> list[list[int]]:
    """Positions, the shortest continuations first: little padding."""
    ordered = sorted(members, key=lambda i: (len(good[i][1]), i))
    return [ordered[at : at + rows] for at in range(0, len(ordered), rows)]


def _libraries() -> tuple[Any, Any]:
    for name in ("torch", "transformers"):
        if find_spec(name) is None:
            raise MissingExtraError(
                f"hf/ scorers need {name}; run: pip install 'agentcomm[learn]' (or score offline: offline/codelength)"
            )
    return import_module("torch"), import_module("transformers")


def _require_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} is no Hugging Face folder (no config.json); scripts/gguf_to_hf.py makes one from a GGUF file"
        )
    if not list(folder.glob("*.safetensors")):
        raise ConfigError(f"{folder} holds no safetensors; weights in other formats are not read")


def _load(transformers: Any, folder: Path, dtype: Any, device: str) -> tuple[Any, Any]:
    with _quiet(transformers):
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=dtype, use_safetensors=True
            )
            model = model.to(device).eval()
        except (OSError, ValueError, LookupError, RuntimeError, TypeError) as error:
            raise ConfigError(f"{folder} can't be loaded: {str(error).splitlines()[0]}") from error
    return tokenizer, model


def _end_id(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise ConfigError("include_eos: this tokenizer has no end token")
    return int(tokenizer.eos_token_id)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Loading without progress bars and advice; what it was before is put back."""
    words = transformers.utils.logging
    bars, level = words.is_progress_bar_enabled(), words.get_verbosity()
    words.disable_progress_bar()
    words.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        words.set_verbosity(level)
        if bars:
            words.enable_progress_bar()
