"""Secrets and configuration values as tasks get them."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from flux import redaction
from flux.engine.configuration.configs import Configs
from flux.engine.configuration.key_source import KeySource
from flux.engine.configuration.secrets import Secrets
from flux.errors import ConfigNotFound, InvalidInput, SecretNotFound, SecretUnreadable, Unavailable
from flux.store.database import Database, Scope, one
from tests.integration.states import ANN, EVE

KEY = base64.b64encode(bytes(32)).decode()


@pytest.mark.behaviour("secrets:sealed:bound")
async def test_a_secret_opens_only_in_its_place(database: Database, tmp_path: Path) -> None:
    secrets = Secrets(database, KeySource(tmp_path))
    for scope, value in ((ANN, "ann's token ü"), (EVE, "eve's")):
        await secrets.set(scope, "token", value)
    await secrets.set(ANN, "other", "another")
    assert await secrets.get(ANN, "token") == "ann's token ü"
    assert "ann" not in str(await database.read(one("select name, sealed from secrets")))

    taken = "update secrets set sealed = (select sealed from secrets where tenant = :t and name = :n)"
    await database.write(one(taken + " where name = 'other'", t=ANN.tenant, n="token"))
    with pytest.raises(SecretUnreadable, match="for another name"):
        await secrets.get(ANN, "other")
    await database.write(one(taken + " where tenant = :e and name = 'token'", t=ANN.tenant, n="token", e=EVE.tenant))
    with pytest.raises(SecretUnreadable):
        await secrets.get(EVE, "token")


@pytest.mark.behaviour("secrets:sealed:bound")
async def test_another_key_opens_nothing(database: Database, tmp_path: Path) -> None:
    await Secrets(database, KeySource(tmp_path / "a")).set(ANN, "token", "value")
    with pytest.raises(SecretUnreadable, match=r"another key than that of .*secret.key, and nothing was changed"):
        await Secrets(database, KeySource(tmp_path / "b")).get(ANN, "token")
    with pytest.raises(SecretUnreadable, match="another key than that of FLUX_SECRET_KEY"):
        await Secrets(database, KeySource(tmp_path / "a", KEY)).get(ANN, "token")
    assert not (tmp_path / "b").exists()


@pytest.mark.behaviour("secrets:key:file")
async def test_the_key_is_made_once_and_private(database: Database, tmp_path: Path) -> None:
    many = [Secrets(database, KeySource(tmp_path / "home")) for _ in range(8)]
    await asyncio.gather(*(secrets.set(ANN, f"s{n}", "value") for n, secrets in enumerate(many)))
    assert await many[0].requested(ANN, [f"s{n}" for n in range(8)]) == {f"s{n}": "value" for n in range(8)}
    files = list((tmp_path / "home").iterdir())
    assert [(file.name, file.stat().st_mode & 0o777) for file in files] == [("secret.key", 0o600)]


@pytest.mark.behaviour("secrets:key:file")
async def test_the_key_may_come_from_the_environment(database: Database, tmp_path: Path) -> None:
    await Secrets(database, KeySource(tmp_path / "a", KEY)).set(ANN, "token", "value")
    assert await Secrets(database, KeySource(tmp_path / "b", f"{KEY}\n")).get(ANN, "token") == "value"
    assert not list(tmp_path.rglob("secret.key"))
    for wrong in ("short", "AAAA", "ü"):
        with pytest.raises(Unavailable, match="FLUX_SECRET_KEY must be 32 random bytes"):
            await Secrets(database, KeySource(tmp_path, wrong)).set(ANN, "token", "value")


@pytest.mark.behaviour("secrets:requested:by-name")
async def test_what_is_asked_for_comes_by_name_or_is_named(database: Database, tmp_path: Path) -> None:
    secrets, configs = Secrets(database, KeySource(tmp_path)), Configs(database)
    await secrets.set(ANN, "token", "t")
    await configs.set(ANN, "limits", {"amount": [1, None, 2.5]})
    assert await secrets.requested(ANN, ["token"]) == {"token": "t"}
    assert await configs.requested(ANN, ["limits"]) == {"limits": {"amount": [1, None, 2.5]}}
    assert await secrets.requested(ANN, []) == await configs.requested(ANN, []) == {}
    with pytest.raises(SecretNotFound, match="`flux secrets set nope` sets it"):
        await secrets.requested(ANN, ["token", "nope"])
    with pytest.raises(ConfigNotFound, match="`flux config set nope VALUE` sets it"):
        await configs.requested(ANN, ["limits", "nope"])
    for name in ("", "a/b", "a b", "-x", "x" * 257, "a\n"):
        with pytest.raises(InvalidInput, match="is no name"):
            await configs.set(ANN, name, 1)
        with pytest.raises(InvalidInput, match="is no name"):
            await secrets.set(ANN, name, "1")


@pytest.mark.behaviour("secrets:redacted:texts")
async def test_secrets_are_taken_out_of_texts(database: Database, tmp_path: Path) -> None:
    secrets = Secrets(database, KeySource(tmp_path))
    for name, value in (("a", "secret-1"), ("b", "secret-1-long"), ("c", "no")):
        await secrets.set(ANN, name, value)
    text = "secret-1-long, secret-1, no"
    assert redaction.text(text) == text
    await secrets.requested(ANN, ["a", "b", "c"])
    assert redaction.text(text) == "***, ***, no"


@pytest.mark.behaviour("secrets:kept:apart")
async def test_what_is_kept_for_a_person_is_read_by_nobody_else_and_shown_in_no_list(
    database: Database, tmp_path: Path
) -> None:
    secrets = Secrets(database, KeySource(tmp_path))
    colleague = Scope(ANN.tenant, "colleague")
    assert await secrets.kept(ANN, "mcp.one") is None
    await secrets.keep(ANN, "mcp.one", "token")
    await secrets.keep(ANN, "mcp.one", "newer")
    await secrets.set(ANN, "mcp.one", "of the tenant")
    assert await Secrets(database, KeySource(tmp_path)).kept(ANN, "mcp.one") == "newer"
    assert [await secrets.kept(scope, "mcp.one") for scope in (colleague, EVE)] == [None, None]
    assert await secrets.names(ANN) == ["mcp.one"]
    (hidden,) = [
        row[0] for row in await database.read(one("select name from secrets where name like :kept", kept="~%"))
    ]
    with pytest.raises(SecretNotFound):
        await secrets.requested(ANN, [hidden])
    with pytest.raises(SecretNotFound):
        await secrets.remove(ANN, hidden)
    with pytest.raises(InvalidInput):
        await secrets.set(ANN, hidden, "mine")
    assert await secrets.unkeep(ANN, "mcp.one")
    assert not await secrets.unkeep(ANN, "mcp.one")


@pytest.mark.behaviour("secrets:kept:apart")
async def test_a_sealed_text_is_opened_by_whoever_has_the_key(database: Database, tmp_path: Path) -> None:
    sealed = await Secrets(database, KeySource(tmp_path / "a")).seal("state ü")
    assert "state" not in sealed
    assert await Secrets(database, KeySource(tmp_path / "a")).unseal(sealed) == "state ü"
    other = Secrets(database, KeySource(tmp_path / "b"))
    assert [await other.unseal(text) for text in (sealed, "", "nonsense", "1.x.y", "é.1.2")] == [None] * 5
