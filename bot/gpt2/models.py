"""Several models in one bot: the default one, which stays loaded, and others that are loaded when asked for.

Each other model is a `LazyEngine`, which implements the `Engine` protocol: every call holds a lease on the loaded
model until it has ended, and `ModelMemory` drops a model only while there is no lease on it. All of this happens on
one event loop, and nothing is awaited between looking at the leases and dropping the model.
"""

from __future__ import annotations

import asyncio
import difflib
import threading
from typing import TYPE_CHECKING, Final

import structlog

from bot.errors import InvalidInputError, OperatorError, UnavailableError
from bot.gpt2 import refusals
from bot.gpt2.lazy_engine import LazyEngine
from bot.gpt2.model_info import name_checksum
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bot.gpt2.engine import Engine
    from bot.gpt2.lazy_engine import Source

GIVE_WAY_SECONDS: Final = 120.0
"""How long a model that is asked for waits for the others' running work, where memory has no room for both."""

log = structlog.get_logger(__name__)


class Models:
    """The models of one bot by the names under which people know them.

    Args:
        default: The engine that answers where no model is named; its owner starts and closes it.
        name: Its model's name; needed only beside others.
        others: The other models.
        budget: The bytes that all models may take together; 0 for any number.
        measure: Estimates the bytes of the default model.
    """

    def __init__(
        self,
        default: Engine,
        name: str = "",
        others: Sequence[Source] = (),
        *,
        budget: int = 0,
        measure: Callable[[threading.Event], int] = lambda _: 0,
    ) -> None:
        self.default = default
        memory = ModelMemory(budget, measure)
        self._others = tuple(LazyEngine(source, memory) for source in others)
        memory.engines = self._others
        self._memory = memory
        self.engines: Mapping[str, Engine] = {name: default, **{each.model_name: each for each in self._others}}

    @property
    def several(self) -> bool:
        """Return whether there is a choice."""
        return bool(self._others)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all models, the default one first."""
        return tuple(self.engines)

    @property
    def waiting(self) -> int:
        """Continuations accepted and not yet answered, of all models."""
        return sum(engine.waiting for engine in self.engines.values())

    def find(self, name: str) -> str:
        """Return the name of the model that somebody typed.

        Raises:
            InvalidInputError: There is no such model.
        """
        folded = {each.casefold(): each for each in reversed(self.names)}
        typed = name.strip()
        if typed in self.engines:
            return typed
        if typed.casefold() in folded:
            return folded[typed.casefold()]
        nearest = difflib.get_close_matches(typed.casefold(), folded, n=1, cutoff=0.0)
        raise InvalidInputError(
            say(
                "I have no model “{name}”. The nearest name is {nearest}.",
                name=typed,
                nearest=folded[nearest[0]] if nearest else self.names[0],
            )
        )

    def named(self, name: str | None) -> Engine:
        """Return the engine of the model that somebody typed, or the default one.

        Raises:
            InvalidInputError: There is no such model.
        """
        return self.default if name is None else self.engines[self.find(name)]

    def checksum(self, name: str | None) -> int:
        """Return the checksum of the model that somebody typed, as buttons hold it; 0 stands for the default one.

        Raises:
            InvalidInputError: There is no such model.
        """
        return 0 if name is None else name_checksum(self.find(name))

    def of(self, checksum: int) -> Engine:
        """Return the engine of the model that a command chose or a message was made with.

        With a single model it is always that one; whoever has to know compares the checksum with its description.

        Raises:
            InvalidInputError: There are several models, and none has this checksum.
        """
        if not checksum or not self.several:
            return self.default
        for name, engine in self.engines.items():
            if name_checksum(name) == checksum:
                return engine
        raise InvalidInputError(
            say(
                "This was made with a model that I no longer have. I have {models}: ask for it again with one of them.",
                models=", ".join(self.names),
            )
        )

    async def watch(self) -> None:
        """Wait until all models are stopped, or until one of them can never compute again.

        Raises:
            DeviceError: The GPU is lost.
        """
        await asyncio.gather(*(engine.watch() for engine in self.engines.values()))

    def stop(self) -> None:
        """Stop running requests within one token and refuse all others from now on."""
        self._memory.stop()
        for engine in self.engines.values():
            engine.stop()

    async def close(self) -> None:
        """Stop, and release the resources of all models but the default one."""
        self._memory.stop()
        for engine in self._others:
            await engine.close()


class ModelMemory:
    """The memory of all models: one is loaded at a time, after idle ones were dropped where there is a limit.

    Args:
        budget: The bytes that all models may take together; 0 for any number.
        measure: Estimates the bytes of the default model, which is never dropped.

    Attributes:
        engines: The models that can be dropped.
    """

    def __init__(self, budget: int, measure: Callable[[threading.Event], int]) -> None:
        self.engines: Sequence[LazyEngine] = ()
        self._budget = budget
        self._measure = measure
        self._sizes: dict[LazyEngine | None, int] = {}
        self._lock = asyncio.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Refuse to load from now on, and end a download."""
        self._stopped.set()

    async def load(self, engine: LazyEngine) -> None:
        """Make room for a model and load it.

        Raises:
            OperatorError: It cannot be loaded.
            UnavailableError: There is no room for it.
        """
        async with self._lock:
            if engine.ready:  # it was to give way, and no longer has to
                return
            if self._budget:
                await self._make_room(engine)
            if self._stopped.is_set():
                raise UnavailableError(refusals.SHUTTING_DOWN)
            await engine.open()

    async def _make_room(self, engine: LazyEngine) -> None:
        room = self._budget - await self._size(None, self._measure)
        needed = await self._size(engine, engine.source.measure)
        if needed > room:
            log.warning(
                "a model does not fit into GPT2_MODELS_MEMORY beside the default one",
                model=engine.model_name,
                needed_mb=needed // 10**6,
                left_mb=max(room, 0) // 10**6,
            )
            raise UnavailableError(
                say(
                    "{model} needs more memory than my operator gives to models. Choose another one.",
                    model=engine.model_name,
                )
            )
        end = asyncio.get_running_loop().time() + GIVE_WAY_SECONDS
        while needed > room - sum(self._sizes[each] for each in self.engines if each.ready):
            await self._drop_one(engine, end)

    async def _drop_one(self, wanted: LazyEngine, end: float) -> None:
        """Drop the least recently used idle model; without one, the least recently used as soon as it is idle."""
        loaded = sorted((each for each in self.engines if each.ready), key=lambda each: each.last_used)
        victim = next((each for each in loaded if each.idle), loaded[0])
        if not await victim.give_way(max(end - asyncio.get_running_loop().time(), 0.0)):
            raise UnavailableError(
                say(
                    "There is no memory for {model} while other models are busy. Try again in a few minutes.",
                    model=wanted.model_name,
                )
            )
        log.info("dropped an idle model", model=victim.model_name, for_model=wanted.model_name)

    async def _size(self, engine: LazyEngine | None, measure: Callable[[threading.Event], int]) -> int:
        """Return the estimate for a model, None being the default one; the first may take a download."""
        if engine not in self._sizes:
            try:
                self._sizes[engine] = await asyncio.to_thread(measure, self._stopped)
            except OperatorError:
                if engine is not None:
                    raise
                self._sizes[engine] = 0  # the default model ends the bot by itself
        return self._sizes[engine]
