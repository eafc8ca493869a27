"""Where a command's own log goes: never between the lines of a conversation."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MAX_BYTES = 1_000_000


def log_to_file(home: Path) -> None:
    """Log to `flux.log` of a home, for commands that work in this process."""
    _use(RotatingFileHandler(home / "flux.log", maxBytes=MAX_BYTES, backupCount=1, delay=True))


def log_to_stderr() -> None:
    """Log to standard error, for a server."""
    _use(logging.StreamHandler())


def _use(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.getLogger("flux")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)
    logger.propagate = False
