"""`python -m bot check` and `invite`: what a host wants to know before the bot is started."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Final

from bot import config
from bot.errors import ExitCode, HostError, SettingsError
from bot.ui.information import invitation

if TYPE_CHECKING:
    from bot.config import Secret, Settings
    from bot.gpt2.requests import ModelInfo

CLUSTER_SECONDS: Final = 10.0  # that a cluster may take to say which model it has


def check(settings: Settings) -> ExitCode:
    """Print what was found, one line a thing; the code of the first fault, or OK."""
    print("settings  ok: every value can be used")
    token_code = _check_token(settings.discord_token)
    model_code = _check_model(settings)
    return token_code or model_code


def invite(settings: Settings) -> ExitCode:
    """Print the link that adds the bot to a server.

    Raises:
        SettingsError: There is no token that tells the bot's id.
    """
    link = invite_link(settings.discord_token)
    if link is None:
        raise SettingsError(["DISCORD_TOKEN is missing or not a token; the link is made from the id in it."])
    print(link)
    return ExitCode.OK


def invite_link(token: Secret) -> str | None:
    """The link that adds the bot to a server, or None where the token does not tell the bot's id."""
    application_id = _application_id(token)
    return None if application_id is None else invitation(application_id)


def _application_id(token: Secret) -> int | None:
    """A token's first part is the bot's id in base64; for all but the oldest bots it is the application's, too."""
    first = token.partition(".")[0]
    try:
        decoded = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return int(decoded) if decoded.isdigit() else None


def _check_token(token: Secret) -> ExitCode:
    if not token:
        print("token     missing: `python -m bot demo` works without; to run on Discord set DISCORD_TOKEN in .env")
        return ExitCode.SETTINGS
    fault = config.token_fault(token)
    if fault:
        print(f"token     wrong: {fault}")
        return ExitCode.SETTINGS
    print("token     ok: its form is right (only Discord can say whether it is valid)")
    print(f"invite    {invite_link(token) or 'unknown: the token does not hold the id of a bot'}")
    return ExitCode.OK


def _check_model(settings: Settings) -> ExitCode:
    try:
        info = _of_cluster(settings) if settings.gpt2_engine == "ray" else _of_this_machine(settings)
    except HostError as error:
        print(f"model     wrong: {error}")
        return error.exit_code
    print(
        f"model     ok: {info.name}, {info.layers} layers × {info.heads} heads, {info.parameters:,} parameters, "
        f"on {info.device}"
    )
    if info.missing:
        print(f"          but its file lacks {len(info.missing)} parameters, which are random: its text is noise")
    return ExitCode.OK


def _of_this_machine(settings: Settings) -> ModelInfo:
    from bot.gpt2.model import load  # noqa: PLC0415 # takes seconds; the lines above should be there at once

    loaded = load(
        settings.gpt2_model,
        device=settings.gpt2_device,
        precision=settings.gpt2_precision,
        cache=settings.gpt2_cache,
    )
    return loaded.info


def _of_cluster(settings: Settings) -> ModelInfo:
    from bot.gpt2.cluster import ClusterEngine  # noqa: PLC0415

    async def ask() -> ModelInfo:
        engine = ClusterEngine(settings.gpt2_cluster)
        try:
            await engine.start(patience=CLUSTER_SECONDS)
            return await engine.model()
        finally:
            await engine.close()

    return asyncio.run(ask())
