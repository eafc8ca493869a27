"""Values that a file of workflows writes out in its options, read without running it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from flux.engine import schedules
from flux.errors import InvalidInput

#: What `from flux import *` brings that decorators and their options are written with.
STARRED = ("workflow", "task", "cron", "interval", "once", "ResourceRequest")
#: What options may call or name, by where it comes from.
TIMES: dict[str, Callable[..., Any]] = {
    "datetime.datetime": datetime,
    "datetime.datetime.fromisoformat": datetime.fromisoformat,
    "datetime.timedelta": timedelta,
    "datetime.timezone": timezone,
    "zoneinfo.ZoneInfo": ZoneInfo,
}
ZONES = {"datetime.UTC": UTC, "datetime.timezone.utc": UTC}
SCHEDULES: dict[str, Callable[..., schedules.Spec]] = {
    "cron": schedules.cron,
    "interval": schedules.interval,
    "once": schedules.once,
}
PLAIN = (str, int, float, bool, type(None))


class NotLiteral(Exception):
    """An option cannot be read without running code; says what it must look like."""

    def __init__(self, message: str, node: ast.AST) -> None:
        super().__init__(message)
        self.node = node


class Literals:
    """Reads options of a module: what its names mean is known from its imports."""

    def __init__(self, tree: ast.Module) -> None:
        self._names = {name: place for node in _statements(tree) for name, place in _imported(node)}

    def name_of(self, node: ast.AST) -> str:
        """Where a name comes from, as in "flux.workflow"; empty when it is none of an import."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._names:
            return ""
        return ".".join([self._names[node.id], *reversed(parts)])

    def value(self, node: ast.expr) -> Any:
        """A literal.

        :raises NotLiteral: it is none
        """
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            shown = ast.unparse(node) if sum(1 for _ in ast.walk(node)) < 50 else "this"
            raise NotLiteral(
                f"must be written out, because it is read without running the code; {shown[:80]} is not a literal", node
            ) from error

    def schedule(self, node: ast.expr) -> schedules.Spec | None:
        """A schedule: cron(…), interval(…) or once(…).

        :raises NotLiteral: it is none
        :raises InvalidInput: it is none that can be
        """
        if isinstance(node, ast.Constant) and node.value is None:
            return None
        kind = self._kind(node)
        if not isinstance(node, ast.Call) or kind not in SCHEDULES:
            raise NotLiteral('must look like cron("0 9 * * MON-FRI"), interval(hours=6) or once(datetime(…))', node)
        args, kwargs = self._arguments(node)
        if kind == "once" and "at" in kwargs:
            args.insert(0, kwargs.pop("at"))
        written = kind == "once" and bool(args) and isinstance(args[0], str)
        function = schedules.parse_time if written else SCHEDULES[kind]
        spec: schedules.Spec = _called(function, node, args, kwargs)
        return spec

    def requests(self, node: ast.expr) -> dict[str, Any] | None:
        """The fields of a ResourceRequest(…).

        :raises NotLiteral: it is none
        """
        if isinstance(node, ast.Constant) and node.value is None:
            return None
        if not isinstance(node, ast.Call) or self._kind(node) != "ResourceRequest" or node.args:
            raise NotLiteral('must look like ResourceRequest(cpu=2, memory="4Gi")', node)
        fields = self._arguments(node)[1]
        for name, value in fields.items():
            items = value if isinstance(value, list) else [value]
            if not all(isinstance(item, PLAIN) for item in items):
                raise NotLiteral(f"{name} must be a number, text or a list of them", node)
        return {name: value for name, value in fields.items() if value is not None}

    def _kind(self, node: ast.expr) -> str:
        """The last part of the name of what is called, where it comes from Flux."""
        place = self.name_of(node.func) if isinstance(node, ast.Call) else ""
        return place.rpartition(".")[2] if place.startswith("flux.") else ""

    def _arguments(self, node: ast.Call) -> tuple[list[Any], dict[str, Any]]:
        for keyword in node.keywords:
            if keyword.arg is None:
                raise NotLiteral("arguments cannot be unpacked with **; write them out", node)
        args = [self._argument(arg) for arg in node.args]
        return args, {str(keyword.arg): self._argument(keyword.value) for keyword in node.keywords}

    def _argument(self, node: ast.expr) -> Any:
        """A literal, or a time put together from some."""
        if isinstance(node, ast.Call) and (place := self.name_of(node.func)) in TIMES:
            args, kwargs = self._arguments(node)
            return _called(TIMES[place], node, args, kwargs)
        place = self.name_of(node)
        return ZONES[place] if place in ZONES else self.value(node)


def _called(function: Callable[..., Any], node: ast.Call, args: list[Any], kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except InvalidInput:
        raise
    except (TypeError, ValueError, OverflowError, LookupError, OSError) as error:
        raise NotLiteral(f"{ast.unparse(node.func)}: {error}", node) from error


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements at the top level, also those under an `if` or `try` there."""
    todo = list(tree.body)
    while todo:
        node = todo.pop(0)
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            handlers = [inner for handler in getattr(node, "handlers", ()) for inner in handler.body]
            todo += [*node.body, *handlers, *node.orelse, *getattr(node, "finalbody", ())]


def _imported(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """The names that an import brings, each with where it comes from."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.partition(".")[0]
            yield (alias.asname, alias.name) if alias.asname else (top, top)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            if alias.name == "*" and node.module == "flux":
                yield from ((name, f"flux.{name}") for name in STARRED)
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"
