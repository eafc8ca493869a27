"""What a workflow pauses with to talk for an agent; see docs/howto/custom-chat-workflows.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ChatResponseOutput:
    """Pause with this to answer, and to wait for the next message, which is what the pause returns: `{"message": …}`.

    `content` None says nothing. `turn` counts the answers from 1; 0 stands for what comes before the first message.
    """

    content: str | None = None
    turn: int = 0
    type: Literal["chat_response"] = "chat_response"


@dataclass(frozen=True)
class SessionEndOutput:
    """Pause with this to end the session; the pause never returns. `reason` is max_turns, user_exit or error."""

    reason: str = "user_exit"
    turns: int = 0
    type: Literal["session_end"] = "session_end"
