"""An upper bound on what deciding by a token's Datalog may cost, before any of it is evaluated.

Whoever holds a token may append a block with any Datalog, and the library looks at its time limit only *between* queries: one
check that joins four predicates of 500 facts each holds the process, and Python's lock with it, for hours. Hence a token whose
bound is above :data:`MAX_DECISION_US` is refused unevaluated.

The model is the library's evaluation (nested loops without an index, a regular expression compiled at every match), with
constants measured to be above what it takes; the tests hold it against the clock.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf, prod
from typing import Final

from pf_stream.security._block import COLLECTIONS, Block, Closure, Op, Predicate, Query, Term, TermKind
from pf_stream.security.profile import during_texts

__all__ = ["MAX_DECISION_US", "USUAL_REQUESTS", "decision_cost_us"]

MAX_DECISION_US: Final = 5000.0
"""The most that a decision may cost by this model, in microseconds. An everyday open token is at some 100."""

USUAL_REQUESTS: Final = 16
"""Most operations, of those that imply the required one, for which a bound is computed when a token is verified."""

_TEXT_US: Final = 0.5
"""What finding out whether a time holds may take, per character of its text."""

# Operators of schema.proto's OpBinary that cost more than a step.
_CONTAINS: Final = 5
_SUFFIX: Final = 7
_REGEX: Final = 8
_ADD: Final = 9

_repetition: Final = re.compile(r"\{(\d*),?(\d*)\}")
_unicode_class: Final = re.compile(r"\\[A-Za-z]")


def decision_cost_us(blocks: Sequence[Block], requests: int = USUAL_REQUESTS) -> float:
    """The bound for a token of these *blocks* and a decision about that many operations, in microseconds.

    Infinite for rules that feed each other in a circle.
    """
    texts = during_texts(blocks)
    declared = Counter({"time": 1, "intent_type": 1, "topic": 1, "during": len(texts)})
    rules: list[Query] = []
    queries: list[Query] = []
    for block in blocks:
        declared.update(fact.name for fact in block.facts)
        rules += block.rules
        queries += (query for check in block.checks for query in check.queries)
    facts = _Facts(declared, requests)
    # Each round of rules derives at most what the round before let them; without a circle, as many rounds as there are
    # rules reach the end.
    for _ in range(len(rules) + 1):
        reached = Counter(declared)
        for rule in rules:
            reached[rule.head.name] += facts.matches(rule)
        if reached == facts.counts:
            break
        facts = _Facts(reached, requests)
        if facts.total > MAX_DECISION_US:
            return inf
    else:
        return inf
    items = sum(_items(term) for term in _terms(blocks) if term.kind in COLLECTIONS)
    rounds = len(rules) + 2
    asked = sum(facts.query_us(query, items) for query in queries)
    derived = rounds * sum(facts.query_us(rule, items) for rule in rules)
    return asked + derived + _TEXT_US * sum(map(len, texts))


class _Facts:
    """How many facts of each name there are at most, and what a query over them may take."""

    __slots__ = ("_requests", "counts", "total")

    def __init__(self, counts: Counter[str], requests: int) -> None:
        self.counts = counts
        self._requests = requests
        self.total = counts.total() + requests

    def matches(self, query: Query) -> int:
        """The most combinations of facts that *query* may try."""
        # Cut off, because what a float cannot hold is no bound but an error.
        return min(prod(max(1, self._count(predicate)) for predicate in query.body), 10**12)

    def query_us(self, query: Query, items: int) -> float:
        width = len(query.body)
        each = 0.5 + 0.05 * width * width + 0.002 * self.total + sum(_ops_us(ops, items) for ops in query.expressions)
        return 10 + self.matches(query) * each

    def _count(self, predicate: Predicate) -> int:
        count = self.counts[predicate.name]
        if predicate.name == "request":
            # The verifier's: one per operation, so a constant operation picks one of them.
            constant = predicate.terms and predicate.terms[0].kind == TermKind.STRING
            count += 1 if constant else self._requests
        return count


def _ops_us(ops: Sequence[Op], items: int) -> float:
    cost = 0.0
    additions = 0
    before: Op | None = None
    for op in ops:
        value = op.value
        if isinstance(value, Closure):
            # Called once per element of a collection; a union has at most the elements of all collections together.
            cost += (1 + items) * (1 + _ops_us(value.ops, items))
        elif op.kind == 3 and value == _REGEX:
            cost += _pattern_us(before)
        elif op.kind == 3 and value == _ADD:
            additions += 1
        elif op.kind == 3 and isinstance(value, int) and _CONTAINS <= value <= _SUFFIX:
            cost += 10 + 0.1 * items
        else:
            cost += 0.5 + 0.05 * items
        before = op
    # Each sum of strings copies what the ones before have built up, from a token's 6 KiB at most.
    return cost + 5 * additions * additions


def _pattern_us(pattern: Op | None) -> float:
    if pattern is None or not isinstance(pattern.value, Term) or pattern.value.kind != TermKind.STRING:
        return inf  # computed, or out of a fact: it could be any
    text: str = pattern.value.value
    cost = 50 + 1.5 * len(text) + 300 * len(_unicode_class.findall(text))
    for least, most in _repetition.findall(text):
        # As if each repetition were inside all the others.
        cost *= 1 + max(int(least[:6] or 1), int(most[:6] or 1))
    return cost


def _terms(blocks: Iterable[Block]) -> Iterable[Term]:
    for block in blocks:
        for fact in block.facts:
            yield from fact.terms
        for query in (*block.rules, *(query for check in block.checks for query in check.queries)):
            for predicate in query.body:
                yield from predicate.terms
            for ops in query.expressions:
                yield from _op_terms(ops)


def _op_terms(ops: Sequence[Op]) -> Iterable[Term]:
    for op in ops:
        if isinstance(op.value, Term):
            yield op.value
        elif isinstance(op.value, Closure):
            yield from _op_terms(op.value.ops)


def _items(term: Term) -> int:
    if term.kind in COLLECTIONS:
        inner: tuple[Term, ...] = term.value
        return len(inner) + sum(_items(one) for one in inner)
    return 0
