"""Idempotency keys: the same request twice is one request."""

import anyio
import pytest

from flux.engine.intake.answers import Admitted
from flux.engine.intake.inputs import NewMessage
from flux.errors import IdempotencyMismatch, SessionBusy, SessionEnded
from flux.events import UserSaid
from flux.store import executions
from flux.store.database import Database
from tests.integration.states import ANN, BOB, EVE, HELLO, Sessions, a_session

pytestmark = pytest.mark.behaviour("engine:idempotency:once")


async def test_the_same_request_again_is_answered_as_before_and_does_nothing(sessions: Sessions) -> None:
    first = await sessions.admission.start(ANN, a_session(), HELLO, key="k1")
    said = await sessions.admission.admit(ANN, first.id, NewMessage("more"), key="k2")
    before = await sessions.row(first.id)
    assert await sessions.admission.start(ANN, a_session(), HELLO, key="k1") == Admitted(first.id, first.seq, True)
    again = await sessions.admission.admit(ANN, first.id, NewMessage("more"), key="k2")
    assert again == Admitted(first.id, said.seq, True)
    assert await sessions.row(first.id) == before


@pytest.mark.behaviour("engine:idempotency:other-body")
async def test_a_key_with_another_body_is_refused(sessions: Sessions) -> None:
    id, other = await sessions.idle(), await sessions.idle()
    await sessions.admission.admit(ANN, id, HELLO, key="k")
    rows = [await sessions.row(id), await sessions.row(other)]
    for target, message in (
        (id, NewMessage("something else")),
        (id, NewMessage("hello", mode="steer")),
        (id, NewMessage("hello", options={"model": "x"})),
        (other, HELLO),
    ):
        with pytest.raises(IdempotencyMismatch):
            await sessions.admission.admit(ANN, target, message, key="k")
    with pytest.raises(IdempotencyMismatch):
        await sessions.admission.start(ANN, a_session(), HELLO, key="k")
    assert [await sessions.row(id), await sessions.row(other)] == rows


@pytest.mark.behaviour("engine:idempotency:own-keys")
async def test_keys_belong_to_one_principal_of_one_tenant(sessions: Sessions) -> None:
    ids = {(await sessions.admission.start(scope, a_session(), HELLO, key="k")).id for scope in (ANN, BOB, EVE)}
    assert len(ids) == 3


@pytest.mark.behaviour("engine:idempotency:refused-is-not-used")
async def test_a_refused_request_does_not_use_up_its_key(sessions: Sessions) -> None:
    busy, now = await sessions.running(), NewMessage("now", mode="reject")
    with pytest.raises(SessionBusy):
        await sessions.admission.admit(ANN, busy, now, key="k")
    idle = await sessions.idle()
    assert not (await sessions.admission.admit(ANN, idle, now, key="k")).repeated


@pytest.mark.behaviour("engine:idempotency:repeat-outlives-the-state")
async def test_a_repeat_is_answered_though_the_session_could_not_take_it_now(sessions: Sessions) -> None:
    id = await sessions.idle()
    now = NewMessage("now", mode="reject")
    first = await sessions.admission.admit(ANN, id, now, key="k")
    assert (await sessions.admission.admit(ANN, id, now, key="k")).seq == first.seq
    await sessions.admission.end(ANN, id)
    assert (await sessions.admission.admit(ANN, id, now, key="k")).repeated
    with pytest.raises(SessionEnded):
        await sessions.admission.admit(ANN, id, now, key="k2")


@pytest.mark.behaviour("engine:idempotency:concurrent")
@pytest.mark.parametrize("mode", ["queue", "reject"])
async def test_of_the_same_request_many_times_at_once_one_is_carried_out(
    sessions: Sessions, other_database: Database, mode: str
) -> None:
    there = Sessions(other_database)
    id = await sessions.idle()
    message = NewMessage("once", mode="reject" if mode == "reject" else "queue")
    results: list[Admitted] = []

    async def send(side: Sessions) -> None:
        results.append(await side.admission.admit(ANN, id, message, key="k"))

    async with anyio.create_task_group() as group:
        for n in range(8):
            group.start_soon(send, (sessions, there)[n % 2])
    assert sorted(result.repeated for result in results) == [False] + [True] * 7
    assert len({result.seq for result in results}) == 1
    assert [type(entry) for entry in await sessions.entries(id, 1)] == [UserSaid]


@pytest.mark.behaviour("engine:idempotency:concurrent")
async def test_of_the_same_start_many_times_at_once_one_session_comes(
    sessions: Sessions, other_database: Database
) -> None:
    there = Sessions(other_database)
    session = a_session(instance="ticket-7")
    results: list[Admitted] = []

    async def start(side: Sessions) -> None:
        results.append(await side.admission.start(ANN, session, HELLO, key="k"))

    async with anyio.create_task_group() as group:
        for n in range(8):
            group.start_soon(start, (sessions, there)[n % 2])
    assert {result.id for result in results} == {results[0].id}
    assert sum(not result.repeated for result in results) == 1
    assert len(await sessions.database.read(executions.list_sessions(ANN))) == 1
