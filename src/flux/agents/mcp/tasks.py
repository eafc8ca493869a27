"""`mcp()`: the tools of an MCP server as tasks of a workflow. What a call came to is remembered like any task's."""

from __future__ import annotations

import importlib
import inspect
import os
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from flux.agents.define.definition import faults_of
from flux.agents.mcp.kit import mcp_pool
from flux.agents.mcp.logins import PersonVault
from flux.engine.configuration.key_source import KeySource
from flux.engine.configuration.secrets import Secrets
from flux.engine.workflows.journal import Journal, journal_here
from flux.engine.workflows.pause import pause
from flux.engine.workflows.task import task
from flux.errors import DefinitionInvalid, InvalidInput, ToolExecutionError
from flux.events import Elicited, InputRequired
from flux.sandboxes.host import LocalSandbox
from flux.settings import load_settings
from flux.tools.base import Answer, Done, Failed, NeedsInput, ToolContext, ToolOutcome
from flux.tools.mcp.config import McpServer, server_names
from flux.tools.mcp.pool import McpPool
from flux.tools.mcp.surroundings import Vault
from flux.tools.schema import Signature, validate

#: Under these keys a process keeps its connections, and its secrets.
POOL, SECRETS = "mcp pool", "secrets"

#: Holds arguments whose names are no names in Python.
FURTHER = "_further_"

T = TypeVar("T")
Provider = Callable[[], Awaitable[str] | str]


class Auth(Struct, frozen=True):
    """How a workflow proves who it is: fields of the server, or a token that code gives."""

    fields: dict[str, Any]
    provider: Provider | None = None


def bearer(token: str | None = None, *, secret: str | None = None, provider: Provider | None = None) -> Auth:
    """A bearer token: as it is, the secret of a name, or what a function gives; the last two when it is needed.

    :raises InvalidInput: not exactly one of them is given
    """
    if sum(one is not None for one in (token, secret, provider)) != 1:
        raise InvalidInput("bearer() takes a token, secret= or provider=")
    if secret is not None:
        return Auth({"auth": "bearer", "secret": secret})
    # A name that no secret has; and no other client shares the connection.
    return Auth({"auth": "bearer", "secret": f"~{uuid.uuid4()}"}, provider or (lambda: str(token)))


def oauth(*, client_id: str | None = None, secret: str | None = None) -> Auth:
    """A login of a person at the server, kept for them; `client_id` and the name of its secret if there is one."""
    given = {"client_id": client_id, "secret": secret}
    return Auth({"auth": "oauth"} | {name: value for name, value in given.items() if value is not None})


def mcp(
    server: str | Sequence[str],
    *,
    name: str | None = None,
    auth: Auth | None = None,
    headers: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> McpClient:
    """A client of an MCP server: a URL, or the words of a command. `options` are those of each tool's task.

    :raises DefinitionInvalid: the server cannot be one
    """
    where = {"url": server} if isinstance(server, str) else {"command": list(server)}
    about = {"name": name, "headers": dict(headers or {}), "env": dict(env or {})}
    try:
        found = McpServer.model_validate({**where, **about, **(auth.fields if auth else {})})
    except ValidationError as error:
        raise DefinitionInvalid(faults_of(error)) from error
    return McpClient(found, auth.provider if auth else None, options)


class McpClient:
    """A server in a workflow: `async with mcp(...) as client: tools = await client.discover()`."""

    def __init__(self, server: McpServer, provider: Provider | None, options: Mapping[str, Any]) -> None:
        self.name = server_names([server])[0]
        self._server = server
        self._provider = provider
        self._options = options
        self._own = AsyncExitStack()
        self._alone: tuple[McpPool, Vault] | None = None

    async def __aenter__(self) -> McpClient:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._own.aclose()

    async def discover(self) -> ToolSet:
        """The server's tools; a task, so a workflow that goes on does not ask again."""
        listed = await task(self._list).with_options(name=f"mcp_{self.name}_discover", effect="read")()
        return ToolSet(self, listed)

    async def _list(self) -> list[dict[str, Any]]:
        connections: Any = importlib.import_module("flux.tools.mcp.connection")
        link = await self.link()
        try:
            await _outside(link.ready())
        except connections.Down as down:
            raise ToolExecutionError(f"the MCP server {self.name} cannot be used: {down}") from down
        return [msgspec.to_builtins(listed) for listed in link.listing or ()]

    async def link(self) -> Any:
        """What the person whose workflow this is has of the server."""
        journal = journal_here()
        if journal is None:
            pool, vault = self._outside()
            return await pool.link(self._server, "", "", vault)
        scope = journal.run.scope
        pool = await _pool(journal)
        vault = _Given(PersonVault(await _secrets(journal), scope), self._provider)
        return await _outside(pool.link(self._server, scope.tenant, scope.principal, vault))

    def _outside(self) -> tuple[McpPool, Vault]:
        if self._alone is None:
            pool = McpPool(os.environ, os.getcwd())
            self._own.push_async_callback(pool.close)
            self._alone = (pool, _Given(None, self._provider))
        return self._alone

    def tool(self, listed: Any) -> task[..., Any]:
        """One tool as a task."""
        # Each attempt is a task of its own, and is what must not happen twice; this one may go on after a question.
        options = {"effect": "read" if listed.effect == "read" else "idempotent"} | dict(self._options)
        return task(ToolFunction(self, listed)).with_options(name=f"mcp_{self.name}_{listed.name}", **options)


class ToolSet:
    """The tools of a server, by attribute and one after another."""

    def __init__(self, client: McpClient, listed: Sequence[Mapping[str, Any]]) -> None:
        connections: Any = importlib.import_module("flux.tools.mcp.connection")
        self._tools = {one["name"]: client.tool(msgspec.convert(one, connections.Listed)) for one in listed}

    def __getattr__(self, name: str) -> task[..., Any]:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the server has no tool {name!r}; it has {', '.join(self._tools)}") from None

    def __getitem__(self, name: str) -> task[..., Any]:
        return self._tools[name]

    def __iter__(self) -> Iterator[task[..., Any]]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)


class ToolFunction:
    """What the task of a server's tool calls."""

    def __init__(self, client: McpClient, listed: Any) -> None:
        self._client = client
        self._listed = listed
        self.__name__ = listed.name
        self.__doc__ = listed.description
        self.__signature__ = _signature(listed.input_schema)
        #: What a model is told, in full.
        self.tool_signature = Signature(listed.description, listed.input_schema, dict)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the tool; what the server asks a person pauses the workflow.

        :raises ToolExecutionError: it failed
        """
        bound = dict(self.__signature__.bind(*args, **kwargs).arguments)
        checked = validate(self._listed.input_schema, {**bound.pop(FURTHER, {}), **bound})
        if checked.errors:
            raise ToolExecutionError(f"the arguments do not fit {self.__name__}: {'; '.join(checked.errors)}")
        attempt = task(self._attempt).with_options(name=f"{self.__name__}:call", effect=self._listed.effect)
        answers: list[dict[str, Any]] = []
        while True:
            outcome = await attempt(checked.args, answers)
            if "error" in outcome:
                raise ToolExecutionError(outcome["error"])
            if "asked" not in outcome:
                return outcome["value"]
            answers.append(await self._answer(outcome))

    async def _answer(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        asked, kind = outcome["asked"], outcome["kind"]
        if journal_here() is None:
            raise ToolExecutionError(f"{self._client.name} asks a person, and nobody can be asked outside a workflow")
        shown = {"type": kind, **{name: value for name, value in asked.items() if name != "state"}}
        content = await pause(f"mcp_{self._client.name}_{kind}", output=shown)
        return {"kind": kind, "asked": asked, **_decision(kind, content)}

    async def _attempt(self, args: dict[str, Any], answers: list[dict[str, Any]]) -> dict[str, Any]:
        """One call, as JSON: a value, an error, or what has to be answered first."""
        calls: Any = importlib.import_module("flux.tools.mcp.calls")
        timeout = self._client._server.timeout
        run = calls.ServerTool(
            await self._client.link(), self._client.name, self._listed, timeout=timeout, window=0.0, value=True
        )
        journal = journal_here()
        context = ToolContext(
            session=journal.run.id if journal else "",
            call=str(uuid.uuid4()),
            sandbox=LocalSandbox(Path.cwd()),
            output=lambda text: None,
            answers=tuple(map(_known, answers)),
        )
        outcome: ToolOutcome = await _outside(run(args, context))
        match outcome:
            case NeedsInput():
                return {"asked": outcome.payload, "kind": outcome.kind}
            case Failed():
                return {"error": outcome.content}
            case Done():
                return {"value": msgspec.json.decode(outcome.content)}
        return {"error": "the tool wants to go on later"}


class _Given:
    """The secrets of a person, and the token that code gives."""

    def __init__(self, inner: Vault | None, provider: Provider | None) -> None:
        self._inner = inner
        self._provider = provider

    async def read(self, name: str) -> str:
        """A secret, or the token."""
        if self._provider is not None and name.startswith("~"):
            token = self._provider()
            return await token if inspect.isawaitable(token) else token
        return await self._vault().read(name)

    async def load(self, name: str) -> str | None:
        """What was kept."""
        return await self._vault().load(name)

    async def save(self, name: str, value: str) -> None:
        """Keep something."""
        await self._vault().save(name, value)

    async def forget(self, name: str) -> None:
        """Keep it no longer."""
        await self._vault().forget(name)

    async def state(self, session: str, nonce: str) -> str:
        """What a login carries through the browser."""
        return await self._vault().state(session, nonce)

    def _vault(self) -> Vault:
        if self._inner is None:
            raise InvalidInput("secrets and logins of mcp() work inside a workflow only")
        return self._inner


async def _outside(work: Coroutine[Any, Any, T]) -> T:
    """Work that is no part of a workflow's code: its connections outlive the workflow."""
    journal = journal_here()
    return await (work if journal is None else journal.outside(work))


async def _pool(journal: Journal) -> McpPool:
    async def make(stack: AsyncExitStack) -> McpPool:
        pool = mcp_pool(load_settings(os.environ), os.environ, os.getcwd())
        stack.push_async_callback(pool.close)
        return pool

    return await journal.outside(journal.services.kept.get(POOL, make))


async def _secrets(journal: Journal) -> Secrets:
    async def make(stack: AsyncExitStack) -> Secrets:
        settings = load_settings(os.environ)
        made = Secrets(journal.services.database, KeySource.of(settings))
        stack.callback(made.known.forget)
        return made

    return await journal.outside(journal.services.kept.get(SECRETS, make))


def _signature(schema: Mapping[str, Any]) -> inspect.Signature:
    """The arguments that a schema names: those that it requires first, the others may be left out."""
    names = [name for name in schema.get("properties", {}) if name.isidentifier()]
    required = [name for name in names if name in schema.get("required", ())]
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    given = [inspect.Parameter(name, keyword) for name in required]
    given += [inspect.Parameter(name, keyword, default=None) for name in names if name not in required]
    return inspect.Signature([*given, inspect.Parameter(FURTHER, inspect.Parameter.VAR_KEYWORD)])


def _decision(kind: str, content: Any) -> dict[str, Any]:
    """What a workflow was resumed with, as an answer."""
    if kind != "elicitation":
        return {"decision": "answer", "content": content}
    found = content.get("elicitation_response", content) if isinstance(content, dict) else {"action": content}
    decision = found.get("action") or found.get("decision")
    if decision not in ("accept", "decline", "cancel"):
        decision = "cancel"
    return {"decision": decision, "content": found.get("content")}


def _known(answer: Mapping[str, Any]) -> Answer:
    asked = answer["asked"]
    question: Any = (
        Elicited(id="", call="", **asked)
        if answer["kind"] == "elicitation"
        else InputRequired(id="", call="", question=str(asked.get("question", "")))
    )
    return Answer(answer["decision"], answer["content"], None, question)
