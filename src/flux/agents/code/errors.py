"""What operations of a harness raise beside what everything raises.

FluxError
├── ExecutionError … AgentFailed
│   └── ResultUnavailableError   it ended without the structured answer that was asked for
└── AbortError              409  it was stopped by whoever had asked for it
"""

from __future__ import annotations

from typing import Any

from flux.errors import AgentFailed, FluxError

_NO_RESULT = "the agent gave no result: "
_ABORTED = "the operation was aborted"


class ResultUnavailableError(AgentFailed):
    """The agent gave no structured answer; `reason` says why, `text` is what it said instead."""

    type = "result_unavailable"

    def __init__(self, reason: str = "", text: str = "", *, debug: str = "", **details: Any) -> None:
        reason = str(reason).removeprefix(_NO_RESULT)  # it may be read from a log, or come from a server
        super().__init__(f"{_NO_RESULT}{reason}", debug=debug)
        self.details = details
        self.reason = reason
        self.text = text


class AbortError(FluxError):
    """The operation was aborted; `reason` is what was given as the reason."""

    type = "aborted"
    status = 409

    def __init__(self, reason: Any = None, *, debug: str = "", **details: Any) -> None:
        reason = reason.removeprefix(f"{_ABORTED}: ") if isinstance(reason, str) else reason
        super().__init__(_ABORTED + (f": {reason}" if reason is not None else ""), debug=debug)
        self.details = details
        self.reason = reason
