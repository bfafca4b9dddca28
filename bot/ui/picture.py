"""The message around a picture: title, image with its description, caption."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Protocol

import discord

from bot.ui.code import code_button
from bot.ui.continuation import ACCENT
from bot.ui.limits import ALT_TEXT_CHARACTERS, GALLERY_ALT_TEXT_CHARACTERS, LAYOUT_CHARACTERS, clip, fit
from bot.ui.literal import literal
from bot.ui.prompts import Prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.text import Text, Translate
    from bot.ui.buttons import Action


class Drawn(Protocol):
    """What a message needs of a picture (`bot.figures.Picture` has it)."""

    @property
    def png(self) -> bytes:
        """The image."""
        ...

    @property
    def filename(self) -> str:
        """What the file is called."""
        ...

    @property
    def alt(self) -> Text:
        """What it shows, for those who cannot see it."""
        ...

    @property
    def caption(self) -> Sequence[Text]:
        """What it shows, for those who can."""
        ...


class PictureLayout(discord.ui.LayoutView):
    """A picture with its caption below, and a button that shows the program behind it if there is one.

    Attributes:
        files: What has to be sent with the message.
    """

    def __init__(
        self,
        picture: Drawn,
        notes: Sequence[Text],
        translate: Translate,
        code: Action | None = None,
        prompts: Sequence[str] = (),
    ) -> None:
        """Lay out a picture, below the prompts that it is about if it is about any: one, or two that it compares."""
        super().__init__(timeout=None)
        words = Prompts(prompts, translate)
        self.files = [_picture_file(picture, translate), *words.files]
        caption = "\n".join(text.in_language(translate) for text in (*picture.caption, *notes))
        container: discord.ui.Container[PictureLayout] = discord.ui.Container(accent_colour=ACCENT)
        for display in words.displays():
            container.add_item(display)
        container.add_item(
            discord.ui.MediaGallery(
                discord.MediaGalleryItem(
                    f"attachment://{picture.filename}",
                    description=clip(picture.alt.in_language(translate), GALLERY_ALT_TEXT_CHARACTERS),
                )
            )
        )
        room = LAYOUT_CHARACTERS - words.length
        container.add_item(discord.ui.TextDisplay(fit(caption, room, _small_after_the_first_line)))
        for link in words.file_links():
            container.add_item(link)
        self.add_item(container)
        if code:
            self.add_item(discord.ui.ActionRow(code_button(code, translate)))


def _picture_file(picture: Drawn, translate: Translate) -> discord.File:
    """The image as an attachment, described at Discord's full length."""
    return discord.File(
        io.BytesIO(picture.png),
        filename=picture.filename,
        description=clip(picture.alt.in_language(translate), ALT_TEXT_CHARACTERS),
    )


def _small_after_the_first_line(text: str) -> str:
    """What is shown, at full size; what else there is to know, in Discord's small print."""
    first, *rest = literal(text).split("\n")
    return "\n".join([first, *(f"-# {line}" for line in rest)])
