"""The message that shows a picture: prompts, image with alt text, caption, and the controls below it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Protocol

import discord

from bot.text import say
from bot.ui.code import code_button
from bot.ui.continuation import ACCENT
from bot.ui.limits import (
    ALT_TEXT_CHARACTERS,
    BUTTONS,
    GALLERY_ALT_TEXT_CHARACTERS,
    LAYOUT_CHARACTERS,
    clip,
    fit,
    length,
)
from bot.ui.literal import literal
from bot.ui.moves import Controls
from bot.ui.prompts import Prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.text import Text, Translate
    from bot.ui.buttons import Action


class RenderedPicture(Protocol):
    """The parts of a picture that a message needs; `bot.figures.Picture` has them."""

    @property
    def file(self) -> bytes:
        """The image as a file: a PNG, or an animated GIF."""
        ...

    @property
    def filename(self) -> str:
        """The name of the file."""
        ...

    @property
    def alt(self) -> Text:
        """The description for readers who cannot see it."""
        ...

    @property
    def caption(self) -> Sequence[Text]:
        """The lines below the picture."""
        ...


class PictureLayout(discord.ui.LayoutView):
    """A picture below its prompts, with a caption, notes, menus and buttons.

    Args:
        picture: The picture.
        notes: More lines for the caption.
        translate: Translates into the reader's language.
        code: The action of the button that shows the program behind the picture.
        prompts: The prompts above the picture.
        controls: The menus and buttons that lead to other pictures.
        texts: Markdown of more texts, between the picture and its caption.
        blurred: Whether all is hidden until clicked, because the text may be offensive.

    Attributes:
        files: The files to send with the message.
    """

    def __init__(
        self,
        picture: RenderedPicture,
        notes: Sequence[Text],
        translate: Translate,
        code: Action | None = None,
        prompts: Prompts | None = None,
        controls: Controls | None = None,
        *,
        texts: Sequence[str] = (),
        blurred: bool = False,
    ) -> None:
        super().__init__(timeout=None)
        shown, controls = prompts or Prompts((), translate), controls or Controls(translate)
        self.files = [_picture_file(picture, translate), *shown.files]
        caption = "\n".join(text.in_language(translate) for text in (*picture.caption, *notes))
        container: discord.ui.Container[PictureLayout] = discord.ui.Container(accent_colour=ACCENT, spoiler=blurred)
        for display in shown.displays():
            container.add_item(display)
        container.add_item(
            discord.ui.MediaGallery(
                discord.MediaGalleryItem(
                    f"attachment://{picture.filename}",
                    description=clip(picture.alt.in_language(translate), GALLERY_ALT_TEXT_CHARACTERS),
                )
            )
        )
        for markdown in texts:
            container.add_item(discord.ui.TextDisplay(markdown))
        room = LAYOUT_CHARACTERS - shown.length - sum(map(length, texts))
        container.add_item(discord.ui.TextDisplay(fit(caption, room, _with_small_print)))
        for link in shown.file_links():
            container.add_item(link)
        self.add_item(container)
        for row in controls.menus:
            self.add_item(row)
        buttons = [*controls.buttons, *([code_button(code, translate)] if code else [])]
        for start in range(0, len(buttons), BUTTONS):
            self.add_item(discord.ui.ActionRow(*buttons[start : start + BUTTONS]))


class DrawingLayout(discord.ui.LayoutView):
    """What stands in the message while its picture is being drawn; of an animation, if no other text is given."""

    def __init__(self, translate: Translate, text: Text | None = None) -> None:
        super().__init__(timeout=None)
        shown = text or say("Drawing the animation; this takes a few seconds.")
        self.add_item(discord.ui.TextDisplay(f"-# {shown.in_language(translate)}"))


def _picture_file(picture: RenderedPicture, translate: Translate) -> discord.File:
    """Return the image as an attachment, whose description may be longer than a gallery's."""
    return discord.File(
        io.BytesIO(picture.file),
        filename=picture.filename,
        description=clip(picture.alt.in_language(translate), ALT_TEXT_CHARACTERS),
    )


def _with_small_print(text: str) -> str:
    """Escape a caption, and set all but its first line in Discord's small print."""
    first, *rest = literal(text).split("\n")
    return "\n".join([first, *(f"-# {line}" for line in rest)])
