"""The demo: one team, one task, several topologies; what each cost and what it scored.

The task is generated (``records``), so nothing can be contaminated and it is known which messages
matter. The wording and sizes were chosen on the ``learn`` split (``eval/records_wording.py``); the
demo scores items of the ``score`` split. In every item the facts that are asked for lie with the
first :data:`RELEVANT` of the specialists: the others are the noise that a team pays for. No
setting is told where the answer lies.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agentcomm.backends.base import Backend
from agentcomm.evaluation.run import Progress, Run, TopologyOf, evaluate
from agentcomm.graph import AgentGraph, Topology
from agentcomm.loading import load_graph, load_task
from agentcomm.options import RunOptions
from agentcomm.task import Item

SPECIALISTS, RELEVANT, FACTS = 4, 2, 3
REFERENCE = "complete"


@dataclass(frozen=True)
class Setting:
    """One way to run the team; ``note`` says in a few words who reads whom."""

    name: str
    note: str
    graph: AgentGraph
    topology: TopologyOf = None


def settings() -> list[Setting]:
    """What the demo compares, the complete team first."""
    complete = load_graph("records_team", {"specialists": SPECIALISTS})
    noise = [f"s{i + 1}" for i in range(RELEVANT, SPECIALISTS)]
    among = [e for e in complete.edges if e.reader != complete.decision]

    def routed(item: Item) -> Topology:
        """A rule that a person would write: only whose facts mention a name that is in the question."""
        asked = set(re.findall(r"\b[A-Z]\w+", item.question))
        knowing = [n for n, facts in item.views.items() if asked & set(re.findall(r"\w+", facts))]
        others = set(item.views) - set(knowing or item.views)
        return complete.topology(without_agents=sorted(others), without_edges=among)

    solo = load_graph(
        "single", {"role": "Answer from these facts.", "system": complete.system, "max_tokens": 16}
    )
    return [
        Setting(REFERENCE, "all before them", complete),
        Setting("chain", "the one before", load_graph("records_team", {"topology": "chain"})),
        Setting("no edges", "judge reads all", complete, complete.topology(without_edges=among)),
        Setting(
            "pruned",
            "s1, s2 to judge",
            complete,
            complete.topology(without_agents=noise, without_edges=among),
        ),
        Setting("routed", "knower to judge", complete, routed),
        Setting("single", "one sees all", solo),
    ]


async def run_demo(
    folder: Path,
    *,
    items: int,
    seed: int,
    model: str | Backend,
    options: RunOptions,
    on_setting: Callable[[Setting], Callable[[Progress], None]],
) -> list[tuple[Setting, Run]]:
    """Run every setting on the same items, each in its own run directory below ``folder``."""
    task = load_task(
        "records",
        {"limit": items, "seed": seed, "specialists": SPECIALISTS, "facts": FACTS, "relevant": RELEVANT},
    )
    done: list[tuple[Setting, Run]] = []
    for setting in settings():
        run = await evaluate(
            setting.graph,
            task,
            model,
            out=folder / setting.name.replace(" ", "-"),
            topology=setting.topology,
            name=setting.name,
            on_progress=on_setting(setting),
            options=options,
        )
        done.append((setting, run))
        if run.stopped:
            break
    return done
