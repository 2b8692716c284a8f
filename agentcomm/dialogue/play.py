"""Play: dialogues of a real team, one graph for each message format, paid once and resumable.

Every (format, purpose) is an evaluation of its own under phase ``learn``, in a directory of its
own: the same call continues after any interruption, and nothing that was answered is paid again.
What the dialogues cost is the sum over these ledgers.

Tokens of a dialogue: ``completion`` is what the server counted for its replies, ``message`` the same
without hidden reasoning, ``total`` prompts too. A retry is in the ledger, not in a dialogue's count.

Deliberately absent: which format is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agentcomm.backends.base import Backend
from agentcomm.dialogue.formats import Format
from agentcomm.dialogue.reward import Dialogue, Utterance
from agentcomm.errors import ConfigError, TaskError
from agentcomm.evaluation.run import Progress, evaluate
from agentcomm.evaluation.splits import require_learn
from agentcomm.graph import AgentGraph
from agentcomm.ledger.rows import CallRow
from agentcomm.ledger.store import Ledger
from agentcomm.options import RunOptions
from agentcomm.task import Item, Task

GraphOf = Callable[[str], AgentGraph]
"""A team by the instruction that says how to write; ``""`` is natural language."""


@dataclass
class Team:
    """A real team as an :class:`~agentcomm.dialogue.search.Arena`.

    Parameters
    ----------
    graph_of:
        The team by its instruction.
    task:
        Scores the answers.
    learn, validate:
        Items that formats are chosen on, and those that the final comparison is on.
    model, options:
        As for :func:`agentcomm.evaluate`.
    folder:
        Where the ledgers are kept, one folder a format and purpose.

    Raises
    ------
    TaskError
        If an item is of another split than its list says.
    """

    graph_of: GraphOf
    task: Task
    learn: Sequence[Item]
    validate: Sequence[Item]
    model: str | Backend | None
    folder: Path
    options: RunOptions | None = None
    on_progress: Callable[[str, Progress], None] | None = None

    def __post_init__(self) -> None:
        require_learn(self.learn)
        require_learn(self.validate, validate=True)
        if overlap := {i.content_hash for i in self.learn} & {i.content_hash for i in self.validate}:
            raise TaskError(
                f"{len(overlap)} items stand in both splits; choose on one and compare on the other"
            )
        self.paid: list[CallRow] = []

    async def play(self, format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
        """One dialogue for each of ``items``, in their order; ``None`` where it failed.

        Raises
        ------
        ConfigError
            If there are not enough items.
        UserError
            For what would fail every item, and where nothing further could succeed (a spent limit).
        """
        source = self.validate if purpose == "accept" else self.learn
        if items and max(items) >= len(source):
            raise ConfigError(
                f"this search plays {max(items) + 1} items for {purpose!r}; there are {len(source)}: load more "
                f"(--limit), or plan a smaller search"
            )
        chosen = tuple(source[i] for i in items)
        graph = self.graph_of(format.text)
        name = f"{purpose}-{min(items)}-{max(items) + 1}-{format.id}"
        out = self.folder / name
        run = await evaluate(
            graph,
            replace(self.task, items=chosen),
            self.model,
            out=out,
            name=name,
            phase="learn",
            on_progress=partial(self.on_progress, name) if self.on_progress else None,
            options=self.options,
        )
        if run.stopped is not None:
            raise ConfigError(f"{name}: {run.stopped}; mend it and repeat the command, nothing is paid twice")
        with Ledger.open(out / "ledger.sqlite") as ledger:
            calls = ledger.calls()
        self.paid += calls
        scores = {e.item: e.score for e in run.episodes if e.status == "ok"}
        by_item: dict[str, list[CallRow]] = {}
        for call in calls:
            if call.error_kind is None and call.edge is None:  # what a channel asked is not said
                by_item.setdefault(call.item, []).append(call)
        place = graph.index
        made: list[Dialogue | None] = []
        for item in chosen:
            score = scores.get(item.id)
            turns = {
                (c.round, place[c.agent]): c for c in by_item.get(item.id, ())
            }  # the last attempt counts
            made.append(None if score is None else dialogue(score, [turns[k] for k in sorted(turns)]))
        return made


def dialogue(score: float, turns: Sequence[CallRow]) -> Dialogue:
    """The dialogue of calls in the order of speaking; a count that a server left out is missing."""
    said = tuple(Utterance(c.agent, c.reply_text or "", capped=c.finish_reason == "length") for c in turns)
    tokens: dict[str, int] = {}
    outputs = [c.output_tokens for c in turns]
    inputs = [c.input_tokens for c in turns]
    written = [n for n in outputs if n is not None]
    if len(written) == len(outputs):
        tokens["completion"] = sum(written)
        tokens["message"] = sum(written) - sum(c.reasoning_tokens or 0 for c in turns)
        read = [n for n in inputs if n is not None]
        if len(read) == len(inputs):
            tokens["total"] = sum(written) + sum(read)
    return Dialogue(score, said, tokens)
