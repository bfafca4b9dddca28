"""Error reports to a Sentry project, if the operator names one in SENTRY_DSN (needs the extra "sentry").

A report holds the type of an error, its place in the code, and the reference that the user was shown. Messages and
variables may hold a user's text or a token, so they never leave the machine; the operator's log has the messages.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from bot.errors import NotInstalledError, SettingsError
from bot.installation import install_command

if TYPE_CHECKING:
    from bot.config import Secret

_KEPT: Final = frozenset({"event_id", "exception", "level", "platform", "release", "sdk", "tags", "timestamp", "type"})
_KEPT_OF_EXCEPTION: Final = frozenset({"type", "module", "mechanism", "stacktrace"})
_KEPT_OF_FRAME: Final = frozenset({"filename", "function", "in_app", "lineno", "module"})
_TAGS: Final = ("reference", "command")


def configure(dsn: Secret, version: str) -> None:
    """Report every error that is logged with its traceback, and the one that ends the process.

    Raises:
        NotInstalledError: The extra is missing.
        SettingsError: Sentry does not take the DSN.
    """
    validate(dsn)
    import sentry_sdk  # noqa: PLC0415 # an extra
    from sentry_sdk.integrations.atexit import AtexitIntegration  # noqa: PLC0415
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration  # noqa: PLC0415

    sentry_sdk.init(
        dsn=str(dsn),
        release=version,
        # Collect nothing by default: no breadcrumbs, no log lines, no variables.
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[ExcepthookIntegration(), AtexitIntegration(callback=lambda *_: None)],
        include_local_variables=False,
        include_source_context=False,
        max_breadcrumbs=0,
        send_default_pii=False,
        auto_session_tracking=False,
        before_send=_without_texts,
    )
    logging.getLogger().addHandler(_Reporter(logging.ERROR))


def validate(dsn: Secret) -> None:
    """Check a DSN, as far as that is possible without sending a report.

    Raises:
        NotInstalledError: The extra is missing.
        SettingsError: Sentry does not take the DSN.
    """
    try:
        from sentry_sdk.utils import BadDsn, Dsn  # noqa: PLC0415 # an extra
    except ImportError as error:
        raise NotInstalledError(
            f"SENTRY_DSN needs its extra: {install_command('sentry')}. Or leave it empty."
        ) from error
    try:
        Dsn(str(dsn))
    except BadDsn as error:
        raise SettingsError(
            ["Sentry does not accept SENTRY_DSN: copy it again from the project's settings."]
        ) from error


class _Reporter(logging.Handler):
    """A log handler that reports the errors of records, with a few of their values as tags."""

    def emit(self, record: logging.LogRecord) -> None:
        import sentry_sdk  # noqa: PLC0415

        event = record.msg if isinstance(record.msg, dict) else {}  # structlog's
        error = event.get("exc_info") or (record.exc_info and record.exc_info[1])
        if not isinstance(error, BaseException):
            return
        with sentry_sdk.new_scope() as scope:
            for name in _TAGS:
                if name in event:
                    scope.set_tag(name, str(event[name]))
            scope.capture_exception(error)


def _without_texts(event: Any, _: Any) -> Any:
    """Return the event with only those of its fields that cannot hold a user's text."""
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
