"""`python -m bot cluster`, the files in deploy/, and the bot in its own process with GPT2_ENGINE=ray."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from bot import config
from bot.__main__ import _parser
from bot.cli import check, deploy_cluster
from bot.config import Settings
from bot.errors import ExitCode, SettingsError, UnreachableError
from bot.gpt2.cluster import engine
from bot.gpt2.cluster.dispatcher import MAX_REPLICA_ROWS
from bot.gpt2.cluster.engine import ClusterEngine
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.ui.literal import literal
from tests import kuberay
from tests.command_line import ROOT, TOKEN, run_bot, run_python
from tests.loopback import BotProcess, Channel, GatewaySettings, Interaction, LoopbackDiscord
from tests.ray_cluster import REPLICAS, RayCluster, free_port, needs_ray, stopped

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG: Final[dict[str, Any]] = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text(encoding="utf-8"))
SERVICE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "deploy" / "rayservice.yaml").read_text(encoding="utf-8"))


class TestCommand:
    def test_without_the_extra_it_says_in_one_sentence_how_to_get_it(self, tmp_path: Path) -> None:
        program = (
            "import sys; sys.modules['ray'] = None\n"  # as if it were not installed
            "from bot.__main__ import main; sys.exit(main(['cluster', '--model', 'gpt2-mini']))"
        )
        process = run_python("-c", program, folder=tmp_path)
        assert process.returncode == ExitCode.NOT_INSTALLED
        (line,) = process.stderr.splitlines()
        assert 'python -m pip install -c constraints.txt -e ".[cluster]"' in line

    @pytest.mark.parametrize(("text", "replicas"), [("2", (2, 2)), ("1-4", (1, 4))])
    def test_replicas_are_a_number_or_a_range(self, text: str, replicas: tuple[int, int]) -> None:
        assert _parser().parse_args(["cluster", "--replicas", text]).replicas == replicas

    @pytest.mark.parametrize("text", ["0", "4-2", "-1", "two", "1-", "1-2-3"])
    def test_anything_else_is_a_wrong_command_line(self, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            _parser().parse_args(["cluster", f"--replicas={text}"])
        assert caught.value.code == ExitCode.USAGE
        assert "a number of replicas, such as 2" in capsys.readouterr().err

    @pytest.mark.slow
    @needs_ray
    def test_what_cannot_be_and_a_cluster_that_is_not_there_are_said(self, tmp_path: Path) -> None:
        program = (
            "import os\n"
            "from bot.__main__ import main\n"
            "print(int(main(['cluster', '--gpus=-1'])), flush=True)\n"
            "os.environ['RAY_ADDRESS'] = '127.0.0.1:1'\n"
            "print(int(main(['cluster'])))"
        )
        process = run_python("-c", program, folder=tmp_path, environment={"GPT2_MODEL": "gpt2-mini"})
        first, *_, second = process.stdout.splitlines()
        assert (first, second) == (str(int(ExitCode.SETTINGS)), str(int(ExitCode.UNREACHABLE))), process.stderr
        assert "a replica cannot have a negative number of GPUs" in process.stderr
        assert "The Ray cluster at 127.0.0.1:1 cannot be used (RAY_ADDRESS)" in process.stderr
        assert "Traceback" not in process.stderr

    @needs_ray
    @pytest.mark.slow
    def test_ctrl_c_ends_it_without_a_word_of_failure(self, tmp_path: Path, tiny_model: Path) -> None:
        command = [sys.executable, "-m", "bot", "cluster", "--model", str(tiny_model), "--port", str(free_port())]
        with (
            tempfile.TemporaryDirectory(prefix="ray") as folder,  # short, because the names of sockets are
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": folder, "RAY_worker_niceness": "0"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process,
        ):
            assert process.stdout
            said = [""]
            while "Bots reach it" not in said[-1]:
                said.append(process.stdout.readline())
                assert said[-1], said
            process.send_signal(signal.SIGINT)
            said.append(process.communicate(timeout=60)[0])
            assert process.returncode == ExitCode.OK
        assert "fail" not in "".join(said).lower()

    @pytest.mark.parametrize(
        ("details", "message"),
        [
            ("x\nbot.errors.ModelInvalidError: The folder has no config.json.\ny", "The folder has no config.json."),
            (
                "x\nbot.errors.SettingsError: These settings need attention:\n  - GPT2_DEVICE is cuda.",
                "GPT2_DEVICE is cuda.",
            ),
        ],
    )
    def test_a_replicas_error_is_found_in_its_traceback(self, details: str, message: str) -> None:
        assert deploy_cluster._message(details) == message

    def test_check_asks_a_cluster_that_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(check, "CLUSTER_SECONDS", 0.5)
        with pytest.raises(UnreachableError, match="did not answer with a model"):
            check._cluster_model(Settings(gpt2_cluster=(f"http://127.0.0.1:{free_port()}",)))

    def test_addresses_are_several(self) -> None:
        settings = config.parse({"GPT2_ENGINE": "RAY", "GPT2_CLUSTER": "http://a:8000, https://b/gpt2"})
        assert (settings.gpt2_engine, settings.gpt2_cluster) == ("ray", ("http://a:8000", "https://b/gpt2"))

    @pytest.mark.parametrize("text", ["a:8000", "http://", "http://a b", ",", "ray://a:10001", "http://a?b"])
    def test_what_is_no_address_is_a_fault(self, text: str) -> None:
        with pytest.raises(SettingsError, match="GPT2_CLUSTER must be addresses such as"):
            config.parse({"GPT2_CLUSTER": text})


@needs_ray
class TestDeploy:
    # In processes of their own: nothing of Ray is loaded into that of the tests, which its warnings would fail.
    @pytest.mark.slow
    def test_the_config_file_builds_and_args_that_cannot_be_are_told(self, tmp_path: Path) -> None:
        wrong: list[dict[str, Any]] = [{"threads": 0}, {"min_replicas": 3, "max_replicas": 2}, {"treads": 1}]
        program = (
            "import json, sys, bot.gpt2.cluster.deployment as serving\n"
            "from ray.serve.schema import ServeDeploySchema\n"
            "from bot.errors import SettingsError\n"
            "schema = ServeDeploySchema.model_validate(json.loads(sys.argv[1]))\n"
            "(application,) = schema.applications\n"
            "assert application.name == serving.NAME\n"
            "print(application.import_path, type(serving.application(application.args)).__name__)\n"
            f"for args in {wrong}:\n"
            "    try:\n        serving.application(args)\n"
            "    except SettingsError as error:\n        print(str(error).splitlines()[0])"
        )
        assert yaml.safe_load(SERVICE["spec"]["serveConfigV2"]) == CONFIG, "one check is enough for both"
        process = run_python("-c", program, json.dumps(CONFIG), folder=tmp_path)
        built, *told = process.stdout.splitlines()
        assert built == "bot.gpt2.cluster.deployment:application Application", process.stderr
        assert len(told) == len(wrong), process.stderr
        assert all(line.startswith("These settings need attention") for line in told)

    def test_the_one_for_kubernetes_has_the_fields_that_kuberay_knows(self) -> None:
        given = (ROOT / "deploy" / "rayservice.yaml").read_text(encoding="utf-8")
        suggested = re.sub(r"^    # (gcsFaultToleranceOptions:|  redisAddress:)", r"    \1", given, flags=re.MULTILINE)
        for text in (given, suggested):
            faults = Draft202012Validator(kuberay.RAY_SERVICE).iter_errors(yaml.safe_load(text))
            assert [f"{fault.json_path}: {fault.message}" for fault in faults] == []
        assert "gcsFaultToleranceOptions" in yaml.safe_load(suggested)["spec"]["rayClusterConfig"]

    @pytest.mark.parametrize(
        "wrong",
        [
            'num-cpus: "0"',
            "headGroupSpec:",
            "serveConfigV2: |",
            "apiVersion: ray.io/v1",
            "limits: { cpu: ",
            "groupName:",
        ],
    )
    def test_and_what_kuberay_would_refuse_is_found(self, wrong: str) -> None:
        given = (ROOT / "deploy" / "rayservice.yaml").read_text(encoding="utf-8")
        put = "num-cpus: 0" if "num-cpus" in wrong else wrong.replace(":", "s:", 1)
        put = "apiVersion: ray.io/v1alpha1" if "apiVersion" in wrong else put
        assert wrong in given
        assert not Draft202012Validator(kuberay.RAY_SERVICE).is_valid(yaml.safe_load(given.replace(wrong, put)))

    def test_a_pod_of_kubernetes_gets_what_it_asks_for(self) -> None:
        spec = SERVICE["spec"]["rayClusterConfig"]
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            (container,) = group["template"]["spec"]["containers"]
            asked, most = container["resources"]["requests"], container["resources"]["limits"]
            for name, amount in asked.items():
                assert kuberay.quantity(amount) <= kuberay.quantity(most[name])
            assert container["image"] == "your.registry/gpt2-for-discord:your-tag", "the version is in one place"
        (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in head["ports"]}
        assert len(ports) == len(set(ports.values())) == len(head["ports"])
        assert ports["serve"] == CONFIG["http_options"]["port"]

    def test_the_one_for_kubernetes_deploys_the_same(self) -> None:
        assert yaml.safe_load(SERVICE["spec"]["serveConfigV2"]) == CONFIG
        spec = SERVICE["spec"]["rayClusterConfig"]
        (pin,) = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray=="))
        assert pin == f"ray=={spec['rayVersion']}"
        (group,) = spec["workerGroupSpecs"]
        args = CONFIG["applications"][0]["args"]
        (container,) = group["template"]["spec"]["containers"]
        assert int(container["resources"]["limits"]["cpu"]) >= args["threads"]
        assert (group["minReplicas"], group["maxReplicas"]) == (args["min_replicas"], args["max_replicas"])


@pytest.mark.slow
@needs_ray
def test_check_says_which_model_a_cluster_has(ray_cluster: RayCluster, tmp_path: Path) -> None:
    environment = {"GPT2_ENGINE": "ray", "GPT2_CLUSTER": ray_cluster.url, "DISCORD_TOKEN": TOKEN}
    process = run_bot("check", folder=tmp_path, environment=environment)
    assert process.returncode == ExitCode.OK, process.stdout + process.stderr
    assert "model     ok: tiny-gpt2, 3 layers × 4 heads" in process.stdout


async def metrics_of_replicas(port: int, *, tokens: int) -> None:
    """Wait until the bot tells Prometheus of two replicas, each by its name, which together have computed so much."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session, asyncio.timeout(60):
        while True:
            async with session.get("/metrics") as answer:
                families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
            seen = {
                sample.labels["replica"]
                for name in ("gpt2_tokens", "gpt2_prompt_tokens", "gpt2_worker_stalled_seconds")
                for sample in families[name].samples
            }
            if len(seen) >= 2 and sum(sample.value for sample in families["gpt2_tokens"].samples) >= tokens:
                break
            await asyncio.sleep(0.2)
        for name in ("gpt2_pass_rows", "gpt2_first_token_seconds"):
            counts = [each for each in families[name].samples if each.name == f"{name}_count"]
            assert {each.labels["replica"] for each in counts} == seen
            assert sum(each.value for each in counts) > 0
        (workers,) = families["gpt2_workers"].samples
        assert workers.value == len(seen)
        async with session.get("/readyz") as answer:
            assert (await answer.json())["worker"] == "ok"


@needs_ray
async def test_the_bot_answers_through_a_cluster_whose_replicas_die(
    ray_cluster: RayCluster, engine: LocalEngine
) -> None:
    port = free_port()
    env = {"GPT2_ENGINE": "ray", "GPT2_CLUSTER": ray_cluster.url, "HEALTH_PORT": str(port)}
    async with LoopbackDiscord() as discord:
        async with BotProcess(discord, env=env, fresh=True) as bot:
            await bot.loaded()
            asked = [
                await discord.slash("continue", {"prompt": "Hello", "seed": seed, "samples": 10, "length": 100})
                for seed in range(12)
            ]
            os.kill(ray_cluster.pids("ServeReplica:gpt2:Replica")[0], signal.SIGKILL)
            for seed, interaction in enumerate(asked):
                await interaction.until(lambda each: "tokens/s" in each.text, within=60, what="the samples")
                message = interaction.messages[-1]
                request = ContinuationRequest("Hello", SamplingParams(seed, samples=10, length=100))
                expected = await engine.continuation(request)
                shown = message.text + "".join(each.content.decode() for each in message.attachments)
                assert any(literal(sample.text)[:40] in shown for sample in expected.samples)
                assert len(interaction.messages) == 1, "answered once"
            picture = await (await discord.slash("weights attention", {"layer": 1})).answered()
            assert any(attachment.filename.endswith(".png") for attachment in picture.attachments)
            await metrics_of_replicas(port, tokens=12 * 10 * 20)
            mapped = await asyncio.to_thread(Path(f"/proc/{bot.pid}/maps").read_text)
            assert "libtorch" not in mapped, "the bot itself needs no PyTorch"
        assert bot.exit_code == ExitCode.OK
        assert discord.violations == []


@pytest.mark.slow
@needs_ray
async def test_one_person_has_one_share_in_two_processes(
    ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "STATUS_SECONDS", 0.2)
    asked, at_once = 40, REPLICAS * MAX_REPLICA_ROWS // 10
    options: dict[str, Any] = {"prompt": "Hello", "samples": 10, "length": 60}
    env = {"GPT2_ENGINE": "ray", "GPT2_CLUSTER": ray_cluster.url, "SHARD_COUNT": "2"}
    env |= {"REQUESTS_PER_PERSON": "0", "REQUESTS_PER_SERVER": "0"}  # to let one of them be as greedy as can be
    far = ClusterEngine([ray_cluster.url])

    async def until(true: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not true():  # noqa: ASYNC110 # a cluster has no event for this
                await asyncio.sleep(0.05)

    def waiting() -> int:
        return far._status.waiting if far._status else 0

    def queued_at(interaction: Interaction) -> int:
        found = re.search(r"Number (\d+) in the queue", interaction.text)
        return int(found[1]) if found else 0

    async with LoopbackDiscord(GatewaySettings(shards=2, max_concurrency=2)) as discord:
        greedy, modest = discord.user("greedy"), discord.user("modest")
        places: dict[int, Channel] = {}
        while len(places) < 2:
            place = discord.server("One more")
            assert place.guild is not None
            places[(place.guild.id >> 22) % 2] = place
        one, two = (BotProcess(discord, env=env | {"SHARD_IDS": str(shard)}) for shard in range(2))
        async with one, two, contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(far.close)
            await asyncio.gather(one.ready(shards=(0,)), two.ready(shards=(1,), commands=False), far.start())
            await asyncio.gather(one.logged("the model is ready"), two.logged("the model is ready"))
            replicas = ray_cluster.pids("ServeReplica:gpt2:Replica")
            asked_for: list[Interaction] = []
            # Nothing is computed until everybody waits in the queue, however quick this machine is or slow.
            with stopped(*replicas):
                for number in range(1, asked + 1):
                    each = await discord.slash("continue", options, user=greedy, where=places[0])
                    asked_for.append(each)
                    if not number % 10:
                        await until(lambda: waiting() >= number)  # noqa: B023 # awaited here
                # In the other process, the greedy one has no second share, and the modest one has one of their own.
                for user, number in ((greedy, asked + 1), (modest, asked + 2)):
                    asked_for.append(await discord.slash("continue", options, user=user, where=places[1]))
                    await until(lambda: waiting() >= number)  # noqa: B023
                again, fair = asked_for[-2:]
                # Who asked last comes before the greedy one's last, which is behind all others.
                await until(lambda: queued_at(again) == asked + 2 - at_once and queued_at(fair))
                assert queued_at(fair) < queued_at(again)
            for each in asked_for:
                await each.until(lambda each: "tokens/s" in each.text, within=120, what="an answer")
        assert (one.exit_code, two.exit_code) == (ExitCode.OK, ExitCode.OK)
        assert discord.violations == []
