"""Faults of the program reported to a Sentry project, where the host names one (SENTRY_DSN; the extra "sentry").

A report says which kind of error was raised where, and the reference that its user was shown. What an error says, and
what variables hold, may be something that people wrote, or a token; so neither leaves the machine. The host's own log
has more.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from bot.errors import NotInstalledError, SettingsError

if TYPE_CHECKING:
    from bot.config import Secret

_KEPT: Final = frozenset({"event_id", "exception", "level", "platform", "release", "sdk", "tags", "timestamp", "type"})
_KEPT_OF_EXCEPTION: Final = frozenset({"type", "module", "mechanism", "stacktrace"})
_KEPT_OF_FRAME: Final = frozenset({"filename", "function", "in_app", "lineno", "module"})
_TAGS: Final = ("reference", "command")


def configure(dsn: Secret, version: str) -> None:
    """Report from now on every error that is logged with its traceback, and the one that ends the process.

    Raises:
        NotInstalledError: The extra is missing.
        SettingsError: Sentry does not take the DSN.
    """
    examine(dsn)
    import sentry_sdk  # noqa: PLC0415 # an extra
    from sentry_sdk.integrations.atexit import AtexitIntegration  # noqa: PLC0415
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration  # noqa: PLC0415

    sentry_sdk.init(
        dsn=str(dsn),
        release=version,
        # Nothing is collected that is not asked for: no breadcrumbs of requests, no log lines, no variables.
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[ExcepthookIntegration(), AtexitIntegration(callback=lambda *_: None)],
        include_local_variables=False,
        include_source_context=False,
        max_breadcrumbs=0,
        send_default_pii=False,
        auto_session_tracking=False,
        before_send=_bare,
    )
    logging.getLogger().addHandler(_Reporter(logging.ERROR))


def examine(dsn: Secret) -> None:
    """Find out whether faults can be reported there, as far as that can be told without reporting one.

    Raises:
        NotInstalledError: The extra is missing.
        SettingsError: Sentry does not take the DSN.
    """
    try:
        from sentry_sdk.utils import BadDsn, Dsn  # noqa: PLC0415 # an extra
    except ImportError as error:
        raise NotInstalledError(
            "SENTRY_DSN needs its extra: python -m pip install -c constraints.txt -e .[sentry], or leave it empty."
        ) from error
    try:
        Dsn(str(dsn))
    except BadDsn as error:
        raise SettingsError(
            ["SENTRY_DSN is not accepted by Sentry: copy it again from the project's settings."]
        ) from error


class _Reporter(logging.Handler):
    """Hands on the errors of log records; of what else a record says, a few names."""

    def emit(self, record: logging.LogRecord) -> None:
        import sentry_sdk  # noqa: PLC0415

        said = record.msg if isinstance(record.msg, dict) else {}  # structlog's event
        error = said.get("exc_info") or (record.exc_info and record.exc_info[1])
        if not isinstance(error, BaseException):
            return
        with sentry_sdk.new_scope() as scope:
            for name in _TAGS:
                if name in said:
                    scope.set_tag(name, str(said[name]))
            scope.capture_exception(error)


def _bare(event: Any, _: Any) -> Any:
    """The event without anything that may hold a text: what is not known to be harmless is left out."""
    bare = {name: value for name, value in event.items() if name in _KEPT}
    values = [
        {name: value for name, value in each.items() if name in _KEPT_OF_EXCEPTION}
        for each in bare.get("exception", {}).get("values", ())
    ]
    for each in values:
        frames = (each.get("stacktrace") or {}).get("frames", ())
        each["stacktrace"] = {
            "frames": [{name: value for name, value in frame.items() if name in _KEPT_OF_FRAME} for frame in frames]
        }
    bare["exception"] = {"values": values}
    return bare
