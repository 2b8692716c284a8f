"""Deep research: plan, search, cut into chunks, compress what is relevant, write with citations.

::

    planner ─► search ═digest═► notes ─► writer          search, notes: functions, no model call
       └───────────────────────────────────┘             digest: a channel, one call for each chunk

How many chunks there are is known only when the search is done, and an agent graph is fixed. So the
chunks are no agents: they are what the *channel* on the edge ``search->notes`` works on, and a channel
may make as many calls as it likes through its desk. Each is then an ordinary metered call (a ledger row
in phase ``compress``, charged to that edge, under the limits, retries, seeds and caches of the run, and
reused when the run resumes), and what was searched and what was kept of it stand in the ledger's
channel rows.

With several rounds (adaptive) the planner reads the notes and says what is missing; the stop rule
:class:`~agentcomm.research.agents.Enough` ends the rounds when nothing is.
"""

from agentcomm.research.agents import Enough, Notes, Searching, planner_role, writer_role
from agentcomm.research.digest import Digest
from agentcomm.research.search import FolderSearch, ItemSearch, Recorded, Search, Source
from agentcomm.research.web import WebSearch

__all__ = [
    "Digest",
    "Enough",
    "FolderSearch",
    "ItemSearch",
    "Notes",
    "Recorded",
    "Search",
    "Searching",
    "Source",
    "WebSearch",
    "planner_role",
    "writer_role",
]
