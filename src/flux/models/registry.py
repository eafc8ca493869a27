"""Finds the live model behind a "provider/model" name; knows addresses and keys, imports no SDK."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from flux.errors import DefinitionInvalid, MissingKey, SettingsInvalid
from flux.models.base import Model, Models
from flux.models.configured import Configured, configured, names
from flux.models.endpoint import Endpoint, Wire, problem_of
from flux.models.providers import STALLED_AFTER, FindSecret, ProviderModel, no_secret
from flux.settings import Provider
from flux.suggest import nearest, unknown

ModelFactory = Callable[[str], Model]

KEPT = 32
"""Models, each with its connections, that are kept for their next call."""


class ProviderSettings(Struct, frozen=True):
    """A provider of the project's own: `[flux.ai.providers.NAME]`.

    `api_key_env` names the variable with the key; None when the server asks for none.
    """

    name: str
    base_url: str
    api_key_env: str | None = None
    wire: Wire = "openai-chat"


class BuiltIn(Struct, frozen=True):
    """A provider Flux knows: `keys` are variables, the first that is set counts."""

    wire: Wire
    base_url: str
    base_variable: str
    keys: tuple[str, ...]
    needs_key: bool = True


_OPENAI = ("https://api.openai.com/v1", "OPENAI_BASE_URL", ("OPENAI_API_KEY",))
BUILT_IN: Mapping[str, BuiltIn] = {
    "anthropic": BuiltIn("anthropic", "https://api.anthropic.com", "ANTHROPIC_BASE_URL", ("ANTHROPIC_API_KEY",)),
    "google": BuiltIn(
        "google",
        "https://generativelanguage.googleapis.com",
        "GOOGLE_GEMINI_BASE_URL",
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    ),
    "ollama": BuiltIn("ollama", "http://127.0.0.1:11434", "OLLAMA_HOST", ("OLLAMA_API_KEY",), needs_key=False),
    "openai": BuiltIn("openai-responses", *_OPENAI),
    "openai-chat": BuiltIn("openai-chat", *_OPENAI),
    "openrouter": BuiltIn("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_BASE_URL", ("OPENROUTER_API_KEY",)),
}


def provider_settings(providers: Mapping[str, Provider]) -> dict[str, ProviderSettings]:
    """The project's own providers, from the settings."""
    return {
        name: ProviderSettings(name, provider.base_url, provider.api_key_env) for name, provider in providers.items()
    }


class ModelRegistry(Models):
    """Live models by name; those used last are kept, the others are closed once nobody uses them.

    `environment` holds keys and addresses; it is read at each call, so a new key counts at once.
    `factories` make the models of further prefixes from what follows the `/`. A model that sends
    nothing for `stalled_after` seconds has stalled.

    :raises SettingsInvalid: a provider has the name of another one, or an address that cannot be one
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        providers: Mapping[str, ProviderSettings] | None = None,
        factories: Mapping[str, ModelFactory] | None = None,
        *,
        stalled_after: float = STALLED_AFTER,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        #: Finds a secret by its name; until it is set there are none.
        self.secret: FindSecret = no_secret
        self._keys = dict(keys or {})
        self._environment = environment
        self._providers = dict(providers or {})
        self._factories = dict(factories or {})
        self._stalled_after = stalled_after
        self._made: OrderedDict[tuple[str, Endpoint | ModelFactory], Model] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        for name, provider in self._providers.items():
            _check_provider(name, provider, {*BUILT_IN, *self._factories})
        for name in self._keys:
            if name not in {*BUILT_IN, *self._providers}:
                raise SettingsInvalid(f"flux.ai.keys: {unknown('provider', name, [*BUILT_IN, *self._providers])}")

    def get(self, name: str) -> Model:
        """The model of that name.

        :raises DefinitionInvalid: the name has no `/`, or the provider is unknown
        :raises MissingKey: the provider has no key
        :raises SettingsInvalid: the provider's address, from the environment, cannot be one
        """
        provider, model = self._split(name)
        how = self._factory(provider) or self._endpoint(provider)
        key = (name, how)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = (
                ProviderModel(how, model, stalled_after=self._stalled_after, secret=self._secret)
                if isinstance(how, Endpoint)
                else how(model)
            )
            self._drop_oldest()
        self._made.move_to_end(key)
        return found

    def _factory(self, provider: str) -> ModelFactory | None:
        """What makes the models of a prefix; None of a provider with an address."""
        told = configured(provider)
        return told.model if told is not None else self._factories.get(provider)

    def keys(self) -> list[str]:
        """Every key of a provider that the environment holds."""
        own = [one.api_key_env for one in self._providers.values() if one.api_key_env]
        variables = (*own, *(variable for known in BUILT_IN.values() for variable in known.keys))
        return [key for variable in variables if (key := self._environment.get(variable))]

    def check(self, name: str) -> None:
        """Raise what `get` would raise; loads no SDK."""
        provider, model = self._split(name)
        make = self._factory(provider)
        if make is not None:
            make(model)
        else:
            self._endpoint(provider)

    async def aclose(self) -> None:
        """Close the connections of every model made."""
        for model in self._made.values():
            if isinstance(model, ProviderModel):
                await model.aclose()
        await asyncio.gather(*self._closing)

    async def _secret(self, name: str) -> str:
        return await self.secret(name)

    def _drop_oldest(self) -> None:
        while len(self._made) > KEPT:
            _, model = self._made.popitem(last=False)
            closing = model.retire() if isinstance(model, ProviderModel) else None
            if closing is not None:
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    def _split(self, name: str) -> tuple[str, str]:
        provider, _, model = name.partition("/")
        if not provider or not model:
            raise DefinitionInvalid(
                f'model "{name}" must read provider/model, such as anthropic/claude-sonnet-5-5', field="model"
            )
        valid = sorted({*BUILT_IN, *self._providers, *self._factories, *names()})
        if provider not in valid:
            near = nearest(provider.lower(), valid)
            hint = f'; did you mean "{near}"?' if near else "."
            raise DefinitionInvalid(
                f'model "{name}" names an unknown provider "{provider}"{hint} Valid: {", ".join(valid)}',
                field="model",
            )
        return provider, model

    def _endpoint(self, provider: str) -> Endpoint:
        told = configured(provider)
        return self._by_settings(provider) if told is None else self._by_code(provider, told)

    def _by_code(self, provider: str, told: Configured) -> Endpoint:
        """A provider as code has configured it; what that leaves open is as elsewhere."""
        known, own = BUILT_IN.get(provider), self._providers.get(provider)
        base_url = told.base_url or (own.base_url if own else self._address(known) if known else None)
        if base_url is None:
            raise SettingsInvalid(f"configure_provider {provider}: base_url is missing")
        wire = told.wire or (own.wire if own else known.wire if known else "openai-chat")
        endpoint = Endpoint(provider, wire, base_url.rstrip("/"), told.api_key, None, told.headers)
        variables = known.keys if known else (own.api_key_env,) if own and own.api_key_env else ()
        # A gateway may know who asks by a header.
        needed = known is not None and known.needs_key and not told.headers
        return endpoint if told.api_key else self._with_key(endpoint, variables, needed=needed)

    def _by_settings(self, provider: str) -> Endpoint:
        own = self._providers.get(provider)
        if own is not None:
            variables = () if own.api_key_env is None else (own.api_key_env,)
            return self._with_key(Endpoint(provider, own.wire, own.base_url.rstrip("/")), variables)
        known = BUILT_IN[provider]
        endpoint = Endpoint(provider, known.wire, self._address(known).rstrip("/"))
        return self._with_key(endpoint, known.keys, needed=known.needs_key)

    def _address(self, known: BuiltIn) -> str:
        base_url = self._environment.get(known.base_variable) or known.base_url
        if known.wire == "ollama":
            base_url = ollama_address(base_url)
        if (problem := problem_of(base_url)) is not None:
            raise SettingsInvalid(f"{known.base_variable} {problem}")
        return base_url

    def _with_key(self, endpoint: Endpoint, variables: tuple[str, ...], *, needed: bool = True) -> Endpoint:
        if (secret := self._keys.get(endpoint.provider)) is not None:
            return replace(endpoint, secret=secret)
        for variable in variables:
            if key := self._environment.get(variable):
                return replace(endpoint, key=key, variable=variable)
        if variables and needed:
            raise MissingKey(
                f"{endpoint.provider} needs a key: set {' or '.join(variables)}",
                provider=endpoint.provider,
                variables=list(variables),
            )
        return endpoint


def _check_provider(name: str, provider: ProviderSettings, taken: set[str]) -> None:
    if name in taken:
        raise SettingsInvalid(f"flux.ai.providers.{name}: {name} is a provider of Flux itself; choose another name")
    if not name or "/" in name:
        raise SettingsInvalid(f"flux.ai.providers: {name!r} cannot be the name of a provider: it is empty or holds a /")
    if (problem := problem_of(provider.base_url)) is not None:
        raise SettingsInvalid(f"flux.ai.providers.{name}: base_url {problem}")


def ollama_address(host: str) -> str:
    """OLLAMA_HOST as Ollama reads it: scheme and port are optional, 0.0.0.0 is this machine."""
    scheme, _, rest = host.rpartition("://")
    name, colon, port = rest.rstrip("/").partition(":")
    default = {"http": "80", "https": "443"}.get(scheme, "11434")
    name = "127.0.0.1" if name in ("", "0.0.0.0") else name  # noqa: S104 - an address to replace, not to bind
    return f"{scheme or 'http'}://{name}:{port if colon else default}"
