"""Reports to a Sentry project over the wire: the place of an error, and none of a user's text."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from bot.errors import ExitCode
from tests.command_line import ROOT, TOKEN, run_bot, run_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "words that nobody else may read"
KEY = "0123456789abcdef0123456789abcdef"

PROGRAM = f"""
import structlog
from bot import config
from bot.monitoring import logs, sentry
logs.configure("INFO", "json")
sentry.configure(config.parse({{"SENTRY_DSN": DSN}}).sentry_dsn, "1.2.3")
log = structlog.get_logger("bot.client")

def command(prompt):
    token = "{TOKEN}"
    try:
        raise ValueError(prompt)
    except ValueError as cause:
        raise ZeroDivisionError(f"while computing {{prompt}}") from cause

log.info("not an error", prompt="{SECRET}")
log.error("an error without a traceback", prompt="{SECRET}")
try:
    command("{SECRET}")
except ZeroDivisionError as error:
    log.error("a command failed", reference="0badf00d", command="/continue", exc_info=error)
{{ending}}
"""


class Project(http.server.ThreadingHTTPServer):
    """A Sentry project on loopback."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.bodies: list[bytes] = []

    @property
    def dsn(self) -> str:
        return f"http://{KEY}@127.0.0.1:{self.server_port}/42"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all envelopes, each of which is three lines of JSON."""
        lines = [line for body in self.bodies for line in body.splitlines() if line.startswith(b"{")]
        return [event for line in lines if "exception" in (event := json.loads(line))]


class Receiver(http.server.BaseHTTPRequestHandler):
    server: Project

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def project() -> Iterator[Project]:
    with Project() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("ending", "reported"), [("", 1), (f"command('{SECRET}')", 2)], ids=["logged", "crashed"])
def test_errors_are_reported_without_users_texts(project: Project, tmp_path: Path, ending: str, reported: int) -> None:
    source = PROGRAM.replace("DSN}", f"{project.dsn!r}}}").replace("{ending}", ending)
    process = run_python("-c", source, folder=tmp_path)
    assert (process.returncode == 0) == (not ending), process.stderr
    first, *more = project.events
    assert len(more) == reported - 1
    assert first["tags"] == {"reference": "0badf00d", "command": "/continue"}
    assert first["release"] == "1.2.3"
    for event in (first, *more):
        kinds = [each["type"] for each in event["exception"]["values"]]
        assert kinds == ["ValueError", "ZeroDivisionError"]
        assert event["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"] == "command"
    sent = b"\n".join(project.bodies).decode()
    for secret in (SECRET, TOKEN, "vars", "server_name"):
        assert secret not in sent


def test_a_missing_extra_is_one_sentence(tmp_path: Path, project: Project) -> None:
    (tmp_path / "sentry_sdk.py").write_text("raise ImportError")
    environment = {"SENTRY_DSN": project.dsn, "DISCORD_TOKEN": TOKEN, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    process = run_bot("run", folder=tmp_path, environment=environment)
    assert process.returncode == ExitCode.NOT_INSTALLED
    assert "SENTRY_DSN needs its extra: python -m pip install" in process.stderr
    assert KEY not in process.stderr
    assert "Traceback" not in process.stderr
