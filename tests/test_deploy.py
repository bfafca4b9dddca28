"""The files for deployment and monitoring: in step with the program, and valid for the tools that read them."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from bot.config import Settings
from bot.errors import ExitCode
from bot.monitoring.metrics import Metrics
from tests.command_line import ROOT, TOKEN, run_python

if TYPE_CHECKING:
    from pathlib import Path

    from bot.client import GPT2Client

DEPLOY: Final = ROOT / "deploy"
RESTART: Final = frozenset({ExitCode.CRASHED, ExitCode.UNREACHABLE})
FIX_FIRST: Final = frozenset(ExitCode) - RESTART - {ExitCode.OK}

# Made by Prometheus itself, or by its client from what only a system with /proc has.
ELSEWHERE: Final = frozenset({"up", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"})


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def named(expression: str) -> set[str]:
    """Return the metrics of an expression: words with an underscore, or `up`, without a parenthesis after them."""
    plain = re.sub(r'\{[^}]*\}|"[^"]*"|by \([^)]*\)', "", expression)
    return {word for word in re.findall(r"\b[a-z][a-z0-9_]*\b(?!\()", plain) if "_" in word or word == "up"}


@pytest.fixture
def known(simcord_bot: GPT2Client) -> set[str]:
    """Return the names of all samples of the bot's metrics."""
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
    families = Metrics(simcord_bot).registry.collect()
    return {family.name + suffix for family in families for suffix in suffixes[family.type]} | ELSEWHERE


class TestMonitoring:
    async def test_the_metrics_of_the_dashboard_exist(self, known: set[str]) -> None:
        board = json.loads(read("deploy/monitoring/grafana.json"))
        expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        assert len(expressions) > 15
        for expression in expressions:
            assert named(expression.replace("$__rate_interval", "5m"))
            assert named(expression.replace("$__rate_interval", "5m")) <= known, expression

    def test_panels_do_not_overlap(self) -> None:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(read("deploy/monitoring/grafana.json"))["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            assert not cells & taken, panel["title"]
            taken |= cells

    async def test_the_metrics_of_the_alerts_exist(self, known: set[str]) -> None:
        (group,) = yaml.safe_load(read("deploy/monitoring/alerts.yml"))["groups"]
        assert len(group["rules"]) > 5
        for rule in group["rules"]:
            assert named(rule["expr"]) <= known, rule["alert"]
            assert rule["annotations"].keys() == {"summary", "description"}

    async def test_a_bot_that_never_connected_has_its_own_alert(self, simcord_bot: GPT2Client) -> None:
        told = {family.name: family.samples for family in Metrics(simcord_bot).registry.collect()}
        assert told["gpt2_gateway_connected"] == [], "so an alert on its being 0 is silent"
        (group,) = yaml.safe_load(read("deploy/monitoring/alerts.yml"))["groups"]
        (rule,) = (rule for rule in group["rules"] if rule["alert"] == "GPT2NeverConnected")
        assert rule["expr"].endswith("== 1 unless on (job, instance) gpt2_gateway_connected")

    @pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, which comes with Prometheus")
    def test_promtool_accepts_them(self) -> None:
        subprocess.run(["promtool", "check", "config", DEPLOY / "monitoring" / "prometheus.yml"], check=True)


class TestUnit:
    UNIT: Final = "deploy/gpt2-for-discord.service"

    def codes(self, key: str) -> set[int]:
        (line,) = re.findall(rf"^{key}=(.*)$", read(self.UNIT), flags=re.MULTILINE)
        return set(map(int, line.split()))

    def test_it_restarts_only_if_that_can_help(self) -> None:
        assert "\nRestart=on-abnormal\n" in read(self.UNIT)
        assert self.codes("RestartForceExitStatus") == RESTART
        assert self.codes("RestartPreventExitStatus") == FIX_FIRST

    def test_a_day_of_restarts_stays_within_discords_thousand_logins(self) -> None:
        (seconds,) = self.codes("RestartSec")
        assert 86_400 / seconds < 1000

    def test_check_and_service_use_the_same_folders(self) -> None:
        """The unit overrides no setting, and `setup` in docs/hosting.md names the folders that it may write to."""
        variables = set(re.findall(r"^Environment=(\w+)=", read(self.UNIT), flags=re.MULTILINE))
        assert variables
        assert not variables & {each.name.upper() for each in dataclasses.fields(Settings)}
        (named,) = re.findall(r"^\S+ -m bot setup (.*)$", read("docs/hosting.md"), flags=re.MULTILINE)
        assert re.findall(r"/var/(\w+)/", named) == ["cache", "lib"]
        for key in ("CacheDirectory", "StateDirectory"):
            assert f"\n{key}=gpt2-for-discord\n" in read(self.UNIT)
        assert len(re.findall(r"/var/\w+/gpt2-for-discord/", named)) == 2

    @pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
    def test_systemd_accepts_it(self, tmp_path: Path) -> None:
        unit = read(self.UNIT).replace("/srv/gpt2/bot/.venv/bin/python", sys.executable)
        unit = re.sub(r"^(User|Group)=.*$", r"\1=root", unit, flags=re.MULTILINE)
        (tmp_path / "gpt2-for-discord.service").write_text(unit, encoding="utf-8")
        command = ["systemd-analyze", "verify", tmp_path / "gpt2-for-discord.service"]
        said = subprocess.run(command, check=False, capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        assert "gpt2-for-discord.service:" not in said.stderr, said.stderr


class TestContainer:
    def test_it_runs_as_nobody_without_privileges(self) -> None:
        service = yaml.safe_load(read("compose.yaml"))["services"]["bot"]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"].partition(":")[0] == re.findall(r"^USER (\d+):", read("Dockerfile"), re.MULTILINE)[0]
        assert not {"ports", "privileged", "network_mode"} & service.keys()

    def test_the_token_is_a_secret_and_not_in_the_environment(self) -> None:
        service = yaml.safe_load(read("compose.yaml"))["services"]["bot"]
        assert service["environment"]["DISCORD_TOKEN"] == ""
        assert service["environment"]["DISCORD_TOKEN_FILE"] == f"/run/secrets/{service['secrets'][0]}"

    def test_the_build_context_is_what_the_image_copies(self) -> None:
        sent = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
        copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?(.*) \S+$", read("Dockerfile"), flags=re.MULTILINE)
        assert {name for names in copied for name in names.split()} == sent
        assert all((ROOT / name).exists() for name in sent)

    @pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint")
    def test_hadolint_accepts_the_dockerfile(self) -> None:
        subprocess.run(["hadolint", ROOT / "Dockerfile"], check=True)


class TestSecrets:
    def test_no_line_of_the_docs_leaves_a_token_in_the_shells_history(self) -> None:
        for page in ("README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))):
            for block in re.findall(r"^ *```sh\n(.*?)^ *```$", read(page), flags=re.MULTILINE | re.DOTALL):
                assert not re.search(r"(printf|echo).*[\"'].*token|DISCORD_TOKEN=\w", block.replace('"$token"', "")), (
                    page
                )


class TestTelemetry:
    def test_ray_reports_nothing(self) -> None:
        starts = re.findall(r"`ray start --head[^`]*`", read("docs/scale.md"))
        assert starts
        assert all("--disable-usage-stats" in each for each in starts)
        service = yaml.safe_load(read("deploy/rayservice.yaml"))["spec"]["rayClusterConfig"]
        (head,) = service["headGroupSpec"]["template"]["spec"]["containers"]
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in head["env"]

    def test_the_hub_learns_nothing_of_the_libraries(self, tmp_path: Path) -> None:
        program = (
            "from bot.__main__ import main; main(['invite'])\n"
            "from huggingface_hub.utils import build_hf_headers; print(build_hf_headers()['user-agent'])"
        )
        process = run_python("-c", program, folder=tmp_path, environment={"DISCORD_TOKEN": TOKEN})
        assert "torch" not in process.stdout.splitlines()[-1], process.stdout


class TestEntrypoint:
    """deploy/entrypoint.sh with the real program, as Docker starts and stops it."""

    def start(self, folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        python = folder / "bin" / "python"
        python.parent.mkdir()
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        given = {"PATH": f"{python.parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment}
        return subprocess.Popen(
            [DEPLOY / "entrypoint.sh", *arguments], cwd=folder, env=given, stderr=subprocess.PIPE, text=True
        )

    def held(self, process: subprocess.Popen[str]) -> str:
        """Return the output until the container holds."""
        assert process.stderr
        said = ""
        while "needs a fix first" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        return said

    def test_it_holds_after_codes_that_need_a_fix(self) -> None:
        (codes,) = re.findall(r"^ +([\d |]+)\)$", read("deploy/entrypoint.sh"), flags=re.MULTILINE)
        assert set(map(int, codes.split("|"))) == FIX_FIRST

    def test_it_holds_until_it_is_stopped(self, tmp_path: Path) -> None:
        with self.start(tmp_path, "run") as process:
            assert "DISCORD_TOKEN is missing" in self.held(process)
            time.sleep(0.2)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == ExitCode.SETTINGS

    @pytest.mark.parametrize(("arguments", "code"), [(["--version"], ExitCode.OK), (["invite"], ExitCode.SETTINGS)])
    def test_other_commands_end_with_their_code(self, tmp_path: Path, arguments: list[str], code: int) -> None:
        with self.start(tmp_path, *arguments) as process:
            assert process.wait(60) == code

    def test_the_stop_signal_reaches_the_bot(self, tmp_path: Path) -> None:
        # A bot that asks a cluster starts in a third of the time: it loads no model.
        environment = {"GPT2_ENGINE": "ray", "DISCORD_TOKEN": TOKEN, "HEALTH_PORT": "0", "LOG_FORMAT": "json"}
        environment["DISCORD_PROXY"] = "http://127.0.0.1:9"  # Discord is out of reach, whatever network there is
        with self.start(tmp_path, "run", **environment) as process:
            assert process.stderr
            line: Any = ""
            while "cannot reach Discord yet" not in line:  # by then the bot heeds signals
                line = process.stderr.readline()
                assert line
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=30)[1]
            assert process.returncode in {ExitCode.OK, ExitCode.UNREACHABLE}, said
