"""Where a setting comes from, and what is said when it is wrong."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flux.errors import SettingsInvalid
from flux.settings import Provider, Settings, load_settings
from flux.trust import trust

MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


class Places:
    """A user's folder and a project's folder, each with room for a flux.toml."""

    def __init__(self, root: Path) -> None:
        self.here = root / "project"
        self.user = root / "home" / ".config" / "flux"
        self.environment = {"HOME": str(root / "home")}
        for folder in (self.here, self.user):
            folder.mkdir(parents=True)

    def write(self, folder: Path, text: str | bytes) -> None:
        (folder / "flux.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        trust(self.environment, folder / "flux.toml")

    def load(self, environment: dict[str, str] | None = None, **flags: Any) -> Settings:
        return load_settings(self.environment | (environment or {}), cwd=self.here, **flags)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.mark.behaviour("settings:sources:defaults")
def test_without_any_file_or_variable_everything_has_a_default(places: Places) -> None:
    found = places.load()
    assert found.home == Path(places.environment["HOME"]) / ".local/share/flux"
    assert found.database == f"sqlite:///{found.home}/flux.db"
    assert (found.server_host, found.synchronous) == ("127.0.0.1", "full")


@pytest.mark.behaviour("settings:sources:precedence")
def test_flag_over_environment_over_project_over_user(places: Places) -> None:
    places.write(places.user, "[flux]\nserver_port = 1\n")
    assert places.load().server_port == 1
    places.write(places.here, "[flux]\nserver_port = 2\n")
    assert places.load().server_port == 2
    environment = {"FLUX_SERVER_PORT": "3"}
    assert places.load(environment).server_port == 3
    assert places.load(environment, server_port=4).server_port == 4
    assert places.load(environment, server_port=None).server_port == 3
    assert places.load({"FLUX_SERVER_PORT": ""}).server_port == 2


@pytest.mark.behaviour("settings:sources:precedence")
@MANY
@given(st.tuples(*[st.none() | st.integers(1, 65535)] * 4))
def test_the_nearest_place_that_says_something_counts(places: Places, ports: tuple[int | None, ...]) -> None:
    flag, variable, project, user = ports
    for folder, port in ((places.here, project), (places.user, user)):
        places.write(folder, "" if port is None else f"[flux]\nserver_port = {port}")
    found = places.load({} if variable is None else {"FLUX_SERVER_PORT": str(variable)}, server_port=flag)
    assert found.server_port == next((port for port in ports if port is not None), 8000)


@pytest.mark.behaviour("settings:sources:home")
def test_a_flux_folder_of_the_project_is_home_unless_another_is_named(places: Places) -> None:
    (places.here / ".flux").mkdir()
    assert places.load().home == places.here / ".flux"
    assert places.load({"FLUX_HOME": str(places.user)}).home == places.user
    assert places.load({"XDG_DATA_HOME": "/data"}).home == places.here / ".flux"
    (places.here / ".flux").rmdir()
    assert places.load({"XDG_DATA_HOME": "/data"}).home == Path("/data/flux")


@pytest.mark.behaviour("settings:sources:home")
def test_the_users_file_is_looked_for_where_the_environment_says(places: Places, tmp_path: Path) -> None:
    other = tmp_path / "xdg" / "flux"
    other.mkdir(parents=True)
    places.write(other, "[flux]\nserver_port = 5\n")
    assert places.load({"XDG_CONFIG_HOME": str(tmp_path / "xdg")}).server_port == 5


@pytest.mark.behaviour("settings:providers:own")
def test_a_provider_of_ones_own_is_read_from_the_file(places: Places) -> None:
    places.write(places.here, '[flux.ai.providers.local]\nbase_url = "http://localhost:1"\napi_key_env = "KEY"\n')
    assert places.load().providers == {"local": Provider("http://localhost:1", "KEY")}


@pytest.mark.behaviour("settings:errors:unknown-key")
@pytest.mark.parametrize(
    ("text", "named", "suggested"),
    [
        ("[flux]\nserver_prot = 1", "server_prot", "server_port"),
        ("[fluxx]\n", "fluxx", "flux"),
        ("[flux.ai]\nprovider = 1", "provider", "providers"),
        ("[flux]\nzzzzzz = 1", "zzzzzz", "concurrency"),
        ("[flux]\nauth_token = 'secret-word'", "auth_token", "[flux]"),
        ("[flux.ai.providers.x]\nbase_url = ''\nkye = ''", "kye", ""),
    ],
)
def test_an_unknown_key_is_named_with_what_is_like_it(places: Places, text: str, named: str, suggested: str) -> None:
    places.write(places.here, text)
    with pytest.raises(SettingsInvalid) as caught:
        places.load()
    message = str(caught.value)
    assert named in message
    assert suggested in message
    assert "secret-word" not in message
    assert "\n" not in message


@pytest.mark.behaviour("settings:errors:wrong-value")
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[flux]\nserver_port = 'many'", "server_port"),
        ("[flux]\nsynchronous = 'half'", "synchronous"),
        ("[flux]\nheartbeat = []", "heartbeat"),
        ("[flux]\nai = 1", "flux.ai"),
        ("flux = 1", "[flux]"),
        ("[flux.ai]\nproviders = 1", "providers"),
        ("[flux.ai.providers.x]\napi_key_env = 'K'", "base_url"),
    ],
)
def test_a_wrong_value_is_named(places: Places, text: str, named: str) -> None:
    places.write(places.here, text)
    with pytest.raises(SettingsInvalid) as caught:
        places.load()
    assert named in str(caught.value)


@pytest.mark.behaviour("settings:errors:wrong-value")
@pytest.mark.parametrize(
    ("name", "value"),
    [("FLUX_SERVER_PORT", "x"), ("FLUX_HEARTBEAT", "soon"), ("FLUX_HOME", "~nobody-of-that-name/flux")],
)
def test_a_wrong_variable_is_an_error_in_one_line(places: Places, name: str, value: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        places.load({name: value})
    assert "\n" not in str(caught.value)


KEYS = st.sampled_from(["flux", "ai", "providers", *Settings.__struct_fields__, "x", "base_url"])
SCALARS = ("1", "-1", "1e400", "nan", "true", "''", "'x'", '"\\u0000"', "0x10", "1_000", "9" * 30, "9" * 5000)
OTHERS = ("[]", "{}", "[[1], {a = 2}]", "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", '"', "=", "[flux]")
VALUES = st.sampled_from([*SCALARS, *OTHERS])
LINES = st.one_of(
    st.builds("{} = {}".format, KEYS, VALUES),
    st.builds("{}.{} = {}".format, KEYS, KEYS, VALUES),
    st.builds("[{}.{}]".format, KEYS, KEYS),
    st.just("[flux]"),
    st.text(max_size=10),
)


@pytest.mark.behaviour("settings:errors:garbage")
@MANY
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60), st.lists(LINES, max_size=6).map("\n".join)))
@example("[flux]\nserver_port = " + "9" * 5000)
@example("[flux]\nheartbeat = " + "9" * 400)
@example("x = " + "[" * 20_000)
@example("\ufeff[flux]")
def test_any_file_gives_settings_or_an_error_in_one_line(places: Places, text: str | bytes) -> None:
    places.write(places.here, text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    try:
        found = places.load()
    except SettingsInvalid as error:
        assert str(places.here) in str(error) or str(error).startswith("settings:")  # noqa: PT017
        return
    assert isinstance(found, Settings)


@pytest.mark.behaviour("settings:errors:garbage")
def test_a_folder_in_place_of_the_file_is_an_error(places: Places) -> None:
    (places.here / "flux.toml").mkdir()
    with pytest.raises(SettingsInvalid, match=r"flux\.toml"):
        places.load()


@pytest.mark.behaviour("settings:sources:defaults")
def test_the_process_environment_is_used_when_none_is_given(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "FLUX_SERVER_PORT", "7")
    monkeypatch.chdir(places.here)
    assert load_settings().server_port == 7


@pytest.mark.behaviour("settings:trust:project-file")
@pytest.mark.parametrize(
    "line",
    ['server = "http://evil"', 'database_url = "sqlite:///x"', '[flux.ai.providers.x]\nbase_url = "http://evil"'],
)
def test_a_project_may_not_say_where_keys_and_data_go_until_it_is_trusted(places: Places, line: str) -> None:
    file = places.here / "flux.toml"
    file.write_text(f"[flux]\n{line}\n")
    with pytest.raises(SettingsInvalid, match="flux trust"):
        places.load()
    trust(places.environment, file)
    places.load()
    file.write_text(f"[flux]\n{line}\n# and a change\n")
    with pytest.raises(SettingsInvalid, match="flux trust"):
        places.load()


@pytest.mark.behaviour("settings:trust:local-home")
def test_a_home_that_came_with_the_folder_is_not_used_until_it_is_trusted(places: Places) -> None:
    local = places.here / ".flux"
    local.mkdir()
    (local / "flux.db").write_text("from somewhere else")
    with pytest.raises(SettingsInvalid, match="flux trust"):
        places.load()
    assert places.load({"FLUX_HOME": str(local)}).home == local
    trust(places.environment, local)
    assert places.load().home == local


@pytest.mark.behaviour("settings:trust:local-home")
def test_an_empty_local_home_is_adopted(places: Places) -> None:
    local = places.here / ".flux"
    local.mkdir()
    assert places.load().home == local
    (local / "flux.db").write_text("made here")
    assert places.load().home == local


@pytest.mark.behaviour("settings:values:sensible")
@pytest.mark.parametrize(
    "values",
    [
        {"concurrency": 0},
        {"run_failures": 0},
        {"heartbeat": -1},
        {"server_port": 70_000},
        {"grace": 600},
        {"heartbeat": 15},
    ],
)
def test_a_value_that_would_break_everything_is_refused(places: Places, values: dict[str, Any]) -> None:
    with pytest.raises(SettingsInvalid, match=next(iter(values))):
        places.load(**values)
