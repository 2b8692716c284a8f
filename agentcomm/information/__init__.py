"""Information: how much of a context survives in what an agent passes on.

    estimate = ac.information.estimate_mi(matrix)

A score matrix holds how probable each message is under each context; everything else here follows
from it, with numpy and scipy and no model. ``score_matrix`` is the input, ``cells`` what is left
of it after failures, ``bounds`` the formulas, ``tempering`` the scale of a critic, ``intervals`` how
sure it is, ``estimators`` all of them together, ``compare`` two compressors.

Where matrices come from is to the right of that: ``scorers`` fill them (a model in this process, a
server, critics without a model), ``compressing`` holds the words of the request, ``measuring`` leads from
a task to an estimate, ``efficiency`` gives bits per token, ``matrix_files`` keeps a matrix.

What messages are worth to a reader: ``rate_distortion`` fits loss over rate, ``rates`` measures it
(``agentcomm rate``), ``flops`` counts work, ``pictures`` draws. What follows from it: ``routing`` sends a
summary, a larger one or everything, ``allocation`` spreads a budget over a team's edges (``allocating``
measures and checks it: ``agentcomm allocate``).
"""

from __future__ import annotations

from agentcomm.information.compare import MIDifference, compare_mi
from agentcomm.information.estimators import estimate_mi
from agentcomm.information.intervals import Interval
from agentcomm.information.rate_distortion import RateDistortion, fit_rate_distortion
from agentcomm.information.results import WARNINGS, MIEstimate
from agentcomm.information.score_matrix import (
    Row,
    ScoreMatrix,
    draw_candidates,
    fill,
    rows_of,
)

__all__ = [
    "WARNINGS",
    "Interval",
    "MIDifference",
    "MIEstimate",
    "RateDistortion",
    "Row",
    "ScoreMatrix",
    "compare_mi",
    "draw_candidates",
    "estimate_mi",
    "fill",
    "fit_rate_distortion",
    "rows_of",
]
