"""What a file of workflows declares, read from its syntax alone: nothing of it is run."""

from __future__ import annotations

import ast
import hashlib
import itertools
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from flux.engine.sources.literals import Literals, NotLiteral
from flux.engine.workflows.workflow import NAME, NAMESPACE, WorkflowOptions
from flux.errors import InvalidInput, SourceInvalid, TooLarge
from flux.suggest import unknown

MAX_SOURCE_BYTES = 1024 * 1024
#: What an upload may be called by.
DECORATORS = frozenset({"flux.workflow", "flux.engine.workflows.workflow.workflow"})
WITH_OPTIONS = ".with_options"
#: Filters of warnings belong to the process: two threads that change them at once would leave them changed.
QUIET = threading.Lock()
#: Read when the code is loaded, by no one before.
LEFT_TO_THE_CODE = frozenset({"output_storage"})

Read = Callable[[Literals, ast.expr], Any]


class Declaration(Struct, frozen=True):
    """A workflow that a file declares: its names, and its options as JSON."""

    namespace: str
    name: str
    options: str


class Source(Struct, frozen=True):
    """A file that can be registered."""

    text: str
    digest: str
    workflows: tuple[Declaration, ...]


class _Options(Struct, frozen=True, kw_only=True, omit_defaults=True):
    affinity: dict[str, str] | None = None
    requests: dict[str, Any] | None = None
    schedule: Any = None
    secret_requests: list[str] = []
    description: str | None = None
    imports: list[str] = []


def read_source(data: bytes) -> Source:
    """The workflows of an uploaded file, by namespace and name.

    :raises TooLarge: it has more than 1 MiB
    :raises SourceInvalid: it does not parse, declares no workflow, or one that is not valid
    """
    if len(data) > MAX_SOURCE_BYTES:
        raise TooLarge(f"the source has {len(data):,} bytes, {MAX_SOURCE_BYTES:,} are allowed")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceInvalid(f"the source is not UTF-8 text: byte {error.start + 1} cannot be read") from error
    tree = parse_source(text)
    found = sorted(_declarations(tree), key=lambda one: (one.namespace, one.name))
    if not found:
        raise SourceInvalid("the source declares no workflow: decorate an `async def` at its top level with @workflow")
    for one, other in itertools.pairwise(found):
        if (one.namespace, one.name) == (other.namespace, other.name):
            raise SourceInvalid(f"the source declares {one.namespace}/{one.name} twice; rename one of them")
    return Source(text, hashlib.sha256(text.encode()).hexdigest()[:32], tuple(found))


def parse_source(text: str) -> ast.Module:
    """The syntax tree of a source.

    :raises SourceInvalid: it does not parse
    """
    try:
        with QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        place = f"line {error.lineno}, column {error.offset}" if error.lineno else "the source"
        raise SourceInvalid(
            f"the source does not parse: {place}: {error.msg}", line=error.lineno, column=error.offset
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        reason = "it holds the character NUL" if isinstance(error, ValueError) else "it is nested too deeply"
        raise SourceInvalid(f"the source does not parse: {reason}") from error


def _declarations(tree: ast.Module) -> Iterator[Declaration]:
    literals = Literals(tree)
    imports = sorted({module for node in ast.walk(tree) for module in _modules(node)})
    for node in tree.body:
        if isinstance(node, (ast.AsyncFunctionDef, ast.FunctionDef)):
            for decorator in node.decorator_list:
                call = decorator if isinstance(decorator, ast.Call) else None
                named = literals.name_of(call.func if call else decorator)
                if named.removesuffix(WITH_OPTIONS) in DECORATORS:
                    if named.endswith(WITH_OPTIONS) != (call is not None):
                        raise wrong(decorator, "write the decorator as @workflow or @workflow.with_options(…)")
                    yield _declaration(literals, node, call, imports)


def _declaration(
    literals: Literals, node: ast.AsyncFunctionDef | ast.FunctionDef, call: ast.Call | None, imports: list[str]
) -> Declaration:
    if not isinstance(node, ast.AsyncFunctionDef):
        raise wrong(node, f"workflow {node.name!r} must be an `async def`")
    given = dict(_options(literals, node, call))
    name = given.pop("name", None) or node.name.lstrip("_")
    namespace = given.pop("namespace", None) or "default"
    if not NAMESPACE.fullmatch(namespace):
        raise wrong(node, f"the namespace {namespace!r} must match ^[a-z0-9][a-z0-9_-]*$, at most 64 characters")
    if not NAME.fullmatch(name):
        raise wrong(node, f"the workflow name {name!r} must match ^[A-Za-z][A-Za-z0-9_-]*$, at most 64 characters")
    options = _Options(description=ast.get_docstring(node), imports=imports, **given)
    try:
        return Declaration(namespace, name, msgspec.json.encode(options).decode())
    except (UnicodeEncodeError, OverflowError) as error:
        raise wrong(node, f"workflow {name!r}: its options hold what JSON cannot: {error}") from error


def _options(literals: Literals, node: ast.AsyncFunctionDef, call: ast.Call | None) -> Iterator[tuple[str, Any]]:
    """The options of a decorator that can be read."""
    if call is not None and call.args:
        raise wrong(call, f"workflow {node.name!r}: write the options by name, as in @workflow.with_options(name=…)")
    for keyword in call.keywords if call else ():
        option = keyword.arg
        if option is None:
            raise wrong(call, f"workflow {node.name!r}: options cannot be unpacked with **; write them out")
        if option in LEFT_TO_THE_CODE:
            continue
        if option not in READ:
            problem = unknown("option", option, WorkflowOptions.__struct_fields__)
            raise wrong(keyword.value, f"workflow {node.name!r}: {problem}")
        try:
            value = READ[option](literals, keyword.value)
        except NotLiteral as problem:
            at = problem.node if hasattr(problem.node, "lineno") else keyword.value
            raise wrong(at, f"workflow {node.name!r}: {option}: {problem}") from problem
        except InvalidInput as problem:
            raise wrong(keyword.value, f"workflow {node.name!r}: {option}: {problem}") from problem
        if value is not None:
            yield option, value


def _checked(type_: Any, form: str) -> Read:
    """Reads a literal of a type; `form` shows one."""

    def read(literals: Literals, node: ast.expr) -> Any:
        value = literals.value(node)
        try:
            return msgspec.convert(value, type_ | None)
        except msgspec.ValidationError as error:
            raise NotLiteral(f"must look like {form}", node) from error

    return read


READ: dict[str, Read] = {
    "name": _checked(str, '"name"'),
    "namespace": _checked(str, '"namespace"'),
    "affinity": _checked(dict[str, str], '{"label": "value"}'),
    "secret_requests": _checked(list[str], '["NAME"]'),
    "requests": Literals.requests,
    "schedule": Literals.schedule,
}


def _modules(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module.partition(".")[0]


def wrong(node: ast.AST | None, message: str) -> SourceInvalid:
    """What to raise about a place in a source."""
    line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0) + 1
    return SourceInvalid(f"line {line}: {message}", line=line, column=column)
