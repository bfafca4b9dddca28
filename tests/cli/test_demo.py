"""The demo as a newcomer meets it: in its own process, and in a real browser if there is one."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import pytest
import pytest_asyncio

from bot import __main__ as program
from bot.cli.demo import DemoError, demo, greeting
from bot.config import Settings
from bot.errors import ExitCode, ModelInvalidError
from bot.gpt2.model.files import SHIPPED, SHIPPED_FOLDER, WEIGHTS
from bot.gpt2.model_info import ModelInfo
from tests.command_line import ROOT
from tests.models import make_model

with contextlib.suppress(ImportError):  # the tests that need it are skipped
    from playwright.async_api import async_playwright, expect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from playwright.async_api import Browser, Locator, Page

START_SECONDS: Final = 120  # torch alone takes many on a busy machine
ANSWER_MS: Final = 60_000
DESK: Final = (1200, 900)
PHONE: Final = (390, 844)
SIZES: Final = (pytest.param(DESK, id="desk", marks=pytest.mark.slow), pytest.param(PHONE, id="phone"))

INFO: Final = ModelInfo(
    name="gpt2", layers=12, heads=12, width=768, context=1024, vocabulary=50257, parameters=124_439_808, device="cpu"
)


class DemoProcess:
    """`python -m bot demo`, started and waited for until it says where the page is."""

    def __init__(self, folder: Path, *arguments: str, module: str = "bot") -> None:
        settings = {field.name.upper() for field in dataclasses.fields(Settings)}
        self._stderr = folder / "stderr"
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "demo", *arguments],
                cwd=folder,
                env={name: value for name, value in os.environ.items() if name not in settings}
                # One thread is plenty for so small a model; two would wait for one another on a busy machine.
                | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "GPT2_THREADS": "1", "PICTURES_MB": "0"},
                stdout=subprocess.PIPE,
                stderr=stderr,
                encoding="utf-8",
            )
        self.said = self._until_ready()
        [self.url] = re.findall(r"http://127\.0\.0\.1:\d+/\S+", self.said)

    @property
    def stderr(self) -> str:
        """The log so far."""
        return self._stderr.read_text(encoding="utf-8")

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, Ctrl-C by default, and return the exit code."""
        self._process.send_signal(number)
        return self._process.wait(START_SECONDS)

    def kill(self) -> None:
        """End the process whatever happened."""
        with self._process:  # closes its standard output and waits
            self._process.kill()

    def _until_ready(self) -> str:
        assert self._process.stdout
        too_long = threading.Timer(START_SECONDS, self._process.kill)
        too_long.start()
        said = ""
        for line in self._process.stdout:
            said += line
            if "Ctrl-C" in line:
                too_long.cancel()
                return said
        pytest.fail(f"the demo ended before its page was there: {said}{self.stderr}")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[DemoProcess]:
    """Yield one demo for all tests that only use it, and end it with Ctrl-C, which is a test itself."""
    arguments = [] if (SHIPPED_FOLDER / WEIGHTS).is_file() else ["--model", str(tiny_model)]
    process = DemoProcess(tmp_path_factory.mktemp("demo"), *arguments)
    try:
        yield process
        assert process.stop() == ExitCode.OK
        assert "Traceback" not in process.stderr
        assert '"level": "error"' not in process.stderr
    finally:
        process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Yield a headless Chromium, as a distribution installs it."""
    pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip(f"there is no browser here: none of {', '.join(names)} is on the PATH")
    async with async_playwright() as driver:
        chromium = await driver.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
        )
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SIZES)
async def page(request: pytest.FixtureRequest, browser: Browser, running: DemoProcess) -> AsyncIterator[Page]:
    """Yield the demo's page, as wide as on a desk or as narrow as on a phone."""
    page = await opened(browser, running, request.param)
    yield page
    await page.close()


async def opened(browser: Browser, demo: DemoProcess, size: tuple[int, int]) -> Page:
    width, height = size
    # Nothing fades or slides: each frame of it would cost as much as a picture, and no test looks at it.
    page = await browser.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
    page.set_default_timeout(ANSWER_MS)
    await page.goto(demo.url)
    await page.locator("#preview-app[aria-busy=false]").wait_for()
    return page


async def type_command(page: Page, name: str, /, **options: object) -> None:
    """Type a command and its options as a person does, without sending it."""
    await page.locator("#channel-composer-input").press_sequentially(f"/{name}")
    await page.locator(".command-popup").get_by_text(f"/{name}", exact=True).first.click()
    for option, value in options.items():
        field = page.locator(f'.command-option-input[data-option="{option}"]')
        if not await field.count():  # required ones are there from the start
            suggestion = page.locator(f'.command-suggestion[data-value="{option}"]')
            if not await suggestion.is_visible():
                await page.locator(".command-ghost").click()
            await suggestion.click()
        await field.fill(str(value))
        await field.press("Tab")


async def ask(page: Page, name: str, /, **options: object) -> Locator:
    """Use a command and return its answer."""
    await type_command(page, name, **options)
    return await answer_to(page, page.locator("#send-message").click)


async def answer_to(page: Page, act: Callable[[], Awaitable[None]]) -> Locator:
    """Do `act` and return the message that answers it."""
    messages = page.locator(".channel-message")
    before = await messages.count()
    await act()
    await expect(messages).to_have_count(before + 1, timeout=ANSWER_MS)
    await expect(page.locator("#action-status")).to_have_text(re.compile("completed$"), timeout=ANSWER_MS)
    return messages.nth(before)


@pytest.mark.asyncio(loop_scope="module")
class TestPage:
    async def test_greets_with_first_steps(self, page: Page) -> None:
        welcome = page.locator(".channel-message").first
        await expect(welcome).to_contain_text("Welcome!")
        await expect(welcome.locator(".message-author")).to_have_text("GPT-2")

    async def test_one_click_continues_the_tutorials_prompt(self, page: Page) -> None:
        step = page.locator(".channel-message").first.get_by_role("button", name="Hello, I'm a language model,")
        answer = await answer_to(page, step.click)
        await expect(answer).to_contain_text("seed 42 · samples 5 · length 40", timeout=ANSWER_MS)
        await expect(answer.get_by_role("button", name="Continue")).to_have_count(5)

    async def test_continues_a_prompt_with_options(self, page: Page) -> None:
        answer = await ask(page, "continue", prompt="Hello", samples=2, length=5, seed=42)
        await expect(answer).to_contain_text("seed 42 · samples 2 · length 5")
        await expect(answer.get_by_text("Hello", exact=True)).to_have_count(2)
        await expect(answer).to_be_in_viewport()

    async def test_buttons_continue_explain_and_delete(self, page: Page) -> None:
        answer = await ask(page, "continue", prompt="Hello", samples=2, length=5, seed=42)
        further = await answer_to(page, answer.get_by_role("button", name="Continue").nth(1).click)
        await expect(further.get_by_role("button", name="Continue")).to_have_count(2)
        code = await answer_to(page, further.get_by_role("button", name="Show code").click)
        await expect(code).to_contain_text("Only you can see this")
        picture = (await answer_to(page, further.get_by_role("button", name="Insights").click)).locator("img[alt]")
        await expect(picture).not_to_have_js_property("naturalWidth", 0)
        rerolled = await answer_to(page, further.get_by_role("button", name="Re-roll").click)
        assert await rerolled.evaluate("message => message.scrollWidth <= innerWidth")
        count = await page.locator(".channel-message").count()
        await rerolled.get_by_role("button", name="Delete").click()
        await expect(page.locator(".channel-message")).to_have_count(count - 1, timeout=ANSWER_MS)

    @pytest.mark.slow
    async def test_takes_a_prompt_of_several_lines_from_a_form(self, page: Page) -> None:
        await type_command(page, "continue")
        await page.locator("#send-message").click()
        form = page.get_by_role("dialog").last
        await form.get_by_role("textbox").fill("Enter Romeo\nand Juliet")
        answer = await answer_to(page, form.get_by_role("button", name="Submit").click)
        await expect(answer).to_contain_text("and Juliet")
        await expect(answer).to_be_in_viewport()

    async def test_shows_pictures(self, page: Page) -> None:
        step = page.locator(".channel-message").first.get_by_role("button", name="Positional embeddings")
        picture = (await answer_to(page, step.click)).locator("img[alt*='positional embeddings']")
        await expect(picture).to_be_in_viewport()
        await expect(picture).not_to_have_js_property("naturalWidth", 0)
        assert await picture.evaluate("image => image.getBoundingClientRect().right <= innerWidth")

    async def test_shows_the_attention_of_words_from_a_form(self, page: Page) -> None:
        await page.locator(".channel-message").first.get_by_role("button", name="Attention of your words").click()
        form = page.get_by_role("dialog").last
        await form.get_by_role("textbox").fill("my own words")
        answer = await answer_to(page, form.get_by_role("button", name="Submit").click)
        await expect(answer).to_contain_text("my own words")
        await expect(answer.locator("img[alt*='Attention maps']")).not_to_have_js_property("naturalWidth", 0)

    @pytest.mark.slow
    async def test_completes_names_of_parameters(self, page: Page) -> None:
        await type_command(page, "weights matrix", name="wpe")
        await page.locator(".command-suggestion", has_text="transformer.wpe.weight").click()
        answer = await answer_to(page, page.locator("#send-message").click)
        await expect(answer).to_contain_text("transformer.wpe.weight")

    async def test_refuses_in_private(self, page: Page) -> None:
        answer = await ask(page, "weights attention", layer=99)
        await expect(answer).to_contain_text("There is no layer 99")
        await expect(answer).to_contain_text("Only you can see this")

    @pytest.mark.slow
    @pytest.mark.parametrize("command", ["about", "help", "weights list"])
    async def test_explains_itself(self, page: Page, command: str) -> None:
        await expect(await ask(page, command)).to_be_in_viewport()

    async def test_fits_its_window(self, page: Page) -> None:
        await ask(page, "help")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        widest = (
            "Math.max(...[...document.querySelectorAll('.channel-message')].map(e => e.getBoundingClientRect().right))"
        )
        assert await page.evaluate(f"{widest} <= innerWidth")


class TestProcess:
    def test_prints_the_address_of_the_page(self, running: DemoProcess) -> None:
        assert re.search(r"^The bot is at http://127\.0\.0\.1:\d+/#\S+$", running.said, re.MULTILINE)
        with urllib.request.urlopen(running.url) as answer:  # noqa: S310 # the address was just checked
            assert answer.status == 200
            assert b"<!doctype html>" in answer.read()

    def test_starts_without_noise(self, running: DemoProcess) -> None:
        assert len(running.stderr.splitlines()) <= 5
        assert '"level": "info"' in running.stderr
        assert '"level": "warning"' not in running.stderr


def quiet(model: Path | str) -> Settings:
    return Settings(gpt2_model=str(model), gpt2_threads=1, pictures_mb=0, log_level="WARNING")


async def test_a_taken_port_is_one_sentence(tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(DemoError, match=f"Port {port} .* --port") as refusal:
            await demo(quiet(tiny_model), port=port)
    assert refusal.value.exit_code == ExitCode.SETTINGS


async def test_a_missing_model_comes_with_an_alternative(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalidError, match=f"has no config.json.*\n.*make demo MODEL={SHIPPED}"):
        await demo(quiet(tmp_path))


async def test_ends_when_it_is_ended_in_the_page(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = asyncio.create_task(demo(quiet(tiny_model)))
    said = ""
    while "Ctrl-C" not in said:
        await asyncio.sleep(0.01)
        assert not running.done() or running.result()
        said += capsys.readouterr().out
    [(origin, capability)] = re.findall(r"(http://127\.0\.0\.1:\d+)/#(\S+)", said)
    async with aiohttp.ClientSession(origin, headers={"X-Simcord-Capability": capability}) as session:
        page = await told(session, "/api/pages", {})
        await told(
            session,
            "/api/action",
            {
                "protocol_version": 3,
                "kind": "close",
                "request_id": "end",
                "sequence": 1,
                "generation": page["context"]["generation"],
                "bot_generation": page["botGeneration"],
            },
            page["context"]["id"],
        )
    assert await asyncio.wait_for(running, 30) == ExitCode.OK


async def told(session: aiohttp.ClientSession, path: str, body: dict[str, Any], context: str = "") -> Any:
    """Send a request of the page to its server and return the answer."""
    async with session.post(path, json=body, headers={"X-Simcord-Context": context}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


class TestModel:
    """The choice of the model."""

    @pytest.mark.parametrize(
        ("arguments", "setting", "expected"),
        [
            ([], None, SHIPPED),
            ([], " ", SHIPPED),
            ([], "distilgpt2", "distilgpt2"),
            (["--model", "gpt2"], None, "gpt2"),
            (["--model", "gpt2"], "distilgpt2", "gpt2"),
        ],
    )
    def test_is_the_shipped_one_unless_another_is_named(
        self,
        arguments: list[str],
        setting: str | None,
        expected: str,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        taken = []

        async def noted(settings: Settings, *, port: int | None) -> ExitCode:
            assert port is None
            taken.append(settings.gpt2_model)
            return ExitCode.OK

        monkeypatch.chdir(tmp_path)  # away from a .env
        monkeypatch.setattr("bot.cli.demo.demo", noted)
        monkeypatch.setattr("bot.monitoring.logs.configure", lambda *_: None)
        monkeypatch.delenv("GPT2_MODEL", raising=False)
        if setting is not None:
            monkeypatch.setenv("GPT2_MODEL", setting)
        assert program.main(["demo", *arguments]) == ExitCode.OK
        assert taken == [expected]


class TestGreeting:
    def test_names_the_model_and_its_size(self) -> None:
        assert "`gpt2`: 124.4 million parameters" in greeting(INFO)

    def test_says_when_the_text_will_be_noise(self) -> None:
        assert "noise" not in greeting(INFO)
        assert "noise" in greeting(dataclasses.replace(INFO, missing=("wte",)))


@pytest.fixture(scope="module")
def unhurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoProcess]:
    """With a model that takes seconds for what the one that ships does in one."""
    folder = tmp_path_factory.mktemp("unhurried")
    model = make_model(folder / "roomy", layers=1, context=8192, seed=3)
    process = DemoProcess(folder, "--model", str(model), module="tests.loopback.leisurely")
    try:
        yield process
        assert process.stop() == ExitCode.OK
        assert "Traceback" not in process.stderr
    finally:
        process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow_page(browser: Browser, unhurried: DemoProcess) -> AsyncIterator[Page]:
    page = await opened(browser, unhurried, DESK)
    yield page
    await page.close()


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
class TestGrowth:
    async def growing(self, page: Page, length: int) -> Locator:
        """Return an answer that is partly visible and needs several seconds more."""
        answer = await ask(page, "continue", prompt="Hello", samples=10, length=length, seed=42)
        await expect(answer.get_by_text(re.compile(rf"^\d+ of {10 * length} tokens"))).to_be_visible(timeout=ANSWER_MS)
        return answer

    async def test_samples_are_shown_while_they_grow(self, slow_page: Page) -> None:
        answer = await self.growing(slow_page, length=100)
        await expect(answer.get_by_role("button", name="Stop")).to_be_visible()
        await expect(answer.get_by_role("button", name="Continue")).to_have_count(10, timeout=ANSWER_MS)
        await expect(answer.get_by_role("button", name="Stop")).to_have_count(0)

    async def test_other_commands_are_answered_meanwhile_and_stop_keeps_the_tokens_so_far(
        self, slow_page: Page
    ) -> None:
        answer = await self.growing(slow_page, length=200)
        await expect(await ask(slow_page, "about")).to_contain_text("GPT-2")
        await answer.get_by_role("button", name="Stop").click()
        await expect(answer.get_by_role("button", name="Continue")).to_have_count(10, timeout=ANSWER_MS)
        await expect(answer.get_by_role("button", name="Stop")).to_have_count(0)
        await expect(answer).to_contain_text(re.compile(r"Stopped after \d+ of 2000 tokens"))
