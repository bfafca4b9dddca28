"""Several models in one bot: their names checked, their engines made, and one thread for all of their passes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from bot.errors import ModelInvalidError, SettingsError, UnreachableError
from bot.gpt2.lazy_engine import Source
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.local.footprint import footprint
from bot.gpt2.local.worker import SharedWorker
from bot.gpt2.model import files
from bot.gpt2.models import Models

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Iterator, Mapping

    from bot.config import Settings

MAX_NAME_CHARACTERS: Final = 100  # of a choice in Discord


@contextlib.asynccontextmanager
async def build_several(settings: Settings) -> AsyncIterator[Models]:
    """Yield several models, none of them loaded, and release all of them afterwards.

    Raises:
        ModelInvalidError: One of them is a folder without a model.
        SettingsError: People could not tell two of them apart.
    """
    names = shown_names(settings)
    for name in names.values():
        with worded_for_several():
            files.present(name)
    shared = SharedWorker()
    (first, default), *others = names.items()

    def make(name: str) -> LocalEngine:
        return make_engine(settings, name, shared)

    engine = make(default)
    models = Models(
        engine,
        first,
        [Source(shown, partial(make, name), partial(measure, settings, name)) for shown, name in others],
        budget=settings.gpt2_models_memory,
        measure=partial(measure, settings, default),
    )
    try:
        yield models
    finally:
        await models.close()
        await engine.close()
        await asyncio.to_thread(shared.close)


@contextlib.contextmanager
def worded_for_several() -> Iterator[None]:
    """Name GPT2_MODELS in the errors of a model, which otherwise speak of GPT2_MODEL."""
    try:
        yield
    except (ModelInvalidError, UnreachableError) as error:
        raise type(error)(re.sub(r"\bGPT2_MODEL\b", "GPT2_MODELS", str(error))) from error


def shown_names(settings: Settings) -> Mapping[str, str]:
    """Return the names of the models by those under which people know them, the default one first.

    Raises:
        SettingsError: Two have the same name, or one does not fit into Discord's list of choices.
    """
    shown = {name: files.shown_name(name) for name in settings.models}
    repeated = [name for name, count in Counter(map(str.casefold, shown.values())).items() if count > 1]
    faults = [
        f"GPT2_MODELS has two models that people would know as {name!r}: rename the folder of one." for name in repeated
    ]
    faults += [
        f"GPT2_MODELS has a name of more than {MAX_NAME_CHARACTERS} characters, {name!r}: rename the folder."
        for name in shown.values()
        if len(name) > MAX_NAME_CHARACTERS
    ]
    if faults:
        raise SettingsError(faults)
    return {name: origin for origin, name in shown.items()}


def make_engine(settings: Settings, name: str, shared: SharedWorker | None = None) -> LocalEngine:
    """Return the engine of one model, not started."""
    return LocalEngine(
        name,
        device=settings.gpt2_device,
        precision=settings.gpt2_precision,
        threads=settings.gpt2_threads,
        cache=settings.gpt2_cache,
        draft=settings.gpt2_draft,
        shared=shared,
    )


def measure(settings: Settings, name: str, stopped: threading.Event | None = None) -> int:
    """Estimate the bytes of one model in memory; the event ends a download."""
    with worded_for_several():
        return footprint(
            name,
            precision=settings.gpt2_precision,
            draft=settings.gpt2_draft,
            cache=settings.gpt2_cache,
            stopped=stopped,
        )
