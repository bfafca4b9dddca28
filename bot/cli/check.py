"""`python -m bot check` and `invite`: for the operator, before the bot is started."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import sqlite3
import tempfile
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from bot import config
from bot.errors import ExitCode, OperatorError, SettingsError
from bot.installation import program
from bot.interactions import journal
from bot.interactions.moderation import Moderation
from bot.monitoring import sentry
from bot.ui.information import invitation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bot.config import Secret, Settings
    from bot.gpt2.model_info import ModelInfo

CLUSTER_SECONDS: Final = 10.0  # for a cluster's answer


def check(settings: Settings) -> ExitCode:
    """Print the result of every check, one line each, and return the code of the first fault, or OK.

    Leaves no files behind: the bot may run as another user and could not write to them.
    """
    print("settings  ok: all values are valid")
    codes = [
        _check_token(settings.discord_token),
        _check_journal(settings.journal),
        _check_pictures(settings),
        _check_safety(settings),
        _check_sentry(settings.sentry_dsn),
        _check_models(settings),
    ]
    return next((code for code in codes if code), ExitCode.OK)


def invite(settings: Settings) -> ExitCode:
    """Print the link that adds the bot to a server.

    Raises:
        SettingsError: There is no token with the bot's id.
    """
    link = invite_link(settings.discord_token)
    if link is None:
        raise SettingsError(["DISCORD_TOKEN is missing or not a token; the link needs the id in it."])
    print(link)
    return ExitCode.OK


def invite_link(token: Secret) -> str | None:
    """Return the link that adds the bot to a server, or None if the token does not hold the bot's id."""
    application_id = _application_id(token)
    return None if application_id is None else invitation(application_id)


def _application_id(token: Secret) -> int | None:
    """Return the bot's id, which a token begins with in base64; it is the application's for all but the oldest bots."""
    first = token.partition(".")[0]
    try:
        decoded = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return int(decoded) if decoded.isdigit() else None


def _check_token(token: Secret) -> ExitCode:
    if not token:
        print(f"token     missing: `{program()} demo` needs none; to run on Discord give one to `{program()} setup`")
        return ExitCode.SETTINGS
    fault = config.token_fault(token)
    if fault:
        print(f"token     error: {fault}")
        return ExitCode.SETTINGS
    print("token     ok: well formed (only Discord knows whether it is valid)")
    print(f"invite    {invite_link(token) or 'unknown: the token does not hold a bot id'}")
    return ExitCode.OK


def _check_journal(path: Path | None) -> ExitCode:
    if path is None:
        print("journal   off: requests that wait when the bot is killed get no answer")
        return ExitCode.OK
    damage = None
    try:
        if path.exists():
            damage = journal.examine(path)
        else:
            _try_writing(path.parent)
    except (sqlite3.Error, OSError) as error:
        print(f"journal   error: cannot write {path}: {error}. Set JOURNAL to a file in a writable folder.")
        return ExitCode.SETTINGS
    if damage:
        print(f"journal   damaged: {damage}; the next start sets {path} aside and begins a new one")
    else:
        print(f"journal   ok: {path} is writable")
    return ExitCode.OK


def _check_pictures(settings: Settings) -> ExitCode:
    if not settings.pictures_mb:
        return ExitCode.OK
    from bot.gpt2.model import files  # noqa: PLC0415 # takes a second, and the lines above should appear at once

    folder = files.pictures(settings.gpt2_cache)
    try:
        _try_writing(folder)
    except OSError as error:
        print(f"pictures  error: cannot write to {folder}: {error}. Set GPT2_CACHE, or PICTURES_MB=0.")
        return ExitCode.SETTINGS
    print(f"pictures  ok: up to {settings.pictures_mb} MB in {folder}")
    return ExitCode.OK


def _try_writing(folder: Path) -> None:
    """Write a temporary file into a folder, or into the nearest parent that exists.

    Raises:
        OSError: The folder is not writable.
    """
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())


def _check_safety(settings: Settings) -> ExitCode:
    if settings.safety == "off":
        return ExitCode.OK
    try:
        Moderation(settings.safety).close()
    except OperatorError as error:
        print(f"safety    error: {error}")
        return error.exit_code
    print(f"safety    ok: {settings.safety}, and the classifier is installed")
    return ExitCode.OK


def _check_sentry(dsn: Secret) -> ExitCode:
    if not dsn:
        return ExitCode.OK
    try:
        sentry.validate(dsn)
    except OperatorError as error:
        print(f"sentry    error: {_sentence(error)}")
        return error.exit_code
    print("sentry    ok: SENTRY_DSN is well formed (only Sentry knows whether it is valid)")
    return ExitCode.OK


def _check_models(settings: Settings) -> ExitCode:
    if len(settings.models) == 1:
        return _check_model(partial(_cluster_model if settings.gpt2_engine == "ray" else _local_model, settings))
    from bot.cli import models  # noqa: PLC0415 # takes seconds, and the lines above should appear at once

    try:
        names = models.shown_names(settings)
    except SettingsError as error:
        print(f"model     error: {_sentence(error)}")
        return error.exit_code
    codes = [_check_model(partial(_one_of_several, settings, name)) for name in names.values()]
    return next((code for code in (*codes, _check_memory(settings, names)) if code), ExitCode.OK)


def _check_model(load: Callable[[], ModelInfo]) -> ExitCode:
    try:
        info = load()
    except OperatorError as error:
        print(f"model     error: {_sentence(error)}")
        return error.exit_code
    print(
        f"model     ok: {info.name}, {info.layers} layers × {info.heads} heads, {info.parameters:,} parameters, "
        f"on {info.device}"
    )
    if info.missing:
        print(f"          its files lack {len(info.missing)} parameters, which are random: its text is noise")
    return ExitCode.OK


def _check_memory(settings: Settings, names: Mapping[str, str]) -> ExitCode:
    """Print how much memory the models take together, and whether each fits beside the default one.

    Args:
        settings: The operator's settings.
        names: Those of `bot.cli.models.shown_names`.
    """
    from bot.cli import models  # noqa: PLC0415

    try:
        sizes = {shown: models.measure(settings, name) for shown, name in names.items()}
    except OperatorError:
        return ExitCode.OK  # that model has its own line
    budget, (first, *others) = settings.gpt2_models_memory, sizes
    needed = ", ".join(f"{name} {size / 10**9:.1f} GB" for name, size in sizes.items())
    large = [name for name in others if budget and sizes[first] + sizes[name] > budget]
    if large:
        print(
            f"memory    error: GPT2_MODELS_MEMORY has no room for {', '.join(large)} beside {first}, which stays "
            f"loaded (about {needed})."
        )
        return ExitCode.SETTINGS
    print(f"memory    ok: about {needed}, {'of which what fits is loaded' if budget else 'all loaded once asked for'}")
    return ExitCode.OK


def _sentence(error: OperatorError) -> str:
    """Return an error's message in one line; that of settings begins with a line of its own."""
    return " ".join(error.faults) if isinstance(error, SettingsError) else str(error)


def _local_model(settings: Settings) -> ModelInfo:
    from bot.gpt2.model.loading import load  # noqa: PLC0415 # takes seconds, and the lines above should appear at once

    loaded = load(
        settings.gpt2_model,
        device=settings.gpt2_device,
        precision=settings.gpt2_precision,
        cache=settings.gpt2_cache,
    )
    return loaded.info


def _one_of_several(settings: Settings, name: str) -> ModelInfo:
    from bot.cli.models import worded_for_several  # noqa: PLC0415

    with worded_for_several():
        return _local_model(replace(settings, gpt2_model=name))


def _cluster_model(settings: Settings) -> ModelInfo:
    from bot.gpt2.cluster.engine import ClusterEngine  # noqa: PLC0415

    async def query() -> ModelInfo:
        engine = ClusterEngine(settings.gpt2_cluster)
        try:
            await engine.start(patience=CLUSTER_SECONDS)
            return await engine.model()
        finally:
            await engine.close()

    return asyncio.run(query())
