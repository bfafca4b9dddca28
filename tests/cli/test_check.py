from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import sqlite3
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
import structlog

from bot.cli.check import check, invite, invite_link
from bot.config import Secret, Settings
from bot.errors import ExitCode, SettingsError
from bot.interactions.journal import Entry, Journal
from tests.command_line import BOT_ID, TOKEN, run_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def lines_of(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the printed lines by their first word."""
    return {
        word: rest.strip() for word, _, rest in (line.partition(" ") for line in capsys.readouterr().out.splitlines())
    }


@pytest.fixture(autouse=True)
def _logs_stay_out_of_the_output() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


class TestCheck:
    def test_valid_settings_pass(self, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings = Settings(discord_token=Secret(TOKEN), gpt2_model=str(tiny_model), gpt2_device="cpu")
        assert check(settings) is ExitCode.OK
        lines = lines_of(capsys)
        assert list(lines) == ["settings", "token", "invite", "journal", "pictures", "model"]
        assert lines["token"].startswith("ok")
        assert str(BOT_ID) in lines["invite"]
        assert "3 layers × 4 heads" in lines["model"]
        assert "on cpu" in lines["model"]

    def test_each_of_several_models_is_checked(
        self, tiny_model: Path, other_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = (str(tiny_model), str(other_model), "./nowhere")
        settings = Settings(
            discord_token=Secret(TOKEN), gpt2_model=names[0], gpt2_models=names[:2], gpt2_device="cpu", pictures_mb=0
        )
        assert check(settings) is ExitCode.OK
        shown = capsys.readouterr().out
        assert "model     ok: tiny-gpt2, 3 layers" in shown
        assert "model     ok: other-gpt2, 2 layers" in shown
        assert "memory    ok: about tiny-gpt2 0.0 GB, other-gpt2 0.0 GB" in shown
        assert check(replace(settings, gpt2_models_memory=1000)) is ExitCode.SETTINGS
        assert "no room for other-gpt2 beside tiny-gpt2" in capsys.readouterr().out
        assert check(replace(settings, gpt2_models=names)) is ExitCode.MODEL_INVALID
        assert "model     error: GPT2_MODELS is './nowhere', which is neither" in capsys.readouterr().out

    def test_the_token_is_never_printed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        check(Settings(discord_token=Secret(TOKEN), gpt2_model=str(tmp_path)))
        shown = capsys.readouterr()
        assert TOKEN not in shown.out + shown.err

    def test_a_missing_token_points_to_the_demo(self, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert check(Settings(gpt2_model=str(tiny_model), gpt2_device="cpu")) is ExitCode.SETTINGS
        lines = lines_of(capsys)
        assert lines["token"].startswith("missing")
        assert "demo" in lines["token"]
        assert lines["model"].startswith("ok"), "one fault does not hide what else there is to say"

    def test_every_fault_is_reported(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert check(Settings(discord_token=Secret("no token"), gpt2_model=str(tmp_path))) is ExitCode.SETTINGS
        lines = lines_of(capsys)
        assert lines["token"].startswith("error: DISCORD_TOKEN does not look like a bot token")
        assert "no token" not in lines["token"]
        assert lines["model"] == f"error: The model folder {tmp_path} is empty: it has no config.json."

    def test_an_invalid_model_has_its_own_code(self, tmp_path: Path) -> None:
        settings = Settings(discord_token=Secret(TOKEN), gpt2_model=str(tmp_path))
        assert check(settings) is ExitCode.MODEL_INVALID


@pytest.fixture
def chosen(tiny_model: Path, tmp_path: Path) -> Settings:
    """Return settings without a fault."""
    return Settings(
        discord_token=Secret(TOKEN),
        gpt2_model=str(tiny_model),
        gpt2_device="cpu",
        gpt2_cache=tmp_path / "cache",
        journal=tmp_path / "state" / "journal",
        safety="spoiler",
        sentry_dsn=Secret("https://0123456789abcdef@sentry.invalid/42"),
    )


class TestOptionalParts:
    def test_all_are_checked_and_no_files_are_left(
        self, chosen: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert check(chosen) is ExitCode.OK
        lines = lines_of(capsys)
        assert list(lines) == ["settings", "token", "invite", "journal", "pictures", "safety", "sentry", "model"]
        assert all(line.startswith("ok") for name, line in lines.items() if name != "invite")
        assert str(tmp_path / "cache") in lines["pictures"]
        assert list(tmp_path.iterdir()) == []

    def test_disabled_parts_are_not_checked(self, chosen: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        off = replace(chosen, journal=None, pictures_mb=0, safety="off", sentry_dsn=Secret())
        assert check(off) is ExitCode.OK
        lines = lines_of(capsys)
        assert list(lines) == ["settings", "token", "invite", "journal", "model"]
        assert lines["journal"].startswith("off")

    def test_unwritable_folders(self, chosen: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "cache").write_bytes(b"a file in the way, which stops root, too")
        nowhere = replace(chosen, journal=tmp_path / "cache" / "state" / "journal")
        assert check(nowhere) is ExitCode.SETTINGS
        lines = lines_of(capsys)
        assert lines["journal"].startswith("error")
        assert "Set JOURNAL" in lines["journal"]
        assert lines["pictures"].startswith("error")
        assert "Set GPT2_CACHE, or PICTURES_MB=0" in lines["pictures"]
        assert lines["model"].startswith("ok")

    async def test_a_journal_in_use_is_left_alone(self, chosen: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        journal = Journal(chosen.journal)
        await journal.open()
        entry = Entry({"id": "1"}, private=False, written=1.0)
        assert await journal.add(entry)
        assert await asyncio.to_thread(check, chosen) is ExitCode.OK
        assert lines_of(capsys)["journal"].startswith("ok")
        assert await journal.entries() == [entry]
        assert await journal.add(replace(entry, payload={"id": "2"}))
        await journal.close()

    @pytest.mark.parametrize("damage", [b"\x00\xff" * 5000, "another version's"], ids=["noise", "table"])
    def test_a_damaged_journal_is_reported_and_left_alone(
        self, chosen: Settings, damage: bytes | str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert chosen.journal
        chosen.journal.parent.mkdir()
        if isinstance(damage, bytes):
            chosen.journal.write_bytes(damage)
        else:
            with contextlib.closing(sqlite3.connect(chosen.journal)) as connection:
                connection.execute("CREATE TABLE owed (id INTEGER, something TEXT)")
        before = chosen.journal.read_bytes()
        assert check(chosen) is ExitCode.OK, "the start gets over it"
        assert lines_of(capsys)["journal"].startswith("damaged")
        assert chosen.journal.read_bytes() == before
        assert [path.name for path in chosen.journal.parent.iterdir()] == ["journal"]

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of the kernel's")
    @pytest.mark.slow
    def test_a_journal_on_a_full_disk(self, chosen: Settings, tmp_path: Path) -> None:
        asyncio.run(_begin(chosen.journal))
        program = "import resource, sys, tempfile\nfrom bot.__main__ import main\n"
        program += (
            "tempfile.gettempdir()\n"  # PyTorch wants to know a place for temporary files, and tries whether it is one
        )
        program += "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\nsys.exit(main(['check']))"
        environment = {"DISCORD_TOKEN": TOKEN, "GPT2_MODEL": chosen.gpt2_model, "PICTURES_MB": "0"}
        environment |= {"JOURNAL": str(chosen.journal)}
        process = run_python("-c", program, folder=tmp_path, environment=environment)
        assert process.returncode == ExitCode.SETTINGS, process.stderr
        assert re.search(r"^journal   error: cannot write \S+: ", process.stdout, re.MULTILINE)

    @pytest.mark.parametrize(
        ("package", "line", "sentence"),
        [
            ("profanity_check", "safety", "SAFETY needs its extra: python -m pip install"),
            ("sentry_sdk", "sentry", "SENTRY_DSN needs its extra: python -m pip install"),
        ],
    )
    def test_a_missing_extra_has_its_own_code(
        self,
        chosen: Settings,
        package: str,
        line: str,
        sentence: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)  # what is not installed looks so to `import`
        assert check(chosen) is ExitCode.NOT_INSTALLED
        lines = lines_of(capsys)
        assert lines[line].startswith(f"error: {sentence}")
        assert lines["model"].startswith("ok")

    def test_a_dsn_that_sentry_rejects(self, chosen: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        assert check(replace(chosen, sentry_dsn=Secret("https://key@host/"))) is ExitCode.SETTINGS
        shown = lines_of(capsys)["sentry"]
        assert shown.startswith("error: Sentry does not accept SENTRY_DSN")
        assert "key" not in shown


async def _begin(path: Path | None) -> None:
    journal = Journal(path)
    await journal.open()
    await journal.close()


class TestInvite:
    def test_the_link_asks_for_no_permission(self) -> None:
        link = urlsplit(invite_link(Secret(TOKEN)) or "")
        assert (link.scheme, link.netloc, link.path) == ("https", "discord.com", "/oauth2/authorize")
        query = parse_qs(link.query)
        assert query["client_id"] == [str(BOT_ID)]
        assert set(query["scope"][0].split()) == {"bot", "applications.commands"}
        assert query["permissions"] == ["0"]

    @pytest.mark.parametrize("identifier", [80351110224678912, 1234567890123456789])
    def test_the_id_is_read_whatever_its_padding(self, identifier: int) -> None:
        first = base64.urlsafe_b64encode(str(identifier).encode()).rstrip(b"=").decode()
        assert f"client_id={identifier}&" in (invite_link(Secret(f"{first}.x.y")) or "") + "&"

    @pytest.mark.parametrize("token", ["", "x", "!!!.x.y", "aGVsbG8.x.y", "/+8.x.y", "MTIz\N{SNOWMAN}.x.y", "."])
    def test_a_token_without_an_id_gives_no_link(self, token: str) -> None:
        assert invite_link(Secret(token)) is None

    def test_the_link_is_the_whole_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert invite(Settings(discord_token=Secret(TOKEN))) is ExitCode.OK
        assert capsys.readouterr().out == f"{invite_link(Secret(TOKEN))}\n"

    def test_without_a_token_there_is_no_link(self) -> None:
        with pytest.raises(SettingsError, match="DISCORD_TOKEN"):
            invite(Settings())
