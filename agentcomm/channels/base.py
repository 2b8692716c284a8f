"""Compressor: what every channel that shortens a message does around its own way of shortening.

::

    too short already? → deliver whole
      → protected pieces: do they fit the budget at all? → deliver whole, cut or fail
      → would it cost more than it saves (``economy=``)? → deliver whole
      → the channel's own way (a model, sentences, rules)
      → of no use? → sentences by relevance
      → protected pieces that got lost are put back at the end
      → still over the budget? → cut at a sentence, else a word, else a character

so that a budget is met whatever a model says. Tokens are counted with the reader's tokenizer
(``bytes/3``, rounded up, where the reader's model can't count: function agents, unknown models).
A text that is delivered whole is delivered byte for byte. Nothing is kept between calls: what a
channel says of a text depends on the text, the question, its settings and the seed alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from agentcomm.channels.breakeven import Economy
from agentcomm.channels.budget import Meter, fit, one_of, whole_number
from agentcomm.channels.protect import KINDS, Kind, check_kinds, find, lost, pieces
from agentcomm.channels.relevance import Job, by_relevance, together
from agentcomm.errors import BackendError, ChannelError, ConfigError, LedgerError, LimitExceeded, UserError
from agentcomm.graph import Edge
from agentcomm.message import Compression, CompressionStatus, Delivery, EdgeKey, Message
from agentcomm.prompting import Turn

Infeasible = Literal["pass", "cut", "fail"]
OnFailure = Literal["fail", "extract", "verbatim"]
_ROUNDS = 4
_NOWHERE = EdgeKey("text", "reader")


class BudgetInfeasible(ChannelError):
    """What must be kept does not fit the budget; ``min_tokens`` would be needed."""

    def __init__(self, min_tokens: int, budget: int) -> None:
        super().__init__(
            f"what must be kept takes {min_tokens} tokens, the budget is {budget}; raise the budget, "
            "protect fewer kinds, or set infeasible='pass' or 'cut'"
        )
        self.min_tokens = min_tokens


@dataclass(frozen=True)
class Made:
    """What a channel's own way made of a text; ``text=None``: nothing of use, for the reason."""

    text: str | None
    adherent: bool = True
    reason: str = ""
    cut: bool = False


@dataclass(frozen=True)
class Compressed:
    """A text as it is read, and how it came about."""

    text: str
    compression: Compression


@dataclass(frozen=True, kw_only=True)
class Compressor:
    """A channel with a token budget.

    Parameters
    ----------
    budget:
        Most tokens that are read; ``None``, where a channel allows it, only never more than said.
    protect:
        Kinds of pieces that must come back as they are: ``"code"``, ``"json"``, ``"urls"``,
        ``"quotes"``, ``"numbers"``. Pieces of any kind are never cut in half.
    infeasible:
        When protected pieces alone take more than the budget: ``"pass"`` delivers the whole message
        (the budget is then not met, and the record says so), ``"cut"`` lets pieces go to meet it,
        ``"fail"`` fails the delivery.
    on_failure:
        When the channel's model or method fails: ``"fail"`` fails the delivery (the reader reads
        nothing of it, and the record says why), ``"extract"`` falls back on sentences,
        ``"verbatim"`` delivers the whole message. All three are recorded. A limit that is reached
        always fails.
    economy:
        Prices by which shortening is weighed before it is paid for, by what it saves the reader; a message
        that it doesn't pay for is delivered whole, over the budget or not, with the reason
        ``net_cost_negative``, or ``would_break_prefix`` where it would pay but for the cached prefix that
        it invalidates. ``None``: not weighed.
    """

    budget: int | None = None
    protect: tuple[Kind, ...] = KINDS
    infeasible: Infeasible = "pass"
    on_failure: OnFailure = "fail"
    economy: Economy | None = None

    name: ClassVar[str] = ""
    needs_budget: ClassVar[bool] = True
    always: ClassVar[bool] = False
    """Whether it works on texts that fit the budget, too."""

    def __post_init__(self) -> None:
        if self.budget is None and self.needs_budget:
            raise ConfigError(f"{self.name}: it needs a budget of tokens; write {self.name}(budget=64)")
        if self.budget is not None:
            object.__setattr__(self, "budget", whole_number(self.name, "budget", self.budget))
        object.__setattr__(self, "protect", check_kinds(self.name, self.protect))
        one_of(self.name, "infeasible", self.infeasible, get_args(Infeasible))
        one_of(self.name, "on_failure", self.on_failure, get_args(OnFailure))
        object.__setattr__(self, "economy", Economy.of(self.economy))

    def spec(self) -> dict[str, Any]:
        """The settings that differ from their defaults, as JSON."""
        out: dict[str, Any] = {"name": self.name}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.repr and value != f.default:
                if isinstance(value, Economy):
                    value = value.to_dict()
                out[f.name] = list(value) if isinstance(value, tuple) else value
        return out

    async def deliver(self, message: Message, edge: Edge, turn: Turn) -> Delivery:
        made = await self.compress(message.text, turn=turn, edge=edge.key)
        note = made.compression
        return Delivery(edge.key, message, made.text, self.name, str(note), note)

    async def compress(self, text: str, *, turn: Turn | None = None, edge: EdgeKey = _NOWHERE) -> Compressed:
        """Shorten a text as for the reader whose turn it is; without one, no model can be called.

        Raises
        ------
        RunError
            If the channel failed and ``on_failure`` says so, or what must be kept doesn't fit.
        """
        meter = await Meter.of(turn.desk if turn is not None else None)
        original = await meter.count(text)

        def made(status: CompressionStatus, out: str, tokens: int, adherent: bool, reason: str) -> Compressed:
            return Compressed(
                out, Compression(status, self.budget, tokens, original, meter.by, adherent, reason)
            )

        def whole(reason: str, adherent: bool = True) -> Compressed:
            return made("passed", text, original, adherent, reason)

        if not text.strip():
            return whole("empty")
        if self.budget is not None and original <= self.budget and not self.always:
            return whole("too_short")
        if objection := self._objection(original, self.budget):
            return whole(objection)
        # Nothing is ever cut through, whatever must be kept.
        places = tuple((s.start, s.end) for s in find(text))
        kept = tuple(pieces(text, self.protect))
        room = self.budget
        if self.budget is not None and kept and original > self.budget:
            price = await meter.count(together("", [piece for piece, _ in kept]))
            if price > self.budget:
                if self.infeasible == "fail":
                    raise BudgetInfeasible(price, self.budget)
                if self.infeasible == "pass":
                    return whole(f"protected_content: needs {price} tokens")
                kept = ()
            else:
                room = self.budget - price
        job = Job(text, edge, turn, meter, self.budget, places, kept, room)
        try:
            own = await self.shorten(job)
        except (LimitExceeded, LedgerError, UserError):
            raise
        except Exception as error:
            if self.on_failure == "fail" or (isinstance(error, BackendError) and error.fatal):
                raise
            kind = error.kind if isinstance(error, BackendError) else type(error).__name__
            why = f"compressor_error: {kind}: {error}"
            if self.on_failure == "verbatim":
                return whole(why, adherent=False)
            own = Made(None, adherent=False, reason=why)
        if own.text is None and self.budget is None:
            return whole(own.reason, own.adherent)
        out, reasons, cut = own.text, [own.reason] if own.reason else [], own.cut
        if out is None:
            out, cut = await by_relevance(job, job.question), True
        out, shortened = await _complete(out, job)
        tokens = await meter.count(out)
        if out == text or (tokens >= original and (self.budget is None or original <= self.budget)):
            return whole(", ".join(reasons) or "not_smaller", own.adherent)
        if self.budget is None and (objection := self._objection(original, tokens)):
            return whole(objection, own.adherent)
        if shortened:
            reasons.append("over_budget" if out else "nothing_fits")
        adherent = own.adherent and not (shortened and own.text is not None)
        return made("cut" if cut or shortened else "compressed", out, tokens, adherent, ", ".join(reasons))

    def _objection(self, original: int, tokens: int | None) -> str:
        """Why ``economy`` forbids to shorten so far; with a budget that is known before anything is paid."""
        if self.economy is None or tokens is None:
            return ""
        return self.economy.objection(original, min(tokens, original))

    async def shorten(self, job: Job) -> Made:
        """The channel's own way; what it makes may be too long, and lose what must be kept."""
        raise NotImplementedError


async def _complete(text: str, job: Job) -> tuple[str, bool]:
    """The text with what must be kept, within the budget; and whether it had to be cut for that."""
    text, cut = text.strip(), False
    for round in range(_ROUNDS):
        out = together(text, lost(text, job.kept)) if job.kept else text
        if job.budget is None or (size := await job.meter.count(out)) <= job.budget:
            return out, cut
        alone = await job.meter.count(text)
        room = job.budget - (size - alone) if round < _ROUNDS - 1 else (job.room or 0) - 2
        text, cut = await fit(text, min(room, alone - 1), job.meter), True
    out = together(text, lost(text, job.kept))
    if await job.fits(out):
        return out, cut
    return together("", [piece for piece, _ in job.kept]), True
