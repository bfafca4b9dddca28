"""The running bot as its operator sees it: health, readiness, metrics and log lines, through the real endpoints."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from bot.config import Settings
from bot.errors import ExitCode, SettingsError
from bot.gpt2.engine import MAX_WAITING
from bot.monitoring import health
from tests.command_line import run_bot
from tests.loopback import BotProcess, LoopbackDiscord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from bot.client import GPT2Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = TypeVar("T")

SECRET = "words that nobody else may read"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def until(look: Callable[[], Awaitable[T | None]]) -> T:
    """Return the first result of `look`, which looks at another process."""
    async with asyncio.timeout(30):
        while (found := await look()) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


async def ready(port: int) -> tuple[int, dict[str, str]]:
    status, text = await get(port, "/readyz")
    return status, json.loads(text)


async def until_ready(port: int, *, status: int = 200) -> dict[str, str]:

    async def look() -> dict[str, str] | None:
        code, parts = await ready(port)
        return parts if code == status else None

    return await until(look)


async def numbers(port: int) -> dict[str, float]:
    """Return every sample by its name and labels, as Prometheus's own parser reads them."""
    status, text = await get(port, "/metrics")
    assert status == 200
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def settings(model: Path, port: int, **more: str) -> dict[str, str]:
    return {"GPT2_MODEL": str(model), "GPT2_THREADS": "1", "HEALTH_PORT": str(port), **more}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def discord() -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord() as server:
        yield server
    assert server.violations == []


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process(discord: LoopbackDiscord, tiny_model: Path, port: int) -> AsyncIterator[BotProcess]:
    async with BotProcess(discord, env=settings(tiny_model, port, LOG_FORMAT="json")) as bot:
        await bot.loaded()
        await until_ready(port)
        yield bot
    assert bot.exit_code == ExitCode.OK


def requests_logged(bot: BotProcess) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in bot.stderr if line.startswith("{")]
    return [each for each in entries if each["event"] == "request"]


async def request_logged(bot: BotProcess, command: str, **sizes: float) -> dict[str, Any]:
    """Return the log line of the only request for this command with these sizes, once it exists."""

    async def look() -> dict[str, Any] | None:
        found = [each for each in requests_logged(bot) if each["command"] == command and each["sizes"] == sizes]
        assert len(found) < 2
        return found[0] if found else None

    return await until(look)


@pytest.mark.usefixtures("process")
class TestAnswers:
    async def test_a_running_bot_is_alive_and_ready(self, port: int) -> None:
        assert await get(port, "/healthz") == (200, '{"alive": true}')
        assert await ready(port) == (200, {"gateway": "ok", "model": "ok", "worker": "ok", "queue": "ok"})

    async def test_other_paths_do_not_exist(self, port: int) -> None:
        for path in ("/", "/metrics/", "/healthz/../etc/passwd", "/debug"):
            assert (await get(port, path))[0] == 404, path

    async def test_it_listens_on_loopback_only(self, port: int) -> None:
        with socket.socket() as everywhere_else:
            everywhere_else.bind(("127.0.0.2", port))  # refused if the bot had it on every address

    async def test_a_request_is_counted_and_measured(self, discord: LoopbackDiscord, port: int) -> None:
        before = await numbers(port)
        await (await discord.slash("continue", {"prompt": SECRET, "samples": 3, "length": 7, "seed": 1})).answered()
        await (await discord.slash("continue", {"prompt": " "})).answered()

        async def grown() -> dict[str, float] | None:
            now = await numbers(port)
            grown = {name: value - before.get(name, 0) for name, value in now.items()}
            return grown if grown.get("gpt2_requests_total command=/continue outcome=refused") else None

        more = await until(grown)
        assert more["gpt2_requests_total command=/continue outcome=refused"] == 1
        assert more["gpt2_requests_total command=/continue outcome=answered"] == 1
        assert more["gpt2_request_seconds_count command=/continue"] == 2
        assert 0 < more["gpt2_tokens_total"] <= 21
        assert more["gpt2_prompt_tokens_total"] > 1
        assert more["gpt2_first_token_seconds_count"] == 1
        assert more["gpt2_pass_rows_count"] >= 2
        assert more["gpt2_pass_rows_bucket le=+Inf"] == more["gpt2_pass_rows_count"]

    async def test_process_loop_and_gateway_are_measured(self, port: int) -> None:
        async def measured() -> dict[str, float] | None:
            seen = await numbers(port)
            return seen if seen["gpt2_event_loop_delay_seconds_count"] else None

        seen = await until(measured)
        assert seen["process_resident_memory_bytes"] > 50e6
        assert seen["process_open_fds"] > 3
        assert seen["gpt2_gateway_connected shard=0"] == 1
        assert seen["gpt2_model_ready"] == 1
        assert seen["gpt2_queue_depth"] == 0
        assert seen["gpt2_worker_stalled_seconds"] < 1
        assert [name for name in seen if name.startswith("gpt2_info model=")]

    async def test_no_metric_holds_users_texts(self, discord: LoopbackDiscord, port: int) -> None:
        await (await discord.slash("continue", {"prompt": SECRET, "samples": 1, "length": 2})).answered()
        assert SECRET not in (await get(port, "/metrics"))[1]

    async def test_the_command_queries_it(self, tmp_path: Path, port: int) -> None:
        for arguments in (["health"], ["health", "--ready"]):
            asked = await asyncio.to_thread(
                run_bot, *arguments, folder=tmp_path, environment={"HEALTH_PORT": str(port)}
            )
            assert asked.returncode == ExitCode.OK, asked.stderr
            assert asked.stdout == "gateway   ok\nmodel     ok\nworker    ok\nqueue     ok\n"


class TestOneLineARequest:
    async def test_of_a_command(self, discord: LoopbackDiscord, process: BotProcess) -> None:
        options = {"prompt": SECRET, "samples": 2, "length": 5, "temperature": 0.5}
        await (await discord.slash("continue", options)).answered()
        entry = await request_logged(process, "/continue", samples=2, length=5, temperature=0.5, characters=len(SECRET))
        assert re.fullmatch(r"[0-9a-f]{8}", entry["reference"])
        assert entry["outcome"] == "answered"
        assert entry["place"] == "server"
        assert entry["seconds"] > 0

    async def test_of_a_subcommand_that_is_refused(self, discord: LoopbackDiscord, process: BotProcess) -> None:
        await (await discord.slash("weights matrix", {"name": "nothing of this name"})).answered()
        assert (await request_logged(process, "/weights matrix", characters=20))["outcome"] == "refused"

    async def test_of_a_form(self, discord: LoopbackDiscord, process: BotProcess) -> None:
        form = await discord.slash("continue", {"samples": 1, "length": 3})
        await form.acknowledged()
        await (await discord.modal(form, {"Prompt": SECRET})).answered()
        assert (await request_logged(process, "form ask", characters=len(SECRET)))["outcome"] == "answered"

    async def test_of_a_button(self, discord: LoopbackDiscord, process: BotProcess) -> None:
        message = await (await discord.slash("continue", {"prompt": SECRET, "samples": 1, "length": 4})).answered()
        await (await discord.component(message, label="Re-roll")).answered()
        entry = await request_logged(process, "button reroll", characters=0)
        assert entry["outcome"] == "answered"
        assert "custom_id" not in json.dumps(entry)

    async def test_of_an_entry_in_a_menu(self, discord: LoopbackDiscord, process: BotProcess) -> None:
        message = discord.post(SECRET)
        await (await discord.message_command("Continue with GPT-2", message)).answered()
        entry = await request_logged(process, "menu Continue with GPT-2", characters=len(SECRET))
        assert entry["outcome"] == "answered"

    async def test_autocompletion_is_not_logged(self, discord: LoopbackDiscord, process: BotProcess) -> None:
        before = len(requests_logged(process))
        await (await discord.autocomplete("weights matrix", "name", "c_attn")).acknowledged()
        await (await discord.slash("help")).answered()
        await request_logged(process, "/help", characters=0)
        assert len(requests_logged(process)) == before + 1

    async def test_the_log_holds_no_users_texts(self, process: BotProcess) -> None:
        assert SECRET not in process.log


@pytest.mark.slow
async def test_a_taken_port_is_logged_once(tiny_model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with LoopbackDiscord() as discord:
            environment = settings(tiny_model, taken.getsockname()[1], LOG_FORMAT="json")
            async with BotProcess(discord, env=environment) as bot:
                await bot.loaded()
                await (await discord.slash("continue", {"prompt": "a", "samples": 1, "length": 1})).answered()
                assert await bot.stop() == ExitCode.OK
    (line,) = [line for line in bot.stderr if "HEALTH_PORT" in line]
    assert "address already in use" in line
    assert "Traceback" not in bot.log


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe to hold up the loading")
async def test_parts_that_are_not_ready_are_named(tiny_model: Path, tmp_path: Path) -> None:
    folder, port = shutil.copytree(tiny_model, tmp_path / "tiny-gpt2"), free_port()
    config = folder / "config.json"
    config.unlink()
    os.mkfifo(config)

    def let_it_load() -> None:
        with config.open("w") as pipe:  # waits until the bot has come to read it
            Path(shutil.copy(tiny_model / "config.json", tmp_path)).replace(config)
            pipe.write(config.read_text())

    async with LoopbackDiscord() as discord, BotProcess(discord, env=settings(folder, port)) as bot:
        await bot.ready()

        async def connected() -> dict[str, str] | None:
            parts = await until_ready(port, status=503)
            return parts if parts["gateway"] == "ok" else None

        assert await until(connected) == {"gateway": "ok", "model": "not loaded yet", "worker": "ok", "queue": "ok"}
        assert (await get(port, "/healthz"))[0] == 200, "alive it is"
        await asyncio.to_thread(let_it_load)
        await until_ready(port)
        discord.gateway.settings.accept_connections = False
        discord.gateway.tear_all()
        assert (await until_ready(port, status=503))["gateway"] == "not connected: shard 0 of 1"
        discord.gateway.settings.accept_connections = True
        await until_ready(port)


class Part:
    """A fake client with what readiness reads, in a state that a real one reaches only after minutes."""

    def __init__(
        self, stalled: float = 0.0, waiting: int = 0, *, loaded: bool = True, closed: Collection[int] = ()
    ) -> None:
        self.engine = self.models = self
        self.engines = {"": self}
        self.ready = loaded
        self.waiting = waiting
        self.statistics = self
        self.stalled_seconds = stalled
        self.shards = {number: SimpleNamespace(is_closed=lambda n=number: n in closed) for number in range(3)}

    def is_ready(self) -> bool:
        return True


async def test_a_stalled_worker_and_a_full_queue_are_named() -> None:
    client: Any = Part(stalled=health.STALLED_SECONDS, waiting=MAX_WAITING)
    assert health.readiness(client) == {
        "gateway": "ok",
        "model": "ok",
        "worker": "stalled for 120 seconds",
        "queue": f"full: {MAX_WAITING} requests",
    }


async def test_a_model_not_loaded_and_lost_shards_are_named() -> None:
    client: Any = Part(loaded=False, closed=(0, 2))
    assert health.readiness(client) == {
        "gateway": "not connected: shard 0, 2 of 3",
        "model": "not loaded yet",
        "worker": "ok",
        "queue": "ok",
    }


async def test_a_taken_port_is_one_warning(simcord_bot: GPT2Client) -> None:
    with socket.socket() as taken, capture_logs() as logs:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with health.endpoints(simcord_bot, "127.0.0.1", taken.getsockname()[1]):
            pass
    (line,) = logs
    assert line["log_level"] == "warning"
    assert "HEALTH_PORT" in line["event"]
    assert "address already in use" in line["error"]


async def test_nothing_is_served_on_port_0(simcord_bot: GPT2Client) -> None:
    async with health.endpoints(simcord_bot, "no such host", 0):
        assert len(simcord_bot.pipeline.request_log.observers) == 0


class TestQuery:
    async def test_no_server_answers(self, tmp_path: Path) -> None:
        asked = run_bot("health", folder=tmp_path, environment={"HEALTH_PORT": str(free_port())})
        assert asked.returncode == 1
        assert asked.stdout.startswith("no answer from 127.0.0.1:")
        assert "Traceback" not in asked.stderr

    async def test_another_server_answers(self) -> None:
        async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH\r\n")
            writer.close()

        server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            code = await asyncio.to_thread(health.query, Settings(health_port=port), ready=False)
        assert code == ExitCode.CRASHED

    async def test_the_endpoints_are_off(self) -> None:
        with pytest.raises(SettingsError, match="HEALTH_PORT is 0"):
            health.query(Settings(health_port=0), ready=False)
