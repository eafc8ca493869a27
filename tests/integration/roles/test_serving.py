"""A runtime as a server: who may call, on whose behalf, and which processes run its sessions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flux.agents.define.definition import define
from flux.agents.process import open_process
from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.errors import InvalidInput, Unauthorized
from flux.roles import Runtime
from flux.server.app import create_app
from flux.server.oidc import Tokens
from flux.settings import ApiKeys, Auth, Oidc, Settings
from flux.store.database import LOCAL, one
from flux.surfaces.cli.connect import EMBEDDED
from tests.integration.auth.issuer import AUDIENCE, ISSUER, Issuer
from tests.integration.roles.shop import USUAL, Shop


@pytest.mark.behaviour("roles:runtime:api")
async def test_an_approval_is_given_over_http_as_well(tmp_path: Path) -> None:
    shop = Shop(USUAL)
    async with shop.open(tmp_path) as runtime, served(runtime) as client:
        asked = await runtime.run("Order fruit.")
        (session,) = (await client.get("/sessions"))["items"]
        assert session["id"] == asked.session
        (question,) = (await client.get(f"/sessions/{asked.session}/interrupts"))["items"]
        assert question["id"] == asked.pending_approvals[0].id
        await client.post(f"/sessions/{asked.session}/interrupts/{question['id']}", {"decision": "approve"})
        done = await runtime.settled(asked.session)
        assert (done.state, shop.shelf.done) == ("completed", ["create apple 1", "create pear 1"])


@pytest.mark.behaviour("roles:runtime:keys")
async def test_with_auth_on_a_runtime_knows_the_callers_of_its_tenant(tmp_path: Path) -> None:
    shop, auth = Shop(USUAL), Auth(api_keys=ApiKeys(enabled=True))
    async with shop.open(tmp_path, auth=auth) as runtime:
        principals = (await runtime.process()).principals
        ours, theirs = [(await principals.admin_key("k", tenant)).secret for tenant in ("acme", "default")]
        asked = await runtime.run("Order fruit.")
        async with served(runtime) as nobody:
            with pytest.raises(Unauthorized):
                await nobody.get("/sessions")
            async with FluxClient(nobody.base_url, theirs) as stranger:
                for path in ("/sessions", f"/sessions/{asked.session}/interrupts", "/workers"):
                    with pytest.raises(Unauthorized):
                        await stranger.get(path)
            async with FluxClient(nobody.base_url, ours) as admin:
                (question,) = (await admin.get(f"/sessions/{asked.session}/interrupts"))["items"]
                await admin.post(f"/sessions/{asked.session}/interrupts/{question['id']}", {"decision": "approve"})
                made = await admin.post("/principals", {"subject": "ann", "kind": "user", "roles": ["operator"]})
                assert made["subject"] == "ann"
        assert (await runtime.settled(asked.session)).state == "completed"
        assert (await principals.get(runtime.scope, "ann")).roles == ["operator"]


@pytest.mark.behaviour("roles:runtime:keys")
async def test_people_of_an_identity_provider_are_of_the_tenant(tmp_path: Path) -> None:
    shop, issuer = Shop(USUAL), Issuer()
    oidc = Oidc(enabled=True, issuer=ISSUER, audience=AUDIENCE)
    async with shop.open(tmp_path, auth=Auth(oidc=oidc)) as runtime:
        process = await runtime.process()
        await process.principals.create(runtime.scope, "ann", "user", ["operator"])
        tokens = Tokens(process.identities, oidc, issuer.transport(), tenant=process.operator.tenant)
        caller = await tokens.caller(issuer.token(sub="ann"))
        assert caller is not None
        assert (caller.scope.tenant, caller.roles) == ("acme", ("operator",))


@pytest.mark.behaviour("roles:runtime:own-workers")
async def test_sessions_of_a_runtime_run_where_its_functions_are(tmp_path: Path) -> None:
    shop = Shop(USUAL)
    async with shop.open(tmp_path) as runtime:
        asked = await runtime.run("Order fruit.", session="desk")
    settings = Settings(home=tmp_path, synchronous="normal")
    async with open_process(settings, environment={}, workspace=tmp_path) as stranger:
        await stranger.sessions.answer(runtime.scope, asked.session, asked.pending_approvals[0].id, Decision("approve"))
        row = await stranger.sessions.get(runtime.scope, asked.session)
        assert (row.state, row.pool) == ("scheduled", "runtime=acme")
        assert not stranger.offer.takes(row.pool, row.requests)
        stranger.operator = runtime.scope
        async with FluxClient(EMBEDDED, transport=InProcessTransport(create_app(stranger, operator=True))) as client:
            assert "labels runtime=acme" in (await client.get("/agents/counter"))["problems"][-1]
    async with shop.open(tmp_path) as runtime:
        assert (await runtime.settled("desk")).text == "All done."


@pytest.mark.behaviour("roles:runtime:own-tenant")
async def test_the_workers_of_a_runtime_run_the_work_of_its_tenant_alone(tmp_path: Path) -> None:
    """They have its functions, which anybody on the same database could name otherwise."""
    async with Shop(USUAL).open(tmp_path) as runtime:
        process = await runtime.process()
        made = {"name": "evil", "model": "scripted/echo", "affinity": {"runtime": "acme"}, "tools": ["create_item"]}
        await process.agents.put(LOCAL, define(made), create=True, update=False)
        with pytest.raises(InvalidInput, match="run the work of that tenant alone"):
            await process.sessions.start(LOCAL, "evil", NewMessage("create_item"))
        assert await process.database.read(one("select count(*) from executions where tenant = 'default'")) == [(0,)]


@asynccontextmanager
async def served(runtime: Runtime) -> AsyncIterator[FluxClient]:
    """A client of the served runtime."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(runtime.serve(port=0, page_port=0, ready=lambda url, _: ready.set_result(url)))
    try:
        async with asyncio.timeout(20), FluxClient(await ready) as client:
            yield client
    finally:
        serving.cancel()
        await asyncio.wait((serving,))
