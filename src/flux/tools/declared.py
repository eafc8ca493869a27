"""The tools that a Python file declares, read from its syntax alone: nothing of it is run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from flux.engine.sources.catalog import WITH_OPTIONS, parse_source, wrong
from flux.engine.sources.literals import Literals, NotLiteral
from flux.engine.workflows.options import TaskOptions
from flux.errors import SourceInvalid
from flux.suggest import unknown
from flux.tools.tool_file import ToolFile

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
DECORATORS = frozenset({"flux.task", "flux.engine.workflows.task.task"})
EFFECTS = ("read", "idempotent", "once")

SECRETS = "secret_requests"
#: Parameters of a function that its task fills, by the option that asks for it.
FILLED = {SECRETS: "secrets", "config_requests": "config", "metadata": "metadata"}

#: Types that no JSON can become.
NO_JSON = frozenset(
    f"{module}.{name}"
    for module in ("typing", "collections.abc")
    for name in ("Callable", "Awaitable", "Coroutine", "AsyncIterator", "AsyncIterable", "AsyncGenerator", "Generator")
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


class DeclaredTool(Struct, frozen=True):
    """A tool as its file declares it."""

    name: str
    line: int


def declared_tools(file: ToolFile) -> tuple[DeclaredTool, ...]:
    """The tools of a file: every top-level `@task` function.

    :raises SourceInvalid: it does not parse, declares no tool, or one that no model could call
    """
    try:
        tree = parse_source(file.source)
        found = tuple(_declarations(tree))
        if not found:
            raise SourceInvalid("it declares no tool: decorate a function at its top level with @task")
        names: dict[str, DeclaredTool] = {}
        for tool in found:
            if tool.name in names:
                raise SourceInvalid(f"line {tool.line}: it declares the tool {tool.name} twice; rename one of them")
            names[tool.name] = tool
        return found
    except SourceInvalid as error:
        raise SourceInvalid(f"{file.name}: {error}") from error


def secrets_in(source: str) -> frozenset[str]:
    """The secrets that a file of code writes out for its tasks. Of a text that is no Python: none."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    asked = [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == SECRETS]
    texts = [part.value for value in asked for part in ast.walk(value) if isinstance(part, ast.Constant)]
    return frozenset(text for text in texts if isinstance(text, str))


def filled(options: Iterable[str]) -> frozenset[str]:
    """The parameters that a task with these options fills itself, so that no model does."""
    return frozenset(FILLED[option] for option in options if option in FILLED)


def _declarations(tree: ast.Module) -> Iterator[DeclaredTool]:
    literals = Literals(tree)
    for node in tree.body:
        if isinstance(node, Function):
            for decorator in node.decorator_list:
                call = decorator if isinstance(decorator, ast.Call) else None
                named = literals.name_of(call.func if call else decorator)
                if named.removesuffix(WITH_OPTIONS) in DECORATORS:
                    if named.endswith(WITH_OPTIONS) != (call is not None):
                        raise wrong(decorator, "write the decorator as @task or @task.with_options(…)")
                    options = {keyword.arg or "" for keyword in call.keywords} if call else set()
                    _check_parameters(literals, node, filled(options))
                    yield DeclaredTool(_name(literals, node, call), node.lineno)


def _name(literals: Literals, node: Function, call: ast.Call | None) -> str:
    """The tool's name; its options are checked as far as they are written out."""
    name: Any = node.name
    for keyword in call.keywords if call else ():
        option = keyword.arg
        if option is None:
            raise wrong(call, f"tool {node.name!r}: options cannot be unpacked with **; write them out")
        if option not in TaskOptions.__struct_fields__:
            problem = unknown("option", option, TaskOptions.__struct_fields__)
            raise wrong(keyword.value, f"tool {node.name!r}: {problem}")
        if option == "name":
            name = _literal(literals, node, keyword)
        if option == "effect" and _literal(literals, node, keyword) not in EFFECTS:
            raise wrong(keyword.value, f"tool {node.name!r}: effect must be one of {', '.join(EFFECTS)}")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise wrong(node, f"tool {node.name!r}: its name must be a letter, then at most 63 letters, digits, '-' or '_'")
    return name


def _literal(literals: Literals, node: Function, keyword: ast.keyword) -> Any:
    try:
        return literals.value(keyword.value)
    except NotLiteral as problem:
        raise wrong(keyword.value, f"tool {node.name!r}: {keyword.arg}: {problem}") from problem


def _check_parameters(literals: Literals, node: Function, given: frozenset[str]) -> None:
    arguments = node.args
    for one in (arguments.vararg, arguments.kwarg, *arguments.posonlyargs):
        if one is not None:
            raise wrong(one, f"tool {node.name!r}: give each argument a name; {one.arg!r} has none for a model")
    for one in (one for one in (*arguments.args, *arguments.kwonlyargs) if one.arg not in given):
        if one.annotation is None:
            raise wrong(one, f"tool {node.name!r}: the argument {one.arg!r} needs a type hint, as in {one.arg}: str")
        for part in ast.walk(one.annotation):
            if literals.name_of(part) in NO_JSON:
                shown = ast.unparse(one.annotation)[:80]
                raise wrong(one, f"tool {node.name!r}: no model can write a {shown}, the type of {one.arg!r}")
