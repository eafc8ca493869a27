"""Where a command's own log goes: never between the lines of a conversation."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from flux import redaction

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MAX_BYTES = 1_000_000
#: Whose records are written there.
OURS = ("flux", "uvicorn")


def log_to_file(home: Path) -> None:
    """Log to `flux.log` of a home, for commands that work in this process."""
    _use(RotatingFileHandler(home / "flux.log", maxBytes=MAX_BYTES, backupCount=1, delay=True))


def log_to_stderr() -> None:
    """Log to standard error, for a server."""
    _use(logging.StreamHandler())


class Redacting(logging.Formatter):
    """Writes records, their traces too, without the secrets that this process knows."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return redaction.text(super().format(record))


def _use(handler: logging.Handler) -> None:
    handler.setFormatter(Redacting(FORMAT))
    for name in OURS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    if logging.lastResort is not None:  # of whatever library nobody has set up
        logging.lastResort.setFormatter(Redacting("%(message)s"))
