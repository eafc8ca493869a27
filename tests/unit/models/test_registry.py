"""Names, keys and addresses, without any SDK."""

import re
import subprocess
import sys

import pytest

from flux.errors import DefinitionInvalid, MissingKey, SettingsInvalid
from flux.models.base import Model
from flux.models.endpoint import Endpoint
from flux.models.registry import KEPT, ModelRegistry, ProviderSettings, ollama_address, provider_settings
from flux.settings import Provider

OWN = {"own": ProviderSettings("own", "http://127.0.0.1:8000/v1", "OWN_KEY")}


@pytest.mark.behaviour("models:names:checked")
@pytest.mark.parametrize("name", ["claude", "", "/x", "openai/"])
def test_a_name_without_both_halves_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(DefinitionInvalid, match=r"must read provider/model, such as anthropic/"):
        ModelRegistry({}).check(name)


@pytest.mark.behaviour("models:names:checked")
def test_an_unknown_provider_is_answered_with_the_nearest_and_all_valid_ones() -> None:
    registry = ModelRegistry({}, OWN, {"scripted": _never})
    with pytest.raises(DefinitionInvalid) as refused:
        registry.get("antropic/claude")
    assert 'did you mean "anthropic"?' in str(refused.value)
    assert "google, ollama, openai, openai-chat, openrouter, own, scripted" in str(refused.value)


def test_the_model_is_everything_after_the_first_slash() -> None:
    model = ModelRegistry({"OPENROUTER_API_KEY": "k"}).get("openrouter/meta-llama/llama-4")
    assert model.name == "openrouter/meta-llama/llama-4"


@pytest.mark.behaviour("models:keys:missing")
@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("openai/gpt", ["OPENAI_API_KEY"]),
        ("openai-chat/gpt", ["OPENAI_API_KEY"]),
        ("anthropic/claude", ["ANTHROPIC_API_KEY"]),
        ("google/gemini", ["GOOGLE_API_KEY", "GEMINI_API_KEY"]),
        ("openrouter/a/b", ["OPENROUTER_API_KEY"]),
        ("own/model", ["OWN_KEY"]),
    ],
)
def test_a_missing_key_is_named(name: str, variables: list[str]) -> None:
    with pytest.raises(MissingKey) as missing:
        ModelRegistry({}, OWN).check(name)
    assert str(missing.value).endswith(" or ".join(variables))
    ModelRegistry({variables[-1]: "k"}, OWN).check(name)


def test_a_server_without_keys_needs_none() -> None:
    registry = ModelRegistry({}, {"local": ProviderSettings("local", "http://127.0.0.1:8000/v1")})
    registry.check("local/model")
    registry.check("ollama/llama3.2")


def test_a_model_is_made_once_and_again_when_its_key_changes() -> None:
    environment = {"OPENAI_API_KEY": "one"}
    registry = ModelRegistry(environment)
    first = registry.get("openai/gpt")
    assert registry.get("openai/gpt") is first
    environment["OPENAI_API_KEY"] = "two"
    assert registry.get("openai/gpt") is not first


def test_a_factory_is_given_what_follows_the_slash() -> None:
    asked: list[str] = []

    def factory(name: str) -> Model:
        asked.append(name)
        return ModelRegistry({}).get("ollama/x")

    registry = ModelRegistry({}, factories={"scripted": factory})
    registry.check("scripted/demo")
    assert registry.get("scripted/demo") is registry.get("scripted/demo")
    assert asked == ["demo", "demo"]


@pytest.mark.behaviour("models:providers:names")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, f"flux.ai.providers.{name}: {name} is a provider of Flux itself") for name in ("openai", "ollama")),
        ("scripted", "scripted is a provider of Flux itself"),
        ("a/b", "'a/b' cannot be the name of a provider"),
        ("", "'' cannot be the name of a provider"),
    ],
)
def test_a_provider_cannot_take_the_name_of_another_one(name: str, message: str) -> None:
    own = provider_settings({name: Provider("http://127.0.0.1:8000/v1")})
    with pytest.raises(SettingsInvalid, match=re.escape(message)):
        ModelRegistry({}, own, {"scripted": _never})


WRONG = [
    "", "localhost:8000", "localhost", "ftp://localhost/v1", "http://", "http:///v1", "http://:8000", "//localhost",
    "http://host:port/v1", "http://host:99999/v1", "http://host:0/v1", "http://[::1/v1", "http://a b/v1",
    "http://host\n/v1", "file:///etc/passwd",
]  # fmt: skip
RIGHT = ["http://localhost", "https://api.example.org/v1", "http://[::1]:8000/v1", "HTTP://10.0.0.1:1/", "http://a:b@c"]


@pytest.mark.behaviour("models:providers:addresses")
@pytest.mark.parametrize("url", WRONG)
def test_an_address_that_cannot_be_one_is_named_at_once(url: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"^flux.ai.providers.own: base_url (must be an|is not an) address"):
        ModelRegistry({}, {"own": ProviderSettings("own", url)})
    registry = ModelRegistry({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": url or " "})
    with pytest.raises(SettingsInvalid, match=r"^OPENAI_BASE_URL (must be an|is not an) address"):
        registry.check("openai/gpt")
    with pytest.raises(SettingsInvalid, match=r"^OPENAI_BASE_URL "):
        registry.get("openai/gpt")
    registry.check("ollama/x")


@pytest.mark.parametrize("url", RIGHT)
def test_an_address_that_can_be_one_is_taken(url: str) -> None:
    ModelRegistry({}, {"own": ProviderSettings("own", url)}).check("own/model")


@pytest.mark.behaviour("models:names:bounded")
def test_names_that_anybody_may_choose_do_not_pile_up() -> None:
    registry = ModelRegistry({}, OWN | {"own": ProviderSettings("own", "http://127.0.0.1:8000/v1")})
    first = registry.get("own/model-0")
    for number in range(1_000):
        registry.check(f"own/model-{number}")
    assert registry.get("own/model-0") is first
    for number in range(1_000):
        registry.get(f"own/model-{number}")
        registry.get("own/often")
    assert len(registry._made) == KEPT
    assert registry.get("own/model-0") is not first


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("https://ollama.example", "https://ollama.example:443"),
        ("http://box:11434/", "http://box:11434"),
        (":5000", "http://127.0.0.1:5000"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(host: str, address: str) -> None:
    assert ollama_address(host) == address


def test_a_key_is_not_in_the_representation() -> None:
    assert "secret" not in repr(Endpoint("openai", "openai-chat", "http://x", "secret", "OPENAI_API_KEY"))


@pytest.mark.behaviour("models:import:light")
def test_checking_a_name_loads_no_sdk() -> None:
    program = (
        "import sys; from flux.models.registry import ModelRegistry;"
        "ModelRegistry({'OPENAI_API_KEY': 'k'}).check('openai/gpt');"
        "heavy = {'openai', 'anthropic', 'google.genai', 'pydantic_ai', 'pydantic', 'genai_prices', 'httpx2'};"
        "sys.exit(' '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def _never(name: str) -> Model:
    raise AssertionError(name)
