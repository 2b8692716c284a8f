"""HF: a Hugging Face folder in this process, each context computed once for all its continuations.

    hf/FOLDER        config.json, model.safetensors, tokenizer.json; nothing is downloaded

A column is scored like this: the context's head is read once. Then many questions' tails and their
continuations are read as *one* sequence behind it: a mask lets each continuation see the head, its own
question and itself, and positions start anew for each. So the head's key-value cache is neither
copied for each continuation nor read for each. (Copies were twice as slow.) The first token of
a continuation is predicted by the tail's last position, so its last token is never read. Only
positions that predict a continuation's token go through the output head, and the normalisation is in
float32.

Models with sliding windows, or that can't be told positions, read copies instead: of the head's
cache for tails of equal length, of those for continuations padded on the right. There is never padding
*between* tokens, because a window counts positions in the cache; and a causal model does not look
ahead at padding after the end.

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

from agentcomm.backends.hf import require_folder
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
PACK_TOKENS = 512
"""Tokens that are read as one sequence behind a head; more only make the mask larger."""


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
        require_folder(self.folder)
        self._torch, self._rows, self._dtype = torch, rows, dtype
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer, self._model = _load(transformers, self.folder, getattr(torch, dtype), self.device)
        self._config = self._model.config.get_text_config()
        takes = inspect.signature(self._model.forward).parameters
        self._keeps = "logits_to_keep" in takes
        self._packs = "position_ids" in takes and _all_attend(self._config)
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
        if self._packs:
            yield from self._packed(head, asks, good, known)
            return
        cache: Any = None
        for group in self._plan(len(head), good):
            if all(i in known for batch in group.batches for i in batch):
                continue
            with self._torch.inference_mode():
                if cache is None:
                    cache, _ = self._read_head(head)
                tail_cache, first = self._read_tails(cache, group.tails)
                for batch in group.batches:
                    if not all(i in known for i in batch):
                        places = [group.tails.index(good[i][0]) for i in batch]
                        texts = [good[i][1] for i in batch]
                        sums = self._read_texts(tail_cache, first, places, texts)
                        yield [(i, self.summed(asks[i].text, v)) for i, v in zip(batch, sums, strict=True)]

    # -- reading many continuations as one sequence ---------------------------------------------

    def _packed(
        self, head: Ids, asks: Sequence[Ask], good: dict[int, tuple[Ids, Ids]], known: Collection[int]
    ) -> Iterator[list[tuple[int, Scored]]]:
        tails = {tail for tail, _ in good.values()}
        # With one question for all, its tail is part of what is read once.
        base = head + next(iter(tails)) if len(tails) == 1 else head
        cache: Any = None
        first: Any = None
        for batch in self._packs_of(good, len(base) - len(head)):
            if all(i in known for i in batch):
                continue
            with self._torch.inference_mode():
                if cache is None:
                    cache, first = self._read_head(base)
                texts = [(() if len(tails) == 1 else good[i][0], good[i][1]) for i in batch]
                values = self._read_pack(cache, first, len(base), texts)
            yield [(i, self.summed(asks[i].text, v)) for i, v in zip(batch, values, strict=True)]

    def _packs_of(self, good: dict[int, tuple[Ids, Ids]], shared: int) -> list[list[int]]:
        """Which continuations are read together: the same whatever is known. Those of one question are
        neighbours, and only where they are too many for one pack is its tail read twice."""
        by_tail: dict[Ids, list[int]] = {}
        for i, (tail, _) in good.items():
            by_tail.setdefault(tail, []).append(i)
        most = max(1, min(PACK_TOKENS, LOGIT_BYTES // (4 * int(self._config.vocab_size))))
        packs: list[list[int]] = []
        room = rows = 0
        for tail, members in by_tail.items():
            needed = sum(len(good[i][1]) for i in members) + (0 if shared else len(tail))
            whole = needed <= most and len(members) <= self._rows
            if whole and (needed > room or len(members) > rows):
                room = 0
            for i in members:
                length = len(good[i][1])
                if room < length or rows < 1:
                    packs.append([])
                    room, rows = most, self._rows
                packs[-1].append(i)
                room, rows = room - length, rows - 1
            room -= 0 if shared else len(tail)
        return packs

    def _read_pack(
        self, cache: Any, first: Any, length: int, texts: list[tuple[Ids, Ids]]
    ) -> list[list[float]]:
        """Log-probabilities of each continuation's tokens, each behind its tail, all behind the head.

        ``length`` tokens are in the cache; ``first`` are the logits after them.
        """
        torch = self._torch
        ids: list[int] = []
        positions: list[int] = []
        spans: list[tuple[int, int, int, int]] = []  # tail from, to; text from, to
        at_tail: dict[Ids, tuple[int, int]] = {(): (0, 0)}
        for tail, text in texts:
            if tail not in at_tail:
                at_tail[tail] = (len(ids), len(ids) + len(tail))
                ids += tail
                positions += range(length, length + len(tail))
            start = len(ids)
            ids += text[:-1]
            positions += range(length + len(tail), length + len(tail) + len(text) - 1)
            spans.append((*at_tail[tail], start, len(ids)))
        place: dict[int, int] = {}
        logits = first
        if ids:
            place, read = self._forward_packed(cache, length, ids, positions, at_tail, spans)
            # Behind the head itself nothing needs reading: its own logits predict the first token.
            logits = read if first is None else torch.cat([read, first])
        rows: list[int] = []
        wanted: list[int] = []
        for (_, tail_high, low, high), (_, text) in zip(spans, texts, strict=True):
            rows += [place[tail_high - 1]] if tail_high else [-1]
            rows += [place[i] for i in range(low, high)]
            wanted += text
        flat = self._picked(logits[rows], self._tensor([tuple(wanted)])[0]).tolist()
        values: list[list[float]] = []
        for _, text in texts:
            values.append(flat[: len(text)])
            flat = flat[len(text) :]
        return values

    def _forward_packed(
        self,
        cache: Any,
        length: int,
        ids: list[int],
        positions: list[int],
        at_tail: dict[Ids, tuple[int, int]],
        spans: list[tuple[int, int, int, int]],
    ) -> tuple[dict[int, int], Any]:
        """Logits, shape (kept, vocabulary), and where each position that predicts something is among them."""
        torch = self._torch
        blocked = torch.ones((len(ids), length + len(ids)), dtype=torch.bool)
        blocked[:, :length] = False
        own = blocked[:, length:]

        def causal(low: int, high: int) -> None:
            own[low:high, low:high] = torch.ones(high - low, high - low, dtype=torch.bool).triu(1)

        for low, high in at_tail.values():
            causal(low, high)
        kept: set[int] = set()
        for tail_low, tail_high, low, high in spans:
            own[low:high, tail_low:tail_high] = False
            causal(low, high)
            kept.update(range(low, high), range(tail_high - 1, tail_high) if tail_high else ())
        dtype = getattr(torch, self._dtype)
        mask = torch.zeros(blocked.shape, dtype=dtype).masked_fill_(blocked, torch.finfo(dtype).min)
        more: dict[str, Any] = {self._cache: copy.deepcopy(cache)}
        if self._keeps:
            more["logits_to_keep"] = torch.tensor(sorted(kept), device=self.device)
        out = self._forward(
            input_ids=self._tensor([tuple(ids)]),
            position_ids=self._tensor([tuple(positions)]),
            attention_mask=mask[None, None].to(self.device),
            use_cache=True,
            **more,
        )
        self.prefilled += len(ids)
        order = sorted(kept) if self._keeps else list(range(len(ids)))
        return {i: k for k, i in enumerate(order)}, out.logits[0]

    # -- reading copies -------------------------------------------------------------------------

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

    def _read_head(self, head: Ids) -> tuple[Any, Any]:
        """The head's cache, and the logits after it, shape (1, vocabulary)."""
        more = {"logits_to_keep": 1} if self._keeps else {}
        out = self._forward(input_ids=self._tensor([head]), use_cache=True, **more)
        self.prefilled += len(head)
        cache = getattr(out, self._cache, None)
        if not callable(getattr(cache, "batch_select_indices", None)):
            raise ScorerUnsupported(
                f"{self.id}: this architecture's cache can't be copied for several texts; take another model "
                "or vllm/FOLDER"
            )
        return cache, out.logits[:, -1]

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


def _all_attend(config: Any) -> bool:
    """Whether every layer sees all that came before."""
    types = getattr(config, "layer_types", None)
    if types:
        return all(kind == "full_attention" for kind in types)
    return not getattr(config, "sliding_window", None)


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
