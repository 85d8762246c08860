"""Logging to standard error: JSON lines in production, legible lines in development.

Modules log a sentence through `logging.getLogger(__name__)` and pass its data as `extra`. This module formats the
records, and drops those of libraries below WARNING. Tracebacks never show the values of variables: they could be
tokens, bodies or names.
"""

import logging
import sys
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.settings import Environment


def configure(environment: Environment, stream: TextIO | None = None) -> None:
    """Send the log of this process to `stream`, by default standard error; a second call replaces the first."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_json_lines() if environment is Environment.PRODUCTION else _legible(stream)),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("app").setLevel(logging.INFO)


def _json_lines() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(serializer=_json),
    ]


def _json(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def _legible(stream: TextIO) -> list[Processor]:
    return [
        _short_time,
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        ),
    ]


def _short_time(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    event["timestamp"] = event["timestamp"][11:23]
    return event
