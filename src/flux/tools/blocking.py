"""Notices a tool that blocks the event loop, and names it: everything else in the process stands still meanwhile."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

logger = logging.getLogger(__name__)

#: Seconds that the loop may stand still before that is told.
PATIENCE = 1.0


class LoopWatch:
    """Looks, from a thread of its own, whether a loop answers while tools run in it. `patience` is in seconds."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._tools: dict[object, tuple[str, CodeType | None]] = {}
        self._told: set[object] = set()
        self._running = False
        self._lock = threading.Lock()
        self._idle = threading.Event()

    @contextmanager
    def watching(self, name: str, code: CodeType | None) -> Iterator[None]:
        """While a tool runs in the present loop; `code` is that of its function."""
        key = object()
        with self._lock:
            self._tools[key] = (name, code)
            if not self._running:
                self._running = True
                self._idle.clear()
                place = (asyncio.get_running_loop(), threading.get_ident())
                threading.Thread(target=self._watch, args=place, name="flux loop watch", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._tools.pop(key, None)
                self._told.discard(key)
                if not self._tools:
                    self._idle.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        while True:
            answered = threading.Event()
            try:
                loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # it is closed
                answered.set()
            if not answered.wait(self._patience):
                self._tell(thread)
                answered.wait()
            self._idle.wait(self._patience)
            with self._lock:
                if not self._tools:
                    self._running = False
                    return

    def _tell(self, thread: int) -> None:
        running = set(_codes(sys._current_frames().get(thread)))
        with self._lock:
            found = [(key, name) for key, (name, code) in self._tools.items() if code in running]
            fresh = [(key, name) for key, name in found if key not in self._told]
            self._told |= {key for key, _ in fresh}
        for _, name in fresh:
            logger.warning(
                "the tool %s has blocked the event loop for more than %g s: everything in this process waits for it;"
                " make it a plain function, which runs in a thread, or await what takes long",
                name,
                self._patience,
            )


def _codes(frame: FrameType | None) -> Iterator[CodeType]:
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back
