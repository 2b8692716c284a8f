"""DialoguePolicy: what was learned about talking, as data: for each agent how to write, what to imitate, which weights.

    policy = load("adapters")
    evaluate(policy.apply(graph), task, ...)

A format search fills the formats, a trainer the models, a memory the demonstrations; any may be left
out. Weights that were trained on all agents' turns apply to all of them: applying them to some is
refused. Saved as ``policy.json`` beside the adapters (safetensors); paths in it are relative to it.

Deliberately absent: how any of it was found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agentcomm.dialogue.rows import write_text
from agentcomm.errors import ConfigError
from agentcomm.graph import Agent, AgentGraph

NAME = "policy.json"
_HERE = "{here}"
_FORMAT = 1


@dataclass(frozen=True)
class DialoguePolicy:
    """What each agent was taught.

    Parameters
    ----------
    formats:
        Instruction by agent; it goes at the end of the agent's role.
    demonstrations:
        By agent, the ids of dialogues to show; their texts are in ``texts``.
    texts:
        What a demonstration shows, by id; it goes behind the instruction.
    models:
        Model string by agent.
    trained:
        The agents whose turns the weights were trained on; empty where none were.
    learned_from:
        Hashes of the items that were seen: it may not be scored on them.
    spent:
        Tokens that learning took.
    """

    formats: Mapping[str, str] = field(default_factory=dict)
    demonstrations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    trained: tuple[str, ...] = ()
    learned_from: tuple[str, ...] = ()
    spent: int | None = None

    def __post_init__(self) -> None:
        shown = {id for ids in self.demonstrations.values() for id in ids}
        if missing := sorted(shown - set(self.texts)):
            raise ConfigError(
                f"a policy shows the dialogues {', '.join(missing)}, but doesn't say what is in them"
            )

    def apply(self, graph: AgentGraph, agents: Iterable[str] | None = None) -> AgentGraph:
        """The graph as it was taught; ``agents`` limits it to some, where no weights were trained.

        Raises
        ------
        ConfigError
            If it names agents that the graph lacks, or trained weights would go to only some of those
            whose turns they were trained on.
        """
        named = {*self.formats, *self.demonstrations, *self.models, *self.trained}
        if strange := sorted(named - set(graph.names)):
            raise ConfigError(
                f"this policy is for a team with {', '.join(sorted(named))}; the graph has no "
                f"{' and no '.join(strange)}"
            )
        wanted = set(graph.names if agents is None else agents)
        if left_out := sorted(set(self.trained) - wanted):
            raise ConfigError(
                f"these weights were trained on the turns of {', '.join(self.trained)} together; they can't be "
                f"applied without {', '.join(left_out)}"
            )
        return replace(graph, agents=tuple(self._taught(a) if a.name in wanted else a for a in graph.agents))

    def _taught(self, agent: Agent) -> Agent:
        shown = [self.texts[id] for id in self.demonstrations.get(agent.name, ())]
        pieces = [agent.role, self.formats.get(agent.name, "")]
        role = "\n\n".join([" ".join(p for p in pieces if p), *shown])
        return replace(agent, role=role, model=self.models.get(agent.name, agent.model))

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "formats": dict(self.formats),
            "demonstrations": {agent: list(ids) for agent, ids in self.demonstrations.items()},
            "texts": dict(self.texts),
            "models": dict(self.models),
            "trained": list(self.trained),
            "learned_from": list(self.learned_from),
            "spent": self.spent,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DialoguePolicy:
        """The reverse of :meth:`to_dict`.

        Raises
        ------
        ConfigError
            If it is none.
        """
        try:
            if data["format"] != _FORMAT:
                raise ConfigError(
                    f"a dialogue policy of format {data['format']}; update agentcomm to read it"
                )
            return cls(
                formats=dict(data["formats"]),
                demonstrations={agent: tuple(ids) for agent, ids in data["demonstrations"].items()},
                texts=dict(data["texts"]),
                models=dict(data["models"]),
                trained=tuple(data["trained"]),
                learned_from=tuple(data["learned_from"]),
                spent=data["spent"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"not a dialogue policy: {type(error).__name__}: {error}") from error

    def save(self, folder: Path) -> None:
        """Write ``policy.json`` into ``folder``.

        Raises
        ------
        RunError
            If it can't be written.
        """
        data = self.to_dict()
        here = str(folder)
        data["models"] = {
            agent: "+".join(
                _HERE + part.removeprefix(here) if part.startswith(f"{here}/") else part
                for part in model.split("+")
            )
            for agent, model in self.models.items()
        }
        write_text(folder / NAME, json.dumps(data, indent=1) + "\n")


def load(folder: str | Path) -> DialoguePolicy:
    """The policy in a folder.

    Raises
    ------
    ConfigError
        If there is none.
    """
    folder = Path(folder)
    try:
        data = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"no dialogue policy can be read from {folder / NAME}: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{folder / NAME} is not a dialogue policy")
    policy = DialoguePolicy.from_dict(data)
    models = {agent: model.replace(_HERE, str(folder)) for agent, model in policy.models.items()}
    return replace(policy, models=models)
