"""`python -m bot setup` on a terminal of its own, and without one."""

from __future__ import annotations

import io
import os
import select
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from bot import config
from bot.cli import setup
from bot.cli.setup import Answers
from bot.errors import ExitCode, SettingsError
from tests.command_line import ROOT, TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BEFORE: Final = f"# mine\nexport DISCORD_TOKEN={TOKEN}\nLOG_LEVEL=DEBUG\nDISCORD_TOKEN={TOKEN}\n#GPT2_MODEL=gpt2"
OTHER: Final = TOKEN.replace("GaBcDe", "HaBcDe")


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExitCode]:
    """Return a function that runs setup without a terminal, with the given settings and the model's check left out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "check", lambda _: ExitCode.OK)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return lambda **settings: setup.setup(Answers(token_stdin=False, settings=settings))


class TestFile:
    def test_only_the_given_lines_change(self, given: Callable[..., ExitCode], tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(BEFORE)
        assert given(DISCORD_TOKEN=OTHER, GPT2_MODEL="C:\\new\\tiny # 1", GPT2_CACHE="/a b/o'neil") is ExitCode.OK
        assert (tmp_path / ".env").read_text() == (
            f"# mine\nDISCORD_TOKEN={OTHER}\nLOG_LEVEL=DEBUG\n#GPT2_MODEL=gpt2\n"
            "GPT2_MODEL='C:\\new\\tiny # 1'\nGPT2_CACHE=/a b/o'neil\n"
        )
        values = config.environment(tmp_path / ".env")
        assert (values["GPT2_MODEL"], values["GPT2_CACHE"]) == ("C:\\new\\tiny # 1", "/a b/o'neil")

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a file's mode")
    def test_only_its_owner_can_read_it(self, given: Callable[..., ExitCode], tmp_path: Path) -> None:
        (tmp_path / "real.env").write_text(BEFORE)
        (tmp_path / "real.env").chmod(0o644)
        (tmp_path / ".env").symlink_to("real.env")
        assert given(GPT2_MODEL="distilgpt2") is ExitCode.OK
        assert (tmp_path / ".env").is_symlink()
        assert stat.S_IMODE((tmp_path / "real.env").stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        "wrong", [{"DISCORD_TOKEN": "abc"}, {"JOURNAL": "~nobody-of-this-name/x"}, {"GPT2_MODEL": "a'b # \"c'"}]
    )
    def test_what_cannot_be_used_changes_nothing(
        self, given: Callable[..., ExitCode], tmp_path: Path, wrong: dict[str, str]
    ) -> None:
        (tmp_path / ".env").write_text(BEFORE)
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            given(**wrong)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {".env": BEFORE}

    def test_without_a_token_it_names_what_is_missing(self, given: Callable[..., ExitCode], tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="DISCORD_TOKEN is missing"):
            given(GPT2_MODEL="gpt2")
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
class TestTerminal:
    def start(self, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
        """Start setup as the foreground process of a new terminal; return it and the terminal's other end."""
        import pty  # noqa: PLC0415 # not on Windows

        here, there = pty.openpty()
        program = (
            "import fcntl, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever started the tests may ignore it
            "from bot.__main__ import main; sys.exit(main(['setup']))"
        )
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)}
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=folder,
            env=environment,
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
        )
        os.close(there)
        return process, here

    def until(self, terminal: int, words: str) -> str:
        """Return what the terminal shows, up to and including these words."""
        shown = ""
        while words not in shown:
            ready, _, _ = select.select([terminal], [], [], 60)
            assert ready, shown
            try:
                shown += os.read(terminal, 4096).decode()
            except OSError:  # the process has ended
                pytest.fail(f"{words!r} is not in {shown!r}")
        return shown

    def test_questions_answers_and_invitation(self, tmp_path: Path, tiny_model: Path) -> None:
        process, terminal = self.start(tmp_path)
        shown = self.until(terminal, "Token (hidden): ")
        os.write(terminal, b"abc\n")
        shown += self.until(terminal, "Token (hidden): ")
        assert "does not look like a bot token" in shown
        os.write(terminal, f"{TOKEN}\n".encode())
        shown += self.until(terminal, "[gpt2]: ")
        os.write(terminal, f"{tiny_model}\n".encode())
        shown += self.until(terminal, "[Hugging Face's own]: ")
        os.write(terminal, b"models\n")
        shown += self.until(terminal, "[data/journal.sqlite3]: ")
        os.write(terminal, b"\n")
        shown += self.until(terminal, "Start it with `python -m bot run`.")
        assert process.wait(10) == ExitCode.OK
        assert "model     ok" in shown
        assert "Add the bot to a server: https://discord.com/oauth2/authorize?client_id=" in shown
        assert TOKEN not in shown
        written = (tmp_path / ".env").read_text().splitlines()[1:]
        assert written == [f"DISCORD_TOKEN={TOKEN}", f"GPT2_MODEL={tiny_model}", "GPT2_CACHE=models"]

    def test_ctrl_c_changes_nothing(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(BEFORE)
        process, terminal = self.start(tmp_path)
        self.until(terminal, "Enter to keep the present one): ")
        os.write(terminal, b"\n")
        self.until(terminal, "[gpt2]: ")
        os.write(terminal, b"\x03")
        self.until(terminal, "Nothing was changed.")
        assert process.wait(10) == ExitCode.OK
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {".env": BEFORE}
