"""The gallery: every picture of a prompt, and a page that shows them."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from bot.cli import gallery as module
from bot.cli.gallery import PAGE, GalleryError, gallery, pieces
from bot.config import Settings
from bot.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = 'The theatre of <b>thoughts</b> " & $x^{$ </pre> \u202eabc \ud800'


class Page(HTMLParser):
    """What stands on the page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def settings(model: Path) -> Settings:
    return Settings(gpt2_model=str(model), gpt2_device="cpu")


async def test_it_shows_every_picture_with_its_words_and_program(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "gallery"
    assert await gallery(settings(tiny_model), PROMPT, folder, second="Another theatre") is ExitCode.OK
    page = Page((folder / PAGE).read_text(encoding="utf-8"))
    pictures = page.all("img")
    assert {str(image["src"]) for image in pictures} == {path.name for path in folder.glob("*.png")}
    assert len(pictures) == 17
    assert f"17 pictures: open {folder / PAGE}" in capsys.readouterr().out
    assert all(len(str(image["alt"])) > 20 for image in pictures)
    assert len(page.all("details")) == len(pictures) + 1, "the samples have a program, too"
    places = {attributes["id"] for attributes in page.all("section")}
    assert {str(link["href"]).removeprefix("#") for link in page.all("a") if str(link["href"])[0] == "#"} == places
    assert "from transformers import pipeline, set_seed" in page.text
    assert PROMPT.replace("\ud800", "\ufffd") in page.text
    assert not page.all("b") or all(not attributes for attributes in page.all("b"))
    assert not page.all("script")
    assert not page.all("link")
    assert "http" not in (folder / PAGE).read_text(encoding="utf-8"), "nothing from elsewhere"


async def test_what_a_prompt_is_too_short_for_is_said(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "pieces", lambda *given: [each for each in pieces(*given) if each.name in {"tokens", "head"}]
    )
    await gallery(settings(tiny_model), "a", tmp_path)
    page = Page((tmp_path / PAGE).read_text(encoding="utf-8"))
    assert "The prompt is a single token" in page.text
    assert not (tmp_path / "head.png").exists()
    assert (tmp_path / "tokens.png").exists()


@pytest.mark.parametrize(("prompt", "fault"), [(" \n", "is empty"), ("word " * 200, "tokens")])
async def test_a_prompt_that_cannot_be_used_is_a_sentence(
    tiny_model: Path, tmp_path: Path, prompt: str, fault: str
) -> None:
    with pytest.raises(GalleryError, match=fault):
        await gallery(settings(tiny_model), prompt, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


async def test_a_place_that_cannot_be_written_is_a_sentence(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "pieces", lambda *given: pieces(*given)[:1])
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(GalleryError, match="cannot be written to"):
        await gallery(settings(tiny_model), "Hello there", tmp_path / "file")
