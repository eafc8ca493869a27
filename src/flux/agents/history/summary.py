"""What a compaction keeps word for word beside its summary, and how a model reads all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from flux.agents.history.items import AnswerItem, Item
from flux.events import Compacted, ToolDone
from flux.messages import ToolCall

#: Tools by what they do with the file in their argument `path`, and those that bring a skill.
READS = frozenset(("read_file", "read"))
CHANGES = frozenset(("write_file", "edit_file", "write", "edit"))
SKILLS = frozenset(("use_skill", "activate_skill"))
#: So many paths of each kind are kept, the newest.
MOST_PATHS = 100
#: Characters of all skills together that are kept; of older ones only the name is.
MOST_SKILL_CHARS = 60_000


class Verbatim(Struct, frozen=True):
    """What stays as it was: skills in force by name, and paths, those used last at the end."""

    skills: dict[str, str] = {}
    read: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def verbatim(older: Iterable[Item], before: Compacted | None) -> Verbatim:
    """What must stay of items that are summarised, and of the compaction `before` them."""
    skills = dict(before.skills) if before else {}
    read = dict.fromkeys(before.read if before else ())
    changed = dict.fromkeys(before.changed if before else ())
    for call, done in _well_done(older):
        if call.name in SKILLS and (name := _text(call, "name")):
            skills.pop(name, None)
            skills[name] = done.content
        elif path := _text(call, "path"):
            for found, names in ((read, READS), (changed, CHANGES)):
                if call.name in names:
                    found.pop(path, None)
                    found[path] = None
    return Verbatim(_within(skills), tuple(read)[-MOST_PATHS:], tuple(changed)[-MOST_PATHS:])


def _well_done(items: Iterable[Item]) -> Iterator[tuple[ToolCall, ToolDone]]:
    for item in items:
        if isinstance(item, AnswerItem):
            for call in item.said.calls:
                done = item.results.get(call.id)
                if done is not None and done.status == "success":
                    yield call, done


def _text(call: ToolCall, argument: str) -> str:
    value = call.args.get(argument)
    return value if isinstance(value, str) else ""


def _within(skills: dict[str, str]) -> dict[str, str]:
    """The skills, the newest whole, as many as there is room for."""
    room, found = MOST_SKILL_CHARS, dict[str, str]()
    for name, text in reversed(skills.items()):
        room -= len(text)
        found[name] = text if room >= 0 else ""
    return dict(reversed(found.items()))
