"""`flux init`: writes a project that runs."""

from __future__ import annotations

import re
from pathlib import Path

import click

from flux.errors import InvalidInput

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

AGENT = '''\
"""A support assistant. Each instance is a ticket: its id scopes what the tools may see."""

import os

from flux import create_agent, define_tool

#: Works without any key; set FLUX_MODEL=anthropic/claude-haiku-4-5 or another for a real one.
MODEL = os.environ.get("FLUX_MODEL", "scripted/demo")


def build(ctx):
    def ticket_status(args):
        return {"ticket": ctx.id, "status": "open"}

    return {
        "model": MODEL,
        "instructions": f"Help with the support ticket {ctx.id}. Be brief.",
        "tools": [
            define_tool(
                "ticket_status",
                ticket_status,
                description="The status of this ticket.",
                parameters={"type": "object", "properties": {}},
                effect="read",
            )
        ],
    }


default = create_agent(build)
'''

WORKFLOW = '''\
"""A bounded piece of work: takes a payload, returns a result."""

from flux import task


@task
async def greeting(name):
    return f"Hello, {name}!"


async def run(ctx):
    payload = ctx.payload or {}
    return await greeting(payload.get("name", "world"))
'''

README = """\
# {name}

```sh
flux dev
```

In another terminal:

```sh
curl -s http://127.0.0.1:2024/agents/assistant/ticket-1 \\
  -H 'Content-Type: application/json' -d '{{"message": "Hello"}}'
flux run greet --payload '{{"name": "Ada"}}'
```

`agents/NAME.py` is an agent, `workflows/NAME.py` a workflow. A change is served at once; sessions are in `.flux`.
"""

FILES = {
    "agents/assistant.py": AGENT,
    "workflows/greet.py": WORKFLOW,
    "README.md": README,
    ".gitignore": ".flux/\n__pycache__/\n",
}


@click.command()
@click.argument("name")
def init(name: str) -> None:
    """Write a project with an agent and a workflow into a new folder NAME, or into this one, empty, as `.`."""
    root = Path(name)
    called = root.resolve().name
    if not NAME.fullmatch(called):
        raise InvalidInput(f"a project cannot be called {called!r}; use letters, digits, _ and -, a letter first")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InvalidInput(f"{root} exists and is not empty; choose another name")
    for path, text in FILES.items():
        file = root / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.format(name=called) if path == "README.md" else text)
        except OSError as error:
            raise InvalidInput(f"cannot write {file}: {error.strerror or error}") from error
    here = root.resolve() == Path.cwd()
    click.echo(f"Wrote {called}. Next: flux dev" if here else f"Wrote {root}. Next: cd {root} && flux dev")
