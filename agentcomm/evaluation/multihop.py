"""Questions whose answer needs several paragraphs, which two agents hold between them.

The paragraphs are dealt into two views, ``first`` and ``second``, of equal size (one more in the first
if the number is odd). Those that support the answer are dealt first, in turns, so that neither view
alone suffices where two are needed; ``metadata["needed"]`` names the views that hold any. Who gets
which, and the order within a view, follow from a hash of the text: not from the file's order, in
which supporting paragraphs may stand first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from agentcomm.errors import TaskError
from agentcomm.evaluation.data import Benchmark
from agentcomm.evaluation.rows import Row
from agentcomm.task import Item

ASK = "On the last line, write Answer: and then the answer in a few words, without explanation."

VIEWS = ("first", "second")
CONTEXTS = ("split", "all", "none")
Context = Literal["split", "all", "none"]
"""Each view half of the paragraphs; all of them for everybody; or none (from memory)."""


class Paragraph(NamedTuple):
    """A titled paragraph, and whether the answer rests on it."""

    title: str
    text: str
    supporting: bool

    def __str__(self) -> str:
        return f"{self.title}: {self.text}"


def check_context(context: str) -> None:
    """Refuse an unknown ``context`` option."""
    if context not in CONTEXTS:
        raise TaskError(f"unknown context {context!r}; choose one of {', '.join(CONTEXTS)}")


def multihop_item(
    benchmark: Benchmark,
    row: Row,
    question: str,
    answer: str | Sequence[str],
    paragraphs: Sequence[Paragraph],
    context: str,
    **more: Any,
) -> Item:
    """An item of a multi-hop set.

    Its hash is that of the question: neither the ``context`` option nor a carrier's choice of
    distractors may move it to another split. With ``context="all"`` the views are there but empty, so
    the same graph runs both ways.
    """
    if context != "none" and not paragraphs:
        row.wrong("has no paragraphs (context='none' asks without any)")
    ordered = sorted(paragraphs, key=lambda p: hashlib.sha256(f"{question}\n{p}".encode()).digest())
    held: tuple[list[Paragraph], list[Paragraph]] = ([], [])
    for n, paragraph in enumerate(sorted(ordered, key=lambda p: not p.supporting)):
        held[n % 2].append(paragraph)
    shown = ["\n\n".join(str(p) for p in ordered if p in half) for half in held]
    if context == "split":
        needed = tuple(
            name for name, half in zip(VIEWS, held, strict=True) if any(p.supporting for p in half)
        )
        more["needed"] = needed
    return benchmark.item(
        row,
        question,
        answer,
        ask=ASK,
        hashed="",
        context="\n\n".join(map(str, ordered)) if context == "all" else "",
        views={}
        if context == "none"
        else dict(zip(VIEWS, shown if context == "split" else ("", ""), strict=True)),
        **more,
    )


def titled_paragraphs(row: Row) -> list[Paragraph]:
    """Paragraphs in the schema of HotpotQA and 2WikiMultiHopQA.

    ``context`` is a list of ``[title, [sentence, ...]]`` (on the hub ``{"title": [...], "sentences":
    [[...]]}``), ``supporting_facts`` one of ``[title, sentence number]`` (``{"title": [...], ...}``).
    """
    facts = row.get("supporting_facts")
    titles = (
        facts.get("title", [])
        if isinstance(facts, dict)
        else [fact[0] for fact in row.members("supporting_facts", list)]
    )
    if isinstance(row.get("context"), dict):
        inner = row.row("context")
        told = list(zip(inner.members("title", str), inner.members("sentences", list), strict=False))
    else:
        told = []
        for n, entry in enumerate(row.members("context", list)):
            if len(entry) != 2 or not isinstance(entry[0], str) or not isinstance(entry[1], list):
                row.wrong(f"context[{n}] must be a title and a list of sentences")
            told.append((entry[0], entry[1]))
    return [
        Paragraph(title, " ".join(str(s).strip() for s in sentences).strip(), title in titles)
        for title, sentences in told
    ]


def marked_paragraphs(row: Row, key: str) -> list[Paragraph]:
    """Paragraphs as objects with ``title``, ``paragraph_text`` and ``is_supporting`` (MuSiQue, IRCoT)."""
    return [
        Paragraph(p.text("title"), p.text("paragraph_text"), bool(p.get("is_supporting")))
        for p in row.rows(key)
    ]
