"""A real Ray cluster of two nodes on this machine, with the engine deployed, in processes that tests may kill."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

from tests.command_line import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or not Path("/proc").is_dir(),
    reason='needs the extra "cluster", and /proc to find the processes of a cluster',
)

REPLICAS: Final = 2
START_SECONDS: Final = 120.0
_OBJECT_STORE: Final = str(100 * 2**20)

# The tests' deployment polls more often, so that tests do not wait for intervals.
_QUICK: Final = {
    "LOOK_BACK_SECONDS": 1.0,
    "REPORT_SECONDS": 0.5,
    "UPSCALE_SECONDS": 0.5,
    "DOWNSCALE_SECONDS": 2.0,
    "HEALTH_SECONDS": 1.0,
    "FINISH_POLL_SECONDS": 0.1,
}


class RayCluster:
    """Two nodes with one core each, so that each has a replica; the head has the front end's port.

    The tests' process does not load Ray, which would end it together with the head.
    """

    def __init__(self, model: Path) -> None:
        self.model = model
        # A short path: Ray puts sockets into it, whose paths are limited to 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self.port = free_port()
        self.front_end_port = free_port()
        self.nodes: list[subprocess.Popen[bytes]] = []

    @property
    def ray_address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.front_end_port}"

    def start(self) -> Self:
        self.nodes = [self._node("--head", f"--port={self.port}", "--include-dashboard=false", *self._head_only())]
        self._wait_for_node(0)
        self.nodes.append(self._node(f"--address={self.ray_address}"))  # joins while the model is deployed
        self.deploy()
        return self

    def deploy(self, *arguments: str) -> str:
        """Run `python -m bot cluster` for the model and return its output."""
        command = ["cluster", "--replicas", str(REPLICAS), "--port", str(self.front_end_port), *arguments]
        program = (
            "import sys; from bot.gpt2.cluster import deployment; from bot.__main__ import main\n"
            "from tests.leisurely_replica import Replica\n"
            f"vars(deployment).update({_QUICK}, Replica=Replica); sys.exit(main({command}))"
        )
        process = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self._folder,
            env=self._environment() | {"RAY_ADDRESS": self.ray_address, "GPT2_MODEL": str(self.model)},
            capture_output=True,
            encoding="utf-8",
            timeout=START_SECONDS,
            check=False,
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    def kill_node(self, number: int) -> None:
        """Kill a node without warning, as a power failure would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.nodes[number].pid, signal.SIGKILL)
        self.nodes[number].wait()

    def restart(self) -> None:
        """Kill all nodes and start everything again."""
        self.stop_nodes()
        self.nodes = []
        self.start()

    def pids(self, name: str) -> list[int]:
        """Return the processes of this cluster whose title contains `name`, such as ``ServeReplica:gpt2:FrontEnd``."""
        return [pid for pid, title in self._processes() if name in title]

    def stop_nodes(self) -> None:
        for number in range(len(self.nodes)):
            self.kill_node(number)
        # A raylet's processes end after it; leftovers must not disturb the next tests.
        deadline = time.monotonic() + 10
        while (left := [pid for pid, _ in self._processes()]) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill everything; a second call does nothing."""
        self.stop_nodes()
        self.nodes = []
        shutil.rmtree(self._folder, ignore_errors=True)

    def _head_only(self) -> tuple[str, ...]:
        return f"--temp-dir={self._folder}", f"--ray-client-server-port={free_port()}", "--no-monitor"

    def _node(self, *arguments: str) -> subprocess.Popen[bytes]:
        common = (
            *("--num-cpus=1", f"--object-store-memory={_OBJECT_STORE}", "--disable-usage-stats", "--block"),
            *("--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0"),
            "--include-log-monitor=false",
            f"--dashboard-agent-listen-port={free_port()}",
        )
        with self._log(len(self.nodes)).open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *common],
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that one signal kills all of it
            )

    def _log(self, node: int) -> Path:
        return self._folder / f"node-{node}.log"

    def _wait_for_node(self, number: int) -> None:
        log, deadline = self._log(number), time.monotonic() + START_SECONDS
        while b"Ray runtime started" not in log.read_bytes():
            assert self.nodes[number].poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def _environment(self) -> dict[str, str]:
        kept = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
        return {name: os.environ[name] for name in kept if name in os.environ} | {
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_worker_niceness": "0",  # or whatever else runs on the machine leaves them a tenth of their time
            "RAY_CLUSTER_OF_TESTS": str(self._folder),
        }

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Yield id and title of every process of this cluster."""
        mark = f"RAY_CLUSTER_OF_TESTS={self._folder}".encode()
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(folder.name)
                if mark in (folder / "environ").read_bytes():
                    title = (folder / "cmdline").read_bytes()
                    if title:  # a zombie has none
                        yield pid, title.replace(b"\x00", b" ").decode(errors="replace")


class Network:
    """A TCP proxy between a bot and the cluster that can forward, swallow or refuse connections."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._there = asyncio.Event()
        self._there.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._there.set()
        self._server.close()
        self.cut()

    def swallow(self) -> None:
        """Drop all traffic silently."""
        self._there.clear()

    def restore(self) -> None:
        self._there.set()

    def cut(self) -> None:
        """Break all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._there.wait()
            away_reader, away_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(away_writer)
            pumps = [
                asyncio.create_task(self._pump(reader, away_writer)),
                asyncio.create_task(self._pump(away_reader, writer)),
            ]
            await asyncio.wait(pumps)
            self._writers.discard(away_writer)
        except OSError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._there.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.asynccontextmanager
async def network(cluster: RayCluster) -> AsyncIterator[Network]:
    async with Network(cluster.front_end_port) as way:
        yield way


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop these processes during the body."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
