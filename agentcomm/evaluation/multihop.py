"""Questions whose answer needs several paragraphs, which two agents hold between them.

The paragraphs are dealt into two views, ``first`` and ``second``, of equal size (one more in the first
if the number is odd). Those that support the answer are dealt first, in turns, so that neither view
alone suffices where two are needed; ``metadata["needed"]`` names the views that hold any. Who gets
which, and the order within a view, follow from a hash of the text: not from the file's order, in
which supporting paragraphs may stand first.

``deal=N`` deals to N agents instead, whose views are ``s1`` ... ``sN``, as in ``records``: what the
settings of talking agents ask for. Who is dealt the first paragraph follows from the question's hash,
and ``distractors=K`` leaves only K of those that don't support the answer, so that contexts stay short.
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


MOST_DEALT = 6


class Paragraph(NamedTuple):
    """A titled paragraph, and whether the answer rests on it."""

    title: str
    text: str
    supporting: bool

    def __str__(self) -> str:
        return f"{self.title}: {self.text}"


class Deal(NamedTuple):
    """Who gets paragraphs: so many agents (``None``: ``first`` and ``second``), and how many distractors."""

    agents: int | None = None
    distractors: int | None = None

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views, in the order in which they are dealt to."""
        return VIEWS if self.agents is None else tuple(f"s{n}" for n in range(1, self.agents + 1))

    def check(self, context: str) -> None:
        """Refuse what can't be dealt.

        Raises
        ------
        TaskError
            For an unknown ``context``, fewer than two agents, or dealing where everybody sees all or nothing.
        """
        check_context(context)
        for name, value, least in (("deal", self.agents, 2), ("distractors", self.distractors, 0)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise TaskError(f"{name}={value!r}; it must be a whole number from {least}")
        if self.agents is not None and self.agents > MOST_DEALT:
            raise TaskError(f"deal={self.agents}; paragraphs are dealt to at most {MOST_DEALT} agents")
        if context != "split" and self.agents is not None:
            raise TaskError(f"deal={self.agents} goes with context='split', not with context={context!r}")

    def config(self) -> dict[str, int]:
        """What was given, to record with a task."""
        given = {"deal": self.agents, "distractors": self.distractors}
        return {name: value for name, value in given.items() if value is not None}


def check_context(context: str) -> None:
    """Refuse an unknown ``context`` option."""
    if context not in CONTEXTS:
        raise TaskError(f"unknown context {context!r}; choose one of {', '.join(CONTEXTS)}")


def dealt(
    question: str, texts: Sequence[Paragraph], deal: Deal
) -> tuple[tuple[str, ...], list[list[Paragraph]]]:
    """The paragraphs that stay, dealt out: the views' names, and what each holds.

    Supporting ones alternate first, the others follow in the same turns; order and first seat follow
    from hashes of the question.
    """
    ordered = sorted(texts, key=lambda p: hashlib.sha256(f"{question}\n{p}".encode()).digest())
    others = [p for p in ordered if not p.supporting]
    if deal.distractors is not None:
        others = others[: deal.distractors]
    names = deal.views
    # Two of three agents hold what is needed: without this it would always be the first two.
    seat = 0 if deal.agents is None else int(hashlib.sha256(question.encode()).hexdigest(), 16) % len(names)
    held: list[list[Paragraph]] = [[] for _ in names]
    for n, paragraph in enumerate([*(p for p in ordered if p.supporting), *others]):
        held[(seat + n) % len(names)].append(paragraph)
    return names, [[p for p in ordered if p in half] for half in held]


def multihop_item(
    benchmark: Benchmark,
    row: Row,
    question: str,
    answer: str | Sequence[str],
    paragraphs: Sequence[Paragraph],
    context: str,
    deal: Deal = Deal(),  # noqa: B008 -- never changed
    **more: Any,
) -> Item:
    """An item of a multi-hop set.

    Its hash is that of the question: neither an option nor a carrier's choice of distractors may move
    it to another split. With ``context="all"`` the views are there but empty, so the same graph runs
    both ways.
    """
    if context != "none" and not paragraphs:
        row.wrong("has no paragraphs (context='none' asks without any)")
    names, held = dealt(question, paragraphs, deal)
    shown = ["\n\n".join(map(str, half)) for half in held]
    kept = [p for half in held for p in half]
    everything = sorted(kept, key=lambda p: hashlib.sha256(f"{question}\n{p}".encode()).digest())
    if context == "split":
        more["needed"] = tuple(
            name for name, half in zip(names, held, strict=True) if any(p.supporting for p in half)
        )
    return benchmark.item(
        row,
        question,
        answer,
        ask=ASK if deal.agents is None else "",
        hashed="",
        context="\n\n".join(map(str, everything)) if context == "all" else "",
        views={}
        if context == "none"
        else dict(zip(names, shown if context == "split" else ("",) * len(names), strict=True)),
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
