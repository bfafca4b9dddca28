"""Owners get equal shares, heavy users delay only themselves, and nobody starves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.gpt2.fair_queue import FairQueue

COSTS = st.integers(1, 10)
ITEMS = st.lists(st.tuples(st.sampled_from("abc"), COSTS), max_size=40)


def filled(*owners: str, cost: float = 1) -> FairQueue[tuple[str, int]]:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number, owner in enumerate(owners):
        queue.add((owner, number), owner, cost)
    return queue


def drained(queue: FairQueue[tuple[str, int]]) -> list[tuple[str, int]]:
    order = []
    while queue:
        order.append(queue.ordered()[0])
        queue.take(order[-1])
    return order


def test_one_persons_requests_keep_their_order() -> None:
    assert drained(filled(*"aaaa")) == [("a", 0), ("a", 1), ("a", 2), ("a", 3)]


def test_who_comes_later_with_one_goes_before_the_many_of_another() -> None:
    assert [owner for owner, _ in drained(filled(*"aaaaab"))] == ["a", "b", "a", "a", "a", "a"]


def test_who_was_served_while_alone_owes_no_more_than_the_last_of_it() -> None:
    queue = filled(*"a" * 50)
    drained(queue)
    queue.add(("a", 0), "a", 1)
    for number in range(3):
        queue.add(("b", number), "b", 1)
    assert [owner for owner, _ in drained(queue)] == ["b", "a", "b", "b"]


def test_nobody_can_be_overtaken_for_ever() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    queue.add(("patient", 0), "patient", 10)
    for number in range(100):
        queue.add((f"newcomer {number}", number), f"newcomer {number}", 1)
        first = queue.ordered()[0]
        queue.take(first)
        if first[0] == "patient":
            return
    pytest.fail("a newcomer is always first")


@given(ITEMS)
def test_everyone_is_taken_once(items: list[tuple[str, int]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number, (owner, cost) in enumerate(items):
        queue.add((owner, number), owner, cost)
    assert sorted(number for _, number in drained(queue)) == list(range(len(items)))


@given(st.lists(COSTS, min_size=10, max_size=30), st.lists(COSTS, min_size=10, max_size=30))
def test_while_two_wait_their_shares_differ_by_no_more_than_two_requests(first: list[int], second: list[int]) -> None:
    """The bound of start-time fair queueing: the largest cost of the one plus that of the other."""
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for owner, costs in (("a", first), ("b", second)):
        for cost in costs:
            queue.add((owner, cost), owner, cost)
    left, done = Counter(a=len(first), b=len(second)), Counter(a=0, b=0)
    while left["a"] and left["b"]:
        item = queue.ordered()[0]
        queue.take(item)
        done[item[0]] += item[1]
        left[item[0]] -= 1
        assert abs(done["a"] - done["b"]) <= max(first) + max(second)


def test_equal_items_are_told_apart() -> None:
    one, other = [1], [1]
    queue: FairQueue[list[int]] = FairQueue()
    queue.add(one, "a", 1)
    queue.add(other, "a", 1)
    queue.take(other)
    assert queue.ordered()[0] is one
    with pytest.raises(ValueError, match="cannot be taken"):
        queue.take(other)


def test_memory_of_who_is_gone_is_dropped() -> None:
    queue = filled(*map(str, range(1000)))
    drained(queue)
    queue.add(("last", 0), "last", 1)
    queue.add(("last", 1), "last", 1)
    drained(queue)
    assert len(queue._finish_tags) <= 1


def test_clear_gives_back_who_waited() -> None:
    queue = filled(*"ab")
    assert len(queue.clear()) == 2
    assert not queue
