"""Learning: generate, rank, select, train, and again (Optima, arXiv 2410.08115; ``dialogue.md`` section 4).

    isft       the best dialogue of each item, imitated
    idpo       the first iteration as isft; then trees of dialogues, and the better of two messages
               preferred (DPO with the SFT term)
    isft-dpo   isft and plain DPO in turn

In the first iteration every dialogue is told a message format, drawn from the pool; what is learned
from it has no such instruction. One model plays all agents. It is replaced by the trained one only
where that is surely better on ``validate`` items (the first iteration: where it is not worse), unless
``accept="always"``.

A run's folder::

    config.json, items.json, ledger.sqlite    as of any run; every call is under phase ``learn``
    iter1/, iter2/, ...                       the adapter after that many iterations, if it was accepted
    learn/iteration-000/                      dialogues.jsonl, trees.jsonl, rows.jsonl, model/,
                                              manifest.json and, last of all, DONE
    policy.json                               what was learned, see :mod:`agentcomm.dialogue.policy`

The same call continues after the last complete dialogue, expansion of a tree or trainer's checkpoint.
Manifests hold no times, so those of an interrupted run equal those of one that wasn't.

Deliberately absent: how a model is trained and served (:mod:`agentcomm.dialogue.workshop`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentcomm.dialogue.export import ModelRef
from agentcomm.dialogue.iteration import BASE, DONE, MANIFEST, Iteration
from agentcomm.dialogue.plan import LearnConfig
from agentcomm.dialogue.played import places
from agentcomm.dialogue.policy import DialoguePolicy
from agentcomm.dialogue.readability import Off, Readability
from agentcomm.dialogue.rows import without_formats
from agentcomm.dialogue.workshop import Workshop
from agentcomm.errors import ConfigError, LedgerError, TaskError
from agentcomm.evaluation.run import Progress
from agentcomm.evaluation.rundir import RunDir, plain, read_json
from agentcomm.evaluation.splits import hash_of, require_learn
from agentcomm.graph import AgentGraph
from agentcomm.options import RunOptions
from agentcomm.task import Item, Task


@dataclass(frozen=True)
class Learned:
    """What learning came to: a manifest for each iteration, and the policy."""

    manifests: tuple[dict[str, Any], ...]
    policy: DialoguePolicy | None
    adapter: Path | None
    spent: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "iterations": list(self.manifests),
            "policy": None if self.policy is None else self.policy.to_dict(),
            "adapter": None if self.adapter is None else str(self.adapter),
            "spent": self.spent,
        }


@dataclass
class Learning:
    """One run of learning.

    Parameters
    ----------
    graph_of:
        The team by the instruction that says how to write; ``""`` is natural language.
    task:
        Scores the answers.
    learn, validate:
        Items to learn from, and those that models are accepted on.
    base:
        The model to begin with.
    workshop:
        Trains and serves.
    out:
        The run's folder.
    readability:
        A frozen model; it must be the same in all iterations.
    on_progress, note:
        Hear of every dialogue, and of every step, in words.

    Raises
    ------
    TaskError
        If an item is not to be learned from, or stands in both lists.
    """

    graph_of: Callable[[str], AgentGraph]
    task: Task
    learn: Sequence[Item]
    validate: Sequence[Item]
    base: ModelRef
    workshop: Workshop
    out: Path
    config: LearnConfig = field(default_factory=LearnConfig)
    readability: Readability = field(default_factory=Off)
    options: RunOptions = field(default_factory=RunOptions)
    on_progress: Callable[[str, Progress], None] | None = None
    note: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        require_learn(self.learn)
        require_learn(self.validate, validate=True)
        if not self.learn:
            raise TaskError("there are no items to learn from")
        if both := {hash_of(i) for i in self.learn} & {hash_of(i) for i in self.validate}:
            raise TaskError(f"{len(both)} items stand in both splits; learn on one and accept on the other")
        if not self.validate and self.config.accept == "better":
            raise TaskError("there are no validate items to accept a model on; give some, or accept='always'")
        # Teams differ by their format alone, and rows are made with the one that has none.
        self.graph = without_formats(self.graph_of(""))
        self.speaking = list(dict.fromkeys(agent for _, agent in places(self.graph)))

    # -- the run ---------------------------------------------------------------------------------

    async def run(self, iterations: int) -> Learned:
        """``iterations`` of them in all, those that are done already included.

        Raises
        ------
        ConfigError
            If the folder holds a learning under another configuration.
        """
        if iterations < 1:
            raise ConfigError(f"{iterations} iterations; at least 1")
        directory = RunDir.create(self.out)
        with directory.locked():
            directory.settle(self.identity(), {i.id: i.content_hash for i in (*self.learn, *self.validate)})
            try:
                opened = directory.ledger()
            except LedgerError as error:  # nothing runs yet: the user can mend it
                raise ConfigError(str(error)) from error
            with opened as ledger:
                manifests: list[dict[str, Any]] = []
                for number in range(iterations):
                    folder = self.folder(number)
                    if not (folder / DONE).exists():
                        await Iteration(self, ledger, number, tuple(manifests)).run()
                    manifests.append(read_json(folder / MANIFEST))
        last = manifests[-1]["model_out"]
        adapter = None if last == BASE else self.out / last
        spent = sum(sum(m["spent"].values()) for m in manifests)
        policy = self._policy(last, spent)
        policy.save(self.out)
        return Learned(tuple(manifests), policy, adapter, spent)

    async def export(self, path: Path) -> dict[str, Any]:
        """Dialogues of the base model, ranked and selected, as rows for training elsewhere; returns the manifest.

        Raises
        ------
        ConfigError
            As :meth:`run`; and if nothing was selected.
        """
        directory = RunDir.create(self.out)
        with directory.locked():
            directory.settle(self.identity(), {i.id: i.content_hash for i in self.learn})
            with directory.ledger() as ledger:
                return await Iteration(self, ledger, 0, ()).export(path)

    def ref(self, name: str) -> ModelRef:
        """A model by its name in manifests: ``base``, or ``iter2``."""
        return self.base if name == BASE else ModelRef(self.base.base, (str(self.out / name),))

    def folder(self, number: int) -> Path:
        """Where an iteration keeps what it made."""
        return self.out / "learn" / f"iteration-{number:03d}"

    def _policy(self, name: str, spent: int) -> DialoguePolicy:
        served = self.workshop.serve(self.ref(name))
        model = served if isinstance(served, str | None) else served.name
        return DialoguePolicy(
            models={} if model is None else dict.fromkeys(self.speaking, model),
            trained=() if name == BASE else tuple(self.speaking),
            learned_from=tuple(sorted({hash_of(i) for i in (*self.learn, *self.validate)})),
            spent=spent,
        )

    def identity(self) -> dict[str, Any]:
        """What its results depend on: a folder goes on only under the same."""
        return plain(  # type: ignore[no-any-return]
            {
                "graph": self.graph.to_dict(),
                "task": {
                    "name": self.task.name,
                    "learn": [hash_of(i) for i in self.learn],
                    "validate": [hash_of(i) for i in self.validate],
                },
                "model": str(self.base),
                "readability": self.readability.name,
                "learning": self.config.to_dict(),
                "options": {**self.options.identity(), "temperature": None},
            }
        )
