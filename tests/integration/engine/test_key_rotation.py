"""Keys of secrets: where they come from, how they are replaced, and what happens when one is lost."""

import base64
import sys
from pathlib import Path

import pytest

from flux.engine.configuration.key_source import KeySource
from flux.engine.configuration.sealing import split
from flux.engine.configuration.secrets import Secrets
from flux.errors import InvalidInput, SecretNotFound, SecretUnreadable, Unavailable
from flux.settings import load_settings
from flux.store.database import Database, one
from tests.integration.states import ANN, EVE

OLD, NEW, OTHER = (base64.b64encode(bytes([n]) * 32).decode() for n in range(3))


def of_file(database: Database, home: Path) -> Secrets:
    return Secrets(database, KeySource(home))


@pytest.mark.behaviour("secrets:key:rotated")
async def test_after_a_rotation_everything_is_sealed_with_a_fresh_key(database: Database, tmp_path: Path) -> None:
    secrets, colleague = of_file(database, tmp_path), of_file(database, tmp_path)
    for scope in (ANN, EVE):
        await secrets.set(scope, "token", f"of {scope.tenant}")
    await secrets.keep(ANN, "mcp.one", "a login")
    assert await colleague.get(ANN, "token") == "of acme"
    first = (tmp_path / "secret.key").read_text()
    before = await database.read(one("select sealed from secrets order by sealed"))
    done = await secrets.rotate(ANN)
    assert (done.resealed, done.forgotten) == (3, ())
    assert not set(before) & set(await database.read(one("select sealed from secrets order by sealed")))
    # Another process, which has read the old key, and one that is new:
    for each in (secrets, colleague, of_file(database, tmp_path)):
        assert await each.get(EVE, "token") == "of evil"
        assert await each.kept(ANN, "mcp.one") == "a login"
    now = split((tmp_path / "secret.key").read_text())
    assert now[1:] == split(first)
    await colleague.rotate(ANN)
    assert split((tmp_path / "secret.key").read_text())[1:] == now[:1]
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
    assert await secrets.get(ANN, "token") == "of acme"


@pytest.mark.behaviour("secrets:key:rotated")
async def test_keys_that_are_given_are_rotated_by_giving_two(database: Database, tmp_path: Path) -> None:
    await Secrets(database, KeySource(tmp_path, OLD)).set(ANN, "token", "value")
    with pytest.raises(InvalidInput, match=r"FLUX_SECRET_KEY gives one key; .* NEW,OLD"):
        await Secrets(database, KeySource(tmp_path, OLD)).rotate(ANN)
    both = Secrets(database, KeySource(tmp_path, f"{NEW},{OLD}"))
    assert await both.get(ANN, "token") == "value"
    await both.rotate(ANN)
    assert await Secrets(database, KeySource(tmp_path, NEW)).get(ANN, "token") == "value"
    assert not list(tmp_path.glob("*key*"))


@pytest.mark.behaviour("secrets:key:lost")
async def test_a_lost_key_file_is_told_and_nothing_is_overwritten(database: Database, tmp_path: Path) -> None:
    secrets = of_file(database, tmp_path)
    await secrets.set(ANN, "token", "value")
    await secrets.keep(ANN, "mcp.one", "a login")
    key = (tmp_path / "secret.key").read_text()
    (tmp_path / "secret.key").unlink()
    before = await database.read(one("select name, sealed from secrets order by name"))
    for each in (secrets, of_file(database, tmp_path)):
        for work in (each.get(ANN, "token"), each.set(ANN, "other", "x"), each.keep(ANN, "y", "x"), each.rotate(ANN)):
            with pytest.raises(SecretUnreadable, match=r"another key than that of .*nothing was changed"):
                await work
    assert await database.read(one("select name, sealed from secrets order by name")) == before
    assert not list(tmp_path.glob("*key*"))
    (tmp_path / "secret.key").write_text(key)
    assert await secrets.get(ANN, "token") == "value"


@pytest.mark.behaviour("secrets:key:lost")
async def test_a_wrong_key_seals_nothing_until_what_it_cannot_read_is_forgotten(
    database: Database, tmp_path: Path
) -> None:
    await Secrets(database, KeySource(tmp_path, OLD)).set(ANN, "token", "value")
    wrong = Secrets(database, KeySource(tmp_path, f"{NEW} {OTHER}"))
    for work in (wrong.set(ANN, "token", "x"), wrong.get(ANN, "token"), wrong.rotate(ANN)):
        with pytest.raises(SecretUnreadable, match="key than that of FLUX_SECRET_KEY"):
            await work
    assert await Secrets(database, KeySource(tmp_path, OLD)).get(ANN, "token") == "value"
    assert (await wrong.rotate(ANN, forget_unreadable=True)).forgotten == ("token",)
    with pytest.raises(SecretNotFound):
        await wrong.get(ANN, "token")
    await wrong.set(ANN, "token", "anew")


@pytest.mark.behaviour("secrets:key:command")
async def test_the_key_may_come_from_a_command(database: Database, tmp_path: Path) -> None:
    prints = (sys.executable, "-c", f"print({OLD!r})")
    await Secrets(database, KeySource(tmp_path, None, prints)).set(ANN, "token", "value")
    assert await Secrets(database, KeySource(tmp_path, OLD)).get(ANN, "token") == "value"
    fails = (sys.executable, "-c", "import sys; sys.exit('the keyring is locked')")
    with pytest.raises(Unavailable, match="ended with code 1: the keyring is locked"):
        await Secrets(database, KeySource(tmp_path, None, fails)).get(ANN, "token")
    with pytest.raises(Unavailable, match="cannot be run"):
        await Secrets(database, KeySource(tmp_path, None, ("/no/such",))).get(ANN, "token")


@pytest.mark.behaviour("secrets:key:command")
def test_the_command_is_a_setting(tmp_path: Path) -> None:
    env = {"FLUX_HOME": str(tmp_path), "HOME": str(tmp_path), "FLUX_SECRET_KEY_COMMAND": "pass show 'flux key'"}
    assert load_settings(env, cwd=tmp_path).secret_key_command == ("pass", "show", "flux key")
