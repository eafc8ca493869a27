"""The toolkit `catalog`: it tells of tables and rows, up to a cap, and changes nothing."""

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from flux.errors import DefinitionInvalid
from flux.tools.base import Done, Failed, ToolContext
from flux.tools.groups import resolve

TABLES = (
    "create table items (id integer primary key, name text not null, note text)",
    "create table parts (id integer primary key, item integer references items (id))",
    "create view cheap as select name from items",
)
ROWS = [(n, f"item {n}", "50%" if n == 3 else "x" * 500) for n in range(30)]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        address: str = request.getfixturevalue("postgres_url")
        with psycopg.connect(address) as connection:
            for table in TABLES:
                connection.execute(table)
            connection.cursor().executemany("insert into items values (%s, %s, %s)", ROWS)
        return address
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        for table in TABLES:
            database.execute(table)
        database.executemany("insert into items values (?, ?, ?)", ROWS)
    database.close()
    return f"sqlite:///{path}"


async def look(settings: dict[str, Any], name: str, **args: Any) -> Any:
    nothing: Any = None
    (tool,) = [tool for tool in resolve([{"catalog": settings}]) if tool.name == name]
    outcome = await tool.run(args, ToolContext("s", "c", nothing, lambda text: None))
    if isinstance(outcome, Failed):
        return outcome.content
    assert isinstance(outcome, Done)
    return msgspec.json.decode(outcome.content)


@pytest.mark.behaviour("roles:toolkits:catalog")
async def test_a_catalog_lists_describes_samples_and_searches(url: str) -> None:
    settings = {"url": url, "max_rows": 5}
    assert await look(settings, "catalog_list") == {"tables": ["items", "parts"], "views": ["cheap"]}
    about = await look(settings, "catalog_describe", table="parts")
    assert about["foreign_keys"] == [{"columns": ["item"], "table": "items", "to": ["id"]}]
    assert (await look(settings, "catalog_describe", table="items"))["rows"] == 30
    some = await look(settings, "catalog_sample", table="items", limit=100)
    assert (len(some["rows"]), some["more"], some["columns"]) == (5, True, ["id", "name", "note"])
    assert len(some["rows"][0][2]) < 210
    found = await look(settings, "catalog_search", table="items", column="note", text="0%")
    assert [row[0] for row in found["rows"]] == [3]
    assert (await look(settings, "catalog_search", table="items", column="name", text="ITEM 29"))["rows"][0][0] == 29


@pytest.mark.behaviour("roles:toolkits:catalog-refused")
async def test_names_are_not_statements_and_faults_are_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"url": url}
    assert "unknown table" in await look(settings, "catalog_sample", table="items; drop table items")
    assert "did you mean 'note'" in await look(settings, "catalog_search", table="items", column="nite", text="x")
    odd = "'; drop table items; --"
    assert (await look(settings, "catalog_search", table="items", column="name", text=odd))["rows"] == []
    assert (await look(settings, "catalog_describe", table="items"))["rows"] == 30
    monkeypatch.delenv("SHOP_URL", raising=False)
    assert "SHOP_URL" in await look({"url_env": "SHOP_URL"}, "catalog_list")
    monkeypatch.setenv("SHOP_URL", "sqlite:////nowhere/at/all.db")
    assert "cannot be read" in await look({"url_env": "SHOP_URL"}, "catalog_list")


@pytest.mark.behaviour("roles:toolkits:read-only")
async def test_nothing_is_written_by_looking(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing.db"
    for address in (f"sqlite:///{missing}", f"sqlite:///file:{missing}?mode=rwc&uri=true"):
        assert "cannot be read" in await look({"url": address}, "catalog_list")
    assert not missing.exists()
    assert "in memory" in await look({"url": "sqlite://"}, "catalog_list")
    for secret in ("sk-s3cret", "s3cret://s3cret@host/db", "oracle://s3cret@host/db"):
        monkeypatch.setenv("SHOP_URL", secret)
        said = await look({"url_env": "SHOP_URL"}, "catalog_list")
        assert "the database" in said
        assert "s3cret" not in said


@pytest.mark.behaviour("roles:toolkits:read-only")
async def test_a_view_with_a_function_that_writes_is_refused(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create table seen (at int)")
        connection.execute(
            "create function note() returns int language plpgsql as $$ begin"
            " insert into seen values (1); return 1; end $$"
        )
        connection.execute("create view trap as select note() as n")
    assert "read-only" in await look({"url": postgres_url}, "catalog_sample", table="trap")
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select count(*) from seen").fetchone() == (0,)


@pytest.mark.behaviour("roles:toolkits:catalog-refused")
@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("catalog", "needs settings"),
        ({"catalog": {"url": "x", "url_env": "Y"}}, "give url_env"),
        ({"catalog": {}}, "give url_env"),
        ({"catalog": {"url": "postgresql://ann:s3cret@db/shop"}}, "url holds a password"),
        ({"catalog": {"url": "postgresql://db/shop?password=s3cret"}}, "url holds a password"),
        ({"catalog": {"urll": "x"}}, "did you mean 'url'"),
        ({"catalog": {"url": "x", "max_rows": 0}}, "max_rows"),
    ],
)
def test_wrong_settings_are_refused_by_name(entry: Any, said: str) -> None:
    with pytest.raises(DefinitionInvalid, match=said):
        resolve([entry])


@pytest.mark.behaviour("roles:toolkits:workspace")
def test_the_workspace_is_files_without_a_shell() -> None:
    names = {tool.name for tool in resolve(["workspace"])}
    assert {"read_file", "write_file", "list_directory", "grep"} <= names
    assert "shell" not in names
