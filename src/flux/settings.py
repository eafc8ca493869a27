"""Settings: flag > environment (FLUX_*) > ./flux.toml > the user's flux.toml > default."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from flux.errors import SettingsInvalid
from flux.suggest import unknown
from flux.trust import is_trusted, trust, user_data


class Provider(Struct, frozen=True, forbid_unknown_fields=True):
    """An OpenAI-compatible endpoint: `[flux.ai.providers.NAME]`. The key is read from `api_key_env`."""

    base_url: str
    api_key_env: str | None = None


class ApiKeys(Struct, frozen=True, forbid_unknown_fields=True):
    """`[flux.security.auth.api_keys]`: whether API keys let somebody in."""

    enabled: bool = False


class Oidc(Struct, frozen=True, forbid_unknown_fields=True):
    """`[flux.security.auth.oidc]`: tokens of an identity provider; times in seconds.

    `client_id` is what `flux auth login` calls itself there, by default the audience; it asks for `scopes`.
    """

    enabled: bool = False
    issuer: str = ""
    audience: str = ""
    client_id: str = ""
    scopes: str = "openid offline_access"
    clock_skew: Annotated[float, Meta(ge=0, le=300)] = 30.0
    jwks_cache_ttl: Annotated[float, Meta(gt=0)] = 3600.0


class Auth(Struct, frozen=True, forbid_unknown_fields=True):
    """`[flux.security.auth]`: who may call. `default_user_roles`: of people whom only the identity provider knows."""

    api_keys: ApiKeys = ApiKeys()
    oidc: Oidc = Oidc()
    default_user_roles: tuple[str, ...] = ()

    @property
    def enabled(self) -> bool:
        """Whether callers must say who they are."""
        return self.api_keys.enabled or self.oidc.enabled


#: Requests per second and runs of one principal where auth is on and nothing is set.
SHARED_RATE, SHARED_RUNS = 200.0, 1_000


class Settings(Struct, frozen=True, kw_only=True):
    """What an operator can set; times in seconds, sizes in bytes. `home` holds all state.

    `retention_days`: what has ended for so long is deleted; 0 keeps it for good. `web_fetch_hosts`: names, with
    or without a port, that agents, and logins at MCP servers, may reach although they are not public; `webhook_hosts`:
    the same for webhooks, also without TLS; `webhook_timeout`: what a receiver gets to answer. `sandbox`: that of
    agents that name none.
    `secret_key_command` prints the key of secrets. `keys` names the secret that holds the key of a provider:
    `[flux.ai.keys]`. Of the limits `max_…`, 0 is none: `max_runs` and `max_requests_per_second` hold for each
    principal, `max_queued_messages` for each session, `max_queued_runs` for all that wait for a worker. None: what
    `request_rate` and `runs` say.
    """

    home: Path
    database_url: str = ""
    server: str | None = None
    server_host: str = "127.0.0.1"
    server_port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    public_url: str | None = None
    auth_token: str | None = None
    secret_key: str | None = None
    secret_key_command: tuple[str, ...] = ()
    synchronous: Literal["full", "normal"] = "full"
    heartbeat: Annotated[float, Meta(gt=0)] = 5.0
    dead_after: Annotated[float, Meta(gt=0)] = 20.0
    grace: Annotated[float, Meta(ge=0)] = 5.0
    concurrency: Annotated[int, Meta(ge=1)] = 64
    run_failures: Annotated[int, Meta(ge=1)] = 3
    run_timeout: Annotated[float, Meta(gt=0)] = 3600.0
    model_attempts: Annotated[int, Meta(ge=1)] = 4
    model_stall: Annotated[float, Meta(gt=0)] = 60.0
    retention_days: Annotated[float, Meta(ge=0)] = 0.0
    elicitation_window: Annotated[float, Meta(ge=0)] = 30.0
    max_message_bytes: Annotated[int, Meta(ge=1)] = 1_000_000
    max_header_bytes: Annotated[int, Meta(ge=1024)] = 65_536
    max_requests_per_second: Annotated[float, Meta(ge=0)] | None = None
    max_runs: Annotated[int, Meta(ge=0)] | None = None
    max_queued_messages: Annotated[int, Meta(ge=0)] = 1_000
    max_queued_runs: Annotated[int, Meta(ge=0)] = 100_000
    max_readers: Annotated[int, Meta(ge=0)] = 20_000
    max_readers_per_principal: Annotated[int, Meta(ge=0)] = 10_000
    web_fetch_hosts: tuple[str, ...] = ()
    webhook_hosts: tuple[str, ...] = ()
    webhook_timeout: Annotated[float, Meta(gt=0)] = 15.0
    sandbox: Literal["auto", "local", "isolated", "virtual"] = "auto"
    providers: dict[str, Provider] = {}
    keys: dict[str, str] = {}
    auth: Auth = Auth()

    @property
    def database(self) -> str:
        """The database URL; by default one SQLite file in `home`."""
        return self.database_url or f"sqlite:///{self.home / 'flux.db'}"

    @property
    def request_rate(self) -> float:
        """Requests of a principal per second; one that shares the server with others must leave them some."""
        return _shared(self.auth, SHARED_RATE, self.max_requests_per_second)

    @property
    def runs(self) -> int:
        """Runs of a principal that may be scheduled or running."""
        return int(_shared(self.auth, SHARED_RUNS, self.max_runs))


def _shared(auth: Auth, most: float, given: float | None) -> float:
    return given if given is not None else most if auth.enabled else 0


_SCALARS = [f for f in Settings.__struct_fields__ if f not in ("providers", "keys", "auth")]
_FILE_KEYS = [f for f in _SCALARS if f not in ("home", "auth_token", "secret_key")]


#: What a folder's own flux.toml may set only once it is trusted.
GUARDED = frozenset(
    {
        "auth",
        "database_url",
        "keys",
        "providers",
        "sandbox",
        "secret_key_command",
        "server",
        "web_fetch_hosts",
        "webhook_hosts",
    }
)
#: Settings of `[flux.security.auth]` that variables set too, such as FLUX_SECURITY__AUTH__OIDC__ISSUER.
AUTH_VARIABLE = "FLUX_SECURITY__AUTH__"


def load_settings(environment: Mapping[str, str] | None = None, *, cwd: Path | None = None, **flags: Any) -> Settings:
    """The settings in force here; `flags` that are None count as not given.

    :raises SettingsInvalid: a file or variable holds something unknown or of the wrong type
    """
    env = os.environ if environment is None else environment
    here = cwd or Path.cwd()
    values: dict[str, Any] = {}
    values |= _from_file(_config_home(env) / "flux.toml")
    values |= _from_project(here / "flux.toml", env)
    values |= {name: env[f"FLUX_{name.upper()}"] for name in _SCALARS if env.get(f"FLUX_{name.upper()}")}
    values["auth"] = _auth_from(env, values.get("auth", {}))
    values |= {name: value for name, value in flags.items() if value is not None}
    for name in ("web_fetch_hosts", "webhook_hosts"):
        if isinstance(values.get(name), str):
            values[name] = values[name].replace(",", " ").split()
    if isinstance(values.get("secret_key_command"), str):
        values["secret_key_command"] = _words(values["secret_key_command"])
    try:
        values["home"] = str(Path(values.get("home") or _default_home(env, here)).expanduser().absolute())
        settings = msgspec.convert(values, Settings, strict=False, dec_hook=lambda cls, value: cls(value))
    except (msgspec.ValidationError, RuntimeError) as error:  # RuntimeError: `~name` of nobody
        raise SettingsInvalid(f"settings: {error}") from error
    _check_auth(settings.auth)
    if max(2 * settings.heartbeat, settings.grace) >= settings.dead_after:
        raise SettingsInvalid(
            f"settings: dead_after ({settings.dead_after:g} s) must be longer than two heartbeats "
            f"({settings.heartbeat:g} s each) and than grace ({settings.grace:g} s), or the living count as dead"
        )
    return settings


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise SettingsInvalid(f"settings: secret_key_command: {error}") from error


def _auth_from(env: Mapping[str, str], given: Any) -> Any:
    """The table of a file with what variables say."""
    found = dict(given) if isinstance(given, dict) else {"": given}
    for variable, value in env.items():
        if variable.startswith(AUTH_VARIABLE) and value:
            *tables, name = variable.removeprefix(AUTH_VARIABLE).lower().split("__")
            inner = found
            for table in tables:
                inner[table] = dict(inner.get(table, {}))
                inner = inner[table]
            inner[name] = value.replace(",", " ").split() if name == "default_user_roles" else value
    return found


def _check_auth(auth: Auth) -> None:
    if auth.oidc.enabled and not (auth.oidc.issuer and auth.oidc.audience):
        raise SettingsInvalid("settings: [flux.security.auth.oidc] needs issuer and audience: whose tokens, for whom")


def _default_home(env: Mapping[str, str], here: Path) -> Path:
    local = here / ".flux"
    if not local.is_dir():
        return user_data(env)
    if not (local / "flux.db").exists():
        with suppress(OSError):
            trust(env, local)
    elif not is_trusted(env, local):
        raise SettingsInvalid(
            f"{local} holds sessions that were not made here by you and could run commands; "
            "`flux trust` allows it, FLUX_HOME chooses another home"
        )
    return local


def _config_home(env: Mapping[str, str]) -> Path:
    return Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME") or Path.home()) / ".config") / "flux"


def _from_project(path: Path, env: Mapping[str, str]) -> dict[str, Any]:
    values = _from_file(path)
    guarded = sorted(GUARDED & values.keys())
    if guarded and not is_trusted(env, path):
        raise SettingsInvalid(
            f"{path} sets {', '.join(guarded)}, which decide where keys and data go; look at it, then run `flux trust`"
        )
    return values


def _from_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsInvalid(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # tomllib lets some numbers and depths through
        raise SettingsInvalid(f"{path}: {error}") from error
    _only(path, "table", table, ["flux"])
    flux = _table(path, "flux", table.get("flux", {}))
    _only(path, "setting of [flux]", flux, [*_FILE_KEYS, "ai", "security"])
    ai = _table(path, "flux.ai", flux.get("ai", {}))
    _only(path, "setting of [flux.ai]", ai, ["providers", "keys"])
    security = _table(path, "flux.security", flux.get("security", {}))
    _only(path, "setting of [flux.security]", security, ["auth"])
    return {name: flux[name] for name in _FILE_KEYS if name in flux} | ai | security


def _table(path: Path, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsInvalid(f"{path}: [{name}] must be a table")
    return value


def _only(path: Path, what: str, table: Mapping[str, Any], valid: list[str]) -> None:
    for key in table:
        if key not in valid:
            raise SettingsInvalid(f"{path}: {unknown(what, key, valid)}")
