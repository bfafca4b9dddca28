"""The command line in its own process: exit codes, and one clear message without a traceback."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import bot
from bot.__main__ import main
from bot.cli.check import invite_link
from bot.config import Secret, Settings
from bot.errors import ExitCode
from tests.command_line import ROOT, TOKEN, messages, run_bot, run_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Yield a port that refuses connections: it is bound, but nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def assert_clear(process: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the message of a failed command, which has neither a traceback nor the token."""
    assert process.returncode == code, process.stderr
    shown = process.stdout + process.stderr
    assert "Traceback" not in shown
    assert TOKEN not in shown
    return "\n".join(messages(process.stderr))


class TestHelp:
    def test_help_lists_the_commands(self, tmp_path: Path) -> None:
        process = run_bot("--help", folder=tmp_path)
        assert process.returncode == ExitCode.OK
        for command in ("run", "setup", "demo", "check", "invite", "--env-file", "--version"):
            assert f"  {command}" in process.stdout
        assert process.stderr == ""

    @pytest.mark.parametrize("command", ["run", "setup", "demo", "check", "invite"])
    def test_every_command_has_help(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main([command, "--help"])
        assert caught.value.code == ExitCode.OK
        assert f"python -m bot {command}" in capsys.readouterr().out

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--version"])
        assert caught.value.code == ExitCode.OK
        assert capsys.readouterr().out == f"gpt2-for-discord {bot.__version__}\n"

    @pytest.mark.parametrize("arguments", ["--version", "run"])
    def test_commands_without_a_model_do_not_load_its_libraries(self, tmp_path: Path, arguments: str) -> None:
        program = (
            "import sys, runpy\n"
            f"sys.argv = ['bot', {arguments!r}]\n"
            "try:\n    runpy.run_module('bot', run_name='__main__')\n"
            "finally:\n    print(*sys.modules, file=sys.stderr)"
        )
        loaded = run_python("-c", program, folder=tmp_path).stderr.split()
        assert "argparse" in loaded
        assert not {"torch", "transformers", "matplotlib", "numpy", "discord"} & set(loaded)


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["dance"],
            ["--nonsense"],
            ["run", "--model", "gpt2"],
            ["demo", "--port", "none"],
            ["demo", "--port", "65536"],
            ["demo", "--port", "-1"],
            ["check", "--model"],
        ],
        ids=" ".join,
    )
    def test_a_wrong_command_line_is_2(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == ExitCode.USAGE
        assert "error:" in capsys.readouterr().err

    def test_the_process_ends_with_that_code(self, tmp_path: Path) -> None:
        assert "error:" in assert_clear(run_bot("dance", folder=tmp_path), ExitCode.USAGE)


class TestOutput:
    @pytest.mark.parametrize(
        ("stream", "argument", "code"), [("stdout", "--help", ExitCode.OK), ("stderr", "dance", ExitCode.USAGE)]
    )
    @pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
    def test_a_reader_that_has_left_changes_no_exit_code(self, stream: str, argument: str, code: ExitCode) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "bot", argument]
        process = subprocess.run(command, cwd=ROOT, check=False, **{stream: writer})  # type: ignore[call-overload]
        os.close(writer)
        assert process.returncode == code


class TestSettings:
    """In this process, but for one: what `main` returns is the exit code, and an exception fails the test."""

    @pytest.fixture(autouse=True)
    def _no_settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for field in dataclasses.fields(Settings):
            monkeypatch.delenv(field.name.upper(), raising=False)

    @staticmethod
    def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        """Run a command that ends with 78, and return its message."""
        assert main(arguments) == ExitCode.SETTINGS
        shown = capsys.readouterr()
        assert TOKEN not in shown.out + shown.err
        return shown.err

    def test_what_computes_tells_openmp_how_to_wait(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for command, expected in (("bench", False), ("check", True)):
            monkeypatch.setenv("GOMP_SPINCOUNT", "")
            monkeypatch.delenv("GOMP_SPINCOUNT")
            main(["--env-file", str(tmp_path / "missing"), command])
            assert ("GOMP_SPINCOUNT" in os.environ) is expected

    def test_a_missing_token_is_78(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        message = assert_clear(run_bot(folder=tmp_path), ExitCode.SETTINGS)
        assert "DISCORD_TOKEN is missing" in message
        assert "DISCORD_TOKEN is missing" in self.refusal(capsys, "run")

    def test_all_faults_of_a_file_are_reported_together(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / ".env").write_text(f"GPT2_DEVICE=tpu\nGPT2_THREADS=x\nGPT2_MODEL={TOKEN}\n")
        message = self.refusal(capsys)
        for name in ("GPT2_DEVICE", "GPT2_THREADS", "GPT2_MODEL", "DISCORD_TOKEN"):
            assert name in message

    def test_a_token_that_cannot_be_one_is_78_before_discord_is_asked(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("DISCORD_TOKEN", "abc")
        assert "DISCORD_TOKEN does not look like a bot token" in self.refusal(capsys, "run")

    def test_another_file_can_be_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "other.env").write_text(f"DISCORD_TOKEN={TOKEN}\n")
        assert main(["--env-file", "other.env", "invite"]) == ExitCode.OK
        assert capsys.readouterr().out == f"{invite_link(Secret(TOKEN))}\n"

    def test_a_missing_env_file_is_78(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "There is no file none.env" in self.refusal(capsys, "--env-file", "none.env", "check")

    def test_an_invite_without_a_token_is_78(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "DISCORD_TOKEN" in self.refusal(capsys, "invite")


class TestMissingPackages:
    @pytest.mark.parametrize(
        ("package", "arguments", "sentence"),
        [
            (
                "torch",
                "['check', '--model', 'none']",
                "torch is not installed: python -m pip install -c constraints.txt",
            ),
            ("simcord", "['demo']", 'The demo needs its extra: python -m pip install -c constraints.txt -e ".[demo]"'),
        ],
    )
    def test_a_missing_package_is_69(self, tmp_path: Path, package: str, arguments: str, sentence: str) -> None:
        program = (
            f"import sys; sys.modules[{package!r}] = None\n"  # as if it were not installed
            f"from bot.__main__ import main; sys.exit(main({arguments}))"
        )
        environment = {"DISCORD_TOKEN": TOKEN, "JOURNAL": "off", "PICTURES_MB": "0", "HEALTH_PORT": "0"}
        process = run_python("-c", program, folder=tmp_path, environment=environment)
        assert sentence in assert_clear(process, ExitCode.NOT_INSTALLED)


class TestModel:
    @pytest.mark.slow
    def test_a_missing_model_folder_is_65(self, tmp_path: Path) -> None:
        message = assert_clear(run_bot("demo", "--model", "./nowhere", folder=tmp_path), ExitCode.MODEL_INVALID)
        assert message.startswith("gpt2-for-discord: GPT2_MODEL is './nowhere'")
        assert "MODEL=gpt2-mini" in message, "the demo can go on without it"

    @pytest.mark.slow
    def test_an_unreachable_hub_is_75_and_names_the_alternative(self, tmp_path: Path, closed_port: int) -> None:
        environment = {
            "DISCORD_TOKEN": TOKEN,
            "GPT2_CACHE": str(tmp_path / "cache"),
            "HF_ENDPOINT": f"http://127.0.0.1:{closed_port}",
        }
        process = run_bot("check", "--model", "gpt2", folder=tmp_path, environment=environment)
        assert_clear(process, ExitCode.UNREACHABLE)
        (line,) = (line for line in process.stdout.splitlines() if line.startswith("model"))
        assert "config.json of the model 'gpt2' could not be downloaded" in line
        assert "point GPT2_MODEL at it" in line

    def test_good_settings_are_0(self, tmp_path: Path, tiny_model: Path) -> None:
        shutil.copytree(tiny_model, tmp_path / "model with a space")
        (tmp_path / ".env").write_bytes(
            f"\ufeffDISCORD_TOKEN={TOKEN}\r\nGPT2_MODEL='model with a space'\r\nGPT2_DEVICE=cpu\r\n".encode()
        )
        program = (
            "import sys\n"
            "from bot.__main__ import main\n"
            "code = main(['check'])\n"
            "import bot.cli.run, bot.cli.deploy_cluster, bot.gpt2.local.engine\n"
            "print('imported', *sys.modules)\n"
            "sys.exit(code)"
        )
        # A code page without "×" shows the rest of the line.
        process = run_python("-c", program, folder=tmp_path, environment={"PYTHONIOENCODING": "cp1251"})
        assert process.returncode == ExitCode.OK, process.stdout + process.stderr
        assert "model     ok: model with a space, 3 layers ? 4 heads" in process.stdout
        imported = process.stdout.rpartition("imported ")[2].split()
        assert "bot.gpt2.model.loading" in imported
        heavy = {"transformers.modeling_utils", "scipy", "torch._dynamo", "ray", "starlette"}
        assert not heavy & set(imported), "loading a whole model imports nothing that builds one, and nothing of Ray"
        assert "Traceback" not in process.stderr
        assert TOKEN not in process.stdout + process.stderr
