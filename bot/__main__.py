"""The command line: `python -m bot` runs the bot, `demo` shows it in a local page, `check` finds faults.

Exit codes are those of `bot.errors.ExitCode`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import bot
from bot import config
from bot.config import MAX_PORT
from bot.errors import ExitCode, OperatorError
from bot.gpt2.local.threads import limit_spinning
from bot.installation import install_command, program
from bot.monitoring import logs, sentry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot.config import Settings

_RAY_SERVE_PORT: Final = 8000  # Ray Serve's own default
_DEMO_MODEL: Final = "gpt2-mini"  # ships with the bot, so the demo needs no download

_COMMANDS: Final = {
    "run": "run the bot on Discord",
    "setup": "ask for the token and the model, write them to .env, check them and print the invitation",
    "demo": "show the bot in a local page, without Discord and without a token",
    "check": "test the settings, the token, the model and the optional parts, and say how to fix each fault",
    "health": "query the bot that runs on this machine; exits with 0 if it is alive",
    "invite": "print the link that adds the bot to a server",
    "cluster": "deploy the model to a Ray cluster, or to this machine only, for bots with GPT2_ENGINE=ray",
    "gallery": "write every picture of a prompt to a folder, with a page that shows them",
    "bench": "measure this engine against Transformers on this machine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # or requests to the hub name this machine's libraries
    with _tolerant_output():
        arguments = _parser().parse_args(argv)
        if arguments.command != "bench":  # whose other engines compute as they do elsewhere
            limit_spinning(os.environ)
        return _exit_code(arguments)


def _exit_code(arguments: argparse.Namespace) -> int:
    try:
        return _run(arguments)
    except OperatorError as error:
        print(f"gpt2-for-discord: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in {"", "bot", "cogs"}:
            raise
        print(f"gpt2-for-discord: {package} is not installed: {install_command()}", file=sys.stderr)
        return ExitCode.NOT_INSTALLED
    except KeyboardInterrupt:
        return ExitCode.OK


@contextlib.contextmanager
def _tolerant_output() -> Iterator[None]:
    """Write to any terminal, file or pipe, also to one that lacks a character or that nobody reads any more."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # standard error does so by itself
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except OSError:
                # Python would flush it again at its end, and exit with 120.
                with Path(os.devnull).open("wb") as nowhere:
                    os.dup2(nowhere.fileno(), stream.fileno())


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "setup":
        from bot.cli.setup import Answers, setup  # noqa: PLC0415

        given = {"GPT2_MODEL": arguments.model, "GPT2_CACHE": arguments.cache, "JOURNAL": arguments.journal}
        answers = Answers(arguments.token_stdin, {name: value for name, value in given.items() if value})
        return setup(answers, arguments.env_file)
    values = config.environment(arguments.env_file)
    if getattr(arguments, "model", None):
        values |= {"GPT2_MODEL": arguments.model, "GPT2_MODELS": ""}
    elif arguments.command == "demo" and not any(
        values.get(name, "").strip() for name in ("GPT2_MODEL", "GPT2_MODELS")
    ):
        values["GPT2_MODEL"] = _DEMO_MODEL
    settings = config.parse(values, token_required=arguments.command == "run")
    logs.configure(settings.log_level, settings.log_format)
    if settings.sentry_dsn and arguments.command == "run":
        sentry.configure(settings.sentry_dsn, bot.__version__)
    return _dispatch(arguments, settings)


def _dispatch(arguments: argparse.Namespace, settings: Settings) -> int:  # noqa: PLR0911 # one for each command
    # Imports are local, so that `--help` and a missing token do not wait for torch.
    match arguments.command:
        case "check":
            from bot.cli.check import check  # noqa: PLC0415

            return check(settings)
        case "invite":
            from bot.cli.check import invite  # noqa: PLC0415

            return invite(settings)
        case "health":
            from bot.monitoring.health import query  # noqa: PLC0415

            return query(settings, ready=arguments.ready)
        case "gallery":
            from bot.cli.gallery import gallery  # noqa: PLC0415

            return asyncio.run(gallery(settings, arguments.prompt, arguments.to, second=arguments.second))
        case "bench" if arguments.pictures:
            from bot.cli.bench import bench_pictures  # noqa: PLC0415

            return asyncio.run(bench_pictures(settings, rounds=arguments.rounds))
        case "bench":
            from bot.cli.bench import bench  # noqa: PLC0415

            return bench(settings, rounds=arguments.rounds)
        case "cluster":
            from bot.cli.deploy_cluster import cluster  # noqa: PLC0415

            return cluster(
                settings, replicas=arguments.replicas, gpus=arguments.gpus, host=arguments.host, port=arguments.port
            )
        case "demo":
            print("Starting GPT-2…", flush=True)  # the imports below take seconds
            from bot.cli.demo import demo  # noqa: PLC0415

            return asyncio.run(demo(settings, port=arguments.port))
        case _:
            from bot.cli.run import run  # noqa: PLC0415

            return asyncio.run(run(settings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program(), description="GPT-2 for Discord. Without a command it runs the bot."
    )
    parser.add_argument("--version", action="version", version=f"gpt2-for-discord {bot.__version__}")
    parser.add_argument("--env-file", type=Path, metavar="FILE", help="read settings from FILE instead of .env")
    parser.set_defaults(command="run")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.set_defaults(command=name)
        _add_arguments(name, command)
    return parser


def _add_arguments(name: str, command: argparse.ArgumentParser) -> None:
    if name in {"setup", "demo", "check", "gallery", "bench", "cluster"}:
        command.add_argument("--model", metavar="NAME", help="a hub name, a folder or gpt2-mini; that model alone")
    match name:
        case "setup":
            _add_setup_arguments(command)
        case "bench":
            _add_bench_arguments(command)
        case "gallery":
            _add_gallery_arguments(command)
        case "cluster":
            _add_cluster_arguments(command)
        case "health":
            command.add_argument("--ready", action="store_true", help="exit with 0 only if it can answer users now")
        case "demo":
            command.add_argument(
                "--port", type=_port, metavar="N", help="the page's port on 127.0.0.1 (default: a free one)"
            )


def _add_setup_arguments(command: argparse.ArgumentParser) -> None:
    command.epilog = "An option given here is not asked for; without a terminal nothing is."
    command.add_argument("--token-stdin", action="store_true", help="read the token from standard input")
    command.add_argument("--cache", metavar="FOLDER", help="the folder for downloads (GPT2_CACHE)")
    command.add_argument("--journal", metavar="FILE", help="the file for accepted requests, or off (JOURNAL)")


def _add_bench_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--rounds", type=int, choices=range(1, 101), default=5, metavar="N", help="1-100 repetitions (default: 5)"
    )
    command.add_argument("--pictures", action="store_true", help="measure the pictures instead")


def _add_gallery_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("prompt", metavar="PROMPT", help="the text to draw")
    command.add_argument(
        "--to", type=Path, default=Path("gallery"), metavar="FOLDER", help="output folder (default: gallery)"
    )
    command.add_argument("--second", default="", metavar="PROMPT", help="another text to compare it with")


def _add_cluster_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--replicas",
        type=_replicas,
        default=(1, 1),
        metavar="N or N-N",
        help="copies of the model; with a range, more while requests wait (default: 1)",
    )
    command.add_argument(
        "--gpus", type=float, default=0.0, metavar="N", help="GPUs for each copy; may be a fraction (default: 0)"
    )
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="address of the HTTP front end; 0.0.0.0 for bots on other machines (default: 127.0.0.1)",
    )
    command.add_argument(
        "--port", type=_port, default=_RAY_SERVE_PORT, metavar="N", help=f"its port (default: {_RAY_SERVE_PORT})"
    )


def _replicas(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", text)
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= fewest <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of replicas, such as 2, or a range, such as 1-4")
    return fewest, most


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a whole number from 0 (a free one) to {MAX_PORT}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
