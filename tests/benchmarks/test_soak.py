"""The soak: which violations it blames on the bot, and that it always prints its report."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import soak
from benchmarks.soak import Soak, _parser
from benchmarks.soak_outcomes import InjectedFaults
from tests.command_line import ROOT
from tests.loopback import BotProcess, Fault, LoopbackDiscord, Request
from tests.loopback.errors import ApiError
from tests.loopback.gateway import Resume
from tests.loopback.inspected import END_OF_STACKS, STACKS
from tests.loopback.interactions import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

LOST_ANSWER = Fault(drop=True, after=True)
LOST_ON_THE_WAY = Fault(drop=True)
BAN = Fault(status=429, headers={"Retry-After": "1"})


class Acknowledgements:
    """One interaction, sent at 0 s, and the bot's attempts to acknowledge it."""

    def __init__(self, discord: LoopbackDiscord) -> None:
        self.discord = discord
        payload: dict[str, Any] = {"data": {"name": "continue"}, "authorizing_integration_owners": {}}
        self.interaction = discord.desk.open(COMMAND, discord.user(), discord.channel, payload, None)

    def attempt(self, at: float, fault: Fault | None = None) -> None:
        """Let the server handle an attempt `at` seconds after the interaction was sent."""
        path = f"/interactions/{self.interaction.id}/{self.interaction.token}/callback"
        request = Request(at, "POST", path, fault=fault)
        self.discord.requests.append(request)
        if fault is not None and fault.spoils and not fault.after:
            return
        arrived = at + (fault.delay if fault is not None else 0)
        self.discord.desk._age = lambda _: arrived  # type: ignore[method-assign]
        self.discord.answering = request
        try:
            self.discord.desk.acknowledge(self.interaction.id, self.interaction.token, {"type": 5}, [])
        except ApiError:
            pass
        finally:
            self.discord.answering = None

    def verdicts(self) -> list[tuple[str, bool]]:
        """Return each violation's kind, and whether a fault explains it."""
        faults = InjectedFaults(self.discord)
        return [(each.kind, faults.explains(each)) for each in self.discord.violations]


@pytest.fixture
async def acknowledgements() -> Acknowledgements:
    return Acknowledgements(LoopbackDiscord())


class TestWhoseDoing:
    async def test_an_acknowledgement_whose_answer_was_dropped_has_to_be_made_again(
        self, acknowledgements: Acknowledgements
    ) -> None:
        acknowledgements.attempt(0.1, LOST_ON_THE_WAY)
        acknowledgements.attempt(0.4, LOST_ANSWER)
        acknowledgements.attempt(0.9, Fault(status=503, after=True))
        acknowledgements.attempt(1.9)
        assert acknowledgements.verdicts() == [("acknowledged twice", True)] * 2

    @pytest.mark.parametrize("fault", [None, Fault(delay=1.0)], ids=["undisturbed", "late"])
    async def test_one_whose_answer_came_is_not_to_be_made_again(
        self, acknowledgements: Acknowledgements, fault: Fault | None
    ) -> None:
        acknowledgements.attempt(0.1, fault)
        acknowledgements.attempt(1.9)
        assert acknowledgements.verdicts() == [("acknowledged twice", False)]

    async def test_nor_once_it_was_told_that_it_had_been_taken(self, acknowledgements: Acknowledgements) -> None:
        acknowledgements.attempt(0.1, LOST_ANSWER)
        acknowledgements.attempt(0.4)
        acknowledgements.attempt(0.9)
        assert acknowledgements.verdicts() == [("acknowledged twice", True), ("acknowledged twice", False)]

    async def test_one_that_was_held_up_comes_late(self, acknowledgements: Acknowledgements) -> None:
        acknowledgements.attempt(2.5, Fault(delay=1.0))
        assert acknowledgements.verdicts() == [("acknowledged late", True)]

    async def test_one_that_failed_in_time_comes_late(self, acknowledgements: Acknowledgements) -> None:
        acknowledgements.attempt(2.5, LOST_ON_THE_WAY)
        acknowledgements.attempt(3.1)
        assert acknowledgements.verdicts() == [("acknowledged late", True)]

    async def test_one_that_was_late_from_the_first_is_the_bots_own(self, acknowledgements: Acknowledgements) -> None:
        acknowledgements.attempt(3.1, Fault(delay=1.0))
        acknowledgements.attempt(5.0)
        assert acknowledgements.verdicts() == [("acknowledged late", False)] * 2

    async def test_one_is_late_without_blame_where_only_a_resumption_brought_its_interaction(
        self, acknowledgements: Acknowledgements
    ) -> None:
        gateway = acknowledgements.discord.gateway
        acknowledgements.attempt(5.0)
        assert acknowledgements.verdicts() == [("acknowledged late", False)]
        gateway.resumes.append(Resume(4.0, 0, 1, True, True, (str(acknowledgements.interaction.id),)))
        assert acknowledgements.verdicts() == [("acknowledged late", True)]
        gateway.resumes[-1].at = 1.0
        assert acknowledgements.verdicts() == [("acknowledged late", False)], "4 s were the bot's own"

    async def test_one_is_late_without_blame_while_the_address_is_banned(
        self, acknowledgements: Acknowledgements
    ) -> None:
        acknowledgements.discord.requests.append(Request(2.0, "PATCH", "/webhooks/1/x/messages/@original", fault=BAN))
        acknowledgements.attempt(3.1)
        assert acknowledgements.verdicts() == [("acknowledged late", True)]

    async def test_whatever_else_breaks_a_rule_is_the_bots_own(self, acknowledgements: Acknowledgements) -> None:
        acknowledgements.attempt(0.1, LOST_ANSWER)
        acknowledgements.discord.violate("invalid body", "too long", acknowledgements.discord.requests[-1])
        acknowledgements.discord.violate("identify", "too early")
        assert acknowledgements.verdicts() == [("invalid body", False), ("identify", False)]


async def test_what_was_lost_is_reported_with_all_that_is_known_of_it(
    acknowledgements: Acknowledgements, capsys: pytest.CaptureFixture[str]
) -> None:
    acknowledgements.attempt(0.1, LOST_ON_THE_WAY)
    acknowledgements.attempt(0.4)
    interaction = acknowledgements.interaction
    run = Soak(acknowledgements.discord, _parser().parse_args([]), {})
    run.asked.append(interaction)
    run.logs += [["of another"], [f"killed soon after interaction={interaction.id}"]]
    assert run.report() == 1
    said = capsys.readouterr().out
    assert "lost 1\n" in said
    assert len(re.findall(r"s POST /interactions/\d+/…/callback", said)) == 2
    assert "drop=True" in said
    assert f"process 1: killed soon after interaction={interaction.id}" in said
    assert "of another" not in said
    assert interaction.token not in said


def figure(report: str, name: str) -> int:
    """Return the number at the end of a line."""
    (found,) = re.findall(rf"^{name} (\d+)", report, flags=re.MULTILINE)
    return int(found)


class Broken(Soak):
    async def _disturb_gateway(self) -> None:
        raise ZeroDivisionError("on purpose")


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the soak of this process fork its bots, which costs less than starting them anew."""

    def forked(*arguments: Any, **more: Any) -> BotProcess:
        return BotProcess(*arguments, **more | {"fresh": False})

    monkeypatch.setattr(soak, "BotProcess", forked)


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
async def test_a_helper_that_fails_ends_it_with_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "Soak", Broken)
    assert await soak._main(_parser().parse_args(["--rate", "4", "--drop-every", "1"])) == 1
    said = capsys.readouterr().out
    assert figure(said, "asked") >= 0
    assert "ZeroDivisionError: on purpose" in said
    assert "exit codes: {0: 1}" in said, "the bot was stopped all the same"


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
async def test_a_bot_that_will_not_start_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "MAX_FAILED_STARTS", 2)
    # Not a model that is missing: while the bot finds that out, it may get ready and be asked.
    assert await soak._main(_parser().parse_args(["--setting", "GPT2_THREADS=many"])) == 1
    said = capsys.readouterr().out
    assert figure(said, "asked") == 0
    assert "starts that failed 2" in said
    assert "exit codes: {78: 2}" in said
    assert "the soak broke off" in said


@pytest.mark.slow
def test_ctrl_c_ends_it_early_and_well(tmp_path: Path) -> None:
    hurried = """
import asyncio, sys
from benchmarks import soak

soak.SAMPLE_SECONDS = 1.0
sys.exit(asyncio.run(soak._main(soak._parser().parse_args(sys.argv[1:]))))
"""
    command = [
        sys.executable,
        "-c",
        hurried,
        "--rate",
        "4",
        "--kill-every",
        "0",
        "--drop-every",
        "3",
        "--verbose",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first sample: it is at work
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, said + complained
    assert figure(said, "asked") > 0
    assert figure(said, "lost") == 0
    assert "of the bot's own: none" in said


@pytest.mark.slow
async def test_a_bot_tells_where_it_is_whatever_state_it_is_in(tiny_model: Path) -> None:
    async with LoopbackDiscord() as discord:
        env = {"GPT2_MODEL": str(tiny_model), "GPT2_THREADS": "1", "PICTURES_MB": "0"}
        async with BotProcess(discord, env=env, entry="tests.loopback.inspected:main") as bot:
            await bot.ready()
            bot.signal(signal.SIGUSR2)
            await bot.logged(END_OF_STACKS)
            assert any(line.startswith(STACKS) for line in bot.stderr)
            assert "Thread 0x" in bot.log
            assert "in _stay_connected" in bot.log, "tasks too"
            assert await bot.stop() == 0
