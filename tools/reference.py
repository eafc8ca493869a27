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

from flux.agents.definition import LATER, NAME, RESERVED, AgentDefinition
from flux.events import DELTA_TYPES, ENTRY_TYPES
from flux.settings import GUARDED, Provider, Settings
from flux.surfaces.cli.main import cli

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- Written by tools/reference.py; run `./dev docs` after a change of the code. -->\n"
REFS = "#/$defs/"

Schema = dict[str, Any]

SETTINGS = {
    "home": "The directory of all state. Default: `./.flux` if it is there, else `flux` in the user's data directory",
    "database_url": "Where sessions and agents are kept: `sqlite:///PATH` or `postgresql://…` (needs the extra "
    "`postgres`). Default: `flux.db` in `home`",
    "server": "The address of the server that commands use. Default: the live server of `home`, else one inside "
    "the command",
    "server_host": "The address that `flux start server` listens on",
    "server_port": "The port that `flux start server` listens on; 0 takes a free one",
    "auth_token": "Sent by commands as `Authorization: Bearer …`, for a proxy in front. The server itself does not "
    "look at it",
    "secret_key": "What secrets are encrypted with: 32 bytes in base64, the same for every server and worker. Default: "
    "the file `secret.key` in `home`, made when the first secret is set",
    "synchronous": "`full`: each commit of SQLite is on disk before anything follows from it. `normal`: a power cut "
    "may lose the last commits. Postgres is not touched",
    "heartbeat": "Seconds between signs of life of a process that runs something; less than half of `dead_after`",
    "dead_after": "Seconds without a sign of life after which other processes take over its runs",
    "grace": "Seconds that runs may go on when the server stops; what is not done is handed over. Commands without "
    "a server wait at most 1",
    "concurrency": "Runs that one process works on at the same time",
    "run_failures": "Failures in a row, crashes included, after which a run fails",
    "run_timeout": "Seconds that one process may work on a run; waiting for a person does not count",
    "model_attempts": "Tries of one model call, the first included, when the failure may pass",
    "model_stall": "Seconds without one byte after which a model call has stalled",
    "retention_days": "Days after which an ended execution is deleted with all it left behind; 0 keeps it for good",
    "max_message_bytes": "Bytes of one message; a request body may have six times as many",
    "web_fetch_hosts": "Names, with or without a port, that `web_fetch` may reach although they are not public",
}
PROVIDERS = {
    "base_url": "The address, with the version (`…/v1`)",
    "api_key_env": "The variable that holds the key; without it no key is sent",
}
#: These cannot stand in flux.toml: `home` is where it is looked for, a token or key is no setting of a project.
ONLY_VARIABLES = frozenset({"home", "auth_token", "secret_key"})

DEFINITION = {
    "name": f"Matches `{NAME.pattern}`; {' and '.join(f'`{name}`' for name in sorted(RESERVED))} are reserved",
    "model": "`provider/model`, see [models](models.md)",
    "system_prompt": "The instructions. Required in YAML",
    "description": "What the agent is for; shown in lists",
    "tools": "Groups, tools, or groups with settings, see [tools](tools.md)",
    "tools_file": "A Python file: each top-level `@task` function is a tool, see [tools](../howto/tools.md)",
    "skills": "Skills defined here, see [skills](../howto/skills.md)",
    "skills_dir": "A directory of skills, read and stored with the agent; over HTTP a directory on the workers",
    "workflow_file": "A file whose workflow talks for the agent, [stored with it](../howto/custom-chat-workflows.md)",
    "ToolFile.name": "What messages call it",
    "ToolFile.source": "Its text",
    "Skill.name": "What a model asks for it by",
    "Skill.description": "What it is for; the model sees it always",
    "Skill.instructions": "What the model reads when it uses the skill",
    "Skill.license": "As its author says",
    "Skill.compatibility": "What it needs, as its author says",
    "Skill.allowed_tools": "As its author says; no call goes without the question that it would ask",
    "Skill.metadata": "What else its author says",
    "Skill.files": "Its files by path, as text or as bytes",
    "Binary.base64": "The bytes",
    "agents": "Stored agents that work can be handed to with `delegate`, by name",
    "subagents": "Agents that work can be handed to, defined here",
    "max_tool_calls": "Model answers of a run that may ask for tools; then the model answers without",
    "max_turns": "Model calls of a run; then one more answers without tools",
    "max_concurrent_tools": "Reading tools that run at the same time; others run one after another",
    "max_tokens": "Longest visible answer of one model call, in tokens",
    "stream": "`false`: an answer is shown when it is complete, without `token` and `reasoning` events; "
    "stopped before, nothing of it is kept",
    "approval_mode": "`always`: a person approves every tool call. `never`: the agent gets no tools",
    "tool_approvals": "Per tool: `true` asks first, `false` does not. Goes before the tool's own `requires_approval`",
    "reasoning_effort": "How much a model thinks; the short form of `thinking_level`. Not both",
    "thinking_level": "How much a model thinks, see [models](models.md#reasoning-levels)",
    "fallback_models": "Models that are tried in turn when the model before failed for good",
    "sandbox": "Where tools act. Both values mean the same in this version: this machine, not isolated",
    "affinity": "Labels that a worker must have to run its sessions, such as `{region: eu}`",
    "cwd": "The directory tools act in, relative to the workspace of the session. Default: the workspace",
    "budget": "What may be spent",
    "planning": "`true`: the agent can make a plan and work by it, see [planning](../howto/planning.md)",
    "max_plan_steps": "The most steps of a plan that are not done yet",
    "approve_plan": "`true`: a person reviews each plan before its first step. Needs `planning`",
    "compaction": "How a long history is summarised; `false`: only when the model refuses the prompt as too long",
    "long_term_memory": "What outlasts a session, see [long-term memory](../howto/memory.md); `{}` takes the defaults",
    "LongTermMemory.provider": "Where memories are kept. Default: Flux's own database",
    "LongTermMemory.connection": "A file, a `postgresql://` URL, or `secret:NAME`; a URL is shown as `***`",
    "LongTermMemory.scope": "Whose memories. Default: the name of the agent",
    "Budget.run": "Limit of each run",
    "Budget.session": "Limit of the whole session",
    "Limit.max_tokens": "Input and output tokens together",
    "Limit.max_cost_usd": "US dollars; models without a known price count as 0",
    "Compaction.reserve_tokens": "Tokens of the model's window to keep free. Default: the smallest of 20,000, the "
    "longest answer of the model, and a third of the window",
    "Compaction.keep_recent_tokens": "About how many tokens of the newest history stay as they are",
    "Compaction.model": "The model that writes the summary. Default: the agent's own",
}

OPTIONS = {
    "--format": "How the result is printed",
    "--limit": "The most to list",
    "--state": "Only sessions in this state",
    "--system-prompt-file": "A file with the instructions",
    "--mode": "Where to talk. `web` and `api` are not available yet",
    "--reasoning-effort": DEFINITION["reasoning_effort"],
    "--planning": DEFINITION["planning"],
    "--max-tool-calls": DEFINITION["max_tool_calls"],
}
COMMANDS: dict[str, str] = {}

EVENTS = {
    "agent": "The name of the agent",
    "args": "The arguments, as a JSON object",
    "args_digest": "Digest of the tool's name and these arguments",
    "artifact": "The id of what was kept beside the log, such as the whole of a long result; else `null`",
    "attempt": "Which try of the model call this is, from 1",
    "by": "Who did it",
    "call": "The id of the tool call",
    "channel": "What is asked about",
    "child": "The id of the child",
    "content": "The text",
    "cost": "US dollars; `null`: the price is unknown",
    "decision": "The word of the answer, such as `approve` or `answer`",
    "definition_digest": "Digest of the agent's definition",
    "due": "When it ends by itself, in seconds since the epoch; `null`: never",
    "digest": "Digest of what is asked about; an answer holds for nothing else",
    "expires_at": "Seconds since the epoch; `null`: never",
    "id": "The id of the question",
    "inputs": "Ids of the messages consumed",
    "instance": "What the session is about, such as a ticket; else an id of its own",
    "message": "What to tell a person",
    "message_id": "The id of the answer",
    "mode": "How it is asked",
    "model": "The model that was asked",
    "name": "Its name",
    "options": "What may be chosen",
    "on": "The execution whose end ends it, too",
    "outcome": "How it ended",
    "parts": "What it consists of",
    "reason": "Why",
    "run": "The id of the run",
    "session": "The session that asks, when it is another one; else `null`",
    "status": "Its state",
    "steps": "The steps of the plan",
    "text": "The piece of text",
    "tool": "The name of the tool",
    "turn": "The number of this answer in the session",
    "usage": "Tokens spent",
    "session_started.agent_version": "The version of the stored agent",
    "session_started.name": "The name of the session, `default` if none was given",
    "session_started.workspace": "The directory its tools act in; `null`: that of the process which runs it",
    "approval_required.within": "The tool call whose code asks",
    "pause.within": "The tool call whose code paused",
    "tool_waiting.due": "When it goes on by itself, in seconds since the epoch",
    "subagent.child": "The id of its session",
    "subagent.status": "What became of it",
    "subagent.agent": "The name of its agent",
    "subagent_delta.session": "The id of the child's session",
    "subagent_delta.event": "The delta of the child",
    "user_message.id": "The id of the message",
    "user_message.mode": "When it is consumed",
    "user_message.options": "Choices for its run, such as `model`",
    "context.system": "The instructions",
    "context.tools": "The tools offered, with their schemas",
    "context.digest": "Digest of both",
    "model_failed.error": "What went wrong, for a person",
    "model_failed.kind": "The kind, see [models](models.md#failures)",
    "model_failed.transient": "Whether the same call may succeed later",
    "model_failed.retry_at": "When it is tried again, in seconds since the epoch; `null`: not again",
    "assistant_message.inputs": "Ids of the steering messages it consumed",
    "assistant_message.calls": "The tool calls it asks for",
    "assistant_message.stop": "Why the answer ended",
    "gate.verdict": "The decision",
    "gate.rule": "The rule it comes from",
    "gate.args": "Reserved; not filled in this version",
    "tool_start.name": "The name of the tool",
    "tool_done.name": "The name of the tool",
    "tool_done.status": "The outcome in one of two words",
    "tool_done.outcome": "The outcome as it was",
    "tool_done.content": "What the model reads",
    "input_required.question": "The question",
    "elicitation.server_name": "The server that asks",
    "elicitation.elicitation_id": "The id the server gave",
    "elicitation.url": "The address to open",
    "elicitation.schema": "The form to fill in",
    "elicitation.state": "What the call needs to go on after the answer",
    "pause.output": "What the code gave along",
    "interrupt_answered.id": "The id of the question",
    "interrupt_answered.reason": "The reason given",
    "interrupt_answered.always": "The tool is approved for the rest of the session",
    "interrupt_answered.content": "The answer to an `input_required`",
    "error.retryable": "Whether the same message may work later",
    "compaction.upto": "The last seq that the summary replaces",
    "compaction.summary": "The summary",
    "usage.tokens": "The tokens",
    "forked.from": "The id of the other session",
    "forked.at": "The last seq that was copied",
    "session_end.turns": "How many answers it gave",
    "progress.value": "The value, any JSON",
    "TextPart.text": "The text",
    "ReasoningPart.text": "The reasoning",
    "ReasoningPart.signature": "Given by the provider; goes back to it alone",
    "ReasoningPart.id": "Given by the provider",
    "ReasoningPart.provider": "Who signed it",
    "ReasoningPart.extra": "Whatever else the provider wants back",
    "ToolCall.id": "The id of the call, unique in the session",
    "ToolCall.name": "The name of the tool",
    "ToolCall.wire_id": "The id the provider gave",
    "ToolCall.invalid": "The raw arguments when they are no JSON object; `args` is then empty",
    "Usage.input": "Tokens of the prompt, the cached ones included",
    "Usage.output": "Tokens of the answer",
    "Usage.cache_read": "Tokens read from the provider's cache",
    "Usage.cache_write": "Tokens written to the provider's cache",
    "WORKFLOW_SCHEDULED.workflow": "The workflow, as `namespace/name`",
    "WORKFLOW_SCHEDULED.input": "What it was started with, in the typed form of values",
    "WORKFLOW_SCHEDULED.source_version": "The registered version; `null`: code of the process that started it",
    "WORKFLOW_CLAIMED.worker": "The worker",
    "WORKFLOW_PAUSED.waiting_for": "`pause`, `approval`, `child` or `timer`",
    "WORKFLOW_PAUSED.value": "What the pause shows; where several are open, a list of them in `open`",
    "WORKFLOW_COMPLETED.value": "What the workflow returned, in the typed form of values",
    "WORKFLOW_FAILED.value": "The exception, in the typed form of values",
    "value": "What there is to say of it",
    "TASK_STARTED.value": "The arguments, where they are small and plain",
    "TASK_FAILED.error": "The type of the error",
    "TASK_FAILED.message": "The error in one line",
    "TASK_FAILED.value": "The exception that the task raised, in the typed form of values",
    "TASK_COMPLETED.value": "The result, in the typed form of values",
}
#: Types that a reader may meet later; this version never writes them.
NOT_WRITTEN = frozenset({"forked"})


CLI_INTRO = """
Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted. Results go to standard output, problems to
standard error, in one line. `--debug` may stand anywhere and shows the trace of an error. `-h` and `--help` explain
any command.
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
        return f"[{name}](#type-{name.lower()})"
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
                sys.exit(f"tools/reference.py: say there what {prefix}.{name} means")
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
    note = f"{COMMANDS[path]} " if path in COMMANDS else ""
    text = f"\n## {path}\n\n`{usage}`\n\n{note}{_paragraphs(command.help or '')}\n"
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    rows = ((f"`{_spelled(option)}`", option_meaning(option)) for option in options)
    text += f"\n{table(('option', 'meaning'), rows)}" if options else ""
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
    meaning = (option.help or OPTIONS[option.opts[0]]).rstrip(".")
    return f"{meaning}. Default: `{option.default}`" if option.show_default else meaning.replace(".  [", " [")


def settings_page() -> str:
    """Every setting."""
    schema = _components([Settings, Provider])
    properties = schema["Settings"]["properties"]
    named = [name for name in properties if name != "providers"]
    text = f"# Settings\n{SETTINGS_INTRO}\n"
    rows = ((_setting(name), describe(properties[name]), _default(properties[name]), SETTINGS[name]) for name in named)
    text += table(("variable, and key under `[flux]`", "type", "default", "meaning"), rows)
    text += '\n```toml\n[flux]\nserver_port = 8080\nsynchronous = "normal"\n```\n\n'
    text += f"## Providers\n\n{Provider.__doc__}\n\n"
    text += table(("key", "type", "default", "meaning"), fields(schema["Provider"], PROVIDERS, "Provider"))
    text += '\n```toml\n[flux.ai.providers.own]\nbase_url = "http://127.0.0.1:9000/v1"\napi_key_env = "OWN_KEY"\n```\n'
    text += "\nKeys of providers are variables of the environment, see [models](models.md#providers).\n"
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
    later = ", ".join(f"`{name}`" for name in sorted(LATER))
    text += f"\n## Not available yet\n\nThese fields are known, and refused when they hold something: {later}.\n"
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
            print(f"{path.relative_to(ROOT)} is not up to date; `python tools/reference.py` writes it")
        else:
            path.write_text(found[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return int("--check" in arguments and bool(old))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
