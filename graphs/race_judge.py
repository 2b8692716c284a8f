"""Judges a report against a reference by criteria made for its task, in both orders (RACE).

    agentcomm eval race_judge race -T run=runs/mine --model openai/NAME --samples 5

The score is S_target / (S_target + S_reference): 0.5 is parity. ``--samples`` judges several times (with a
temperature), and the interval is over tasks. A judge that can't be read is a failed item and no wrong answer.
What it said was paid for and stays in the run, so the same command reads the same again: judge anew with
another ``--seed`` and ``--out``, or by generic criteria (``-G own_criteria=false``), which smaller models manage.
"""

import agentcomm as ac
from agentcomm.research import race


def graph(
    own_criteria: bool = True, criteria: int = 3, max_tokens: int | None = None, structured: bool = True
) -> ac.AgentGraph:
    """3 calls: criteria, and a judge for each order; 2 with ``own_criteria=false`` (four generic ones).

    ``structured=false`` asks for JSON in words only, for a server that takes no JSON schema.
    """
    maker = ac.Agent(
        race.CRITERIA,
        role=race.criteria_role(criteria),
        max_tokens=max_tokens,
        schema=race.criteria_schema() if structured else None,
    )
    judges = [
        ac.Agent(
            name,
            role=race.judge_role(),
            view=name,
            max_tokens=max_tokens,
            schema=race.judge_schema() if structured else None,
        )
        for name in (race.FIRST, race.SECOND)
    ]
    agents = [
        *([maker] if own_criteria else []),
        ac.Agent("numbered", act=race.Numbered(own_criteria)),
        *judges,
        ac.Agent(race.VERDICT, act=race.Verdict(own_criteria)),
    ]
    edges = [ac.Edge("numbered", judge.name) for judge in judges]
    edges += [ac.Edge(judge.name, race.VERDICT) for judge in judges]
    if own_criteria:
        edges += [ac.Edge(race.CRITERIA, "numbered"), ac.Edge(race.CRITERIA, race.VERDICT)]
    return ac.AgentGraph(
        agents, edges, decision=race.VERDICT, system="You judge reports, strictly and without favour."
    )
