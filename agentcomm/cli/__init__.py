"""The command line: one file a command, each importing what it needs only when it runs.

Exit codes: 0 done, 1 some items failed (or the run ended early), 2 the user must mend something,
130 interrupted. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import logging
import os
import sys

import typer

from agentcomm.cli import (
    allocate,
    audit,
    compare,
    demo,
    eval,
    graph,
    ledger,
    mi,
    prune,
    rate,
    research,
    run,
    sweep,
    train,
    tune,
    value,
    view,
)
from agentcomm.cli.options import Interrupted
from agentcomm.errors import AgentCommError, UserError

app = typer.Typer(
    name="agentcomm",
    help="See what every message between LLM agents costs and is worth, and cut what isn't worth it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: rich's costs more to import than everything else --help needs.
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("eval")(eval.evaluate)
app.command("ledger")(ledger.ledger)
app.command("prune")(prune.prune)
app.command("value")(value.value)
app.command("tune")(tune.tune)
app.command("train")(train.train)
app.command("compare")(compare.compare)
app.command("sweep")(sweep.sweep)
app.command("demo")(demo.demo)
app.command("graph")(graph.graph)
app.command("view")(view.view)
app.command("mi")(mi.mi)
app.command("rate")(rate.rate)
app.command("allocate")(allocate.allocate)
app.command("audit")(audit.audit)
app.command("research")(research.research)


def _version(value: bool) -> None:
    if value:
        from agentcomm import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    pass


def main() -> None:
    """Entry point of the ``agentcomm`` command."""
    # LangGraph's tracing is switched on by the environment; a command never sends data anywhere.
    os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"
    # An impatient second Ctrl-C makes asyncio log what it could not end in order.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        app()
    except UserError as error:
        _say(f"error: {error}")
        sys.exit(1 if error.running else 2)
    except AgentCommError as error:
        _say(f"error: {error}")
        sys.exit(1)
    except Interrupted as error:
        _say(f"interrupted; {error}")
        sys.exit(130)
    except SystemExit as end:
        if end.code == 130:  # typer's, for Ctrl-C
            _say("interrupted")
        raise
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone; that is its business.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _say(text: str) -> None:
    # One line, whatever a user's own file or a server said.
    sys.stderr.write(" ".join(text.split()) + "\n")
