"""A message from outside, in each state and mode: HEART 3, ADMIT."""

import time

import anyio
import pytest

from flux.engine.intake.inputs import NewMessage
from flux.errors import Conflict, SessionBusy, SessionEnded, SessionNotFound
from flux.events import CancelRequested, Mode, RunStarted, UserSaid
from flux.store.database import Database
from flux.store.executions import Execution
from flux.store.log import Then
from tests.integration.states import EVE, HELLO, HOUR, Sessions, a_session

MODES: tuple[Mode, ...] = ("queue", "steer", "interrupt", "reject")


@pytest.mark.behaviour("engine:admit:wakes-an-idle-session")
@pytest.mark.parametrize("mode", MODES)
async def test_an_idle_session_is_scheduled_with_a_new_run(sessions: Sessions, mode: Mode) -> None:
    id = await sessions.idle()
    before = await sessions.row(id)
    admitted = await sessions.admission.admit(sessions.scope, id, NewMessage("Good day", mode=mode))
    after = await sessions.row(id)
    assert (after.state, after.head, after.epoch) == ("scheduled", before.head + 1, before.epoch)
    assert after.run_id is not None
    assert after.due is not None
    assert after.due <= time.time()
    assert (admitted.seq, admitted.repeated) == (after.head, False)
    (said,) = await sessions.entries(id, before.head)
    assert isinstance(said, UserSaid)
    assert (said.mode, said.parts[0].text) == (mode, "Good day")


@pytest.mark.behaviour("engine:admit:work-in-hand-is-not-disturbed")
@pytest.mark.parametrize("mode", ["queue", "steer"])
@pytest.mark.parametrize("state", ["scheduled", "running", "between_runs", "waiting", "backed_off"])
async def test_a_message_during_work_is_logged_and_changes_nothing_else(
    sessions: Sessions, state: str, mode: Mode
) -> None:
    id = await getattr(sessions, state)()
    before = await sessions.row(id)
    await sessions.admission.admit(sessions.scope, id, NewMessage("and this", mode=mode))
    after = await sessions.row(id)
    assert (after.state, after.due, after.run_id, after.epoch, after.failures, after.worker) == (
        before.state,
        before.due,
        before.run_id,
        before.epoch,
        before.failures,
        before.worker,
    )
    assert [type(entry) for entry in await sessions.entries(id, before.head)] == [UserSaid]


@pytest.mark.behaviour("engine:admit:interrupt")
@pytest.mark.parametrize(
    ("state", "then"),
    [("scheduled", "scheduled"), ("running", "running"), ("waiting", "scheduled"), ("backed_off", "scheduled")],
)
async def test_an_interrupting_message_asks_the_open_run_to_stop_first(
    sessions: Sessions, state: str, then: str
) -> None:
    id = await getattr(sessions, state)()
    before = await sessions.row(id)
    admitted = await sessions.admission.admit(sessions.scope, id, NewMessage("no, wait", mode="interrupt"))
    after = await sessions.row(id)
    asked, said = await sessions.entries(id, before.head)
    assert isinstance(asked, CancelRequested)
    assert isinstance(said, UserSaid)
    assert (asked.run, asked.by) == (before.run_id, "ann")
    assert (after.state, after.run_id, after.head, admitted.seq) == (then, before.run_id, before.head + 2, after.head)
    if before.state == "waiting":
        assert after.due is not None
        assert after.due <= time.time()
    else:
        assert after.due == before.due


@pytest.mark.behaviour("engine:admit:interrupt")
async def test_an_interrupting_message_with_no_run_open_is_only_a_message(sessions: Sessions) -> None:
    id = await sessions.between_runs()
    before = await sessions.row(id)
    await sessions.admission.admit(sessions.scope, id, NewMessage("next", mode="interrupt"))
    assert [type(entry) for entry in await sessions.entries(id, before.head)] == [UserSaid]
    assert (await sessions.row(id)).run_id is None


@pytest.mark.behaviour("engine:admit:reject-unless-idle")
@pytest.mark.parametrize("state", ["scheduled", "running", "between_runs", "waiting", "backed_off"])
async def test_reject_is_refused_while_there_is_work(sessions: Sessions, state: str) -> None:
    id = await getattr(sessions, state)()
    before = await sessions.row(id)
    with pytest.raises(SessionBusy):
        await sessions.admission.admit(sessions.scope, id, NewMessage("now?", mode="reject"))
    assert await sessions.row(id) == before
    assert await sessions.entries(id, before.head) == []


@pytest.mark.behaviour("engine:admit:not-from-outside")
@pytest.mark.parametrize("mode", MODES)
async def test_an_ended_a_driven_and_an_unknown_session_take_no_message(sessions: Sessions, mode: Mode) -> None:
    ended, driven = await sessions.ended(), await sessions.driven()
    root = (await sessions.row(driven)).root
    message = NewMessage("hello?", mode=mode)
    with pytest.raises(SessionEnded):
        await sessions.admission.admit(sessions.scope, ended, message)
    with pytest.raises(Conflict, match=root):
        await sessions.admission.admit(sessions.scope, driven, message)
    for scope, id in ((sessions.scope, "nowhere"), (EVE, await sessions.idle())):
        with pytest.raises(SessionNotFound):
            await sessions.admission.admit(scope, id, message)


@pytest.mark.behaviour("engine:admit:start-with-a-message")
async def test_starting_with_a_message_is_one_admission(sessions: Sessions) -> None:
    admitted = await sessions.admission.start(sessions.scope, a_session(), NewMessage("\n  Plan my day \nplease"))
    row = await sessions.row(admitted.id)
    assert (row.state, row.head, admitted.seq, row.title) == ("scheduled", 2, 2, "Plan my day")
    assert [entry.__struct_config__.tag for entry in await sessions.entries(row.id)] == [
        "session_started",
        "user_message",
    ]


@pytest.mark.behaviour("engine:admit:title")
@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("", None),
        (" \n\t", None),
        ("\x00", None),
        ("a\x00b\x1b[31m red", "a b [31m red"),
        ("long " * 40, ("long " * 16)[:79] + "…"),
    ],
)
async def test_the_title_is_the_first_line_fit_to_be_shown(sessions: Sessions, text: str, title: str | None) -> None:
    id = await sessions.idle()
    await sessions.admission.admit(sessions.scope, id, NewMessage(text))
    assert (await sessions.row(id)).title == title
    await sessions.admission.admit(sessions.scope, id, NewMessage("Later"))
    assert (await sessions.row(id)).title == (title or "Later")


@pytest.mark.behaviour("engine:admit:any-text")
@pytest.mark.parametrize("text", ["nul \x00 inside", "\x00", "emoji 🙂 'quotes' \"and\" \\ %s :now :id", "", "\u2028"])
async def test_any_text_comes_back_as_it_was_said(sessions: Sessions, text: str) -> None:
    admitted = await sessions.admission.start(sessions.scope, a_session(), NewMessage(text))
    *_, said = await sessions.entries(admitted.id)
    assert isinstance(said, UserSaid)
    assert said.parts[0].text == text


@pytest.mark.behaviour("engine:admit:races-going-idle")
async def test_a_message_that_races_going_idle_is_never_left_lying(
    sessions: Sessions, other_database: Database
) -> None:
    """Either the run sees that the head moved and stays, or the message finds the session idle and wakes it."""
    there = Sessions(other_database)
    for attempt in range(30):
        row = await sessions.row(await sessions.running())
        left: list[str] = []

        async def leave(row: Execution = row, left: list[str] = left) -> None:
            left.append((await sessions.append(row, seen=row.head, then=Then("idle"))).state)

        async def say(id: str = row.id) -> None:
            await there.admission.admit(there.scope, id, HELLO)

        async with anyio.create_task_group() as group:
            for step in (leave, say) if attempt % 2 else (say, leave):
                group.start_soon(step)
        after = await sessions.row(row.id)
        assert after.state == ("scheduled" if left == ["idle"] else "running")
        assert isinstance((await sessions.entries(row.id))[-1], UserSaid)


@pytest.mark.behaviour("engine:admit:races-going-idle")
async def test_leaving_with_the_head_one_has_seen_fails_once_it_moved(sessions: Sessions) -> None:
    row = await sessions.row(await sessions.running())
    await sessions.admission.admit(sessions.scope, row.id, HELLO)
    done = await sessions.append(row, seen=row.head, then=Then("waiting", due=HOUR))
    assert done.state == "running"
    after = await sessions.row(row.id)
    assert (after.due, after.worker) == (row.due, row.worker)
    assert (await sessions.append(after, seen=after.head, then=Then("idle"))).state == "idle"


@pytest.mark.behaviour("engine:admit:concurrent")
async def test_messages_at_the_same_time_all_land_in_one_order(database: Database, other_database: Database) -> None:
    here, there = Sessions(database), Sessions(other_database)
    id = await here.idle()
    async with anyio.create_task_group() as group:
        for n in range(20):
            side = here if n % 2 else there
            group.start_soon(side.admission.admit, side.scope, id, NewMessage(str(n)))
    said = [entry.parts[0].text for entry in await here.entries(id) if isinstance(entry, UserSaid)]
    assert sorted(said, key=int) == [str(n) for n in range(20)]
    assert not [entry for entry in await here.entries(id) if isinstance(entry, RunStarted)]
