"""Many processes on one Postgres: frozen workers, a database that restarts, workers of other versions."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

import flux
from tests.crash import flow_judge
from tests.crash.process import Zygote
from tests.crash.stage import Plan
from tests.scale.machines import (
    Machines,
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
from tests.scale.private import Postgres, private_postgres


@pytest.fixture
def private(pytestconfig: pytest.Config) -> Iterator[Postgres]:
    with private_postgres(pytestconfig) as server:
        yield server


@pytest.mark.timeout(120)
@pytest.mark.behaviour("scale:workers:zombie")
def test_what_a_frozen_worker_writes_after_its_death_is_refused(many: Machines) -> None:
    url = many.server()
    workers = {worker.id: worker for worker in (many.worker("one"), many.worker("two"))}
    make_cashier(url)
    register_ledger(many, url)
    ledger = start_ledger(many, url, 60)
    sessions = [start_session(url, f"s{n}") for n in range(6)]
    zombie = workers[until(lambda: many.owner(ledger))]
    until(lambda: many.effects.count("settle") >= 3)
    zombie.process.send_signal(signal.SIGSTOP)
    second = until(lambda: (now := many.owner(ledger)) != zombie.id and now)
    assert second in workers
    zombie.process.send_signal(signal.SIGCONT)
    # Fenced; or it was frozen inside a transaction, and Postgres has ended that, or nobody could have taken over.
    until(lambda: any(f"run of {ledger} {how}" in zombie.log() for how in ("stops: This worker no longer", "failed")))
    until(lambda: has_ended(url, ledger))
    for session in sessions:
        until(partial(is_idle, url, session))
    assert ledger_faults(many, url, ledger, 60, lost=1) == []
    assert payment_faults(many, sessions, 1, interruptions=len(sessions)) == []
    # It goes on working: nobody else is left to do this.
    call(url, f"/workers/{workers[second].name}/drain", method="POST")
    assert workers[second].exit_code() == 0
    say(url, sessions[0], "more")
    until(partial(is_idle, url, sessions[0]))
    assert payment_faults(many, sessions[:1], 2, interruptions=1) == []
    assert zombie.process.poll() is None


@pytest.mark.timeout(120)
@pytest.mark.behaviour("scale:workers:locks")
@pytest.mark.parametrize("commit", [12, 20])
def test_a_worker_that_is_frozen_inside_a_transaction_holds_up_nobody(
    tmp_path: Path, postgres_url: str, commit: int
) -> None:
    zygote = Zygote()
    try:
        patient, strict = {"heartbeat": 0.1, "dead_after": 60}, {"heartbeat": 0.1, "dead_after": 0.5}
        plan = Plan(str(tmp_path), "work_workflow", postgres_url, settings=strict)
        frozen = zygote.start(replace(plan, crash=f"freeze:{commit}", settings=patient))
        assert zygote.wait(frozen) == "stopped"
        assert zygote.play(plan) == "exit 0"
        os.kill(frozen, signal.SIGCONT)
        assert zygote.wait(frozen).startswith("exit ")  # its own reader may hear that a connection is gone
    finally:
        zygote.close()
    assert flow_judge.faults(tmp_path, flow_judge.flows(tmp_path, postgres_url)) == []


@pytest.mark.timeout(120)
@pytest.mark.behaviour("scale:postgres:restart")
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_of_postgres_in_mid_run_loses_and_doubles_nothing(
    tmp_path: Path, private: Postgres, mode: str
) -> None:
    with machines(tmp_path, private.url) as many:
        url = many.server()
        workers = [many.worker("one"), many.worker("two")]
        make_cashier(url)
        register_ledger(many, url)
        ledger = start_ledger(many, url, 40)
        sessions = [start_session(url, f"{n}.0") for n in range(8)]
        until(lambda: many.effects.count("settle") >= 5)
        private.stop("immediate" if mode == "immediate" else "fast")
        private.start()
        for n in range(1, 4):
            for number, session in enumerate(sessions):
                say(url, session, f"{number}.{n}")
        until(lambda: has_ended(url, ledger))
        for session in sessions:
            until(partial(is_idle, url, session))
        assert ledger_faults(many, url, ledger, 40, lost=1) == []
        assert payment_faults(many, sessions, 4, interruptions=len(sessions)) == []
        assert [worker.process.poll() for worker in workers] == [None, None]
        listed = {row["name"]: row["state"] for row in call(url, "/workers")["items"]}
        assert listed == {"one": "active", "two": "active"}


@pytest.mark.behaviour("scale:workers:versions")
def test_a_worker_refuses_a_database_of_a_newer_schema(many: Machines) -> None:
    many.server()
    many.query("update alembic_version set version_num = '9999'")
    refused = many.worker("old")
    assert refused.exit_code() == 1
    said = refused.log()
    assert said.startswith("Error: the database postgresql://")
    assert said.endswith("has schema 9999, this Flux knows 0001; upgrade Flux to open it\n")
    assert said.count("\n") == 1


@pytest.mark.behaviour("scale:workers:versions")
def test_workers_of_two_versions_work_side_by_side_on_one_schema(many: Machines) -> None:
    url = many.server()
    old, new = many.worker("old"), many.worker("new", FLUX_TEST_VERSION="9.9.9")
    listed = json.loads(many.flux(url, "worker", "list", "--format", "json").stdout)
    assert {row["name"]: row["version"] for row in listed} == {"old": flux.__version__, "new": "9.9.9"}
    make_cashier(url)
    sessions = [start_session(url, f"s{n}") for n in range(20)]
    for session in sessions:
        until(partial(is_idle, url, session))
    assert payment_faults(many, sessions, 1) == []
    call(url, "/workers/old/drain", method="POST")
    assert old.exit_code() == 0
    say(url, sessions[0], "again")
    until(partial(is_idle, url, sessions[0]))
    assert payment_faults(many, sessions[:1], 2) == []
    assert new.process.poll() is None


LACKS = """\
import only_one_has_this
from flux import workflow

@workflow
async def lacks(ctx):
    return only_one_has_this.ANSWER
"""


@pytest.mark.behaviour("scale:workers:refusal")
def test_a_worker_that_lacks_a_package_leaves_the_workflow_to_one_that_has_it(many: Machines) -> None:
    url = many.server()
    bad = many.worker("bad")
    folder = many.folder / "packages"
    folder.mkdir()
    (folder / "only_one_has_this.py").write_text("ANSWER = 42\n")
    (many.folder / "lacks.py").write_text(LACKS)
    registered = many.flux(url, "workflow", "register", "lacks.py")
    assert registered.returncode == 0, registered.stderr

    def run() -> tuple[str, object]:
        id = call(url, "/workflows/default/lacks/run/async", {})["execution_id"]
        until(partial(has_ended, url, id))
        row = call(url, f"/executions/{id}")
        return row["state"], row.get("output")

    assert run()[0] == "FAILED"
    many.worker("good", packages=str(folder))
    assert [run() for _ in range(6)] == [("COMPLETED", 42)] * 6
    assert bad.process.poll() is None
