"""`python -m bot setup` on a terminal of its own, and without one."""

from __future__ import annotations

import io
import os
import select
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import pytest

from bot import config
from bot.cli import setup
from bot.cli.setup import Answers
from bot.errors import ExitCode, SettingsError
from tests.command_line import ROOT, TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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

    @pytest.mark.parametrize(
        ("name", "code", "line"),
        [("tiny", ExitCode.OK, "model     ok"), ("none", ExitCode.MODEL_INVALID, "model     error")],
    )
    def test_the_model_is_checked(
        self,
        name: str,
        code: ExitCode,
        line: str,
        tmp_path: Path,
        tiny_model: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        model = {"tiny": tiny_model, "none": tmp_path / "none"}[name]
        settings = {"DISCORD_TOKEN": TOKEN, "GPT2_MODEL": str(model)}
        assert setup.setup(Answers(token_stdin=False, settings=settings)) is code
        assert line in capsys.readouterr().out


class Terminal:
    """Setup as the foreground process of a new terminal, and the terminal's other end."""

    def __init__(self, folder: Path) -> None:
        import pty  # noqa: PLC0415 # not on Windows

        self.end, there = pty.openpty()
        program = (
            "import fcntl, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever started the tests may ignore it
            # Without the model's check, whose libraries take seconds to load: it has a test in this process.
            "from bot.cli import setup; setup.check = lambda settings: 0\n"
            "from bot.__main__ import main; sys.exit(main(['setup']))"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)},
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
        )
        os.close(there)

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def until(self, words: str, again: str = "") -> str:
        """Return what is shown, up to and including these words; every two seconds without them, type `again`."""
        shown = ""
        for _ in range(30):
            self.type(again)
            end = time.monotonic() + 2
            while time.monotonic() < end:
                if select.select([self.end], [], [], 0.1)[0]:
                    shown += os.read(self.end, 4096).decode()
                if words in shown:
                    return shown
        raise AssertionError(shown)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.end)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
class TestTerminal:
    @pytest.fixture
    def terminal(self, tmp_path: Path) -> Iterator[Terminal]:
        (tmp_path / ".env").write_text("LOG_LEVEL=WARNING\n")
        terminal = Terminal(tmp_path)
        yield terminal
        terminal.close()

    def test_questions_answers_and_invitation(self, terminal: Terminal, tmp_path: Path, tiny_model: Path) -> None:
        shown = terminal.until("Token (hidden): ")
        terminal.type("abc\n")
        shown += terminal.until("Token (hidden): ")
        assert "does not look like a bot token" in shown
        terminal.type(f"{TOKEN}\n")
        shown += terminal.until("[gpt2]: ")
        terminal.type(f"{tiny_model}\n")
        shown += terminal.until("[Hugging Face's own]: ")
        terminal.type("models\n")
        shown += terminal.until("[data/journal.sqlite3]: ")
        terminal.type("\n")
        shown += terminal.until("Start it with `python -m bot run`.")
        assert terminal.process.wait(10) == ExitCode.OK
        assert "Add the bot to a server: https://discord.com/oauth2/authorize?client_id=" in shown
        assert TOKEN not in shown
        assert (tmp_path / ".env").read_text().splitlines() == [
            "LOG_LEVEL=WARNING",
            f"DISCORD_TOKEN={TOKEN}",
            f"GPT2_MODEL={tiny_model}",
            "GPT2_CACHE=models",
        ]

    def test_ctrl_c_changes_nothing(self, terminal: Terminal, tmp_path: Path) -> None:
        terminal.until("Token (hidden): ")
        terminal.type(f"{TOKEN}\n")
        terminal.until("[gpt2]: ")
        # One that comes between the question and the reading of its answer is noticed at the next.
        terminal.until("Nothing was changed.", again="\x03")
        assert terminal.process.wait(10) == ExitCode.OK
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {".env": "LOG_LEVEL=WARNING\n"}
