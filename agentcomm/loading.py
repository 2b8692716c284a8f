"""Loading: a graph or a task by name.

A name is looked up as a path first, then among the files shipped with the package (``graphs/``
and ``tasks/``), then among the entry points ``agentcomm.graphs`` and ``agentcomm.tasks``. A
graph file defines ``graph``: an :class:`AgentGraph`, or a function with keyword options that
returns one. A task file defines ``task``: a function with keyword options that returns a
:class:`Task`. A ``.json`` file holds a graph as ``AgentGraph.to_json`` wrote it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from agentcomm.errors import AgentCommError, GraphError, TaskError, UserError
from agentcomm.graph import AgentGraph, Topology
from agentcomm.task import Task

Kind = Literal["graphs", "tasks"]
_ERRORS: dict[Kind, type[UserError]] = {"graphs": GraphError, "tasks": TaskError}


def shipped(kind: Kind) -> dict[str, Path]:
    """The files of a kind that come with the package, by name."""
    package = Path(__file__).parent
    # A wheel carries them inside the package; a source checkout has them beside it.
    for folder in (package / "shipped" / kind, package.parent / kind):
        if folder.is_dir():
            return {p.stem: p for p in sorted(folder.glob("*.py")) if not p.stem.startswith("_")}
    return {}


def load_graph(name: str | Path, options: Mapping[str, Any] | None = None) -> AgentGraph:
    """The graph called ``name`` (a path, a shipped graph or an entry point).

    Raises
    ------
    GraphError
        If there is none, its file fails, or it doesn't take the options.
    """
    path = _find(str(name), "graphs")
    if isinstance(path, Path) and path.suffix == ".json":
        from agentcomm.channels import from_spec
        from agentcomm.dialogue import stopping

        if options:
            raise GraphError(f"{path} is a JSON graph; it takes no options")
        try:
            return AgentGraph.from_json(_text(path), channels=from_spec, stops=stopping.from_spec)
        except GraphError as error:
            raise GraphError(f"{path}: {error}") from error
    made = _made(path, "graph", options or {}, GraphError)
    if not isinstance(made, AgentGraph):
        raise GraphError(
            f"{name}: `graph` is a {type(made).__name__}, not an AgentGraph or a function that returns one"
        )
    return made


def load_task(name: str | Path, options: Mapping[str, Any] | None = None) -> Task:
    """The task called ``name`` (a path, a shipped task or an entry point).

    Raises
    ------
    TaskError
        If there is none, its file or data fails, or it doesn't take the options.
    """
    path = _find(str(name), "tasks")
    made = _made(path, "task", options or {}, TaskError)
    if not isinstance(made, Task):
        raise TaskError(
            f"{name}: `task` is a {type(made).__name__}, not a Task or a function that returns one"
        )
    return made


def cut_topology(graph: AgentGraph, words: Iterable[str]) -> Topology:
    """What is left of a graph without the agents and edges that a user names.

    >>> from agentcomm.graph import Agent
    >>> team = AgentGraph([Agent("a"), Agent("b")], [("a", "b")], decision="b")
    >>> cut_topology(team, ["a->b"]).masks[0].edges
    frozenset()

    Raises
    ------
    GraphError
        If the graph has no such agent or edge.
    """
    listed = list(words)
    edges = [tuple(part.strip() for part in word.split("->")) for word in listed if "->" in word]
    return graph.topology(
        without_agents=[word.strip() for word in listed if "->" not in word],
        without_edges=edges,  # type: ignore[arg-type]
    )


def _find(name: str, kind: Kind) -> Path | importlib.metadata.EntryPoint:
    path = Path(name)
    if path.suffix in (".py", ".json") or path.is_file():
        if path.is_file():
            return path
        raise _ERRORS[kind](f"no file {name}; give a path, or one of: {', '.join(names(kind))}")
    if found := shipped(kind).get(name):
        return found
    for point in importlib.metadata.entry_points(group=f"agentcomm.{kind}"):
        if point.name == name:
            return point
    one = kind[:-1]
    raise _ERRORS[kind](
        f"no {one} called {name!r}; give a path to a file, or one of: {', '.join(names(kind))}"
    )


def names(kind: Kind) -> list[str]:
    """Every name of a kind that can be loaded without a path."""
    points = importlib.metadata.entry_points(group=f"agentcomm.{kind}")
    return sorted({*shipped(kind), *(p.name for p in points)})


def _made(
    source: Path | importlib.metadata.EntryPoint,
    attribute: str,
    options: Mapping[str, Any],
    error_type: type[UserError],
) -> Any:
    if isinstance(source, Path):
        module = _import_file(source, error_type)
        where = str(source)
        try:
            thing = getattr(module, attribute)
        except AttributeError:
            raise error_type(
                f"{where} defines no `{attribute}`; see the files in {attribute}s/ for examples"
            ) from None
    else:
        where = f"entry point {source.name} ({source.value})"
        try:
            thing = source.load()
        except Exception as error:
            raise error_type(f"{where} can't be loaded: {type(error).__name__}: {error}") from error
    if not callable(thing):
        if options:
            raise error_type(f"{where}: `{attribute}` takes no options, but got {', '.join(sorted(options))}")
        return thing
    return _call(thing, where, options, error_type)


def _call(
    function: Callable[..., Any], where: str, options: Mapping[str, Any], error_type: type[UserError]
) -> Any:
    accepted = inspect.signature(function).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    if not anything and (strange := sorted(set(options) - set(accepted))):
        raise error_type(
            f"{where} has no option {', '.join(strange)}; it has: {', '.join(accepted) or 'none'}"
        )
    try:
        return function(**options)
    except AgentCommError:
        raise
    except (Exception, SystemExit) as error:
        raise error_type(f"{where}: {_last_frame(error, where)}{type(error).__name__}: {error}") from error


def _import_file(path: Path, error_type: type[UserError]) -> ModuleType:
    # By content: a function agent's name is part of a run's configuration, so it must be the same
    # in every process and on every machine, and another one when the file was changed.
    module_name = f"agentcomm_user_{path.stem}_{_digest(path, error_type)}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise error_type(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except AgentCommError:
        raise
    except (Exception, SystemExit) as error:
        raise error_type(f"{path}: {_last_frame(error, str(path))}{type(error).__name__}: {error}") from error
    return module


def _digest(path: Path, error_type: type[UserError]) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise error_type(f"can't read {path}: {error.strerror}") from error


def _last_frame(error: BaseException, where: str) -> str:
    lines = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(Path(where).name)
    ]
    return f"line {lines[-1]}: " if lines else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise GraphError(f"it can't be read: {error}") from error
