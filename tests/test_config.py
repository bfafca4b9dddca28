from __future__ import annotations

import dataclasses
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from bot import config
from bot.config import Secret, Settings
from bot.errors import ExitCode, SettingsError
from tests.command_line import ROOT, TOKEN
from tools.env_example import PAGE, example, page

EXAMPLE = ROOT / ".env.example"
DSN = "https://0123456789abcdef@errors.example.org/42"


def read(folder: Path, content: bytes) -> dict[str, str]:
    """Return the values in `content` as a .env file, with an empty environment."""
    path = folder / "settings.env"
    path.write_bytes(content)
    return config.environment(path)


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Return the process's environment, which is empty at first, in an empty folder."""
    variables: dict[str, str] = {}
    monkeypatch.setattr("bot.config.os", SimpleNamespace(environ=variables))
    monkeypatch.chdir(tmp_path)
    return variables


def faults_of(values: dict[str, str], *, token_required: bool = False) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        config.parse(values, token_required=token_required)
    assert caught.value.exit_code is ExitCode.SETTINGS
    return caught.value.faults


class TestParse:
    def test_nothing_gives_the_defaults(self) -> None:
        assert config.parse({}) == Settings()

    def test_every_setting_can_be_given(self) -> None:
        assert config.parse(
            {
                "DISCORD_TOKEN": TOKEN,
                "GPT2_MODEL": "distilgpt2",
                "GPT2_DEVICE": "cuda",
                "GPT2_THREADS": "3",
                "GPT2_CACHE": "/var/cache/models",
                "PICTURES_MB": "64",
                "SYNC_COMMANDS": "false",
                "REQUESTS_PER_PERSON": "3",
                "REQUESTS_PER_SERVER": "30",
                "COOLDOWN_SECONDS": "10",
                "NSFW_ONLY": "true",
                "SAFETY": "spoiler",
                "HEALTH_HOST": "192.0.2.1",
                "HEALTH_PORT": "8080",
                "SENTRY_DSN": DSN,
                "LOG_LEVEL": "DEBUG",
                "LOG_FORMAT": "json",
            }
        ) == Settings(
            discord_token=Secret(TOKEN),
            gpt2_model="distilgpt2",
            gpt2_device="cuda",
            gpt2_threads=3,
            gpt2_cache=Path("/var/cache/models"),
            pictures_mb=64,
            sync_commands=False,
            requests_per_person=3,
            requests_per_server=30,
            cooldown_seconds=10,
            nsfw_only=True,
            safety="spoiler",
            health_host="192.0.2.1",
            health_port=8080,
            sentry_dsn=Secret(DSN),
            log_level="DEBUG",
            log_format="json",
        )

    @pytest.mark.parametrize("blank", ["", " ", "\t\n"])
    def test_a_blank_value_counts_as_not_given(self, blank: str) -> None:
        names = [field.name.upper() for field in dataclasses.fields(Settings)]
        assert config.parse(dict.fromkeys(names, blank)) == Settings()

    def test_spaces_around_a_value_are_ignored(self) -> None:
        settings = config.parse({"GPT2_MODEL": "  gpt2-medium ", "GPT2_THREADS": " 2\r", "LOG_LEVEL": " info "})
        assert (settings.gpt2_model, settings.gpt2_threads, settings.log_level) == ("gpt2-medium", 2, "INFO")

    def test_other_variables_are_ignored(self) -> None:
        assert config.parse({"PATH": "/bin", "gpt2_model": "lower case", "GPT2_MODEL_OF": "x"}) == Settings()

    def test_the_first_of_several_models_is_the_default_one(self) -> None:
        settings = config.parse({"GPT2_MODELS": " gpt2-mini, gpt2 ,models/mine"})
        assert settings.gpt2_model == "gpt2-mini"
        assert settings.models == ("gpt2-mini", "gpt2", "models/mine")
        chosen = config.parse({"GPT2_MODELS": "gpt2-mini,gpt2", "GPT2_MODEL": "gpt2"})
        assert chosen.models == ("gpt2", "gpt2-mini")
        assert Settings().models == ("gpt2",)

    @pytest.mark.parametrize(
        ("values", "fault"),
        [
            (
                {"GPT2_MODELS": "gpt2,,gpt2-mini"},
                "GPT2_MODELS has an empty name between its commas: 'gpt2,,gp",
            ),
            ({"GPT2_MODELS": "gpt2,gpt2-mini,gpt2"}, "GPT2_MODELS names 'gpt2' twice."),
            ({"GPT2_MODELS": ",".join(f"m{n}" for n in range(26))}, "GPT2_MODELS names 26 models; at most 25 fit"),
            ({"GPT2_MODELS": "gpt2", "GPT2_MODEL": "gpt2-xl"}, "GPT2_MODEL is 'gpt2-xl', which GPT2_MODELS does not"),
            (
                {"GPT2_MODELS": "gpt2,gpt2-xl", "GPT2_ENGINE": "ray"},
                "GPT2_MODELS names several models, but GPT2_ENGINE",
            ),
            ({"GPT2_MODELS_MEMORY": "much"}, "GPT2_MODELS_MEMORY must be a size such as 4 GB or 1500 MB, or 0 for no"),
            ({"GPT2_MODELS_MEMORY": "4"}, "GPT2_MODELS_MEMORY must be a size such as 4 GB"),
        ],
    )
    def test_contradictions_among_models_are_one_fault(self, values: dict[str, str], fault: str) -> None:
        (found,) = faults_of(values)
        assert found.startswith(fault)

    @pytest.mark.parametrize(
        ("text", "size"),
        [("4 GB", 4 * 10**9), ("1.5gb", 1_500_000_000), ("800M", 8 * 10**8), ("2 GiB", 2**31), ("0", 0)],
    )
    def test_memory_is_read_with_its_unit(self, text: str, size: int) -> None:
        assert config.parse({"GPT2_MODELS_MEMORY": text}).gpt2_models_memory == size

    def test_a_misspelled_name_is_a_fault_that_names_the_nearest(
        self, surroundings: dict[str, str], tmp_path: Path
    ) -> None:
        # The last three are other programs' own: systemd's, Kubernetes' and a common one.
        surroundings |= {"HEALTH_PROT": "1", "JOURNAL_STREAM": "8:1", "GPT2_SERVE_SVC_PORT": "8000", "LOGLEVEL": "info"}
        values = read(tmp_path, b"GPT2_MODLE=distilgpt2\nlog_level=DEBUG\nTORCH_INDEX=x\nHF_HOME=/x\n")
        assert [fault.partition(".")[0] for fault in faults_of(values)] == [
            "GPT2_MODLE is no setting; GPT2_MODEL is the nearest",
            "HEALTH_PROT is no setting; HEALTH_PORT is the nearest",
            "log_level is no setting; LOG_LEVEL is the nearest",
        ]

    @pytest.mark.parametrize(
        ("text", "meaning"), [("1", True), ("Yes", True), ("ON", True), ("0", False), ("No", False)]
    )
    def test_booleans_have_several_spellings(self, text: str, *, meaning: bool) -> None:
        assert config.parse({"SYNC_COMMANDS": text}).sync_commands is meaning

    def test_a_home_folder_is_expanded(self) -> None:
        assert config.parse({"GPT2_CACHE": "~/models"}).gpt2_cache == Path.home() / "models"

    @pytest.mark.parametrize("count", [0, 1, 256])
    def test_valid_numbers_of_threads(self, count: int) -> None:
        assert config.parse({"GPT2_THREADS": str(count)}).gpt2_threads == count

    @pytest.mark.parametrize(
        ("name", "most", "zero"),
        [
            ("GPT2_THREADS", 256, "one per core"),
            ("REQUESTS_PER_PERSON", 1000, "no limit"),
            ("REQUESTS_PER_SERVER", 1000, "no limit"),
            ("COOLDOWN_SECONDS", 3600, "off"),
            ("HEALTH_PORT", 65535, "off"),
        ],
    )
    def test_numbers_have_limits(self, name: str, most: int, zero: str) -> None:
        for count in (0, most):
            assert getattr(config.parse({name: str(count)}), name.lower()) == count
        assert faults_of({name: str(most + 1)}) == (
            f"{name} must be a whole number from 0 ({zero}) to {most}, not '{most + 1}'.",
        )

    @pytest.mark.parametrize("text", ["-1", "257", "1.5", "two", "1_0", "٣", "0x2", "9" * 5000])
    def test_invalid_numbers_of_threads(self, text: str) -> None:
        (fault,) = faults_of({"GPT2_THREADS": text})
        assert fault.startswith("GPT2_THREADS must be a whole number from 0 (one per core) to 256")

    def test_all_faults_are_reported_together(self) -> None:
        faults = faults_of(
            {
                "GPT2_DEVICE": "tpu",
                "GPT2_THREADS": "many",
                "GPT2_CACHE": "~nobody-of-this-name/models",
                "SYNC_COMMANDS": "maybe",
                "COOLDOWN_SECONDS": "a minute",
                "SAFETY": "on",
                "HEALTH_PORT": "http",
                "SENTRY_DSN": "sentry.io",
                "LOG_LEVEL": "LOUD",
                "LOG_FORMAT": "xml",
            },
            token_required=True,
        )
        assert [fault.split()[0] for fault in faults] == [
            "GPT2_DEVICE",
            "GPT2_THREADS",
            "GPT2_CACHE",
            "SYNC_COMMANDS",
            "COOLDOWN_SECONDS",
            "SAFETY",
            "HEALTH_PORT",
            "SENTRY_DSN",
            "LOG_LEVEL",
            "LOG_FORMAT",
            "DISCORD_TOKEN",
        ]

    def test_a_fault_lists_the_valid_values(self) -> None:
        assert faults_of({"GPT2_DEVICE": "tpu"}) == ("GPT2_DEVICE must be one of auto, cpu, cuda, not 'tpu'.",)
        assert faults_of({"GPT2_PRECISION": "int8"}) == (
            "GPT2_PRECISION must be one of float32, float16, bfloat16, not 'int8'.",
        )
        assert config.parse({"GPT2_PRECISION": "bfloat16"}).gpt2_precision == "bfloat16"

    def test_the_token_is_required_only_on_demand(self) -> None:
        assert config.parse({}).discord_token == ""
        (fault,) = faults_of({"DISCORD_TOKEN": "  "}, token_required=True)
        assert "DISCORD_TOKEN is missing" in fault
        assert "`python -m bot setup` asks for it" in fault

    @pytest.mark.parametrize("quoted", ['"gpt2-xl"', "'gpt2-xl'", ' "gpt2-xl"\r\n', '" gpt2-xl "'])
    def test_quotes_around_a_value_are_removed(self, quoted: str) -> None:
        assert config.parse({"GPT2_MODEL": quoted}).gpt2_model == "gpt2-xl"

    @pytest.mark.parametrize("odd", ['"', "'", "\"gpt2'", 'my "best" model'])
    def test_other_quotes_are_kept(self, odd: str) -> None:
        assert config.parse({"GPT2_MODEL": odd}).gpt2_model == odd

    def test_empty_quotes_count_as_not_given(self) -> None:
        assert config.parse({"GPT2_MODEL": '""', "LOG_LEVEL": "' '"}) == Settings()

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Settings().gpt2_model = "other"  # type: ignore[misc]


class TestSecrets:
    def test_no_repr_shows_the_token(self) -> None:
        settings = config.parse({"DISCORD_TOKEN": TOKEN})
        assert settings.discord_token == TOKEN
        for shown in (repr(settings), str(settings), f"{settings}", repr([settings.discord_token]), f"{[settings]!r}"):
            assert TOKEN not in shown
            assert "…" in shown

    def test_str_gives_the_whole_token(self) -> None:
        assert str(Secret(TOKEN)) == f"Bot {Secret(TOKEN)}".removeprefix("Bot ") == TOKEN
        assert pickle.loads(pickle.dumps(Secret(TOKEN))) == TOKEN  # noqa: S301 # our own bytes

    @pytest.mark.parametrize(
        "name",
        ["DISCORD_TOKEN_FILE", "GPT2_MODEL", "GPT2_DEVICE", "GPT2_THREADS", "GPT2_CACHE", "SENTRY_DSN", "LOG_LEVEL"],
    )
    def test_a_misplaced_token_is_refused_but_not_shown(self, name: str) -> None:
        assert faults_of({name: f" {TOKEN} "}) == (f"{name} holds a bot token, which belongs in DISCORD_TOKEN only.",)

    @pytest.mark.parametrize(
        "broken", [TOKEN[1:], TOKEN[:30], f"Bot {TOKEN}", "123456789012345678", "ü" * 60, f"{TOKEN}\n"]
    )
    def test_a_malformed_token_is_refused_but_not_shown(self, broken: str) -> None:
        if broken == TOKEN[1:]:
            assert config.token_fault(Secret(broken)) is None  # only Discord can tell
            return
        fault = config.token_fault(Secret(broken))
        assert fault is not None
        assert broken not in fault

    def test_a_well_formed_token_has_no_fault(self) -> None:
        assert config.token_fault(Secret(TOKEN)) is None

    def test_the_key_of_a_dsn_is_not_shown(self) -> None:
        settings = config.parse({"SENTRY_DSN": DSN})
        assert settings.sentry_dsn == DSN
        assert "0123456789abcdef" not in repr(settings)
        (fault,) = faults_of({"SENTRY_DSN": DSN.removesuffix("/42")})
        assert "0123456789abcdef" not in fault


class TestTokenFile:
    @pytest.mark.parametrize("written", ["{}", "{}\n", "\ufeff {}\r\n", '"{}"\n'])
    def test_the_token_is_read_from_it(self, tmp_path: Path, written: str) -> None:
        path = tmp_path / "discord_token"
        path.write_bytes(written.format(TOKEN).encode())
        settings = config.parse({"DISCORD_TOKEN_FILE": str(path)}, token_required=True)
        assert settings.discord_token == TOKEN
        assert TOKEN not in repr(settings)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "cannot be read: No such file or directory."),
            (b"", "must hold the token and nothing else."),
            (b" \r\n", "must hold the token and nothing else."),
            (b"\xff\xfe" + TOKEN.encode("utf-16-le"), "cannot be read: it is not text."),
            (b"x" * 5000, "must hold the token and nothing else."),
        ],
    )
    def test_a_file_without_a_token_is_the_only_fault(self, tmp_path: Path, content: bytes | None, reason: str) -> None:
        path = tmp_path / "discord_token"
        if content is not None:
            path.write_bytes(content)
        (fault,) = faults_of({"DISCORD_TOKEN_FILE": str(path)}, token_required=True)
        assert fault.startswith(f"DISCORD_TOKEN_FILE names {str(path)!r}, which ")
        assert fault.endswith(reason)

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        (fault,) = faults_of({"DISCORD_TOKEN_FILE": str(tmp_path)})
        assert "cannot be read" in fault

    def test_two_tokens_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "discord_token"
        path.write_text(TOKEN)
        (fault,) = faults_of({"DISCORD_TOKEN": TOKEN, "DISCORD_TOKEN_FILE": str(path)}, token_required=True)
        assert fault == "DISCORD_TOKEN and DISCORD_TOKEN_FILE are both set: leave one of them empty."


@pytest.mark.usefixtures("surroundings")
class TestEnvironment:
    def test_the_file_in_the_working_directory_is_read(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("GPT2_MODEL=distilgpt2\n")
        assert config.environment() == {"GPT2_MODEL": "distilgpt2"}

    def test_the_file_is_optional(self) -> None:
        assert config.environment() == {}

    def test_a_named_file_must_exist(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"There is no file .*other\.env"):
            config.environment(tmp_path / "other.env")

    def test_the_environment_wins_over_the_file(self, tmp_path: Path, surroundings: dict[str, str]) -> None:
        surroundings["GPT2_MODEL"] = "from the environment"
        assert read(tmp_path, b"GPT2_MODEL=file\nLOG_LEVEL=DEBUG") == {
            "GPT2_MODEL": "from the environment",
            "LOG_LEVEL": "DEBUG",
        }

    @pytest.mark.parametrize(
        ("content", "value"),
        [
            (b"GPT2_MODEL=gpt2-xl", "gpt2-xl"),
            (b"\xef\xbb\xbfGPT2_MODEL=gpt2-xl\n", "gpt2-xl"),
            (b"LOG_LEVEL=INFO\r\nGPT2_MODEL=gpt2-xl\r\n", "gpt2-xl"),
            (b"\xef\xbb\xbf# comment\r\n\r\nGPT2_MODEL = gpt2-xl  \r\n", "gpt2-xl"),
            (b'GPT2_MODEL="my models/gpt2"', "my models/gpt2"),
            (b"GPT2_MODEL='C:\\models\\new'", "C:\\models\\new"),
            (b"GPT2_MODEL=my models/gpt2", "my models/gpt2"),
            (b"export GPT2_MODEL=gpt2-xl", "gpt2-xl"),
            (b"GPT2_MODEL=gpt2-xl # the large one", "gpt2-xl"),
            (b"GPT2_MODEL=a$HOME${HOME}$$b", "a$HOME${HOME}$$b"),
            ("GPT2_MODEL=modèles/gpt2-日本".encode(), "modèles/gpt2-日本"),
            (b"GPT2_MODEL=", ""),
        ],
    )
    def test_files_in_many_spellings(self, tmp_path: Path, content: bytes, value: str) -> None:
        assert read(tmp_path, content)["GPT2_MODEL"] == value

    def test_a_name_without_a_value_is_ignored(self, tmp_path: Path) -> None:
        assert read(tmp_path, b"DISCORD_TOKEN\nLOG_LEVEL=INFO\n") == {"LOG_LEVEL": "INFO"}

    @pytest.mark.parametrize(
        ("content", "lines"),
        [
            (b"these are just words\n", "line 1"),
            (b"\xef\xbb\xbfDISCORD_TOKEN: abc\r\nLOG_LEVEL=INFO\r\n", "line 1"),
            (b'# comment\n\n\nGPT2_MODEL="gpt2\nLOG_LEVEL=INFO\n', "line 4"),
            (b"=gpt2\nGPT2_MODEL='it's'\n", "lines 1, 2"),
            (b"no setting\n" * 12, "lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and more"),
        ],
    )
    def test_unreadable_lines_are_reported_with_all_other_faults(
        self, tmp_path: Path, content: bytes, lines: str
    ) -> None:
        values = read(tmp_path, content)
        values["SAFETY"] = "maybe"
        bad, other = faults_of(values)
        assert bad == (
            f"{tmp_path / 'settings.env'}, {lines}: write each setting as NAME=value, close every quote, begin "
            "comments with #."
        )
        assert other.startswith("SAFETY must be")

    @pytest.mark.parametrize(
        "line",
        [
            r'GPT2_MODEL="C:\bots\new\tiny"',
            r'JOURNAL = "\\nas\share\journal" # ours',
            r"JOURNAL='\\nas\share\journal'",
            r'GPT2_CACHE="C:\models\"',
        ],
    )
    def test_a_path_that_was_read_as_escapes_is_reported(self, tmp_path: Path, line: str) -> None:
        misread, other = faults_of(read(tmp_path, f"\n{line}\nGPT2_THREADS=x\n".encode()))
        assert misread == (
            f"{tmp_path / 'settings.env'}, line 2: between quotes a backslash begins an escape, such as \\n for a line "
            "break. Write the path without quotes."
        )
        assert other.startswith("GPT2_THREADS")

    @pytest.mark.parametrize(
        ("values", "proxy"),
        [
            ({"DISCORD_PROXY": "proxy:3128", "HTTPS_PROXY": "http://other:1"}, "http://proxy:3128"),
            ({"DISCORD_PROXY": "http://me:p%40ss@[::1]:3128"}, "http://me:p%40ss@[::1]:3128"),
            ({"https_proxy": "http://proxy:3128", "no_proxy": "localhost,.local"}, "http://proxy:3128"),
            ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "discord.com"}, ""),
            ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, ""),
            ({"ALL_PROXY": "socks5://proxy:1080"}, ""),
            ({"HTTP_PROXY": "http://proxy:3128"}, ""),
        ],
        ids=str,
    )
    def test_the_proxy_is_the_settings_or_the_environments(self, values: dict[str, str], proxy: str) -> None:
        assert config.parse(values).discord_proxy == proxy

    @pytest.mark.parametrize("proxy", ["socks5://proxy:1080", "http://", "http://me:s3cret@proxy:port", "//"])
    def test_a_proxy_that_cannot_be_used_is_not_quoted(self, proxy: str) -> None:
        (fault,) = faults_of({"DISCORD_PROXY": proxy})
        assert fault.startswith("DISCORD_PROXY must be the address of an HTTP proxy, http://host:port or ")
        assert "s3cret" not in fault

    def test_a_control_character_in_the_environment_is_reported(self) -> None:
        (fault,) = faults_of({"GPT2_MODEL": "C:\bots\new"})
        assert fault.startswith("GPT2_MODEL holds a control character, perhaps because it is a path between double")
        assert "\b" not in fault

    @pytest.mark.parametrize("value", [r"C:\bots\new", r"'C:\bots\new'", r'"C:\\bots\\new"'])
    def test_other_paths_with_backslashes_are_read_as_written(self, tmp_path: Path, value: str) -> None:
        # Nor do the escapes in variables of other programs concern the bot.
        values = read(tmp_path, f'GPT2_MODEL={value}\nOTHER="a\\n\\b"\n'.encode())
        assert config.parse(values).gpt2_model == r"C:\bots\new"

    def test_a_token_on_an_unreadable_line_is_not_shown(self, tmp_path: Path) -> None:
        (fault,) = faults_of(read(tmp_path, f"DISCORD_TOKEN '{TOKEN}'\n".encode()))
        assert TOKEN not in fault

    @pytest.mark.parametrize("content", ["GPT2_MODEL=gpt2".encode("utf-16"), b"GPT2_MODEL=caf\xe9"])
    def test_another_encoding_is_reported(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(SettingsError, match=r"settings\.env cannot be read as UTF-8 text"):
            read(tmp_path, content)

    def test_a_token_in_another_encoding_is_not_shown(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError) as caught:
            read(tmp_path, f"DISCORD_TOKEN={TOKEN}".encode() + b"\xff")
        assert TOKEN not in str(caught.value)


class TestExample:
    @staticmethod
    def entries() -> dict[str, str]:
        return dict(re.findall(r"^#?([A-Z0-9_]+)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE))

    def test_it_is_made_of_the_declarations(self) -> None:
        assert EXAMPLE.read_text(encoding="utf-8") == example(), "run `python -m tools.env_example`"
        assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tools.env_example`"

    def test_its_values_are_the_defaults(self) -> None:
        assert list(self.entries()) == [field.name.upper() for field in dataclasses.fields(Settings)]
        assert config.parse(self.entries()) == Settings()

    @pytest.mark.usefixtures("surroundings")
    def test_a_plain_copy_changes_nothing(self) -> None:
        assert config.parse(config.environment(EXAMPLE)) == Settings()

    def test_every_setting_is_explained(self) -> None:
        for field in dataclasses.fields(Settings):
            assert re.match(r"[A-Z].*\.$", field.metadata["explanation"]), field.name
