"""`python -m bot cluster`: the engine as an application of Ray Serve, on a Ray cluster or on this machine only."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from bot.errors import (
    ExitCode,
    ModelInvalidError,
    NotInstalledError,
    OperatorError,
    SettingsError,
    UnreachableError,
)
from bot.installation import install_command

if TYPE_CHECKING:
    from bot.config import Settings
    from bot.gpt2.cluster.deployment import Options

LOCAL: Final = "local"  # Ray's address for a cluster on this machine that lives as long as this process
OBJECT_STORE_BYTES: Final = 256 * 2**20  # Ray's default is 30% of the memory; the messages here are small
WATCH_SECONDS: Final = 2.0
CONNECT_SECONDS: Final = 10.0
_HOST_AND_PORT: Final = re.compile(r"([^/:]+):([0-9]{1,5})")

# Errors of a loading replica reach this process only as text.
_ERRORS: Final = (ModelInvalidError, SettingsError, UnreachableError)


def cluster(settings: Settings, *, replicas: tuple[int, int], gpus: float, host: str, port: int) -> ExitCode:
    """Deploy; on a cluster of this machine only, run until SIGTERM or Ctrl-C.

    On a cluster that already runs the application, deploy the new version; running requests finish on the old one.

    Raises:
        NotInstalledError: Ray is not installed.
        SettingsError: Invalid options.
        OperatorError: The cluster is unreachable, or it cannot load the model.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray reports usage to its makers
    try:
        from bot.gpt2.cluster import deployment  # noqa: PLC0415 # an optional extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"ray", "starlette"}:
            raise
        raise NotInstalledError(f"The cluster needs its extra: {install_command('cluster')}") from error
    options = deployment.Options(
        model=settings.gpt2_model,
        device=settings.gpt2_device,
        precision=settings.gpt2_precision,
        threads=settings.gpt2_threads or 1,
        gpus=gpus,
        cache=settings.gpt2_cache,
        draft=settings.gpt2_draft,
        min_replicas=replicas[0],
        max_replicas=replicas[1],
    )
    address = settings.ray_address or LOCAL
    stopped = _stop_on_signals() if address == LOCAL else None
    _connect(address)
    try:
        _deploy(options, host, port)
        print(f"Bots reach it with GPT2_ENGINE=ray GPT2_CLUSTER=http://{host}:{port}", flush=True)
        if stopped:
            _watch(stopped)
    finally:
        _disconnect(own=address == LOCAL)
    return ExitCode.OK


def _connect(address: str) -> None:
    import ray  # noqa: PLC0415

    own: dict[str, Any] = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    where = "this machine" if address == LOCAL else f"the Ray cluster at {address}"
    print(f"Starting on {where}…", flush=True)
    try:
        if found := _HOST_AND_PORT.fullmatch(address):  # Ray itself would retry for minutes
            socket.create_connection((found[1], int(found[2])), CONNECT_SECONDS).close()
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.WARNING,
            configure_logging=False,
            **(own if address == LOCAL else {}),
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UnreachableError(f"{where[0].upper()}{where[1:]} cannot be used (RAY_ADDRESS): {error}") from error


def _deploy(options: Options, host: str, port: int) -> None:
    from ray import serve  # noqa: PLC0415

    from bot.gpt2.cluster import deployment  # noqa: PLC0415

    serve.start(http_options={"host": host, "port": port})
    try:
        serve.run(deployment.application(options), name=deployment.NAME, route_prefix="/")
    except RuntimeError as error:
        status = serve.status().applications.get(deployment.NAME)
        details = "\n".join([str(error), *(each.message for each in (status.deployments if status else {}).values())])
        kind = next((each for each in _ERRORS if each.__name__ in details), OperatorError)
        message = f"The replicas could not be started: {_message(details)}"
        raise (SettingsError([message]) if kind is SettingsError else kind(message)) from error
    print(_status(), flush=True)


def _watch(stopped: threading.Event) -> None:
    """Print the status whenever it changes."""
    last = _status()
    while not stopped.wait(WATCH_SECONDS):
        current = _status()
        if current != last:
            last = current
            print(current, flush=True)


def _status() -> str:
    """Describe the application's status and the number of its replicas."""
    from ray import serve  # noqa: PLC0415

    from bot.gpt2.cluster import deployment  # noqa: PLC0415

    application = serve.status().applications[deployment.NAME]
    parts = (
        f"{name}: " + (", ".join(f"{count} {state.lower()}" for state, count in each.replica_states.items()))
        for name, each in sorted(application.deployments.items())
    )
    return f"{application.status.lower()}; {'; '.join(parts)}"


def _disconnect(*, own: bool) -> None:
    import ray  # noqa: PLC0415
    from ray import serve  # noqa: PLC0415

    from bot.gpt2.cluster import deployment  # noqa: PLC0415

    if own and ray.is_initialized():
        # Not serve.shutdown(), which kills its controller while it waits for it: Ray prints that as a failure.
        serve.delete(deployment.NAME)
    ray.shutdown()


def _stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stopped = threading.Event()

    def handle(number: int, _: object) -> None:
        stopped.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stopped


def _message(text: str) -> str:
    """Extract the exception's message from the end of a traceback."""
    names = tuple(each.__name__ for each in _ERRORS)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = next((line for line in reversed(lines) if any(name in line for name in names)), lines[-1])
    if SettingsError.__name__ in found:  # its message is a heading and one line for each fault
        return " ".join(line.removeprefix("- ") for line in lines if line.startswith("- "))
    return found.partition("Error: ")[2] or found
