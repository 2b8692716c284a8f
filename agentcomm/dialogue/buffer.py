"""Buffer: dialogues as parallel lists over tokens, for the three patterns of Learning through Communication.

One trajectory is what one agent had before it and said, from the beginning of the dialogue to its last
word; its token ids are followed by those of the next (``dialogue.md`` section 8):

    token_ids   of the messages' texts; what a chat template adds is not among them
    mask        0 own words, 1 others' (team, question, environment, partners), -1 own words that
                nothing may be learned from: cut off by a limit, or an answer that nobody could judge
    rewards     0 but at the end of the dialogue (of each answer, in an analogue)
    log_probs, values
                of the own words under the model that said them, or ``None`` where no server gave them
    item, agent, iteration
                whose each token is

Without log-probabilities there is no policy ratio: then only imitation of what succeeded is possible,
through the rows of :mod:`agentcomm.dialogue.rows`, whose choice is what the mask becomes.

Deliberately absent: a loss, a tokenizer, torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentcomm.dialogue.rows import Row, rows
from agentcomm.errors import ConfigError
from agentcomm.graph import AgentGraph
from agentcomm.message import Message
from agentcomm.schedule import TurnRecord
from agentcomm.task import Item

OWN, OTHER, DROPPED = 0, 1, -1


@dataclass
class Buffer:
    """Parallel lists over the tokens of trajectories; ``lengths`` are theirs.

    ``log_probs`` and ``values`` are ``None`` as soon as one trajectory comes without: what is partly
    known can't be optimised on. ``imitation`` are the rows of turns that ended well.
    """

    token_ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    log_probs: list[float] | None = field(default_factory=list)
    values: list[float] | None = field(default_factory=list)
    item: list[str] = field(default_factory=list)
    agent: list[str] = field(default_factory=list)
    iteration: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    imitation: list[Row] = field(default_factory=list)

    def add(
        self,
        graph: AgentGraph,
        item: Item,
        records: Sequence[TurnRecord],
        agent: str,
        *,
        encode: Callable[[str], Sequence[int]],
        reward: float | Mapping[int, float],
        iteration: int = 0,
        log_probs: Sequence[Sequence[float]] | None = None,
        values: Sequence[Sequence[float]] | None = None,
    ) -> None:
        """The trajectory of one agent in a finished dialogue.

        Parameters
        ----------
        graph:
            The team without a format instruction, as for :func:`agentcomm.dialogue.rows.rows`.
        records:
            The episode's, from the first turn to the last.
        encode:
            A text's token ids.
        reward:
            Of the dialogue (1 or -1, or a pay-off), given at its end; or of the agent's turns by round
            (:func:`agentcomm.dialogue.patterns.answers`): then a turn without one is dropped.
        log_probs, values:
            One sequence for each own turn, one number a token.

        Raises
        ------
        ConfigError
            For an agent that makes no model call, has no memory or said nothing, a reward that is no
            number, or numbers that don't fit the tokens.
        """
        known = graph.by_name.get(agent)
        if known is None or known.act is not None or not known.memory:
            raise ConfigError(
                f"agent {agent!r} of this graph is no model with a memory; its words are no trajectory"
            )
        given = dict(reward) if isinstance(reward, Mapping) else {0: reward}
        if not all(map(math.isfinite, given.values())):
            raise ConfigError(f"item {item.id!r}: a reward of {reward}; leave that dialogue out")
        found = [
            r for r in rows(graph, item, records, reward=0.0, iteration=iteration) if r.meta.agent == agent
        ]
        if not found:
            raise ConfigError(f"item {item.id!r}: {agent!r} said nothing in this dialogue")
        turns = [r for r in records if r.agent == agent and isinstance(r.outcome, Message)]
        per_round = isinstance(reward, Mapping)
        rewarded = [given.get(t.round) if per_round else None for t in turns]
        if not per_round:
            rewarded = [0.0] * len(turns)
            rewarded[sum(m.role == "assistant" for m in found[-1].prompt)] = given[0]
        texts = [
            *((m.role == "assistant", m.content) for m in found[-1].prompt),
            (True, found[-1].completion),
        ]
        pieces = [(own, [*encode(text)]) for own, text in texts]
        spoken = [ids for own, ids in pieces if own]
        _fit("log_probs", log_probs, spoken, item)
        _fit("values", values, spoken, item)
        self.log_probs = self.log_probs if log_probs is not None else None
        self.values = self.values if values is not None else None
        size, turn = 0, 0
        for own, ids in pieces:
            mask, end = OTHER, 0.0
            logs = vals = [0.0] * len(ids)
            if own:
                outcome = turns[turn].outcome
                cut = isinstance(outcome, Message) and outcome.finish_reason == "length"
                value = rewarded[turn]
                mask, end = (DROPPED if cut or value is None else OWN), value or 0.0
                logs = [*log_probs[turn]] if log_probs is not None else logs
                vals = [*values[turn]] if values is not None else vals
                turn += 1
            self.token_ids += ids
            self.mask += [mask] * len(ids)
            self.rewards += [0.0] * (len(ids) - 1) + [end] if ids else []
            self.item += [item.id] * len(ids)
            self.agent += [agent] * len(ids)
            self.iteration += [iteration] * len(ids)
            if self.log_probs is not None:
                self.log_probs.extend(logs)
            if self.values is not None:
                self.values.extend(vals)
            size += len(ids)
        self.lengths.append(size)
        self.imitation += self._to_imitate(graph, item, records, agent, given, per_round, iteration)

    @staticmethod
    def _to_imitate(
        graph: AgentGraph,
        item: Item,
        records: Sequence[TurnRecord],
        agent: str,
        given: Mapping[int, float],
        per_round: bool,
        iteration: int,
    ) -> list[Row]:
        """The turns of what succeeded, none that was cut off."""
        spoken = [r for r in records if isinstance(r.outcome, Message)]
        kept = []
        for row in rows(graph, item, records, reward=0.0, iteration=iteration):
            record = spoken[row.meta.turn - 1]
            value = given.get(record.round, 0.0) if per_round else given[0]
            cut = isinstance(record.outcome, Message) and record.outcome.finish_reason == "length"
            if row.meta.agent == agent and value > 0 and not cut:
                meta = type(row.meta)(**{**vars(row.meta), "reward": float(value)})
                kept.append(Row(row.prompt, row.completion, meta))
        return kept

    def returns(self) -> list[float]:
        """G = tanh of the rewards from a token on to its trajectory's end (gamma = 1), for every token."""
        found: list[float] = []
        at = 0
        for length in self.lengths:
            ahead = 0.0
            back = []
            for r in reversed(self.rewards[at : at + length]):
                ahead += r
                back.append(math.tanh(ahead))
            found += reversed(back)
            at += length
        return found

    def advantages(self) -> list[float]:
        """A = G - V for every token (only own ones, mask 0, are learned from).

        Raises
        ------
        ConfigError
            Without log-probabilities or values: then imitation is all there is.
        """
        if self.log_probs is None or self.values is None:
            raise ConfigError(
                "this buffer has no log-probabilities or no values (the server gave none), so there is no policy "
                "ratio; imitate what succeeded instead (Buffer.imitation)"
            )
        return [g - v for g, v in zip(self.returns(), self.values, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """The parallel lists and the lengths, as JSON."""
        return {k: v for k, v in vars(self).items() if k != "imitation"}


def _fit(
    name: str, given: Sequence[Sequence[float]] | None, spoken: Sequence[Sequence[int]], item: Item
) -> None:
    if given is not None and [len(g) for g in given] != [len(s) for s in spoken]:
        raise ConfigError(
            f"item {item.id!r}: {name} of {[len(g) for g in given]} tokens for own turns of "
            f"{[len(s) for s in spoken]}; give one number for every token that was said"
        )
