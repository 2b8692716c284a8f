"""Which agents speak and who reads whom: probabilities, realised topologies, learners.

    pool         the agents that may be pruned, in fixed order, and the pairs that may be edges
    realise      edge probabilities -> topology: thresholded or drawn, always acyclic
    environment  what a learner sees of the world: rollouts, outcomes, budgets
    planted      a world without a model whose best topology is known
    records      what was tried and what came of it, one JSON line each

Nothing here imports torch; learners that need it say so in their own file.
"""
