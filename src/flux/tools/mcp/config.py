"""An MCP server as data, and the names of servers and their tools."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")
HEADER = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
LONGEST_TOOL_NAME = 64
#: Stands in a header or variable for the value of a secret.
SECRET = "secret:"  # noqa: S105 - a prefix, not a secret
#: Not part of what a connection is: agents that differ in them share it.
NOT_CONNECTION = {"name", "tools", "required", "timeout"}


class McpServer(BaseModel):
    """How an agent reaches one MCP server: over HTTP at `url`, or as a program that `command` starts.

    `secret` names the secret that is the bearer token, or the client secret of `client_id`. Values of `headers`
    and `env` may read `secret:NAME`. `tools` are the only ones offered. `timeout` of one call is in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = None
    command: str | tuple[str, ...] | None = None
    name: str | None = None
    auth: Literal["none", "bearer", "oauth"] = "none"
    secret: str | None = None
    client_id: str | None = None
    headers: dict[str, str] = {}
    env: dict[str, str] = {}
    tools: tuple[str, ...] | None = None
    required: bool = False
    timeout: float = Field(default=60.0, gt=0, le=3600)

    @field_validator("name")
    @classmethod
    def _valid_name(cls, name: str | None) -> str | None:
        if name is not None and not NAME.match(name):
            raise ValueError("must be a letter followed by at most 63 letters, digits, '-' or '_'")
        return name

    @field_validator("url")
    @classmethod
    def _valid_url(cls, url: str | None) -> str | None:
        if url is not None:
            check_url(url)
            if urlsplit(url).username is not None:
                raise ValueError("must not hold a user or password; use auth: bearer and a secret")
        return url

    @field_validator("command")
    @classmethod
    def _valid_command(cls, command: Any) -> Any:
        if command is not None and not words(command):
            raise ValueError("is empty")
        if command is not None and any("\0" in word for word in words(command)):
            raise ValueError("cannot hold a NUL character")
        return command

    @field_validator("headers")
    @classmethod
    def _valid_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not HEADER.match(name) or not value.isprintable() or not value.isascii():
                raise ValueError(f"{name!r} is no header of plain text on one line")
        return headers

    @field_validator("env")
    @classmethod
    def _valid_env(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"{name!r} cannot be a variable")
        return env

    @model_validator(mode="after")
    def _valid_together(self) -> McpServer:
        if (self.url is None) == (self.command is None):
            raise ValueError("give url or command, and not both")
        if self.command is not None and (self.auth != "none" or self.headers):
            raise ValueError("auth and headers are for a url; a command gets its secrets by env: {NAME: secret:NAME}")
        if self.url is not None and self.env:
            raise ValueError("env is for a command; a url has headers")
        if self.auth == "bearer" and not self.secret:
            raise ValueError("auth: bearer needs secret, the name of the secret that holds the token")
        if self.secret and self.auth == "none":
            raise ValueError("secret needs auth: bearer or auth: oauth")
        if self.client_id and self.auth != "oauth":
            raise ValueError("client_id needs auth: oauth")
        if self.auth != "none" and "authorization" in map(str.lower, self.headers):
            raise ValueError(f"headers: Authorization comes from auth: {self.auth}")
        return self

    @property
    def words(self) -> tuple[str, ...]:
        """The program and its arguments."""
        return words(self.command or ())

    @property
    def key(self) -> str:
        """What agents have in common that share a connection."""
        return hashlib.sha256(self.model_dump_json(exclude=NOT_CONNECTION).encode()).hexdigest()[:32]


def words(command: str | Sequence[str]) -> tuple[str, ...]:
    """A command's program and arguments; text is split as a shell would, without running one.

    :raises ValueError: a quotation is not closed
    """
    return tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)


def check_url(url: str) -> None:
    """Refuse what is no address of the web.

    :raises ValueError: it is not
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// address")
    if not url.isprintable() or " " in url:
        raise ValueError("must not hold spaces or control characters")
    _ = parts.port  # ValueError when it is no number


def server_names(servers: Sequence[McpServer]) -> tuple[str, ...]:
    """A name for each server: its own, else of its host and port or its program, made unique.

    :raises ValueError: two have the same name
    """
    given = [server.name for server in servers if server.name]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice:
        raise ValueError(f"two servers are called {twice!r}")
    taken = set(given)
    names = []
    for server in servers:
        name = server.name or _unused(_derived(server), taken)
        taken.add(name)
        names.append(name)
    return tuple(names)


def named(servers: Sequence[McpServer]) -> list[tuple[McpServer, str]]:
    """Each server with its name."""
    return list(zip(servers, server_names(servers), strict=True))


def _derived(server: McpServer) -> str:
    if server.url is None:
        return _plain(server.words[0].rpartition("/")[2]) or "command"
    parts = urlsplit(server.url)
    return _plain(f"{parts.hostname}_{parts.port}" if parts.port else str(parts.hostname))


def _unused(name: str, taken: set[str]) -> str:
    number = 1
    while (found := name if number == 1 else f"{name}_{number}") in taken:
        number += 1
    return found


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def tool_name(server: str, tool: str) -> str:
    """What a model calls a server's tool: `mcp__SERVER__TOOL`, cut to what every provider takes."""
    whole = f"mcp__{server}__{tool}"
    name = _plain(whole)
    if len(name) <= LONGEST_TOOL_NAME:
        return name
    return f"{name[: LONGEST_TOOL_NAME - 9]}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def digest_of(value: Any) -> str:
    """The identity of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
