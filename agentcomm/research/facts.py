"""Facts of a finished research, read from its ledger: what each stage cost, what it kept, what is cited."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agentcomm.ledger.rows import CallRow, ChannelRow
from agentcomm.ledger.usage import UsageReport
from agentcomm.research.agents import PLANNER, SEARCH, WRITER, Cited, number
from agentcomm.research.replies import read_own

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_CITATION = re.compile(r"\[\s*(\d{1,3}(?:\s*[-–,;]\s*\d{1,3})*)\s*\]")


def citations(text: str) -> list[int]:
    """The numbers that a text cites, in order, each once; not those in code.

    >>> citations("Goats climb [2], and swim [1, 3-5]. `a[7]`")
    [2, 1, 3, 4, 5]
    """
    found: dict[int, None] = {}
    for match in _CITATION.finditer(_CODE.sub(" ", text)):
        for part in re.split(r"[,;]", match[1]):
            first, *rest = (int(n) for n in re.split(r"[-–]", part))
            last = rest[-1] if rest else first
            found.update(dict.fromkeys(range(first, last + 1) if first <= last else (first, last)))
    return list(found)


@dataclass(frozen=True)
class Citations:
    """How an answer's citations stand to the sources that its writer had."""

    sources: tuple[Cited, ...]
    """All that the writer could cite, by number."""
    cited: tuple[int, ...]
    unknown: tuple[int, ...]
    """Numbers that name no source."""

    @classmethod
    def of(cls, answer: str | None, sources: Iterable[Cited]) -> Citations:
        """The citations of an answer from these sources."""
        listed = tuple(sorted(sources))
        handles = {source.handle for source in listed}
        named = citations(answer or "")
        return cls(
            listed,
            tuple(n for n in named if n in handles),
            tuple(n for n in named if n not in handles),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "sources": [source._asdict() | {"cited": source.handle in self.cited} for source in self.sources],
            "cited": list(self.cited),
            "unknown": list(self.unknown),
        }


@dataclass(frozen=True)
class Stage:
    """What a stage cost: calls are attempts; ``input``, ``output`` tokens, ``unknown`` calls of unknown tokens."""

    calls: int = 0
    failed: int = 0
    unknown: int = 0
    input: int = 0
    output: int = 0
    reused: int = 0
    """Replies from a cache or a replay, which are in no other figure."""
    cost: float | None = None
    seconds: float | None = None
    """Time that the model took, added up over calls that ran side by side."""


@dataclass(frozen=True)
class Research:
    """What a deep research did on one item."""

    stages: Mapping[str, Stage]
    rounds: int
    queries: tuple[str, ...]
    planned: bool
    """Whether every plan could be read; else the question itself was searched for."""
    found: int
    """Sources that the queries found, those found again in a later round counted again."""
    short: int
    left_out: int
    """Chunks that were not read, because there were more than allowed."""
    chunks: int
    relevant: int
    irrelevant: int
    unreadable: int
    failed: int
    retried: int
    citations: Citations

    @property
    def relevance_rate(self) -> float | None:
        """Relevant chunks of those whose note could be read; ``None`` if none could."""
        read = self.relevant + self.irrelevant
        return self.relevant / read if read else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        counted = {
            name: getattr(self, name)
            for name in ("rounds", "planned", "found", "short", "left_out", "chunks", "relevant", "irrelevant",
                         "unreadable", "failed", "retried", "relevance_rate")
        }  # fmt: skip
        return {
            **counted,
            "queries": list(self.queries),
            "stages": {name: asdict(stage) for name, stage in self.stages.items()},
            "citations": self.citations.to_dict(),
        }


def research_of(
    calls: Sequence[CallRow], channels: Sequence[ChannelRow], answer: str | None, item: str, sample: int = 0
) -> Research:
    """The facts of one item of a run, from the rows of its ledger (with their texts)."""
    own_calls = [row for row in calls if row.item == item and row.sample == sample]
    rows = sorted(
        (r for r in channels if r.item == item and r.sample == sample and r.sender == SEARCH),
        key=lambda r: r.round,
    )
    searches = [read_own(row.original_text, "search") for row in rows]
    done = [row.text for row in rows if row.status != "failed"]
    digests = [read_own(text, "digest") for text in done]

    def total(facts: Sequence[Mapping[str, Any]], name: str) -> int:
        return sum(int(fact[name]) for fact in facts)

    stages = {
        "plan": stage([r for r in own_calls if r.agent == PLANNER]),
        "compress": stage([r for r in own_calls if r.edge is not None]),
        "write": stage([r for r in own_calls if r.agent == WRITER]),
    }
    return Research(
        stages=stages,
        rounds=len(rows),
        queries=tuple(query["query"] for fact in searches for query in fact["queries"]),
        planned=all(fact["planned"] for fact in searches),
        found=total(searches, "sources"),
        short=total(searches, "short"),
        left_out=total(searches, "left_out"),
        chunks=total(digests, "chunks"),
        relevant=sum(len(fact["relevant"]) for fact in digests),
        irrelevant=total(digests, "irrelevant"),
        unreadable=total(digests, "unreadable"),
        failed=total(digests, "failed"),
        retried=total(digests, "retried"),
        citations=Citations.of(answer, number(done).values()),
    )


def stage(rows: Sequence[CallRow]) -> Stage:
    """What these calls cost."""
    usage = UsageReport.of(rows)
    paid = [row.latency_s for row in rows if not row.cache_hit and row.latency_s is not None]
    return Stage(
        usage.calls,
        usage.failed_calls,
        usage.unknown_calls,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_hits,
        usage.cost if usage.calls else 0.0,
        sum(paid) if paid else None,
    )
