"""Write the pages of docs/reference that follow from the code; `--check` only tells which are not up to date.

What a field means stands in its docstring, or in the mappings below; tests/unit/test_reference.py proves
that none is missing.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from flux.agents.define.definition import AgentDefinition
from flux.deltas import DELTA_TYPES
from flux.events import ENTRY_TYPES
from flux.settings import GUARDED, ApiKeys, Auth, Oidc, Provider, Settings
from flux.surfaces.cli.main import cli
from tools.meanings import DEFINITION, EVENTS, NOT_WRITTEN, ONLY_VARIABLES, PROVIDERS, SETTINGS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- Written by tools/reference.py; run `./dev docs` after a change of the code. -->\n"
REFS = "#/$defs/"
#: Where the page of events tells of what has no section "Type …".
ANCHORS = {cls.__name__: name for name, cls in {**ENTRY_TYPES, **DELTA_TYPES}.items()}

Schema = dict[str, Any]

CLI_INTRO = """
Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted. Results go to standard output, problems to
standard error, in one line. `--debug` may stand anywhere and shows the trace of an error. `-h` and `--help` explain
any command. In a shell's profile, `eval "$(_FLUX_COMPLETE=bash_source flux)"` lets Tab complete commands and options
(`zsh_source`, `fish_source`).
"""
SETTINGS_INTRO = f"""
A flag goes before a variable, a variable before `./flux.toml`, that before `flux/flux.toml` in the user's
configuration directory (`~/.config`, or `XDG_CONFIG_HOME`), and that before the default. An unknown key is an error
that names the nearest valid one; an unknown variable is not noticed. Times are in seconds, sizes in bytes.

A folder's own `flux.toml` may set {", ".join(f"`{name}`" for name in sorted(GUARDED))} only after `flux trust`
there, as long as the file stays the same. A `.flux` with a database that was not made there by you needs it too.
"""
AGENT_INTRO = """
A file, or a directory with `agent.yaml` and `instructions.md` (then `system_prompt` and `name` may be left out).
`${NAME}` in a value is replaced by the variable NAME, `${NAME:-text}` has a default, `$${` stands for a plain `${`.
Unknown keys, duplicate keys and aliases are errors. `flux schema agent` prints the JSON Schema, for editors.
"""
EVENTS_INTRO = """
*Entries* are durable: the log of a session consists of them. *Deltas* are pieces of an entry to come, and are not
kept. Over HTTP the data of an entry also has `seq` (1, 2, 3, … without gaps), `epoch`, `run_id`, `at` (seconds since
the epoch) and `v`, the version of its format; that of a delta has `n`. Fields that hold their default are left out.
Ignore types and fields you do not know.

## Cursors

The id of an event is `SEQ.EPOCH.N`: the seq of the last entry before or at the event, the epoch of the run (it grows
with each start of work on the session), and the number of the last delta in that epoch. A bare `SEQ` is taken too.
Send it back as `Last-Event-ID`, or as `?after=`: the stream goes on behind it, without a gap and without a repetition.
"""


# Types, out of a JSON schema


def describe(schema: Schema) -> str:
    """The type and the constraints of a field, in words."""
    if "anyOf" in schema:
        return " or ".join(describe(choice) for choice in schema["anyOf"])
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(REFS)
        return f"[{name}](#{ANCHORS.get(name, f'type-{name.lower()}')})"
    if "const" in schema or "enum" in schema:
        values = schema.get("enum") or [schema["const"]]
        return ", ".join(f"`{value if isinstance(value, str) else json.dumps(value)}`" for value in values)
    return _plain(schema) + _bounds(schema)


def _plain(schema: Schema) -> str:
    kind = str(schema.get("type", "any JSON"))
    inner = schema.get("items") if kind == "array" else schema.get("additionalProperties")
    if kind == "array":
        return f"list of {describe(inner)}" if isinstance(inner, dict) else "list"
    if kind == "object" and isinstance(inner, dict):
        return f"mapping of names to {describe(inner)}"
    return {"object": "mapping", "null": "`null`"}.get(kind, kind)


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    if low is not None:
        return f", at least {low:,}"
    return f", more than {schema['exclusiveMinimum']:,}" if "exclusiveMinimum" in schema else ""


def default_of(schema: Schema, required: bool) -> str:
    """The default of a field; empty where there is none, or where it says nothing."""
    if required:
        return "required"
    default = schema.get("default")
    empty = default is None or isinstance(default, dict)
    return "" if empty else f"`{json.dumps(default)}`"


def cell(text: str) -> str:
    """Text as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(map(cell, line))} |\n" for line in lines)


def fields(schema: Schema, meanings: Mapping[str, str], prefix: str) -> Iterator[tuple[str, ...]]:
    """A row for each field of an object; the meaning of `prefix.name` goes before that of `name`."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        if name != "type":
            meaning = meanings.get(f"{prefix}.{name}") or meanings.get(name)
            if meaning is None:
                sys.exit(f"tools/meanings.py: say there what {prefix}.{name} means")
            yield f"`{name}`", describe(field), default_of(field, name in required), meaning


FIELDS = ("field", "type", "default", "meaning")


# The pages


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from commands(inner, f"{path} {name}")


def cli_page() -> str:
    """Every command and option."""
    text = f"# The command line\n{CLI_INTRO}"
    return text + "".join(_command(path, command) for path, command in commands(cli, "flux"))


def _command(path: str, command: click.Command) -> str:
    if isinstance(command, click.Group) and path != "flux":
        return ""
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    text = f"\n## {path}\n\n`{usage}`\n\n{_paragraphs(command.help or '')}\n"
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    rows = ((f"`{_spelled(option)}`", option_meaning(option)) for option in options)
    text += f"\n{table(('option', 'meaning'), rows)}" if options else ""
    if command.epilog:
        lines = command.epilog.partition("Examples:\n")[2]
        text += f"\n```console\n{''.join(f'$ {line.strip()}' + chr(10) for line in lines.splitlines())}```\n"
    later = [f"`{option.opts[0]}`" for option in command.params if isinstance(option, click.Option) and option.hidden]
    return text + (f"\nNot available yet: {', '.join(later)}.\n" if later else "")


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _spelled(option: click.Option) -> str:
    names = "/".join([*option.opts, *option.secondary_opts])
    return (
        names
        if option.is_flag
        else f"{names} {option.make_metavar(click.Context(click.Command('flux'))).replace(' RANGE', '')}"
    )


def option_meaning(option: click.Option) -> str:
    """The help of an option, with its default."""
    meaning = (option.help or "").rstrip(".")
    return f"{meaning}. Default: `{option.default}`" if option.show_default else meaning.replace(".  [", " [")


def settings_page() -> str:
    """Every setting."""
    schema = _components([Settings, Provider])
    properties = schema["Settings"]["properties"]
    named = [name for name in properties if name not in ("providers", "keys", "auth")]
    text = f"# Settings\n{SETTINGS_INTRO}\n"
    rows = ((_setting(name), describe(properties[name]), _default(properties[name]), SETTINGS[name]) for name in named)
    text += table(("variable, and key under `[flux]`", "type", "default", "meaning"), rows)
    text += '\n```toml\n[flux]\nserver_port = 8080\nsynchronous = "normal"\n```\n\n'
    text += f"## Providers\n\n{Provider.__doc__}\n\n"
    text += table(("key", "type", "default", "meaning"), fields(schema["Provider"], PROVIDERS, "Provider"))
    text += '\n```toml\n[flux.ai.providers.own]\nbase_url = "http://127.0.0.1:9000/v1"\napi_key_env = "OWN_KEY"\n```\n'
    text += "\nKeys of providers are variables of the environment, see [models](models.md#providers), or secrets:\n"
    text += '\n```toml\n[flux.ai.keys]\nanthropic = "NAME_OF_A_SECRET"\n```\n'
    return text + _auth_section()


def _auth_section() -> str:
    text = "\n## Who may call\n\nA table each; a key is also a variable, such as `FLUX_SECURITY__AUTH__OIDC__ISSUER`.\n"
    schema = _components([Auth, ApiKeys, Oidc])
    for struct in (Auth, ApiKeys, Oidc):
        own = schema[struct.__name__]["properties"]
        named = {name: own[name] for name in own if name not in ("api_keys", "oidc")}
        rows = ((f"`{name}`", describe(one), _default(one)) for name, one in named.items())
        text += f"\n{cell(struct.__doc__ or '')}\n\n{table(('key', 'type', 'default'), rows)}"
    return text


def _setting(name: str) -> str:
    variable = f"`FLUX_{name.upper()}`"
    return f"{variable}, no key" if name in ONLY_VARIABLES else f"{variable}, `{name}`"


def _default(schema: Schema) -> str:
    return f"`{schema['default']}`" if schema.get("default") not in (None, "") else ""


def agent_page() -> str:
    """Every field of an agent's definition."""
    schema = AgentDefinition.model_json_schema()
    text = f"# The YAML of an agent\n{AGENT_INTRO}\n"
    text += table(FIELDS, fields(schema, DEFINITION, "AgentDefinition"))
    for name, inner in schema["$defs"].items():
        text += f"\n## Type {name}\n\n{cell(inner['description'])}\n\n{table(FIELDS, fields(inner, DEFINITION, name))}"
    return text


def events_page() -> str:
    """Every entry and delta."""
    schemas = _components([*ENTRY_TYPES.values(), *DELTA_TYPES.values()])
    text = f"# Events\n{EVENTS_INTRO}\n## Entries\n"
    text += "".join(_event(name, schemas[cls.__name__]) for name, cls in ENTRY_TYPES.items())
    text += "\n## Deltas\n"
    text += "".join(_event(name, schemas[cls.__name__]) for name, cls in DELTA_TYPES.items())
    text += "\n## Parts\n"
    events = {cls.__name__ for cls in (*ENTRY_TYPES.values(), *DELTA_TYPES.values())}
    for name, schema in schemas.items():
        if name not in events:
            kind = schema["properties"].get("type", {}).get("enum")
            tag = f" Its `type` is `{kind[0]}`." if kind else ""
            text += f"\n### Type {name}\n\n{cell(schema['description'])}{tag}\n\n"
            text += table(FIELDS, fields(schema, EVENTS, name))
    return text


def _event(name: str, schema: Schema) -> str:
    later = " Not written by this version." if name in NOT_WRITTEN else ""
    shown = schema | {"properties": {key: field for key, field in schema["properties"].items() if key != "v"}}
    return f"\n### {name}\n\n{cell(schema['description'])}{later}\n\n{table(FIELDS, fields(shown, EVENTS, name))}"


def _components(types: list[type]) -> dict[str, Schema]:
    _, found = msgspec.json.schema_components(
        types, schema_hook=lambda _: {"type": "string"}, ref_template=REFS + "{name}"
    )
    return dict(found)


def pages() -> dict[Path, str]:
    """The text of each page by its path."""
    made = {"cli": cli_page, "settings": settings_page, "agent-yaml": agent_page, "events": events_page}
    return {FOLDER / f"{name}.md": NOTE + page() for name, page in made.items()}


def stale(found: Mapping[Path, str]) -> list[Path]:
    """The pages whose file says something else."""
    return [path for path, text in found.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check tell which ones are not up to date and return 1."""
    found = pages()
    old = stale(found)
    for path in old:
        if "--check" in arguments:
            print(f"{path.relative_to(ROOT)} is not up to date; `python -m tools.reference` writes it")
        else:
            path.write_text(found[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return int("--check" in arguments and bool(old))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
