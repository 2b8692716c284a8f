"""The one tree of errors.

    AgentCommError
    ├── UserError                 your graph, task, config or flag: the message says what to do
    │   ├── GraphError            a graph or topology that can't run as written
    │   ├── TaskError             a task, a data folder or a row that can't be read
    │   ├── ConfigError           an unknown model string, a missing key, a changed run directory
    │   ├── ScorerUnsupported     a scorer that can't give what a score matrix needs
    │   └── MissingExtraError     a feature whose optional packages are not installed
    └── RunError                  something failed while running
        ├── BackendError          a model endpoint: unreachable, refused, broken reply, timed out
        ├── ChannelError          a channel could not deliver
        ├── SandboxError          code could not be run safely
        ├── ScorerError           a scorer could not give log-probabilities
        ├── LedgerError           the ledger could not be written or read
        └── LimitExceeded         a limit on tokens, calls, cost or time was reached

A ``UserError`` ends a command with exit code 2 and one sentence, without a traceback. A
``RunError`` inside an episode becomes a :class:`agentcomm.message.Failure` on the record: it is
data, attributed to one agent in one round, and the episode goes on if the decision agent can
still act. Foreign exceptions are converted once, at the boundary of the room that met them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentcomm.message import Usage


class AgentCommError(Exception):
    """Root of every error raised on purpose by this package."""


class UserError(AgentCommError):
    """Something the user wrote is wrong; the message says what, where, and what to do.

    ``running`` is True when items were already running when it was met (a scorer that fails on
    one item): the command then ends with exit code 1 instead of 2.
    """

    running = False


class GraphError(UserError):
    """An agent graph or a topology that can't run as written."""


class TaskError(UserError):
    """A task, its data folder or one of its rows can't be read."""


class ConfigError(UserError):
    """A model string, key, option or run directory that doesn't fit."""


class MissingExtraError(UserError):
    """An optional part of the package is used whose requirements are not installed."""


class ScorerUnsupported(UserError):
    """A scorer that can't give log-probabilities of a prompt; found out before anything is scored."""


class RunError(AgentCommError):
    """Something failed while running; inside an episode it is recorded as data."""


class BackendError(RunError):
    """A model endpoint did not give a usable reply.

    Attributes
    ----------
    kind:
        One word for grouping: ``"unreachable"`` (nobody listens), ``"cut"`` (the connection, before
        the reply was whole), ``"timeout"``, ``"rate_limit"``, ``"server"``,
        ``"refused"`` (4xx), ``"too_long"`` (the prompt exceeds the model's context), ``"broken_reply"``,
        ``"not_recorded"`` (a replay lacks the request), ``"script"`` (a scripted model has run out of lines).
    retryable:
        Whether the same request may succeed later.
    retry_after:
        Seconds the server asked to wait, or ``None`` if it said nothing.
    status:
        HTTP status, where there was one.
    fatal:
        Whether every later request must fail the same way (model not found, bad key, nobody
        listening): the run stops instead of paying for the rest.
    usage:
        What the server says that the unusable reply cost, or ``None`` if it said nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "server",
        retryable: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
        fatal: bool = False,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.usage = usage
        self.kind = kind
        self.retryable = retryable
        self.retry_after = retry_after
        self.status = status
        self.fatal = fatal


class ChannelError(RunError):
    """A channel could not deliver a message."""


class SandboxError(RunError):
    """Model-written code could not be run under the sandbox's protections."""


class ScorerError(RunError):
    """A scorer could not give log-probabilities."""


class LedgerError(RunError):
    """The ledger could not be written or read (disk full, foreign file, newer format)."""


class LimitExceeded(RunError):
    """A limit was reached.

    Attributes
    ----------
    scope:
        Name of the scope whose limit it was: ``"run"``, ``"item"``, ``"agent NAME"`` or ``"learn"``.
    limit:
        Which one: ``"tokens"``, ``"calls"``, ``"cost"``, ``"seconds"`` or ``"rollouts"``.
    """

    def __init__(self, message: str, *, scope: str, limit: str) -> None:
        super().__init__(message)
        self.scope = scope
        self.limit = limit
