from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from bot.figures import Picture, Renderer
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable, Iterator


def picture(size: int = 10) -> Picture:
    return Picture(bytes(size), say("alt"), (), "picture.png")


class Drawing:
    """A `draw` that counts its calls, notes its threads, and waits until it may go on."""

    def __init__(self, size: int = 10, *, held: bool = False, fault: Exception | None = None) -> None:
        self.calls = 0
        self.threads = set()
        self.size, self.fault = size, fault
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        if not held:
            self.may_go_on.set()

    def __call__(self) -> Picture:
        self.calls += 1
        self.threads.add(threading.get_ident())
        self.begun.set()
        assert self.may_go_on.wait(10)
        if self.fault:
            raise self.fault
        return picture(self.size)


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(cache_bytes=100)
    yield renderer
    renderer.close()


async def kept(renderer: Renderer, key: Hashable, draw: Drawing) -> Picture:
    return await renderer.cached(key, lambda: renderer.render(draw))


async def begun(drawing: Drawing) -> None:
    await asyncio.get_running_loop().run_in_executor(None, drawing.begun.wait, 10)


def in_steps(steps: int, log: list[str], name: str = "steps") -> Generator[None, None, Picture]:
    for step in range(steps):
        log.append(f"{name} {step}")
        yield
    return picture()


async def test_others_draw_between_the_steps_of_a_long_drawing(renderer: Renderer) -> None:
    log: list[str] = []
    ours = await asyncio.gather(*(renderer.render(lambda name=name: in_steps(3, log, name)) for name in "ab"))
    assert ours == [picture(), picture()]
    assert log == ["a 0", "b 0", "a 1", "b 1", "a 2", "b 2"]


async def test_a_cancelled_drawing_ends_after_its_step(renderer: Renderer) -> None:
    log: list[str] = []
    first = Drawing()

    def draw() -> Generator[None, None, Picture]:
        first()
        return in_steps(100_000, log)

    task = asyncio.create_task(renderer.render(draw))
    await begun(first)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await renderer.render(Drawing())  # behind all that is left
    drawn = len(log)
    await renderer.render(Drawing())
    assert len(log) == drawn < 100_000


async def test_drawing_happens_on_one_other_thread(renderer: Renderer) -> None:
    first, second = Drawing(), Drawing()
    await asyncio.gather(renderer.render(first), renderer.render(second))
    assert first.threads == second.threads
    assert threading.get_ident() not in first.threads


async def test_without_a_key_nothing_is_kept(renderer: Renderer) -> None:
    draw = Drawing()
    await renderer.render(draw)
    await renderer.render(draw)
    assert draw.calls == 2


async def test_with_a_key_it_is_drawn_once(renderer: Renderer) -> None:
    draw = Drawing()
    pictures = await asyncio.gather(*(kept(renderer, "wpe", draw) for _ in range(5)))
    pictures.append(await kept(renderer, "wpe", draw))
    assert draw.calls == 1
    assert len(set(map(id, pictures))) == 1


async def test_keys_are_told_apart(renderer: Renderer) -> None:
    draw = Drawing()
    await kept(renderer, ("wpe", "clear"), draw)
    await kept(renderer, ("wpe", "article"), draw)
    assert draw.calls == 2


async def test_the_picture_not_asked_for_longest_goes_first(renderer: Renderer) -> None:
    draws = {key: Drawing(40) for key in "abc"}
    for key in "abac":  # c is one too many, b was asked for longest ago
        await kept(renderer, key, draws[key])
    for key in "acb":
        await kept(renderer, key, draws[key])
    assert [draws[key].calls for key in "abc"] == [1, 2, 1]


async def test_a_picture_larger_than_the_memory_is_drawn_but_not_kept(renderer: Renderer) -> None:
    small, large = Drawing(50), Drawing(101)
    await kept(renderer, "small", small)
    for _ in range(2):
        await kept(renderer, "large", large)
    await kept(renderer, "small", small)
    assert (small.calls, large.calls) == (1, 2)


async def test_a_fault_reaches_everyone_who_waits_and_is_not_kept(renderer: Renderer) -> None:
    bad, good = Drawing(fault=ZeroDivisionError("no")), Drawing()
    faults = await asyncio.gather(*(kept(renderer, "k", bad) for _ in range(3)), return_exceptions=True)
    assert bad.calls == 1
    assert all(isinstance(fault, ZeroDivisionError) for fault in faults)
    await kept(renderer, "k", good)
    assert good.calls == 1


async def test_cancelling_one_who_waits_leaves_the_others_their_picture(renderer: Renderer) -> None:
    draw = Drawing(held=True)
    leaving, staying = (asyncio.create_task(kept(renderer, "k", draw)) for _ in range(2))
    await begun(draw)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    draw.may_go_on.set()
    assert (await staying).filename == "picture.png"
    assert draw.calls == 1


async def test_a_drawing_that_everyone_left_is_still_kept(renderer: Renderer) -> None:
    draw = Drawing(held=True)
    leaving = asyncio.create_task(kept(renderer, "k", draw))
    await begun(draw)
    leaving.cancel()
    draw.may_go_on.set()
    await kept(renderer, "k", draw)
    assert draw.calls == 1


async def test_a_fault_that_nobody_waits_for_is_forgotten(renderer: Renderer) -> None:
    draw = Drawing(held=True, fault=ZeroDivisionError("no"))
    leaving = asyncio.create_task(kept(renderer, "k", draw))
    await begun(draw)
    leaving.cancel()
    draw.may_go_on.set()
    good = Drawing()
    await asyncio.wait(renderer._making.values())
    await kept(renderer, "k", good)
    assert good.calls == 1


async def test_warming_up_draws() -> None:
    renderer = Renderer()
    await renderer.warm()
    renderer.close()


async def test_a_closed_renderer_has_no_thread_and_refuses() -> None:
    renderer = Renderer()
    await renderer.render(Drawing())
    renderer.close()
    assert not any(thread.name.startswith(("figures", "disk cache")) for thread in threading.enumerate())
    with pytest.raises(RuntimeError):
        await renderer.render(Drawing())
