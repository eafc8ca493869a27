"""The toolkit `catalog`: look at the tables of a database, read-only and up to a cap of rows."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct
from pydantic import Field

from flux.errors import DefinitionInvalid, MissingPackage
from flux.redaction import passwords_of
from flux.suggest import unknown
from flux.tools.base import Done, Failed, Tool, ToolOutcome
from flux.tools.function import tool_of

NAME = "catalog"
CELL = 200
T = TypeVar("T")

TableName = Annotated[str, Field(description="The name of the table, as catalog_list gives it.")]
Limit = Annotated[int, Field(ge=1, description="The most rows to show; there is a cap.")]


class CatalogConfig(Struct, frozen=True):
    """Which database: the address in the variable `url_env`, or `url` where it holds no password.

    `schema` is the schema to look at, `max_rows` the most rows of one call, `timeout` its seconds.
    """

    url_env: str | None = None
    url: str | None = None
    schema: str | None = None
    max_rows: Annotated[int, Meta(ge=1, le=1000)] = 50
    timeout: Annotated[float, Meta(gt=0, le=3600)] = 30

    @classmethod
    def of(cls, given: Any) -> CatalogConfig:
        """The settings of a definition.

        :raises DefinitionInvalid: it names what is wrong
        """
        if not isinstance(given, Mapping):
            raise DefinitionInvalid("tools: catalog needs settings: {catalog: {url_env: NAME_OF_A_VARIABLE}}")
        for name in given:
            if name not in cls.__struct_fields__:
                raise DefinitionInvalid(f"tools: {unknown('catalog setting', str(name), cls.__struct_fields__)}")
        try:
            config = msgspec.convert(dict(given), cls)
        except msgspec.ValidationError as error:
            raise DefinitionInvalid(f"tools: catalog: {error}") from error
        if (config.url is None) == (config.url_env is None):
            raise DefinitionInvalid("tools: catalog: give url_env (a variable that holds the address) or url")
        if config.url is not None and passwords_of(config.url):
            raise DefinitionInvalid("tools: catalog: url holds a password; put the address into a variable: url_env")
        return config


def catalog_tools(settings: Any) -> tuple[Tool, ...]:
    """The tools of the toolkit.

    :raises DefinitionInvalid: the settings are wrong
    """
    config = CatalogConfig.of(settings)
    catalog = Catalog(config)
    functions = (
        catalog.catalog_list,
        catalog.catalog_describe,
        catalog.catalog_sample,
        catalog.catalog_search,
    )
    return tuple(tool_of(function, effect="read", timeout=config.timeout, source=NAME) for function in functions)


class Catalog:
    """A database that is looked at. Nothing but what inspection says and SELECT of its tables reaches it."""

    def __init__(self, config: CatalogConfig) -> None:
        self._config = config

    async def catalog_list(self) -> ToolOutcome:
        """List the tables and views of the database."""
        return await self._look(self._names)

    async def catalog_describe(self, table: TableName) -> ToolOutcome:
        """Describe a table: its columns, its keys and how many rows it has."""
        return await self._look(lambda alchemy, connection: self._described(alchemy, connection, table))

    async def catalog_sample(self, table: TableName, limit: Limit = 10) -> ToolOutcome:
        """Show some rows of a table."""
        return await self._look(lambda alchemy, connection: self._rows(alchemy, connection, table, limit, None))

    async def catalog_search(self, table: TableName, column: str, text: str, limit: Limit = 10) -> ToolOutcome:
        """Show rows of a table that have a text in a column; upper and lower case are the same."""
        found = (column, text)
        return await self._look(lambda alchemy, connection: self._rows(alchemy, connection, table, limit, found))

    async def _look(self, look: Callable[[Any, Any], Any]) -> ToolOutcome:
        try:
            value = await asyncio.to_thread(self._connected, look)
        except (LookupError, OSError, MissingPackage) as error:
            return Failed(str(error.args[0]))
        return Done(msgspec.json.encode(value, enc_hook=str).decode())

    def _connected(self, look: Callable[[Any, Any], T]) -> T:
        alchemy = _package()
        engine = _engine(alchemy, self._url())
        try:
            with engine.connect() as connection:
                if engine.dialect.name == "sqlite":
                    connection.exec_driver_sql("pragma query_only = on")
                elif engine.dialect.name == "postgresql":
                    connection.exec_driver_sql("set transaction read only")
                return look(alchemy, connection)
        except alchemy.exc.SQLAlchemyError as error:
            raise OSError(f"the database cannot be read: {_first_line(error)}") from error
        finally:
            engine.dispose()

    def _url(self) -> str:
        url = self._config.url or os.environ.get(str(self._config.url_env))
        if not url:
            raise OSError(f"the variable {self._config.url_env}, which holds the address of the database, is not set")
        return "postgresql+psycopg://" + url.partition("://")[2] if url.startswith("postgresql://") else url

    def _names(self, alchemy: Any, connection: Any) -> dict[str, Any]:
        inspector = alchemy.inspect(connection)
        schema = self._config.schema
        return {"tables": inspector.get_table_names(schema), "views": inspector.get_view_names(schema)}

    def _described(self, alchemy: Any, connection: Any, name: str) -> dict[str, Any]:
        table, inspector = self._table(alchemy, connection, name), alchemy.inspect(connection)
        schema = self._config.schema
        columns = [
            {"name": one["name"], "type": str(one["type"]), "nullable": bool(one["nullable"])}
            for one in inspector.get_columns(name, schema)
        ]
        links = [
            {"columns": one["constrained_columns"], "table": one["referred_table"], "to": one["referred_columns"]}
            for one in inspector.get_foreign_keys(name, schema)
        ]
        count = connection.execute(alchemy.select(alchemy.func.count()).select_from(table)).scalar()
        keys = inspector.get_pk_constraint(name, schema).get("constrained_columns", [])
        return {"table": name, "rows": count, "columns": columns, "primary_key": keys, "foreign_keys": links}

    def _rows(
        self, alchemy: Any, connection: Any, name: str, limit: int, found: tuple[str, str] | None
    ) -> dict[str, Any]:
        table = self._table(alchemy, connection, name)
        most = min(limit, self._config.max_rows)
        query = alchemy.select(table).limit(most + 1)
        if found is not None:
            column, text = found
            if column not in table.columns:
                raise LookupError(unknown("column", column, [one.name for one in table.columns]))
            as_text = alchemy.func.lower(alchemy.cast(table.columns[column], alchemy.String))
            query = query.where(as_text.contains(text.lower(), autoescape=True))
        rows = [[_cell(value) for value in row] for row in connection.execute(query)]
        return {
            "table": name,
            "columns": [one.name for one in table.columns],
            "rows": rows[:most],
            "more": len(rows) > most,
        }

    def _table(self, alchemy: Any, connection: Any, name: str) -> Any:
        """A table by its name, if there is one: no other text becomes part of a statement."""
        known = self._names(alchemy, connection)
        names = [*known["tables"], *known["views"]]
        if name not in names:
            raise LookupError(unknown("table", name, names))
        return alchemy.Table(name, alchemy.MetaData(), schema=self._config.schema, autoload_with=connection)


def _engine(alchemy: Any, url: str) -> Any:
    """The way to a database; a file that is not there is not made.

    :raises OSError: the address cannot be used
    """
    try:
        address = alchemy.engine.make_url(url)
        if address.get_backend_name() == "sqlite":
            path = str(address.database or "").removeprefix("file:")
            if path in ("", ":memory:"):
                raise OSError("the database is one in memory, in which there is nothing")
            address = address.set(database=f"file:{quote(path)}", query={"mode": "ro", "uri": "true"})
        return alchemy.create_engine(address, poolclass=alchemy.pool.NullPool)
    except alchemy.exc.ArgumentError:
        # What it says may hold the address, and that may be a secret.
        raise OSError("the address of the database cannot be used; it reads like postgresql://HOST/NAME") from None
    except ImportError as error:
        raise OSError(f"the database needs a package that is not installed: {error.name}") from error


def _package() -> Any:
    try:
        importlib.import_module("sqlalchemy.pool")
        return importlib.import_module("sqlalchemy")
    except ImportError as error:
        needed = "pip install 'flux-harness[catalog]'"
        raise MissingPackage(f"the toolkit catalog needs an extra package: {needed}") from error


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value[:CELL].hex(" ") if isinstance(value, bytes) else str(value)
    return text if len(text) <= CELL else text[:CELL] + "…"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:CELL]
