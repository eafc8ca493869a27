"""Workers on machines of their own, one of which loses its network for longer than it may."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.scale.machines import (
    call,
    has_ended,
    is_idle,
    ledger_faults,
    machines,
    make_cashier,
    payment_faults,
    register_ledger,
    say,
    start_ledger,
    start_session,
    until,
)
from tests.scale.network import two_machines
from tests.scale.private import private_postgres


@pytest.mark.timeout(180)
@pytest.mark.behaviour("scale:workers:cut-off")
def test_a_worker_that_is_cut_off_past_its_death_is_followed_fenced_and_works_on(
    tmp_path: Path, pytestconfig: pytest.Config, require_tool: Callable[[str], str]
) -> None:
    with (
        two_machines(pytestconfig, require_tool) as places,
        private_postgres(pytestconfig) as postgres,
        machines(tmp_path, postgres.url) as many,
    ):
        postgres.listen([place.gateway for place in places], [place.network for place in places])
        url = many.server()
        workers = {}
        for name, place in zip(("one", "two"), places, strict=True):
            database = f"postgresql://postgres@{place.gateway}:5432/postgres"
            worker = many.worker(name, before=place.inside, FLUX_DATABASE_URL=database)
            workers[worker.id] = (worker, place)
        make_cashier(url)
        register_ledger(many, url)
        ledger = start_ledger(many, url, 100)
        sessions = [start_session(url, f"s{n}") for n in range(6)]
        first = until(lambda: many.owner(ledger))
        lost, place = workers.pop(first)
        ((other, _),) = workers.values()
        until(lambda: many.effects.count("settle") >= 3)
        place.cut_off()
        until(lambda: many.owner(ledger) == other.id)
        assert call(url, f"/workers/{lost.name}")["state"] == "gone"
        place.connect()
        ways = (f"run of {ledger} stops: This worker no longer", f"run of {ledger} failed")  # refused, or reset before
        until(lambda: any(way in lost.log() for way in ways))
        until(lambda: call(url, f"/workers/{lost.name}")["state"] == "active")
        until(lambda: has_ended(url, ledger))
        for session in sessions:
            until(partial(is_idle, url, session))
        assert ledger_faults(many, url, ledger, 100, lost=1) == []
        assert payment_faults(many, sessions, 1, interruptions=len(sessions)) == []
        call(url, f"/workers/{other.name}/drain", method="POST")
        assert other.exit_code() == 0
        say(url, sessions[0], "more")
        until(partial(is_idle, url, sessions[0]))
        assert payment_faults(many, sessions[:1], 2, interruptions=1) == []
        assert lost.process.poll() is None
