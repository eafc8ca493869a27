"""YAML of users, without what could grow without bound or lose what they wrote."""

from __future__ import annotations

from typing import Any

import yaml

#: What to do about faults that everybody meets, by a part of what PyYAML says.
REMEDIES = {
    "mapping values are not allowed": "a ': ' where none can be; put the value in quotes, or indent like the others",
    r"'\t' that cannot start": "a tab; indent with spaces",
    "cannot start any token": "a character that no value begins with; put the value in quotes",
    "expected <block end>": "indented differently from the others",
    "could not find expected ':'": "neither `key: value` nor a part of one",
    "unexpected end of stream": "a quote or a bracket that is not closed",
    "found another document": "a second document; one file holds one",
}


class _Refusals(yaml.composer.Composer, yaml.constructor.BaseConstructor):
    """Refuses aliases (they can grow without bound) and duplicate keys (one of them would be lost)."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # type: ignore[attr-defined]
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", _mark(self))
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Typed(_Refusals, yaml.SafeLoader):
    """Reads numbers, booleans and dates as what they are."""


class _Texts(_Refusals, yaml.BaseLoader):
    """Reads every value as the text that it is written with."""


def load(text: str, *, texts: bool = False) -> Any:
    """The value of a YAML text; with `texts` numbers, booleans and dates stay as they are written.

    :raises ValueError: it is no YAML, or holds an alias or a key twice; says where, on one line
    """
    try:
        return yaml.load(text, _Texts if texts else _Typed)  # noqa: S506 - both are safe loaders
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(_one_line(error)) from error


def _mark(loader: Any) -> yaml.Mark:
    """Where the next event begins."""
    mark: yaml.Mark = loader.peek_event().start_mark
    return mark


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        problem = str(error.problem)
        remedy = next((remedy for part, remedy in REMEDIES.items() if part in problem), problem)
        return f"line {mark.line + 1}, column {mark.column + 1}: {remedy}"
    if isinstance(error, RecursionError):
        return "lists or mappings are nested too deeply"
    return " ".join(str(error).split()) or type(error).__name__
