"""Options that several commands share, and how their words become values."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentcomm.errors import ConfigError

if TYPE_CHECKING:
    from agentcomm.graph import AgentGraph, Topology
    from agentcomm.ledger.limits import Limits
    from agentcomm.options import RunOptions
    from agentcomm.pruning.embeddings import Embedder as EmbedderOf
    from agentcomm.pruning.policy import Policy
    from agentcomm.task import Task

GraphName = Annotated[
    str, typer.Argument(metavar="GRAPH", help="A graph file (.py, .json) or a shipped graph's name.")
]
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task file (.py) or a shipped task's name.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="For agents without one: local/smollm2, openai/NAME, vllm/FOLDER, hf/FOLDER, mock/echo.",
    ),
]
Adapter = Annotated[
    Path | None,
    typer.Option(
        "--adapter", help="A folder that agentcomm train made: goes with --model hf/FOLDER or vllm/FOLDER."
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="Where an OpenAI-compatible server answers (…/v1).")
]
KeyEnv = Annotated[str, typer.Option("--api-key-env", help="Environment variable that holds the key.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
GraphOption = Annotated[
    list[str] | None,
    typer.Option("--graph-option", "-G", metavar="KEY=VALUE", help="An option of the graph file."),
]
TaskOption = Annotated[
    list[str] | None,
    typer.Option("--task-option", "-T", metavar="KEY=VALUE", help="An option of the task file."),
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder with the task's files, or a folder of such folders.")
]
Cut = Annotated[
    list[str] | None,
    typer.Option(
        "--cut", metavar="AGENT|FROM->TO", help="Prune an agent or an edge for this run; repeatable."
    ),
]
Adversary = Annotated[
    list[str] | None,
    typer.Option(
        "--adversary",
        metavar="AGENT|+AGENT",
        help="Tell an agent to mislead, or (+) add one like it that does; repeatable.",
    ),
]
Channel = Annotated[
    str | None,
    typer.Option(
        "--channel",
        metavar="NAME:KEY=VALUE,...",
        help="Put a channel on edges: summarise:budget=64,model=local/smollm2; also extract, truncate, rules, "
        "dedup, reference, llmlingua2, verbatim.",
    ),
]
ChannelEdges = Annotated[
    str | None,
    typer.Option("--channel-edges", metavar="FROM->TO,...", help="Only these edges; default: all."),
]
PolicyFolder = Annotated[
    Path | None,
    typer.Option("--policy", help="A folder that agentcomm prune made: it says what is alive, item by item."),
]
Embedder = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        help="How questions are compared: hash, minilm, a folder, a hub name, or openai/NAME (OPENAI_BASE_URL).",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the run; every turn derives its own from it.")]
Temperature = Annotated[float, typer.Option("--temperature", help="For agents that don't set one.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", help="Longest reply of agents that don't set one.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds for one attempt at a call.")]
Retries = Annotated[int, typer.Option("--retries", help="Attempts for a call before it counts as failed.")]
Executor = Annotated[str, typer.Option("--executor", help="langgraph or plain; both make the same calls.")]
Concurrency = Annotated[int | None, typer.Option("--concurrency", help="Requests in flight at an endpoint.")]
Prices = Annotated[
    Path | None, typer.Option("--prices", help="TOML file of prices, over the known public ones.")
]
Cache = Annotated[Path | None, typer.Option("--cache", help="File of replies: equal requests cost nothing.")]
Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint", help="SQLite file for LangGraph's checkpoints.")
]
RunLimit = Annotated[
    list[str] | None,
    typer.Option(
        "--run-limit", metavar="tokens|calls|cost|seconds=N", help="Stop the run there; repeatable."
    ),
]
ItemLimit = Annotated[
    list[str] | None,
    typer.Option(
        "--item-limit", metavar="tokens|calls|cost|seconds=N", help="Stop an item there; repeatable."
    ),
]
AgentLimit = Annotated[
    list[str] | None,
    typer.Option(
        "--agent-limit", metavar="tokens|calls|cost|seconds=N", help="Silence an agent there, per item."
    ),
]


class Interrupted(Exception):
    """Ctrl-C, with what to do next; the command ends with 130."""


def key_values(words: list[str] | None, flag: str) -> dict[str, Any]:
    """``["a=1", "b=x"]`` as ``{"a": 1, "b": "x"}``: JSON where it is JSON, else text."""
    values: dict[str, Any] = {}
    for word in words or []:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{flag} {word!r}: write KEY=VALUE")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values


def limits(words: list[str] | None, flag: str) -> Limits:
    """``["tokens=1000", "cost=0.5"]`` as limits."""
    from agentcomm.ledger.limits import Limits

    values = key_values([w for word in words or [] for w in word.split(",")], flag)
    known = ("tokens", "calls", "cost", "seconds")
    for key, value in values.items():
        if key not in known or isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise ConfigError(f"{flag} {key}={value}: write one of {', '.join(known)} = a number above 0")
    return Limits(**values)


def team(graph: str, graph_option: list[str] | None, adversary: list[str] | None) -> AgentGraph:
    """The graph called ``graph``, with its adversaries."""
    from agentcomm.adversary import adversaries
    from agentcomm.loading import load_graph

    return adversaries(load_graph(graph, key_values(graph_option, "--graph-option")), adversary or ())


def channelled(graph: AgentGraph, channel: str | None, edges: str | None) -> AgentGraph:
    """The graph with ``--channel`` on ``--channel-edges``, or on all its edges."""
    if channel is None:
        if edges is not None:
            raise ConfigError("--channel-edges needs --channel NAME:KEY=VALUE,...")
        return graph
    from agentcomm.channels import from_words

    made = None if channel.strip() == "verbatim" else from_words(channel)
    if edges is None:
        return graph.with_channel(made)
    pairs = [tuple(part.strip() for part in word.split("->")) for word in edges.split(",") if word.strip()]
    return graph.with_channel(made, pairs)  # type: ignore[arg-type]


def adapted(model: str | None, adapter: Path | None) -> str | None:
    """``--model`` with ``--adapter``."""
    if adapter is None:
        return model
    from agentcomm.backends.adapters import with_adapter

    return with_adapter(model, adapter)


def topology(graph: AgentGraph, cut: list[str] | None) -> Topology | None:
    """What ``--cut`` leaves of a graph; ``None`` without cuts."""
    from agentcomm.loading import cut_topology

    return cut_topology(graph, cut) if cut else None


def policy(
    graph: AgentGraph, folder: Path | None, embedding: str | None, cut: list[str] | None
) -> Policy | None:
    """The policy in ``--policy`` for a graph; ``None`` without one."""
    if folder is None:
        if embedding is not None:
            raise ConfigError("--embedder goes with --policy FOLDER")
        return None
    if cut:
        raise ConfigError(
            "--cut and --policy both say what is alive; give one of them (a policy for a smaller team is "
            "learned from that team)"
        )
    from agentcomm.pruning.policy import load

    return load(folder, graph, embedder(embedding))


def embedder(word: str | None) -> EmbedderOf | None:
    """What ``--embedder`` names; ``None`` without it."""
    if word is None:
        return None
    from agentcomm.pruning.embeddings import embedder as named

    return named(word, note=_note)


def positive(value: int, flag: str) -> None:
    """Refuse a count below 1."""
    if value < 1:
        raise ConfigError(f"{flag} {value}: it must be at least 1")


def other_split(task: str, loaded_with: dict[str, Any], split: str) -> Task | None:
    """The task with another split, all of it; ``None`` if it has none."""
    from agentcomm.errors import TaskError
    from agentcomm.loading import load_task

    loading = {k: v for k, v in loaded_with.items() if k != "limit"}
    try:
        return load_task(task, {**loading, "split": split})
    except TaskError:
        return None


def task_options(
    task_option: list[str] | None,
    *,
    data: Path | None,
    limit: int | None,
    split: str | None,
    seed: int | None,
) -> dict[str, Any]:
    """The options a task is loaded with; only what was given."""
    options = key_values(task_option, "--task-option")
    given = {"data": str(data) if data else None, "limit": limit, "split": split, "seed": seed}
    options.update({k: v for k, v in given.items() if v is not None and k not in options})
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit}: it must be at least 1")
    return options


def validate_task(task: str, loaded_with: dict[str, Any]) -> Task | None:
    """The ``validate`` items of a task whose ``score`` items are run; ``None`` if it has none."""
    from agentcomm.evaluation.control_runs import validate_task as found

    return found(task, loaded_with)


def new_directory(*words: str) -> Path:
    """A directory in runs/ that isn't there yet, named by the time and ``words`` (paths by their stems)."""
    base = Path("runs") / "-".join([time.strftime("%Y%m%d-%H%M%S"), *(Path(w).stem for w in words)])
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path


def run_options(**values: Any) -> RunOptions:
    """The command's words as :class:`RunOptions`."""
    from agentcomm.calls import Retry
    from agentcomm.options import RunOptions

    retries = values.pop("retries")
    for kind in ("run_limit", "item_limit", "agent_limit"):
        words = values.pop(kind)
        name = "limits" if kind == "run_limit" else f"{kind}s"
        values[name] = limits(words, f"--{kind.replace('_', '-')}")
    return RunOptions(retry=Retry(attempts=retries), note=_note, **values)


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")
