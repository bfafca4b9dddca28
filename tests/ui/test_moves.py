"""Menus and buttons that lead to pictures: what they hold, and menus of more than fit."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import pytest

from bot.text import say
from bot.ui.buttons import Action, Actions, OutdatedError
from bot.ui.limits import CHOICES
from bot.ui.moves import Controls, Move, Moves, Option, page_of


@dataclass(frozen=True, slots=True)
class Shown(Action):
    """A picture."""

    NAME: ClassVar[str] = "shown"

    number: int
    text: str = ""


def options(controls: Controls) -> list[dict[str, Any]]:
    (row,) = (row.to_component_dict() for row in controls.menus)
    found: list[dict[str, Any]] = row["components"][0]["options"]
    return found


@pytest.mark.parametrize("count", [1, 12, 25, 26, 48, 100])
def test_every_number_is_reached_from_page_to_page(count: int) -> None:
    def label(layer: str) -> Any:
        return say("Layer {layer}", layer=layer)

    reached = {}
    current = 1
    while current not in reached:
        controls = Controls(str)
        controls.numbers(say("Layers"), count, current, label, Shown)
        found = options(controls)
        assert len(found) <= CHOICES
        assert [each["label"] for each in found if each.get("default")] == [f"Layer {current}"]
        reached[current] = [each["value"] for each in found]
        if count > CHOICES and page_of(current, count).stop <= count:
            current = page_of(current, count).stop
            assert found[-1]["label"].startswith(f"Layer {current}–")
    everything = {value for values in reached.values() for value in values}
    assert everything == {Shown(number).custom_id for number in range(1, count + 1)}
    assert all(set(one) & set(other) for one, other in pairwise(reached.values())), "pages lead to each other"


def test_two_options_for_one_picture_are_one() -> None:
    controls = Controls(str)
    controls.menu(say("Heads"), [Option("first", Shown(1)), Option("other", Shown(2)), Option("second", Shown(1))])
    assert [each["label"] for each in options(controls)] == ["first", "other"]


def test_a_menu_without_options_is_left_out() -> None:
    controls = Controls(str)
    controls.menu(say("Heads"), [])
    assert controls.menus == []


def test_buttons_to_one_picture_have_ids_of_their_own() -> None:
    controls = Controls(str)
    for target in (Shown(1), Shown(1), None):
        controls.button(say("Go"), target)
    ids = [each.custom_id for each in controls.buttons]
    assert len(set(ids)) == 3
    assert ids[0] == "move.1:0:shown.1:1:"
    assert [each.item.disabled for each in controls.buttons] == [False, False, True]  # type: ignore[attr-defined]


def test_a_move_holds_its_target_as_it_is() -> None:
    target = Shown(7, "a:b%").custom_id
    move = Move(35, target)
    assert Move.decode("1", move.custom_id.removeprefix("move.1:")) == move


@pytest.mark.parametrize(("version", "encoded"), [("2", "0:x"), ("1", None), ("1", "0"), ("1", "-1:x"), ("1", ":x")])
def test_another_versions_move_is_outdated(version: str, encoded: str | None) -> None:
    with pytest.raises(OutdatedError):
        Move.decode(version, encoded)


class Pressed:
    """As much of an interaction as the registry looks at."""

    def __init__(self, custom_id: str, *values: str) -> None:
        self.data = {"custom_id": custom_id, "values": list(values)}


async def test_buttons_and_menus_lead_to_the_same_handler() -> None:
    actions, shown = Actions(), []

    async def show(_: Any, picture: Shown) -> None:
        shown.append(picture)

    Moves(actions).on(Shown, show)
    await actions.dispatch(Pressed("move.1:3:shown.1:7:"))  # type: ignore[arg-type]
    await actions.dispatch(Pressed("menu.1:0", "shown.1:8:x"))  # type: ignore[arg-type]
    assert shown == [Shown(7), Shown(8, "x")]
    for pressed in (Pressed("menu.1:0"), Pressed("menu.1:0", "menu.1:0"), Pressed("move.1:0:move.1:0:shown.1:7:")):
        with pytest.raises(OutdatedError):
            await actions.dispatch(pressed)  # type: ignore[arg-type]
