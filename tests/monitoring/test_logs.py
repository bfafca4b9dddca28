"""Each test logs in its own process: logging is set up for a whole process, and pytest has its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from discord.app_commands import tree

from bot.monitoring.logs import _AUTOCOMPLETE
from tests.command_line import TOKEN, run_python

PRELUDE = f"""
import logging, warnings
import structlog
from bot.monitoring import logs
from bot.config import Secret, Settings
token = Secret({TOKEN!r})
log = structlog.get_logger("bot.test")
"""


def logged(folder: Path, program: str, form: str = "json", level: str = "INFO") -> str:
    """Return the standard error of a program, a pipe, after it set up logging."""
    process = run_python("-c", f"{PRELUDE}logs.configure({level!r}, {form!r})\n{program}", folder=folder)
    assert process.returncode == 0, process.stderr
    assert process.stdout == "", "nothing is logged to standard output"
    return process.stderr


def events(folder: Path, program: str, form: str = "json", level: str = "INFO") -> list[dict[str, Any]]:
    return [json.loads(line) for line in logged(folder, program, form, level).splitlines()]


def test_json_is_one_object_a_line_with_time_level_and_logger(tmp_path: Path) -> None:
    (event,) = events(tmp_path, "log.info('the model is ready', seconds=1.5, name='日本')")
    assert event.pop("timestamp").endswith("Z"), "in UTC, for machines compare"
    assert event == {
        "event": "the model is ready",
        "level": "info",
        "logger": "bot.test",
        "seconds": 1.5,
        "name": "日本",
    }


def test_a_pipe_gets_json_by_default(tmp_path: Path) -> None:
    (event,) = events(tmp_path, "log.info('hello')", form="auto")
    assert event["event"] == "hello"


def test_human_lines_in_a_file_have_no_colours(tmp_path: Path) -> None:
    (line,) = logged(tmp_path, "log.info('the model is ready', seconds=1.5)", form="human").splitlines()
    assert "the model is ready" in line
    assert "seconds=1.5" in line
    assert "\x1b" not in line


@pytest.mark.parametrize("form", ["json", "human"])
def test_records_of_libraries_look_like_ours(tmp_path: Path, form: str) -> None:
    text = logged(tmp_path, "logging.getLogger('discord.client').info('shard %d of %s', 1, 'two')", form=form)
    assert "shard 1 of two" in text
    assert "discord.client" in text
    assert len(text.splitlines()) == 1


def test_less_severe_records_are_dropped(tmp_path: Path) -> None:
    program = "log.info('ours'); logging.getLogger('x').info('theirs'); log.warning('kept')"
    (event,) = events(tmp_path, program, level="WARNING")
    assert event["event"] == "kept"


def test_json_holds_the_traceback_in_its_line(tmp_path: Path) -> None:
    program = """
try:
    1 / 0
except ZeroDivisionError:
    log.exception("of ours")
    logging.getLogger("x").exception("of a library")
"""
    ours, theirs = events(tmp_path, program)
    for event in (ours, theirs):
        assert event["level"] == "error"
        assert "ZeroDivisionError: division by zero" in event["exception"]


def test_warnings_are_logged(tmp_path: Path) -> None:
    (event,) = events(tmp_path, "warnings.warn('old way', UserWarning)")
    assert "UserWarning: old way" in event["event"]
    assert event["level"] == "warning"


@pytest.mark.parametrize("form", ["json", "human"])
def test_no_line_shows_the_token(tmp_path: Path, form: str) -> None:
    program = """
log.info("as a value", token=token)
log.info("inside another", settings=Settings(discord_token=token))
log.info("formatted %r", token)
logging.getLogger("x").info("of a library", extra={"token": token})

def login(token):
    stripped = token.strip()  # a plain string, as discord.py makes one
    raise ValueError("refused")

try:
    login(token)
except ValueError:
    log.exception("in the local variables of a traceback")
"""
    text = logged(tmp_path, program, form=form)
    assert "refused" in text
    assert "of a library" in text
    assert TOKEN not in text


def test_even_debug_shows_no_event_of_the_gateway(tmp_path: Path) -> None:
    program = """
for name in ("discord.gateway", "discord.http", "httpx2", "bot.other"):
    logging.getLogger(name).debug("what people write")
    logging.getLogger(name).warning("careful")
"""
    seen = [(event["logger"], event["level"]) for event in events(tmp_path, program, level="DEBUG")]
    assert seen == [
        ("discord.gateway", "warning"),
        ("discord.http", "warning"),
        ("httpx2", "warning"),
        ("bot.other", "debug"),
        ("bot.other", "warning"),
    ]


def test_only_missing_fonts_are_logged(tmp_path: Path) -> None:
    program = """
from matplotlib.font_manager import FontProperties, fontManager
for family, weight in (("DejaVu Sans Display", "bold"), ("No Such Font", "normal")):
    fontManager.findfont(FontProperties(family=[family], weight=weight))
"""
    said = [event["event"] for event in events(tmp_path, program) if event["level"] == "warning"]
    assert said == ["findfont: Font family ['No Such Font'] not found. Falling back to DejaVu Sans."]


def test_unreachable_autocompletion_is_not_logged(tmp_path: Path) -> None:
    program = """
from types import SimpleNamespace
from discord import NotFound
from discord.app_commands import tree
for error in (ConnectionError(), NotFound(SimpleNamespace(status=404, reason="too late"), ""), ValueError("kept")):
    try:
        raise error
    except Exception:
        tree._log.exception("Ignoring exception in autocomplete for %r (Guild: %s, User: %s)", "matrix", 1, 2)
"""
    (event,) = events(tmp_path, program)
    assert "ValueError: kept" in event["exception"]


def test_discord_py_still_uses_these_words() -> None:
    assert _AUTOCOMPLETE in Path(tree.__file__).read_text(encoding="utf-8")
