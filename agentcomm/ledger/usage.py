"""UsageReport: what calls cost, added up by edge, agent, round, phase and part.

What the totals include:

* ``calls`` are attempts sent to a model, retries and failures included. ``failed_calls`` are
  those that ended in an error, or whose end is unknown because the process died (pending).
  ``unknown_calls`` are those whose input or output tokens no server reported: they may have cost
  something, so the totals are then a lower bound.
* Tokens are inclusive with subsets (input includes cached tokens) and are sums of what is known.
* Replies from a cache or a replay cost nothing: ``cache_hits`` and their tokens stand apart and
  are in no other figure, except as marked rows of :meth:`UsageReport.by_call`.
* The reader pays: ``by_edge`` is what readers paid for messages, those read again from memory
  included. What a channel's own model calls cost is ``channel_tokens_by_edge``; the net price of
  an edge is the sum of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from agentcomm.ledger.rows import NOT_RECORDED, CallRow, DeliveryRow

ARROW = "->"
PARTS = ("system", "task", "messages", "memory", "template")
UNATTRIBUTED = "unattributed"

Key = TypeVar("Key", str, int)


def is_edge(part: str) -> bool:
    """Whether a key of ``CallRow.parts`` names an edge."""
    return ARROW in part


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """Calls and tokens of one agent, round or phase; ``cached`` is ``None`` where nobody told."""

    calls: int = 0
    input: int = 0
    output: int = 0
    cached: int | None = None

    def __getitem__(self, name: str) -> int | None:
        return self.to_dict()[name]

    def keys(self) -> Iterator[str]:
        return iter(self.to_dict())

    def to_dict(self) -> dict[str, int | None]:
        return asdict(self)


@dataclass(frozen=True)
class UsageReport:
    """What a set of calls cost. Made by :meth:`of`; adding two gives the report of both.

    >>> row = CallRow("1", "q", 0, 1, "judge", 1, "evaluate", "mock/echo", "r", 0.0, input_tokens=9,
    ...               output_tokens=2, parts={"task": 4, "solver->judge": 3, "template": 2})
    >>> report = UsageReport.of([row])
    >>> report.by_edge(), report.by_part()
    ({'solver->judge': 3}, {'system': 0, 'task': 4, 'messages': 3, 'memory': 0, 'template': 2})
    """

    rows: tuple[CallRow, ...] = field(default=(), repr=False)
    """Every attempt, cache hits included, by (item, sample, round, agent, attempt, start)."""
    readings: tuple[tuple[str, int], ...] = field(default=(), repr=False)
    """How many messages were read on each edge."""

    @classmethod
    def of(cls, calls: Iterable[CallRow], deliveries: Iterable[DeliveryRow] = ()) -> UsageReport:
        """The report of these rows, in any order."""
        read = Counter(f"{d.sender}{ARROW}{d.reader}" for d in deliveries)
        return cls(tuple(sorted(calls, key=_place)), tuple(sorted(read.items())))

    def __add__(self, other: UsageReport) -> UsageReport:
        read = Counter(dict(self.readings)) + Counter(dict(other.readings))
        return UsageReport(tuple(sorted((*self.rows, *other.rows), key=_place)), tuple(sorted(read.items())))

    @cached_property
    def _paid(self) -> tuple[CallRow, ...]:
        return tuple(r for r in self.rows if not r.cache_hit and r.error_kind != NOT_RECORDED)

    @cached_property
    def _hits(self) -> tuple[CallRow, ...]:
        return tuple(r for r in self.rows if r.cache_hit)

    @property
    def calls(self) -> int:
        """Attempts sent to a model, failed ones included, cache hits not."""
        return len(self._paid)

    @cached_property
    def failed_calls(self) -> int:
        """Attempts that ended in an error or whose end was never recorded."""
        return sum(r.error_kind is not None for r in self._paid)

    @cached_property
    def unknown_calls(self) -> int:
        """Attempts whose input or output tokens are unknown: what they cost is in no total."""
        return sum(r.input_tokens is None or r.output_tokens is None for r in self._paid)

    @cached_property
    def input_tokens(self) -> int:
        """Known input tokens, cached ones included."""
        return sum(r.input_tokens or 0 for r in self._paid)

    @cached_property
    def output_tokens(self) -> int:
        """Known output tokens, reasoning included."""
        return sum(r.output_tokens or 0 for r in self._paid)

    @cached_property
    def cached_tokens(self) -> int | None:
        """Input tokens read from a prefix cache; ``None`` if no server told."""
        return _sum_known(r.cached_tokens for r in self._paid)

    @cached_property
    def reasoning_tokens(self) -> int | None:
        """Output tokens spent on hidden reasoning; ``None`` if no server told."""
        return _sum_known(r.reasoning_tokens for r in self._paid)

    @cached_property
    def cost(self) -> float | None:
        """US dollars; ``None`` if the price of any answered call is unknown, or of every call.

        Failed attempts whose tokens nobody reported are not in it; ``unknown_calls`` counts them.
        """
        unknown = [r for r in self._paid if r.cost is None]
        if any(r.error_kind is None for r in unknown) or (unknown and len(unknown) == len(self._paid)):
            return None
        return self.known_cost

    @cached_property
    def known_cost(self) -> float:
        """US dollars of the calls whose price is known."""
        return sum(r.cost or 0.0 for r in self._paid)

    @property
    def cache_hits(self) -> int:
        """Replies from a cache or a replay; they cost nothing and are in no total."""
        return len(self._hits)

    @cached_property
    def hit_input_tokens(self) -> int:
        """Input tokens that cache hits would have cost."""
        return sum(r.input_tokens or 0 for r in self._hits)

    @cached_property
    def hit_output_tokens(self) -> int:
        """Output tokens that cache hits would have cost."""
        return sum(r.output_tokens or 0 for r in self._hits)

    def by_edge(self) -> dict[str, int]:
        """Input tokens that readers paid for messages, by ``"sender->reader"``, sorted.

        Spatial and temporal edges of a pair are one; messages read again from memory count again.
        """
        edges: Counter[str] = Counter()
        for row in self._paid:
            if row.edge is None:
                for part, tokens in _split(row):
                    if is_edge(part):
                        edges[part] += tokens
        return dict(sorted(edges.items()))

    def channel_tokens_by_edge(self) -> dict[str, int]:
        """Input and output tokens of the model calls that channels made, by edge, sorted."""
        edges: Counter[str] = Counter()
        for row in self._paid:
            if row.edge is not None:
                edges[row.edge] += (row.input_tokens or 0) + (row.output_tokens or 0)
        return dict(sorted(edges.items()))

    def net_by_edge(self) -> dict[str, int]:
        """What each edge cost: tokens its reader paid and those of its channel's own calls, sorted."""
        edges = Counter(self.by_edge()) + Counter(self.channel_tokens_by_edge())
        return dict(sorted(edges.items()))

    def messages_by_edge(self) -> dict[str, int]:
        """How many messages calls read on each edge (cache hits' included), sorted."""
        return dict(self.readings)

    def by_agent(self) -> dict[str, GroupUsage]:
        """Calls and tokens by agent, sorted by name; a channel's calls are its reader's."""
        return self._group(lambda r: r.agent)

    def by_round(self) -> dict[int, GroupUsage]:
        """Calls and tokens by round."""
        return self._group(lambda r: r.round)

    def by_phase(self) -> dict[str, GroupUsage]:
        """Calls and tokens by phase: evaluate, learn, compress, judge."""
        return self._group(lambda r: str(r.phase))

    def by_model(self) -> dict[str, GroupUsage]:
        """Calls and tokens by model string."""
        return self._group(lambda r: r.model)

    def by_item(self) -> dict[str, GroupUsage]:
        """Calls and tokens by item."""
        return self._group(lambda r: r.item)

    def by_part(self) -> dict[str, int]:
        """What input tokens were spent on; the values sum to ``input_tokens`` exactly.

        ``messages`` are all edges together, in readers' and channels' calls. ``unattributed``
        appears only if some call has a total and no parts.
        """
        parts: Counter[str] = Counter(dict.fromkeys(PARTS, 0))
        for row in self._paid:
            for part, tokens in _split(row):
                parts["messages" if is_edge(part) else part] += tokens
        return dict(parts)

    def by_call(self) -> list[dict[str, Any]]:
        """One dict an attempt; ``cache_hit`` ones are listed but in no total."""
        return [_as_dict(row) for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single calls, as JSON."""
        return {
            "calls": self.calls,
            "failed_calls": self.failed_calls,
            "unknown_calls": self.unknown_calls,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cost": self.cost,
            "known_cost": self.known_cost,
            "cache_hits": self.cache_hits,
            "hit_input_tokens": self.hit_input_tokens,
            "hit_output_tokens": self.hit_output_tokens,
            "by_agent": {k: v.to_dict() for k, v in self.by_agent().items()},
            "by_round": {str(k): v.to_dict() for k, v in self.by_round().items()},
            "by_phase": {k: v.to_dict() for k, v in self.by_phase().items()},
            "by_edge": self.by_edge(),
            "channel_tokens_by_edge": self.channel_tokens_by_edge(),
            "net_by_edge": self.net_by_edge(),
            "messages_by_edge": self.messages_by_edge(),
            "by_part": self.by_part(),
        }

    def __repr__(self) -> str:
        cost = "unknown" if self.cost is None else f"${self.cost:.4f}"
        extra = f", {self.unknown_calls} of unknown size" if self.unknown_calls else ""
        hits = f", {self.cache_hits} cache hits" if self.cache_hits else ""
        return (
            f"<UsageReport {self.calls} calls{extra}{hits}: {self.input_tokens} input + "
            f"{self.output_tokens} output tokens, cost {cost}>"
        )

    def _group(self, key: Callable[[CallRow], Key]) -> dict[Key, GroupUsage]:
        groups: dict[Key, list[CallRow]] = {}
        for row in self._paid:
            groups.setdefault(key(row), []).append(row)
        return {
            name: GroupUsage(
                calls=len(rows),
                input=sum(r.input_tokens or 0 for r in rows),
                output=sum(r.output_tokens or 0 for r in rows),
                cached=_sum_known(r.cached_tokens for r in rows),
            )
            for name, rows in sorted(groups.items())
        }


def _place(row: CallRow) -> tuple[Any, ...]:
    return (row.item, row.sample, row.round, row.agent, row.attempt, row.started_at, row.id)


def _sum_known(values: Iterable[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) if known else None


def _split(row: CallRow) -> Iterator[tuple[str, int]]:
    """A call's input by part; what no part accounts for is unattributed."""
    if row.input_tokens is None:
        return
    parts: Mapping[str, int] = row.parts or {}
    yield from parts.items()
    if rest := row.input_tokens - sum(parts.values()):
        yield UNATTRIBUTED, rest


def _as_dict(row: CallRow) -> dict[str, Any]:
    error = (
        None if row.error_kind is None else f"{row.error_kind}: {row.error}" if row.error else row.error_kind
    )
    return {
        "id": row.id,
        "item": row.item,
        "sample": row.sample,
        "round": row.round,
        "agent": row.agent,
        "attempt": row.attempt,
        "phase": row.phase,
        "edge": row.edge,
        "model": row.model,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cached_tokens": row.cached_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "cache_hit": row.cache_hit,
        "parts": None if row.parts is None else dict(row.parts),
        "parts_estimated": row.parts_estimated,
        "cost": row.cost,
        "latency_s": row.latency_s,
        "started_at": row.started_at,
        "finish_reason": row.finish_reason,
        "error": error,
    }
