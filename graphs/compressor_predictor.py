"""A small model distils a long text; a larger one answers from what it wrote, and sees nothing else.

    agentcomm eval graphs/compressor_predictor.py squad --model openai/NAME \\
        -G compressor=local/smollm2 -G budget=64 -G query=true

The source says the item's context and views, word for word, without a model call. The channel on
its edge is the compressor: it meets the budget whatever its model says (nothing is protected: what
is kept is the compressor's choice), and its calls are charged to the edge (phase ``compress``). ``agentcomm ledger RUN --by channel`` tells how well it kept to it.
"""

import agentcomm as ac


async def read_out(turn: ac.Turn) -> str:
    """Everything the item shows beside its question."""
    return "\n\n".join(part for part in (turn.item.context, turn.view) if part)


def graph(
    compressor: str | None = None,
    budget: int = 64,
    query: bool = True,
    samples: int = 1,
    temperature: float | None = None,
    method: str = "summarise",
    predictor: str | None = None,
    max_tokens: int | None = None,
) -> ac.AgentGraph:
    """``samples`` compressions of ``budget`` tokens each, all read by the predictor: that many calls + 1.

    ``compressor`` and ``predictor`` are model strings (default: the run's); ``query`` shows the
    compressor the question. ``method``: ``summarise``, ``extract``, ``truncate`` or ``full`` (the
    predictor reads the whole text). Several samples need a temperature; 0.7 unless you say so.
    """
    warm = (0.7 if samples > 1 else 0.0) if temperature is None else temperature
    channels = {
        "summarise": lambda: ac.channels.summarise(
            budget, compressor, query=query, temperature=warm, protect=()
        ),
        "extract": lambda: ac.channels.extract(budget, query=query, protect=()),
        "truncate": lambda: ac.channels.truncate(tokens=budget),
        "full": lambda: None,
    }
    if method not in channels:
        raise ac.UserError(f"compressor_predictor: method {method!r}; use one of: {', '.join(channels)}")
    names = ["source"] if samples == 1 else [f"source{i + 1}" for i in range(samples)]
    sources = [ac.Agent(name, view="*", act=read_out) for name in names]
    answers = ac.Agent(
        "predictor",
        role="Answer from what you are given.",
        model=predictor,
        context=False,
        max_tokens=max_tokens,
    )
    edges = [ac.Edge(name, "predictor", channel=channels[method]()) for name in names]
    return ac.AgentGraph([*sources, answers], edges, decision="predictor", system="Answer the question.")
