"""The way of every command, button and form, from its arrival to its release.

`Pipeline.handle` is that way, top to bottom. What happens between the lines of `_dispatch`, a command does by calling
its `Reply`: `checked` admits the request, journals and acknowledges it; `update` shows progress; `give` and `tell`
deliver the answer and settle it. An error raised anywhere ends in `_answer_error`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import discord
import structlog

from bot.errors import DeviceError, UnavailableError
from bot.gpt2 import refusals
from bot.interactions import errors, retry
from bot.interactions.pending import PendingReplies
from bot.interactions.recovery import Recovery
from bot.interactions.reply import Reply, ReplyState
from bot.interactions.request_log import Outcome, RequestLog
from bot.tasks import BackgroundTasks
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bot.interactions.journal import Journal
    from bot.interactions.quotas import Quotas
    from bot.interactions.request_log import LogEntry
    from bot.text import Text
    from bot.ui.locales import Catalogue

log = structlog.get_logger(__name__)


class Pipeline:
    """Takes interactions in and sees each of them answered, logged and released.

    Args:
        dispatch: Runs the command, button or form that an interaction is for.
        catalogue: The languages to answer in.
        journal: Where acknowledged interactions are kept for the next start.
        quotas: What admits requests.

    Attributes:
        request_log: One entry for each request.
        pending: The replies that are owed.
    """

    def __init__(
        self,
        dispatch: Callable[[discord.Interaction], Awaitable[None]],
        catalogue: Catalogue,
        journal: Journal,
        quotas: Quotas,
    ) -> None:
        self.request_log = RequestLog()
        self.pending = PendingReplies(journal)
        self._dispatch = dispatch
        self._catalogue = catalogue
        self._quotas = quotas
        self._shutting_down = False
        self._tasks = BackgroundTasks()

    def receive(
        self, interaction: discord.Interaction, payload: dict[str, Any], fault: Exception | None = None
    ) -> None:
        """Handle an interaction that Discord has just sent, in a task of its own.

        Args:
            interaction: The interaction.
            payload: The same as Discord sent it.
            fault: The error at which discord.py failed to read it; the person who asked hears of it.
        """
        reply = Reply(interaction, payload, self._catalogue, self.pending, self._quotas)
        self._tasks.start(self.handle(reply, fault), "handle an interaction")

    async def handle(self, reply: Reply, fault: Exception | None = None) -> None:
        """Answer one interaction, with an apology if discord.py could not read it."""
        entry = self.request_log.begin(reply.interaction)
        try:
            if self._shutting_down:
                raise UnavailableError(refusals.SHUTTING_DOWN)  # noqa: TRY301 # it is answered as any other refusal
            if fault:
                raise fault  # noqa: TRY301 # as any other error
            await self._dispatch(reply.interaction)
        except Exception as error:  # noqa: BLE001 # the person who asked hears of every error
            await self._answer_error(reply, entry, error)
        except BaseException:
            entry.outcome = Outcome.CANCELLED  # and the journal keeps it for the next start
            raise
        else:
            reply.settle()
        finally:
            self._quotas.release(reply.slot, answered=entry.outcome is Outcome.ANSWERED)
            self.request_log.end(entry)

    def shut_down(self) -> None:
        """Refuse every interaction from now on."""
        self._shutting_down = True

    async def recover(
        self, read: Callable[[Any], tuple[discord.Interaction, Exception | None]], is_mine: Callable[[Any], bool]
    ) -> None:
        """Begin to answer what an earlier process has left owing; see `Recovery`."""
        self._recovery = Recovery(self.pending, self._catalogue, read, self.handle)
        await self._recovery.start(is_mine)

    async def _answer_error(self, reply: Reply, entry: LogEntry, error: Exception) -> None:
        """Tell the person who asked what went wrong, unless it is too late for that."""
        error, interaction_id = errors.cause(error), reply.interaction.id
        if isinstance(error, DeviceError):
            await self._wait_for_shutdown(reply)
            error = UnavailableError(refusals.SHUTTING_DOWN)
        try:
            if retry.already_acknowledged(error):
                entry.outcome = Outcome.EXPIRED  # the adapter has warned of the other process
            elif errors.expired(error):
                entry.outcome = Outcome.EXPIRED
                log.warning("an interaction ended before it could be answered", interaction=interaction_id)
            elif isinstance(error, retry.UnreachableError):
                entry.outcome = Outcome.EXPIRED
                log.warning("Discord could not be told an answer", interaction=interaction_id, error=str(error))
            else:
                text = errors.explanation(error)
                entry.outcome = Outcome.REFUSED if text else Outcome.FAILED
                await reply.refuse(text or _apology(entry, interaction_id, error))
        except (discord.DiscordException, OSError) as failure:
            if not retry.already_acknowledged(failure):
                log.warning("an error could not be shown", interaction=interaction_id, error=str(failure))
        finally:
            reply.settle()

    async def _wait_for_shutdown(self, reply: Reply) -> None:
        """Wait until a reply is left to the next start, where that is possible: the bot ends without its GPU."""
        if reply.state is ReplyState.ACKNOWLEDGED:
            await self.pending.postponed.wait()


def _apology(entry: LogEntry, interaction_id: int, error: Exception) -> Text:
    """Log a fault of the program, and return the sentence with its reference."""
    log.error(
        "a command failed", reference=entry.reference, command=entry.command, interaction=interaction_id, exc_info=error
    )
    return say(
        "Something went wrong on my side. If it happens again, give my operator this reference: {reference}.",
        reference=entry.reference,
    )
