"""Ways of compressing, by name, each at any budget: what ``--compressor`` names.

    local/smollm2                          a model says it shorter (the channel ``summarise``)
    extract, truncate, rules               the channel of that name
    extract:by=embedding,model=FOLDER      with more of its settings; the budget is filled in

As in the graph ``compressor_predictor``, nothing is protected unless it is asked for: what is kept is
the compressor's choice, so that a budget is met.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentcomm import channels
from agentcomm.errors import ConfigError, UserError
from agentcomm.graph import Channel

CHANNELS = ("summarise", "extract", "truncate", "rules", "dedup", "reference", "llmlingua2")


@dataclass(frozen=True)
class Way:
    """A compressor without a budget yet.

    Attributes
    ----------
    name:
        As the user wrote it.
    model:
        The model string that it calls; ``None`` for one without, and for the run's own model.
    query:
        Whether it is shown the question; for a model, and for ``extract`` where its words don't say.
    temperature:
        Of a model named by its string.
    """

    name: str
    model: str | None = None
    query: bool = True
    temperature: float = 0.0

    @classmethod
    def parse(cls, words: str, *, query: bool = True, temperature: float = 0.0) -> Way:
        """The way that ``words`` name.

        Raises
        ------
        UserError
            If they name neither a channel nor a model, or its settings don't fit.
        """
        words = words.strip()
        kind, _, rest = words.partition(":")
        if kind not in CHANNELS:
            from agentcomm.backends.models import parse_model

            try:
                parse_model(words)
            except ConfigError as error:
                raise ConfigError(f"{error}; without a model there are {', '.join(CHANNELS[1:4])}") from error
            return cls(words, words, query, temperature)
        if any(part.partition("=")[0] in ("budget", "tokens", "characters") for part in rest.split(",")):
            raise ConfigError(f"compressor {words!r}: leave the budget out, it is what varies")
        settings = dict(part.partition("=")[::2] for part in rest.split(",") if part)
        model = settings.get("model") if kind == "summarise" else None
        made = cls(words, model, query, temperature)
        made.at(64)  # refuses what doesn't fit before anything is paid
        return made

    def at(self, budget: int) -> Channel:
        """The channel with a budget of so many tokens of the reader's.

        Examples
        --------
        >>> Way.parse("truncate:keep=tail").at(16).spec()
        {'name': 'truncate', 'tokens': 16, 'keep': 'tail'}
        >>> Way.parse("extract").at(16).spec()
        {'name': 'extract', 'budget': 16, 'protect': []}
        """
        kind, _, rest = self.name.partition(":")
        if kind not in CHANNELS:
            return channels.summarise(
                budget, self.model, query=self.query, temperature=self.temperature, protect=()
            )
        if kind == "truncate":
            return channels.from_words(f"{kind}:tokens={budget}{',' if rest else ''}{rest}")
        known = {part.partition("=")[0] for part in rest.split(",")}
        more = [part for part in rest.split(",") if part]
        if "protect" not in known:
            more.append("protect=")
        if (
            kind in ("summarise", "extract")
            and "query" not in known
            and self.query is not (kind == "extract")
        ):
            more.append(f"query={str(self.query).lower()}")
        return channels.from_words(f"{kind}:{','.join([f'budget={budget}', *more])}")


def budgets_of(words: str) -> tuple[int, ...]:
    """``"16,32,64"`` as ascending numbers.

    Raises
    ------
    ConfigError
        If one is no whole number of at least 1, or comes twice.
    """
    parts = [part.strip() for part in words.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--budgets {words!r}: write tokens as 16,32,64,128, each at least 1")
    found = tuple(sorted(map(int, parts)))
    if len(set(found)) < len(found):
        raise ConfigError(f"--budgets {words!r}: a budget comes twice")
    return found


def ways_of(words: list[str], *, query: bool = True, temperature: float = 0.0) -> tuple[Way, ...]:
    """Each word's way.

    Raises
    ------
    UserError
        If there is none, or one twice.
    """
    if not words:
        raise UserError("name at least one compressor: a model, extract or truncate")
    if len(set(words)) < len(words):
        raise UserError("a compressor is named twice; once is enough")
    return tuple(Way.parse(word, query=query, temperature=temperature) for word in words)
