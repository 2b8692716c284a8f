"""Measuring a compressor: contexts of a task, its messages, the score matrix, the estimate.

    async with options.calls(ledger, "local/smollm2", resuming=True) as calls:
        messages = await compress(sources, compressor, samples=3, calls=calls)
    result = measure(sources, messages, scorer)

This part of the room stands to the right of the model calls: it makes some. The estimators don't.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio

from agentcomm.calls import Calls, Place, derive_seed
from agentcomm.errors import AgentCommError, BackendError, ConfigError, TaskError
from agentcomm.graph import Agent
from agentcomm.information import compressing
from agentcomm.information.compressing import CompressPrompt, prompt_for
from agentcomm.information.efficiency import Efficiency, bits_per
from agentcomm.information.estimators import estimate_mi
from agentcomm.information.results import MIEstimate
from agentcomm.information.score_matrix import ScoreMatrix, digest
from agentcomm.information.scorers.scorer import Scorer
from agentcomm.ledger.rows import CallRow
from agentcomm.ledger.usage import UsageReport
from agentcomm.prompting import Prompt, PromptMessage, Segment
from agentcomm.task import Item, Task

Method = Literal["identity", "truncate", "extract", "random", "model"]
PLAIN: tuple[Method, ...] = ("identity", "truncate", "extract", "random")
BUDGET = 64
"""Tokens of a message where nothing else is said."""
COMPRESSOR = "compressor"


@dataclass(frozen=True)
class Sources:
    """What is compressed: a reference set of contexts, a question for each.

    ``one_query`` says that all have the same (which may be empty: whatever will be asked).
    """

    ids: tuple[str, ...]
    contexts: tuple[str, ...]
    queries: tuple[str, ...]
    reference_set: str

    @property
    def one_query(self) -> bool:
        return len(set(self.queries)) == 1


def text_of(item: Item) -> str:
    """All that there is to read beside the question: the context, then every view."""
    return "\n\n".join(part for part in (item.context, *item.views.values()) if part)


def query_of(item: Item) -> str:
    """The question without options or advice on how to answer: options would give the answer away."""
    asked = item.metadata.get("asked")
    return asked if isinstance(asked, str) and asked.strip() else item.question


def sources_of(task: Task, contexts: int, *, query: str | None = None) -> Sources:
    """The first so many distinct contexts of a task.

    Parameters
    ----------
    query:
        One question for all of them (empty: none in particular); ``None`` takes each item's own.

    Raises
    ------
    TaskError
        If the task's items have no context, or too few different ones.
    """
    if contexts < 1:
        raise ConfigError(f"--contexts {contexts}: it must be at least 1")
    found: dict[str, Item] = {}
    for item in task.items:
        if (text := text_of(item)) and len(found) < contexts:
            found.setdefault(text, item)
    if not found:
        raise TaskError(
            f"the items of task {task.name!r} have no context to compress; take one that has (records, squad, ...)"
        )
    if len(found) < contexts:
        raise TaskError(
            f"task {task.name!r} has {len(found)} different contexts, not {contexts}; take fewer with --contexts"
        )
    texts = tuple(found)
    return Sources(
        ids=tuple(item.id for item in found.values()),
        contexts=texts,
        queries=tuple(query_of(item) if query is None else query for item in found.values()),
        reference_set=f"{task.name}, {len(texts)} contexts, {digest(chr(10).join(map(digest, sorted(texts))))[:12]}",
    )


@dataclass(frozen=True)
class Compressor:
    """What makes messages: a model, or a rule that needs none.

    ``budget`` are the model's tokens, or words and marks for a rule; ``None``: no limit asked.
    """

    name: str
    method: Method
    budget: int | None

    @classmethod
    def parse(cls, name: str, budget: int | None = None) -> Compressor:
        """``identity``, ``truncate:64``, ``extract:64``, ``random:64``, or a model string.

        Raises
        ------
        ConfigError
            If it is none of these.
        """
        word, colon, number = name.partition(":")
        if word in PLAIN:
            if word == "identity":
                if colon:
                    raise ConfigError("identity keeps everything: it takes no number")
                return cls(name, "identity", None)
            if colon and not (number.isdecimal() and int(number) > 0):
                raise ConfigError(f"compressor {name!r}: write {word}:N with N words, at least 1")
            amount = int(number) if colon else budget or BUDGET
            return cls(f"{word}:{amount}", word, amount)
        from agentcomm.backends.models import parse_model

        try:
            parse_model(name)
        except ConfigError as error:
            rules = "identity, truncate:64, extract:64, random:64"
            raise ConfigError(f"{error}; without a model there are {rules}") from error
        if budget is not None and budget < 1:
            raise ConfigError(f"--budget {budget}: no message fits into it; it must be at least 1")
        return cls(name, "model", budget)

    @property
    def deterministic(self) -> bool:
        """Whether a second message would be the first again."""
        return self.method in ("identity", "truncate", "extract")


@dataclass(frozen=True)
class Messages:
    """Compressions of every context.

    Attributes
    ----------
    texts:
        M of each context; ``None`` where the compressor failed.
    lengths, unit:
        Their lengths, −1 where unknown, and what was counted.
    failures:
        Messages that weren't made, by reason.
    cut_off:
        Messages that ran into the budget.
    prompt_id:
        What a model was asked; empty for a rule.
    usage:
        What the model calls cost, those of an earlier, interrupted run included.
    """

    compressor: Compressor
    texts: tuple[tuple[str | None, ...], ...]
    lengths: tuple[tuple[int, ...], ...]
    unit: str
    failures: dict[str, int]
    cut_off: int = 0
    prompt_id: str = ""
    seeds: tuple[int, ...] = ()
    usage: UsageReport = field(default_factory=UsageReport, repr=False)


async def compress(
    sources: Sources,
    compressor: Compressor,
    *,
    samples: int,
    seed: int = 0,
    temperature: float | None = None,
    calls: Calls | None = None,
    note: Callable[[str], None] | None = None,
) -> Messages:
    """``samples`` messages of each context; one where a second would be the same.

    Parameters
    ----------
    calls:
        The metered calls of a model; what their ledger has already is not paid again.
    temperature:
        Of the model; ``None``: the calls' own. At 0 one message a context is made.

    Raises
    ------
    LimitExceeded, BackendError
        If a limit was reached, or no later call can succeed. A single message that couldn't be made
        is counted in ``failures``.
    """
    if samples < 1:
        raise ConfigError(f"--samples {samples}: it must be at least 1")
    if compressor.method != "model":
        return _by_rule(sources, compressor, 1 if compressor.deterministic else samples, seed)
    if calls is None:
        raise ConfigError(f"{compressor.name} is a model: compress needs calls=")
    heat = calls.sampling.temperature if temperature is None else temperature
    prompt = prompt_for(sources.queries).within(compressor.budget)
    work = _ByModel(sources, compressor, prompt, calls, heat, seed, note or (lambda text: None))
    return await work.all(1 if heat == 0 else samples)


def _by_rule(sources: Sources, compressor: Compressor, samples: int, seed: int) -> Messages:
    budget = compressor.budget or BUDGET
    texts: list[tuple[str, ...]] = []
    for name, context, query in zip(sources.ids, sources.contexts, sources.queries, strict=True):
        if compressor.method == "random":
            drawn = [
                compressing.randomly(sources.contexts, budget, f"{seed}/{name}/{j}") for j in range(samples)
            ]
            texts.append(tuple(drawn))
        elif compressor.method == "truncate":
            texts.append((compressing.truncate(context, budget),))
        elif compressor.method == "extract":
            texts.append((compressing.extract(context, query, budget),))
        else:
            texts.append((compressing.identity(context),))
    lengths = tuple(tuple(map(compressing.pieces, of_context)) for of_context in texts)
    return Messages(compressor, tuple(texts), lengths, "word", {}, seeds=(seed,))


@dataclass
class _ByModel:
    sources: Sources
    compressor: Compressor
    prompt: CompressPrompt
    calls: Calls
    temperature: float
    seed: int
    note: Callable[[str], None]
    rows: list[CallRow] = field(default_factory=list)
    error: AgentCommError | None = None
    done: int = 0

    async def all(self, samples: int) -> Messages:
        n = len(self.sources.contexts)
        texts: list[list[str | None]] = [[None] * samples for _ in range(n)]
        lengths = [[-1] * samples for _ in range(n)]
        failures: Counter[str] = Counter()
        cut = 0

        async def one(i: int, j: int) -> None:
            nonlocal cut
            try:
                called = await self._call(i, j)
            except BackendError as error:
                if error.fatal:
                    self._stop(error, group)
                failures[error.kind] += 1
                return
            except AgentCommError as error:
                self._stop(error, group)
                return
            texts[i][j] = called.reply.text.strip()
            tokens = called.reply.usage.output_tokens
            lengths[i][j] = -1 if tokens is None else tokens
            cut += called.reply.finish_reason == "length"
            self.done += 1
            self.note(f"{self.done} of {n * samples} messages")

        async with anyio.create_task_group() as group:
            for i in range(n):
                for j in range(samples):
                    group.start_soon(one, i, j)
        if self.error is not None:
            raise self.error
        return Messages(
            self.compressor,
            tuple(map(tuple, texts)),
            tuple(map(tuple, lengths)),
            f"token of {self.compressor.name}",
            dict(failures),
            cut,
            self.prompt.id,
            tuple(self._seed(0, j) for j in range(samples)),
            UsageReport.of(self.rows),
        )

    def _seed(self, i: int, j: int) -> int:
        return derive_seed(self.seed, self.sources.ids[i], j, COMPRESSOR, 1)

    async def _call(self, i: int, j: int) -> Any:
        agent = Agent(COMPRESSOR, max_tokens=self.compressor.budget, temperature=self.temperature)
        request = self.prompt.user(self.sources.contexts[i], self.sources.queries[i])
        prompt = Prompt((PromptMessage("user", (Segment("task", request),)),))
        place = Place(self.sources.ids[i], COMPRESSOR, 1, j, "compress")
        return await self.calls.call(
            place, agent, prompt, self.calls.scope, seed=self._seed(i, j), heard=self.rows.append
        )

    def _stop(self, error: AgentCommError, group: anyio.abc.TaskGroup) -> None:
        if self.error is None:
            self.error = error
        group.cancel_scope.cancel()


@dataclass(frozen=True)
class Measured:
    """What a compressor's messages say about their contexts, and what that costs.

    ``per_token`` is in ``messages.unit``, ``per_scorer_token`` in the scorer's tokens where it has
    some, ``per_byte`` in UTF-8 bytes: the only unit across families.
    """

    messages: Messages
    matrix: ScoreMatrix = field(repr=False)
    estimate: MIEstimate
    per_token: Efficiency
    per_scorer_token: Efficiency | None
    per_byte: Efficiency

    @property
    def ok(self) -> bool:
        return self.estimate.status == "ok"

    def facts(self) -> dict[str, Any]:
        """All of it as JSON, without the matrix."""
        made = [text for texts in self.messages.texts for text in texts if text is not None]
        lengths = [n for of_context in self.messages.lengths for n in of_context if n >= 0]
        usage = self.messages.usage
        return {
            "compressor": self.messages.compressor.name,
            "budget": self.messages.compressor.budget,
            "prompt": self.messages.prompt_id or None,
            "messages": {
                "made": len(made),
                "failed": self.messages.failures,
                "cut_off": self.messages.cut_off,
                "mean_length": sum(lengths) / len(lengths) if lengths else None,
                "unit": self.messages.unit,
            },
            "estimate": self.estimate.facts(),
            "quantity": self.estimate.quantity,
            "bits_per_token": _efficiency(self.per_token),
            "bits_per_scorer_token": _efficiency(self.per_scorer_token),
            "bits_per_byte": _efficiency(self.per_byte),
            "calls": {
                "made": usage.calls,
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cost": usage.cost,
            },
        }


def measure(sources: Sources, messages: Messages, scorer: Scorer) -> Measured:
    """Score messages and estimate.

    Raises
    ------
    UserError
        If the scorer can't do it.
    """
    queries: str | Sequence[str] = sources.queries[0] if sources.one_query else sources.queries
    matrix = scorer.score_matrix(
        sources.contexts,
        queries,
        messages.texts,
        reference_set=sources.reference_set,
        prior=scorer.capabilities().null_context,
        seeds=messages.seeds,
    )
    estimate = estimate_mi(matrix)
    lengths = [n for of_context in messages.lengths for n in of_context]
    of_scorer = None
    if matrix.n_tokens is not None:
        of_scorer = bits_per(matrix, matrix.n_tokens, "token of the scorer", estimate=estimate)
    assert matrix.n_bytes is not None
    return Measured(
        messages,
        matrix,
        estimate,
        bits_per(matrix, lengths, messages.unit, estimate=estimate),
        of_scorer,
        bits_per(matrix, matrix.n_bytes, "byte", estimate=estimate),
    )


def _efficiency(value: Efficiency | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "bits": value.bits,
        "interval": None if value.interval is None else list(value.interval),
        "mean_length": value.mean_length,
        "unit": value.unit,
        "brevity_only": value.brevity_only,
    }
