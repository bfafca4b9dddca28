"""A small Hugging Face hub on loopback, as far as downloading a model asks of one.

What it answers follows the real one: a listing under ``/api/models/``, files under ``/<repo>/resolve/<revision>/``
with their commit and ETag in the headers, weights redirected to another address ("the CDN"), old names redirected to
new ones, and faults told apart by ``X-Error-Code``.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMIT: Final = "607a30d783dfa663caf39e06633721c8d4cfcd7e"


@dataclass
class Repository:
    """One model.

    Attributes:
        files: Name to content.
        gated: Whether files are kept from who has not asked for them.
        commit: The revision "main" stands at.
    """

    files: Mapping[str, bytes]
    gated: bool = False
    commit: str = COMMIT


@dataclass
class Hub:
    """The server. As a context manager it runs in a thread of its own.

    Attributes:
        repositories: Name to repository.
        renamed: Old name to new name, as "gpt2" to "openai-community/gpt2".
        status: What every request gets instead of an answer, if not None.
        refuses_tokens: Whether every access token is refused, as an expired one is, also for what is public.
        requests: Method and path of every request, in their order.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    status: HTTPStatus | None = None
    refuses_tokens: bool = False
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_away()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def cdn(self) -> str:
        """Where large files lie: another host by name, which clients must not send their access token to."""
        return f"http://localhost:{self._server.server_port}/cdn"

    def go_away(self) -> None:
        """Stop listening: connections are refused from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def downloads(self) -> list[str]:
        """The names of the files that were fetched, in their order."""
        return [line.rpartition("/")[2] for line in self.requests if line.startswith("GET") and "/api/" not in line]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the base class's name
        """The hub keeps its own list."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.status:
            self._send(self.hub.status, b"")
        elif self.hub.refuses_tokens and "Authorization" in self.headers:
            message = {"X-Error-Message": "Invalid credentials in Authorization header"}
            self._send(HTTPStatus.UNAUTHORIZED, b"", message)
        elif path.startswith("/api/models/"):
            self._listing(path.removeprefix("/api/models/"))
        elif path.startswith("/cdn/"):
            name, _, file = path.removeprefix("/cdn/").rpartition("/")
            self._send(HTTPStatus.OK, self.hub.repositories[name].files[file])
        elif "/resolve/" in path:
            name, _, rest = path.removeprefix("/").partition("/resolve/")
            self._file(name, *rest.split("/", 1))
        else:  # what else the library asks of the real one
            self._send(HTTPStatus.NOT_FOUND, b"")

    def _listing(self, name: str) -> None:
        if self._moved_or_missing(name, "/api/models/", ""):
            return
        repository = self.hub.repositories[name]
        body = {
            "id": name,
            "sha": repository.commit,
            "gated": "manual" if repository.gated else False,
            "siblings": [{"rfilename": file} for file in repository.files],
        }
        self._send(HTTPStatus.OK, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str) -> None:
        if self._moved_or_missing(name, "/", f"/resolve/{revision}/{file}"):
            return
        repository = self.hub.repositories[name]
        content = repository.files.get(file)
        headers = {"X-Repo-Commit": repository.commit}
        if repository.gated:
            self._send(HTTPStatus.FORBIDDEN, b"", headers | {"X-Error-Code": "GatedRepo"})
        elif revision not in {"main", repository.commit}:
            self._send(HTTPStatus.NOT_FOUND, b"", {"X-Error-Code": "RevisionNotFound"})
        elif content is None:
            self._send(HTTPStatus.NOT_FOUND, b"", headers | {"X-Error-Code": "EntryNotFound"})
        elif file.endswith(".safetensors"):
            linked = {"X-Linked-Etag": _etag(content), "X-Linked-Size": str(len(content))}
            self._send(HTTPStatus.FOUND, b"", headers | linked | {"Location": f"{self.hub.cdn}/{name}/{file}"})
        else:
            self._send(HTTPStatus.OK, content, headers | {"ETag": _etag(content)})

    def _moved_or_missing(self, name: str, before: str, after: str) -> bool:
        if name in self.hub.renamed:
            moved = f"{before}{self.hub.renamed[name]}{after}"
            self._send(HTTPStatus.TEMPORARY_REDIRECT, b"", {"Location": moved})
        elif name not in self.hub.repositories:
            # To who is not logged in, the hub does not tell a missing model from a private one.
            self._send(HTTPStatus.UNAUTHORIZED, b"", {"X-Error-Code": "RepoNotFound"})
        else:
            return False
        return True

    def _send(self, status: HTTPStatus, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()}"'
