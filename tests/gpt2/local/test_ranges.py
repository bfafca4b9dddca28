"""Ranges of numbers are taken and given back without loss."""

from __future__ import annotations

import random

from bot.gpt2.local.ranges import Ranges


def test_the_first_range_that_is_long_enough_is_taken() -> None:
    ranges = Ranges(range(10, 20))
    first, second = ranges.take(4), ranges.take(3)
    assert (first, second) == (range(10, 14), range(14, 17))
    assert ranges.longest == 3
    assert ranges.take(4) is None
    ranges.give_back(first)
    assert ranges.take(3) == range(10, 13)
    assert ranges.take(3) == range(17, 20)
    assert ranges.longest == 1


def test_neighbours_grow_together_in_any_order() -> None:
    dice = random.Random(0)
    ranges = Ranges(range(1000))
    taken: list[range] = []
    for _ in range(500):
        if taken and dice.random() < 0.5:
            ranges.give_back(taken.pop(dice.randrange(len(taken))))
        elif (given := ranges.take(dice.randint(1, 60))) is not None:
            taken.append(given)
        numbers = [number for each in taken for number in each]
        assert len(numbers) == len(set(numbers))
    for each in taken:
        ranges.give_back(each)
    assert ranges.longest == 1000
    assert ranges.take(1000) == range(1000)
    assert ranges.longest == 0
