"""What the caller of a run has asked for beside its text: a structured answer, or nothing but one call.

The options of the message that began the run say so; what follows from them is a function of the log, as all is.
"""

from __future__ import annotations

import uuid

from flux.agents.history.calls import CallState, RunState
from flux.events import ChatResponse, RunEnd, RunFailed, UserSaid
from flux.messages import TextPart

#: The tools that end a run with a structured answer; no others may be called so.
FINISH, GIVE_UP = "finish", "give_up"
#: Options of a message: its run ends by one of the two; its run is the calls that its answer has, and no more;
#: nothing of its run is shown to a model later; the effort of its model calls.
RESULT, ONLY_CALLS, DETACHED, THINKING = "result", "only_calls", "detached", "thinking_level"
#: Marks a message that the loop itself has written.
REMINDER = "reminder"
#: How often a model is reminded that it has to end with one of the two.
MOST_REMINDERS = 2
#: What the end of a run begins with whose model has given up.
GAVE_UP = "the model gave up: "

_REMINDER_TEXT = (
    f"This is not over before you call `{FINISH}` with the result, or `{GIVE_UP}` with the reason why there is none."
    " An answer in words alone is not taken."
)


def end_by_calls(run: RunState, turn: int) -> RunEnd | None:
    """The end of a run whose newest calls are its last ones, all of which have results."""
    if not run.calls:
        return None
    if run.options.get(ONLY_CALLS):
        return _end(next(iter(run.calls.values())), turn)
    if not run.options.get(RESULT):
        return None
    ended = [state for state in run.calls.values() if state.call.name in (FINISH, GIVE_UP) and _went_well(state)]
    if not ended:
        return None
    if ended[0].call.name == GIVE_UP:
        return RunFailed(message=f"{GAVE_UP}{ended[0].call.args.get('reason', '')}")
    return _end(ended[0], turn)


def wants_reminder(run: RunState) -> bool:
    """Whether an answer in words alone is not yet taken as the last word."""
    return bool(run.options.get(RESULT)) and run.reminded < MOST_REMINDERS


def reminder(run: RunState) -> UserSaid:
    """The message that reminds the model; the same when it is written again after a crash."""
    id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run.id}/reminder/{run.reminded}"))
    return UserSaid(id=id, mode="steer", parts=(TextPart(_REMINDER_TEXT),), options={REMINDER: True})


def _went_well(state: CallState) -> bool:
    return state.done is not None and state.done.outcome == "success"


def _end(state: CallState, turn: int) -> RunEnd:
    content = state.done.content if state.done else ""
    return ChatResponse(content=content, turn=turn) if _went_well(state) else RunFailed(message=content)
