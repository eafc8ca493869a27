"""The slash commands: their names, what they say about themselves, and how a line is read."""

from __future__ import annotations

import re

from flux.suggest import nearest

COMMANDS = {
    "/help": "this list",
    "/session": "the session's id and title",
    "/usage": "tokens and cost so far",
    "/model NAME": "model of the next messages",
    "/retry": "send the last message again",
    "/approve": "ask open questions again",
    "/cancel": "stop the run",
    "/compact": "summarise the earlier messages for the model",
    "/steer TEXT": "a message that joins the run at work",
    "/interrupt TEXT": "a message instead of the run at work",
    "/fork N": "go on in a copy, without the last N messages",
    "/export FILE": "write the session to FILE.md or FILE.jsonl; without a name, show it",
    "/quit": "leave; the session stays",
}
#: What may stand behind a command, for completion.
WORDS = {"/export": ("markdown", "jsonl"), "/model": ("default",)}
NAMES = tuple(usage.split()[0] for usage in COMMANDS)
KEYS = {
    "Enter during a run": "the message waits for the next run",
    "Alt+Enter": "a new line",
    "Ctrl+C": "cancel the run",
    "Ctrl+D": "leave",
}

#: A path such as /etc/hosts is a message, not a command.
_COMMAND = re.compile(r"(/[A-Za-z_-]*)(?:[ \t]+(.*))?")


def parse(line: str) -> tuple[str, str] | None:
    """The command and its argument, None when the line is a message."""
    found = _COMMAND.fullmatch(line.rstrip())
    return (found[1], found[2] or "") if found else None


def completions(text: str) -> list[str]:
    """The commands, or the words behind one, that begin like the text."""
    name, space, word = text.partition(" ")
    if space:
        return [f"{name} {one}" for one in WORDS.get(name, ()) if one.startswith(word)]
    return [one for one in NAMES if text.startswith("/") and one.startswith(text)]


def help_text() -> str:
    """What /help says."""
    rows = COMMANDS | KEYS
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {says}" for name, says in rows.items())


def unknown_command(name: str) -> str:
    """One line about a name that is no command."""
    like = nearest(name, NAMES)
    return f"Unknown command {name}; " + (f"did you mean {like}?" if like else "/help lists them.")
