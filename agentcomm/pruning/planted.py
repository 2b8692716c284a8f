"""Planted: a world without a model, in which the best topology of every item is known.

Every item belongs to a hidden domain. In each domain some agents *hold* facts, one *solves*, some
*mislead*, and the rest are idle; who does what differs from domain to domain, so that no single
topology is best for all. In *parallel* domains (even ones) each fact must reach the solver; in
*serial* ones (odd) a holder adds its fact only if it read the one before it, so the order of
speaking matters, and it never agrees with the agents' numbers.

The probability of a correct answer and the tokens follow from the topology in closed form
(:meth:`PlantedWorld.reading`), and rollouts draw from them: thousands in a second. The same world
can be *executed*: its agents write messages that carry ``FACT:k`` and where they come from, of as
many words as the formula says, and read each other's. :class:`ExecutedWorld` does so on an
executor, :meth:`PlantedWorld.model` as a scripted model for the whole runner. All agree exactly,
so what a learner is measured by and what runs are one thing.

Formulas: ``pruning.md`` section 6. One round; temporal edges are ignored.

Deliberately absent: anything that a learner could read the domain from but the query's embedding.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from agentcomm import topologies
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted, count_words
from agentcomm.errors import ConfigError, GraphError, TaskError
from agentcomm.evaluation.splits import Split
from agentcomm.executors.base import Executor
from agentcomm.executors.plain import PlainExecutor
from agentcomm.graph import Agent, AgentGraph, Topology
from agentcomm.message import Delivery, EdgeKey, Message, Reply, Usage
from agentcomm.pruning.environment import Outcome, utility_of
from agentcomm.pruning.pool import FloatArray, Pool, levels
from agentcomm.pruning.realise import EdgeProbabilities, realise
from agentcomm.schedule import Inbox, TurnRecord
from agentcomm.task import Item, Score, Task

Kind = Literal["parallel", "serial"]
JUDGE = "judge"

PROMPT, MESSAGE, FACT, ANSWER = 100, 80, 30, 20
"""Tokens: of a prompt without messages, of a message without facts, of a fact, of the answer."""

_FIRST: dict[Split, int] = {"learn": 0, "validate": 1_000_000, "score": 2_000_000}
"""Number of each split's first query."""
_QUERY = re.compile(r"Planted query (\d+) of world (\d+)\.")
_ROLE = re.compile(r"You are planted agent (\d+)\.")


class Domain(NamedTuple):
    """Who does what for the items of one domain; agents by number."""

    kind: Kind
    holders: tuple[int, ...]
    solver: int
    misleaders: frozenset[int]

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The oracle's: each holder to the solver, or a chain through all holders to the solver."""
        if self.kind == "parallel":
            return tuple((h, self.solver) for h in self.holders)
        return tuple(itertools.pairwise((*self.holders, self.solver)))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a topology does in a domain.

    ``facts`` (t) are the facts in the solver's message, ``None`` where the decision agent doesn't
    read the solver; ``through_edges`` (a) the misleaders among the solver's ancestors, ``in_inbox``
    (b) those that the decision agent reads; ``prompt`` and ``completion`` tokens of all agents.
    """

    facts: int | None
    through_edges: int
    in_inbox: int
    prompt: int
    completion: int

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion


@dataclass(frozen=True)
class Assessment:
    """How good a policy is, without sampling noise: means over ``items`` items.

    ``regret`` is the oracle's expected utility minus the policy's; ``node_f1`` and ``edge_f1``
    compare the agents and spatial edges with the oracle's, item by item.
    """

    regret: float
    utility: float
    correct: float
    tokens: float
    node_f1: float
    edge_f1: float
    items: int


@dataclass(frozen=True)
class PlantedWorld:
    """A world; equal parameters give an equal one. It is itself an environment.

    Parameters
    ----------
    seed, agents, domains, facts, misleaders:
        N agents (``agents >= facts + 1 + misleaders``), D domains, m facts and X misleaders in each.
    noise:
        How far a query's embedding lies from its domain's: x = normalise(mu + noise * direction).
    kinds:
        A kind for each domain; parallel and serial in turn by default.
    base, best:
        c0 and c1: probability of a correct answer without and with all facts.
    mislead_edge, mislead_inbox:
        p_e and p_d: probability that a misleader flips a correct answer, through the solver and
        through the decision agent's inbox.
    price:
        lambda of the utility.
    failure_rate:
        Share of rollouts that fail: they are paid for and tell nothing.

    Notes
    -----
    The oracle keeps holders and solver only, with the edges of :attr:`Domain.edges`. That it is the
    unique optimum was confirmed by exhaustive search for the defaults at N = 4 and 5; prices so
    high, or facts worth so little, that fewer agents are better are not meant.
    """

    seed: int = 0
    agents: int = 8
    domains: int = 4
    facts: int = 2
    misleaders: int = 2
    noise: float = 0.3
    kinds: tuple[Kind, ...] | None = None
    base: float = 0.25
    best: float = 0.95
    mislead_edge: float = 0.3
    mislead_inbox: float = 0.15
    price: float = 0.2
    failure_rate: float = 0.0
    _drawn: dict[int, tuple[int, FloatArray]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seed < 0 or self.facts < 1 or self.misleaders < 0 or self.domains < 1:
            raise ConfigError(
                f"a planted world of seed={self.seed}, domains={self.domains}, facts={self.facts}, "
                f"misleaders={self.misleaders}; it needs a domain and a fact, and nothing below 0"
            )
        if self.agents < (needed := self.facts + 1 + self.misleaders):
            raise ConfigError(
                f"{self.agents} agents for {self.facts} holders, a solver and {self.misleaders} misleaders; "
                f"there must be at least {needed}"
            )
        if self.kinds is not None and (
            len(self.kinds) != self.domains or set(self.kinds) - {"parallel", "serial"}
        ):
            raise ConfigError(f"kinds={self.kinds!r} for {self.domains} domains; name one for each")
        for name in ("base", "best", "mislead_edge", "mislead_inbox", "failure_rate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name}={getattr(self, name)}; it must lie between 0 and 1")
        if self.noise < 0 or self.price < 0:
            raise ConfigError(f"noise={self.noise}, price={self.price}; neither can be below 0")

    # -- what is planted ---------------------------------------------------------------------

    @cached_property
    def layout(self) -> tuple[Domain, ...]:
        """Who does what in each domain. Hidden from learners."""
        rng = np.random.default_rng([self.seed, 0])
        kinds = self.kinds or tuple("serial" if d % 2 else "parallel" for d in range(self.domains))
        found: list[Domain] = []
        while len(found) < self.domains:
            order = rng.permutation(self.agents).tolist()
            m = self.facts
            domain = Domain(
                kinds[len(found)],
                tuple(order[:m]),
                order[m],
                frozenset(order[m + 1 : m + 1 + self.misleaders]),
            )
            if domain.kind == "parallel" or any(i > j for i, j in domain.edges):
                found.append(domain)
        return tuple(found)

    @cached_property
    def reference(self) -> int:
        """T_ref: 100(N+1) + 80(N(N-1)/2 + 2N) + 20."""
        n = self.agents
        return PROMPT * (n + 1) + MESSAGE * (n * (n - 1) // 2 + 2 * n) + ANSWER

    @cached_property
    def graph(self) -> AgentGraph:
        """The team: agents ``a0`` ..., without edges but to the judge."""
        agents = [Agent(f"a{i}", role=f"You are planted agent {i}.") for i in range(self.agents)]
        return topologies.independent(agents, Agent(JUDGE, role="You are the planted judge."), system="")

    @cached_property
    def pool(self) -> Pool:
        """All agents, every ordered pair; the judge reads every kept agent."""
        return Pool(self.graph, "complete")

    # -- items and embeddings ----------------------------------------------------------------

    @property
    def id(self) -> str:
        """Names the embedding: each world has its own."""
        return f"planted-{self.seed}-{self.dimensions}"

    @property
    def dimensions(self) -> int:
        """Of embeddings: 32, or more where there are more agents or domains."""
        return max(32, self.agents, self.domains)

    @cached_property
    def role_embeddings(self) -> FloatArray:
        """[N, dimensions], orthonormal, unrelated to the domains."""
        return _orthonormal(np.random.default_rng([self.seed, 1]), self.agents, self.dimensions)

    @cached_property
    def _centres(self) -> FloatArray:
        return _orthonormal(np.random.default_rng([self.seed, 2]), self.domains, self.dimensions)

    def items(self, count: int, split: Split = "learn", *, start: int = 0) -> tuple[Item, ...]:
        """Items of a split, from its ``start``-th on; splits never share any."""
        if not 0 <= start <= start + count <= 1_000_000:
            raise TaskError(f"items {start} to {start + count} of split {split!r}; a split has 1,000,000")
        first = _FIRST[split] + start
        return tuple(
            Item(
                id=f"{split}-{k - _FIRST[split]}",
                question=f"Planted query {k} of world {self.seed}.",
                metadata={"split": split, "query": k},
            )
            for k in range(first, first + count)
        )

    def _draw(self, k: int) -> tuple[int, FloatArray]:
        if k not in self._drawn:
            rng = np.random.default_rng([self.seed, 3, k])
            domain = int(rng.integers(self.domains))
            direction = rng.normal(size=self.dimensions)
            x = self._centres[domain] + self.noise * direction / np.linalg.norm(direction)
            self._drawn[k] = domain, x / np.linalg.norm(x)
        return self._drawn[k]

    def domain_of(self, item: Item) -> int:
        """An item's domain. Learners must not ask.

        Raises
        ------
        TaskError
            If the item isn't of this world.
        """
        return self._draw(self._number(item))[0]

    def _number(self, item: Item) -> int:
        k = item.metadata.get("query")
        return k if isinstance(k, int) else self._parse(item.question)

    def _parse(self, text: str) -> int:
        found = _QUERY.search(text)
        if found is None or int(found[2]) != self.seed:
            raise TaskError(f"{text[:60]!r} is no query of planted world {self.seed}")
        return int(found[1])

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """[texts, dimensions]: unit vectors of roles and questions of this world, which alone it knows."""
        vectors = []
        for text in texts:
            role = _ROLE.fullmatch(text)
            if role is not None and int(role[1]) < self.agents:
                vectors.append(self.role_embeddings[int(role[1])])
            else:
                vectors.append(self._draw(self._parse(text))[1])
        return np.array(vectors, dtype=np.float64).reshape(len(vectors), self.dimensions)

    # -- what a topology does ----------------------------------------------------------------

    def reading(self, domain: int, topology: Topology) -> Reading:
        """Facts, misleaders and tokens of ``topology`` in a domain, exactly."""
        return self._read(self.layout[domain], self._parts(topology))

    def chance(self, reading: Reading) -> float:
        """P(correct): (c0 + (c1-c0) t/m) (1-p_e)^a (1-p_d)^b; without a solver c0 (1-p_d)^b."""
        inbox = (1.0 - self.mislead_inbox) ** reading.in_inbox
        if reading.facts is None:
            return self.base * inbox
        informed = self.base + (self.best - self.base) * reading.facts / self.facts
        return float(informed * (1.0 - self.mislead_edge) ** reading.through_edges * inbox)

    def expected_utility(self, domain: int, topology: Topology) -> float:
        """J = P(correct) - lambda T / T_ref, exactly."""
        reading = self.reading(domain, topology)
        return self.chance(reading) - self.price * reading.tokens / self.reference

    def oracle(self, domain: int, *, nodes: bool = True) -> Topology:
        """The best topology of a domain; with ``nodes=False`` its edges with all agents kept."""
        plan = self.layout[domain]
        keep = np.full(self.agents, not nodes)
        keep[[*plan.holders, plan.solver]] = True
        spatial = np.zeros((self.agents, self.agents), dtype=np.bool_)
        for i, j in plan.edges:
            spatial[i, j] = True
        return self.pool.topology(keep, spatial)

    @cached_property
    def _oracles(self) -> dict[tuple[int, bool], tuple[Topology, float]]:
        found = {}
        for d, nodes in itertools.product(range(self.domains), (True, False)):
            best = self.oracle(d, nodes=nodes)
            found[d, nodes] = best, self.expected_utility(d, best)
        return found

    def oracle_utility(self, domain: int, *, nodes: bool = True) -> float:
        """J* of a domain."""
        return self._oracles[domain, nodes][1]

    def assess(
        self,
        policy: Callable[[Item], Topology],
        items: Sequence[Item] | None = None,
        *,
        nodes: bool = True,
    ) -> Assessment:
        """Regret and what was recovered, over ``items`` (default: 200 of split ``score``).

        ``nodes=False`` compares with the best edges when all agents are kept, which is what
        learners of edges alone can reach.
        """
        items = self.items(200, "score") if items is None else items
        if not items:
            raise TaskError("no items to assess a policy on")
        sums = np.zeros(6)
        for item in items:
            domain = self.domain_of(item)
            topology = policy(item)
            best, most = self._oracles[domain, nodes]
            reading = self.reading(domain, topology)
            correct = self.chance(reading)
            gained = correct - self.price * reading.tokens / self.reference
            ours, theirs = topology.masks[0], best.masks[0]
            sums += (
                most - gained,
                gained,
                correct,
                reading.tokens,
                _f1(ours.agents - {JUDGE}, theirs.agents - {JUDGE}),
                _f1(_among(ours.edges), _among(theirs.edges)),
            )
        regret, utility, right, tokens, node_f1, edge_f1 = (sums / len(items)).tolist()
        return Assessment(regret, utility, right, tokens, node_f1, edge_f1, len(items))

    def random_regret(self, *, nodes: bool = True, draws: int = 1000, seed: int = 0) -> float:
        """Mean regret of random graphs at q = p = 0.5 (``nodes=False``: q = 1); divides normalised regret."""
        rng = np.random.default_rng(seed)
        even = EdgeProbabilities.constant(self.agents, 0.5 if nodes else 1.0, 0.5)

        def draw(item: Item) -> Topology:
            return realise(even, self.pool, mode="bernoulli", rng=rng).topology

        return self.assess(draw, self.items(draws, "score"), nodes=nodes).regret

    # -- rollouts ----------------------------------------------------------------------------

    async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
        """A drawn outcome of ``topology`` on ``item``; equal arguments give an equal one."""
        return self.outcome(item, topology, seed)

    def outcome(self, item: Item, topology: Topology, seed: int) -> Outcome:
        """:meth:`rollout`, for code that doesn't await."""
        parts = self._parts(topology)
        k = self._number(item)
        return self._outcome(k, parts, self._read(self.layout[self._draw(k)[0]], parts), seed)

    def _outcome(self, k: int, parts: _Parts, reading: Reading, seed: int) -> Outcome:
        tokens = Usage(reading.prompt, reading.completion)
        lucky, broken = _uniforms(f"{self.seed} {k} {seed} {parts.code}")
        if broken < self.failure_rate:
            return Outcome(None, None, tokens, status="failed", failure="planted failure")
        correct = float(lucky < self.chance(reading))
        worth = utility_of(correct, reading.tokens, price=self.price, reference=self.reference)
        return Outcome(correct, worth, tokens)

    def _parts(self, topology: Topology) -> _Parts:
        if len(topology.masks) != 1:
            raise GraphError(f"a topology of {len(topology.masks)} rounds; a planted world has one")
        (mask,) = topology.masks
        index, n = self.pool.index, self.agents
        try:
            kept = {index[name]: list[int]() for name in mask.agents if name != JUDGE}
            heard, code = [], 0
            for i in kept:
                code |= 1 << i
            for sender, reader, kind in mask.edges:
                if kind == "temporal" or sender not in mask.agents or reader not in mask.agents:
                    continue
                i = index[sender]
                if reader == JUDGE:
                    heard.append(i)
                    code |= 1 << (n + i)
                else:
                    j = index[reader]
                    kept[j].append(i)
                    code |= 1 << (2 * n + i * n + j)
        except KeyError as stranger:
            raise GraphError(f"the topology names {stranger}, which this planted world lacks") from None
        return _Parts(kept, heard, code)

    def _read(self, plan: Domain, parts: _Parts) -> Reading:
        fact = {h: k for k, h in enumerate(plan.holders)}
        serial = plan.kind == "serial"
        said: dict[int, tuple[int, int]] = {}  # facts and ancestors (itself included) as bits
        waiting = list(parts.senders)
        open_: set[int] = set()
        while waiting:
            v = waiting[-1]
            if v in said:
                waiting.pop()
                continue
            senders = parts.senders[v]
            if missing := [u for u in senders if u not in said]:
                if v in open_:
                    raise GraphError("the topology's spatial edges form a cycle")
                open_.add(v)
                waiting += missing
                continue
            known, before = 0, 1 << v
            for u in senders:
                known |= said[u][0]
                before |= said[u][1]
            k = fact.get(v)
            if k is not None and (not serial or k == 0 or known >> (k - 1) & 1):
                known |= 1 << k
            said[v] = known, before
            waiting.pop()
        length = {v: MESSAGE + FACT * known.bit_count() for v, (known, _) in said.items()}
        completion = sum(length.values()) + ANSWER
        prompt = PROMPT * (len(said) + 1) + sum(length[v] for v in parts.heard)
        for senders in parts.senders.values():
            for u in senders:
                prompt += length[u]
        in_inbox = sum(v in plan.misleaders for v in parts.heard)
        if plan.solver not in parts.heard:
            return Reading(None, 0, in_inbox, prompt, completion)
        known, before = said[plan.solver]
        through = sum(before >> x & 1 for x in plan.misleaders)
        return Reading(known.bit_count(), through, in_inbox, prompt, completion)

    # -- the same world, executed ------------------------------------------------------------

    def speak(self, query: int, agent: int, read: Sequence[str]) -> str:
        """What an agent writes after reading ``read``: ``BY:3 FACT:1 VIA_1_3`` and words to its length."""
        plan = self.layout[self._draw(query)[0]]
        facts, via = set[int](), {agent}
        for text in read:
            _, known, before = _parse_message(text)
            facts |= known
            via |= before
        if agent in plan.holders:
            k = plan.holders.index(agent) + 1
            if plan.kind == "parallel" or k == 1 or k - 1 in facts:
                facts.add(k)
        words = [
            f"BY:{agent}",
            *(f"FACT:{k}" for k in sorted(facts)),
            "VIA_" + "_".join(map(str, sorted(via))),
        ]
        return _padded(" ".join(words), MESSAGE + FACT * len(facts))

    def judge(self, query: int, read: Sequence[str]) -> str:
        """What the judge writes: the t, a and b that it finds in the messages, in 20 words."""
        plan = self.layout[self._draw(query)[0]]
        solved, misled, inbox = "none", 0, 0
        for text in read:
            author, facts, via = _parse_message(text)
            inbox += author in plan.misleaders
            if author == plan.solver:
                solved, misled = str(len(facts)), len(via & plan.misleaders)
        return _padded(f"FACTS:{solved} MISLED:{misled}:{inbox}", ANSWER)

    def model(self) -> Scripted:
        """The world as a scripted model, for the whole runner: it reads prompts and reports tokens."""

        def answer(request: ChatRequest) -> Reply:
            prompt = "\n\n".join(m.content for m in request.messages)
            query, role = self._parse(prompt), _ROLE.search(prompt)
            read = re.findall(r"^From a\d+:\n(.*)$", prompt, re.MULTILINE)
            text = self.judge(query, read) if role is None else self.speak(query, int(role[1]), read)
            return Reply(text, Usage(PROMPT + sum(map(count_words, read)), count_words(text)), "stop")

        return Scripted(answer, name="planted")

    def task(self, count: int, split: Split = "learn") -> Task:
        """Items scored by what the judge found: drawn with P(correct), alike for like findings.

        Where an agent's message is the answer, it counts as what the judge would make of it alone.
        Answers are right or one of three wrong ones, so they can be voted on.
        """

        def read(item: Item, text: str) -> tuple[str, str]:
            """The answer, and what was found."""
            author = ""
            if text.startswith("BY:"):
                author = text[: text.index(" ")]
                text = self.judge(self._number(item), [text])
            facts, through, inbox = _parse_answer(text)
            found = f"{facts} {through} {inbox}"
            lucky, which = _uniforms(f"{self.seed} {item.id} {found}{author}")
            right = lucky < self.chance(Reading(facts, through, inbox, 0, 0))
            return "right" if right else f"wrong {int(3 * which)}", found

        def score(item: Item, text: str) -> Score:
            answer, found = read(item, text)
            return Score(float(answer == "right"), found)

        def extract(item: Item, text: str) -> str | None:
            try:
                return read(item, text)[0]
            except TaskError:
                return None

        return Task(f"planted-{self.seed}", self.items(count, split), score, extract=extract)


class _Parts(NamedTuple):
    """A topology by number: who is kept and whom each reads, whom the judge reads, all as one code."""

    senders: dict[int, list[int]]
    heard: list[int]
    code: int


@dataclass
class ExecutedWorld:
    """The same world run turn by turn on an executor: slower, and equal in every outcome."""

    world: PlantedWorld
    executor: Executor = field(default_factory=PlainExecutor)

    @property
    def pool(self) -> Pool:
        return self.world.pool

    async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
        """As :meth:`PlantedWorld.rollout`, found by executing the topology."""
        world = self.world
        reading = await self.reading(item, topology)
        return world._outcome(world._number(item), world._parts(topology), reading, seed)

    async def reading(self, item: Item, topology: Topology) -> Reading:
        """Facts, misleaders and tokens, from what the agents wrote and read."""
        world = self.world
        query = world._number(item)

        async def act(inbox: Inbox) -> TurnRecord:
            read = [message.text for _, message in inbox.letters]
            if inbox.agent == JUDGE:
                text = world.judge(query, read)
            else:
                text = world.speak(query, world.pool.index[inbox.agent], read)
            usage = Usage(PROMPT + sum(map(count_words, read)), count_words(text))
            delivered = tuple(Delivery(e.key, m, m.text) for e, m in inbox.letters)
            said = Message(inbox.agent, inbox.round, text, item.id, usage)
            return TurnRecord(inbox.agent, inbox.round, delivered, said)

        mailbox = await self.executor.execute(self.pool.schedule(topology), act)
        found = Reading(None, 0, 0, 0, 0)
        for record in mailbox.values():
            assert isinstance(record.outcome, Message) and record.outcome.usage is not None
            usage = record.outcome.usage
            found = replace(
                found,
                prompt=found.prompt + (usage.input_tokens or 0),
                completion=found.completion + (usage.output_tokens or 0),
            )
            if record.agent == JUDGE:
                facts, through, inbox = _parse_answer(record.outcome.text)
                found = replace(found, facts=facts, through_edges=through, in_inbox=inbox)
        return found


# ------------------------------------------------------------------------------------ search


def all_topologies(pool: Pool) -> Iterator[Topology]:
    """Every non-empty set of agents with every DAG over it: 665 for 4 agents, 32,281 for 5.

    Raises
    ------
    GraphError
        For more than 5 agents: there are 3.9 million already for 6.
    """
    n = len(pool)
    if n > 5:
        raise GraphError(f"all topologies of {n} agents are too many to search; 5 is the most")
    for size in range(1, n + 1):
        for kept in itertools.combinations(range(n), size):
            keep = np.zeros(n, dtype=np.bool_)
            keep[list(kept)] = True
            pairs = list(itertools.combinations(kept, 2))
            for ways in itertools.product((0, 1, 2), repeat=len(pairs)):
                spatial = np.zeros((n, n), dtype=np.bool_)
                for (i, j), way in zip(pairs, ways, strict=True):
                    if way == 1:
                        spatial[i, j] = True
                    elif way == 2:
                        spatial[j, i] = True
                try:
                    levels(spatial)
                except GraphError:
                    continue
                yield pool.topology(keep, spatial)


def best_static(world: PlantedWorld) -> tuple[Topology, float]:
    """The one topology that is best for all domains together, and its regret: what no static learner beats.

    Every topology is tried, so the world may have 5 agents at most. Domains are equally likely.
    """
    most = np.mean([world.oracle_utility(d) for d in range(world.domains)])
    best, worth = None, -np.inf
    for topology in all_topologies(world.pool):
        mean = float(np.mean([world.expected_utility(d, topology) for d in range(world.domains)]))
        if mean > worth:
            best, worth = topology, mean
    assert best is not None
    return best, float(most - worth)


# ----------------------------------------------------------------------------------- helpers


def _orthonormal(rng: np.random.Generator, count: int, dimensions: int) -> FloatArray:
    basis, _ = np.linalg.qr(rng.normal(size=(dimensions, count)))
    rows: FloatArray = basis.T.copy()
    rows.flags.writeable = False
    return rows


def _uniforms(text: str) -> tuple[float, float]:
    """Two numbers in [0, 1) that follow from a text, on every machine."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8]) / 2**64, int.from_bytes(digest[8:]) / 2**64


def _f1(ours: Set[object], theirs: Set[object]) -> float:
    """2 |both| / (|ours| + |theirs|); 1 where both are empty."""
    if not ours and not theirs:
        return 1.0
    return 2 * len(ours & theirs) / (len(ours) + len(theirs))


def _among(edges: frozenset[EdgeKey]) -> frozenset[EdgeKey]:
    """The spatial edges between agents of the pool."""
    return frozenset(e for e in edges if e.reader != JUDGE and e.kind == "spatial")


def _padded(text: str, words: int) -> str:
    return text + " so" * (words - count_words(text))


def _parse_message(text: str) -> tuple[int, set[int], set[int]]:
    """Author, facts and agents that a message came from or through."""
    author = int(text[3 : text.index(" ")])
    facts = {int(k) for k in re.findall(r"FACT:(\d+)", text)}
    start = text.index("VIA_") + 4
    end = text.find(" ", start)
    return author, facts, set(map(int, text[start : end if end > 0 else None].split("_")))


def _parse_answer(text: str) -> tuple[int | None, int, int]:
    """Facts (``None`` without a solver), misleaders through edges and in the inbox."""
    found = re.match(r"FACTS:(none|\d+) MISLED:(\d+):(\d+)", text)
    if found is None:
        raise TaskError(f"{text[:60]!r} is no answer of a planted judge")
    return None if found[1] == "none" else int(found[1]), int(found[2]), int(found[3])
