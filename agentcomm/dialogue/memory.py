"""Memory: good dialogues of the learn items as demonstrations, each agent shown its own side.

The best dialogues by R are shown to the agents that spoke in them: the question, and what that agent
said; never what its partner saw or said. A demonstration is read again in every call, so here tokens
count with prompts (``count="total"``), and it must pay for itself on held-out items
(``dialogue.md`` section 7).

Deliberately absent: playing and comparing, which are those of every search
(:mod:`agentcomm.dialogue.search`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from agentcomm.dialogue.formats import Format
from agentcomm.dialogue.reward import Dialogue, RewardConfig, count, quantile, reward
from agentcomm.dialogue.search import FormatSearch, SearchPlan
from agentcomm.errors import ConfigError, TaskError
from agentcomm.graph import AgentGraph
from agentcomm.message import content_id
from agentcomm.task import Item

MOST_SHOWN = 2


@dataclass(frozen=True)
class Memory:
    """Dialogues to be shown, best first: texts by agent."""

    id: str
    shown: tuple[Mapping[str, str], ...]
    items: tuple[str, ...]

    def apply(self, graph: AgentGraph) -> AgentGraph:
        """The graph whose agents are shown their own side, after their role."""
        return replace(
            graph,
            agents=tuple(
                replace(a, role="\n\n".join([a.role, *(d[a.name] for d in self.shown if a.name in d)]))
                for a in graph.agents
            ),
        )


def own_sides(item: Item, dialogue: Dialogue) -> dict[str, str]:
    """What each agent of a dialogue is shown of it.

    >>> from agentcomm.dialogue.reward import Utterance
    >>> talk = Dialogue(1.0, (Utterance("alice", "Ada: Oslo"), Utterance("bob", "<A>Rome</A>")), {})
    >>> print(own_sides(Item("1", "Which pet?"), talk)["bob"])
    An earlier question: Which pet?
    You wrote: <A>Rome</A>
    """
    asked = str(item.metadata.get("asked", item.question))
    said: dict[str, list[str]] = {}
    for message in dialogue.messages:
        if message.text.strip():
            said.setdefault(message.agent, []).append(f"You wrote: {message.text.strip()}")
    return {agent: "\n".join([f"An earlier question: {asked}", *lines]) for agent, lines in said.items()}


def memories(
    items: Sequence[Item],
    dialogues: Sequence[Dialogue | None],
    config: RewardConfig,
    *,
    share: float = 0.85,
    most: int = MOST_SHOWN,
) -> list[Memory]:
    """Memories of the best one, the best two, ... dialogues; none where no dialogue may be learned from.

    Parameters
    ----------
    items, dialogues:
        Place by place the same; ``None`` where a dialogue failed.
    share:
        Quantile of their tokens that normalises R.
    most:
        Demonstrations at most: one or two.

    Raises
    ------
    ConfigError
        For fewer than one demonstration, or more than two.
    TaskError
        If every dialogue failed.
    """
    if not 1 <= most <= MOST_SHOWN:
        raise ConfigError(f"{most} demonstrations; a memory shows 1 or {MOST_SHOWN}")
    there = [(i, d) for i, d in zip(items, dialogues, strict=True) if d is not None]
    if not there:
        raise TaskError("every dialogue failed, so there is nothing to remember; see the ledger for why")
    normaliser = quantile([count(d, config.count) for _, d in there], share)
    terms = [(reward(d, normaliser, config), n) for n, (_, d) in enumerate(there)]
    good = sorted((t for t in terms if t[0].selectable), key=lambda t: (-t[0].total, t[0].tokens, t[1]))
    kept = [there[n] for _, n in good[:most]]
    shown = [own_sides(item, dialogue) for item, dialogue in kept]
    return [
        Memory(f"memory-{n}-{content_id(shown[:n])[:6]}", tuple(shown[:n]), tuple(i.id for i, _ in kept[:n]))
        for n in range(1, len(kept) + 1)
    ]


def memory_search(
    found: Sequence[Memory], plan: SearchPlan, config: RewardConfig, seed: int
) -> tuple[FormatSearch, dict[str, Callable[[AgentGraph], AgentGraph]]]:
    """The search that compares memories with none, and what it does to the team under each id.

    Raises
    ------
    ConfigError
        If there are none, or tokens are counted without prompts.
    """
    if config.count != "total":
        raise ConfigError(f"count={config.count!r}; demonstrations stand in prompts, so count total tokens")
    if not found:
        raise ConfigError(
            "no dialogue on these learn items was good enough to remember; take more items (--calibrate) or a "
            "better model"
        )
    arms = {m.id: Format(m.id, f"{len(m.shown)} earlier dialogues, own side") for m in found}
    return FormatSearch(arms, plan, config, seed), {m.id: m.apply for m in found}
