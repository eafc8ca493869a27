"""The keyboard while nobody is asked: what is typed is not shown and waits for the next prompt."""

from __future__ import annotations

import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def quiet(fd: int) -> Iterator[None]:
    """No echo and no line buffer; Ctrl+C still is a signal."""
    before = termios.tcgetattr(fd)
    mode = termios.tcgetattr(fd)
    mode[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(fd, termios.TCSADRAIN, mode)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal was closed
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
