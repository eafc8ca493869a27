"""Signals during a chat: Ctrl+C concerns the run, SIGTERM and a closed terminal end the chat."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

LEAVE = (signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Use it as a context manager inside the task that chats."""

    def __init__(self) -> None:
        self.on_interrupt: Callable[[], None] | None = None
        self.left_by: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - a running loop has one
        for number in (signal.SIGINT, *LEAVE):
            self._before[number] = signal.getsignal(number)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        for number in LEAVE:
            loop.add_signal_handler(number, self._leave, number, task)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number, handler in self._before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def _interrupt(self) -> None:
        if self.on_interrupt is not None:
            self.on_interrupt()

    def _leave(self, number: int, task: asyncio.Task[Any]) -> None:
        if self.left_by is None:
            self.left_by = number
            task.cancel()
