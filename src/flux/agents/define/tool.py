"""`define_tool` and `@tool`: a function of the application as a tool that a model may call."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, overload

from msgspec import Struct
from pydantic import BaseModel, PydanticUserError, ValidationError

from flux.errors import DefinitionInvalid
from flux.tools.base import Effect, Predicate, ToolContext
from flux.tools.cancel import CancelSignal
from flux.tools.rules import Rule, rule_of
from flux.tools.schema import schema_problem, signature_of

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
#: Names of the tools by which a structured answer is given.
RESERVED = frozenset({"finish", "give_up"})
#: What `@tool(...)` takes besides a name.
OPTIONS = ("description", "effect", "timeout", "requires_approval", "approval")
#: The parameter of a function that gets the context of its call.
CONTEXT = "ctx"

F = TypeVar("F", bound=Callable[..., Any])


class ToolCallContext(Struct, frozen=True):
    """What a running tool may know of its call: the ids of the session and of the call, and whether to stop.

    `call_id` is the same when the call is run again. `progress` shows text to whoever watches.
    """

    session: str
    call_id: str
    signal: CancelSignal
    progress: Callable[[str], None]


#: Runs the function: gets arguments that fit the schema, and the context of the call.
Invoke = Callable[[dict[str, Any], ToolCallContext, ToolContext], Any]


class ToolDefinition(Struct, frozen=True):
    """A tool that the application has made; `define_tool`, `@tool` and `connect_mcp_server` make them.

    `parameters` is a JSON Schema object. `effect` says what running it again may do; `timeout` is in seconds.
    `approval` is its rule for agents that bind it, "default" where `requires_approval` says it.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    execute: Callable[..., Any]
    effect: Effect
    timeout: float | None
    requires_approval: bool | Predicate
    invoke: Invoke
    source: str = "application"
    approval: Rule = "default"


def define_tool(
    name: str,
    execute: Callable[..., Any],
    *,
    description: str | None = None,
    parameters: Mapping[str, Any] | type[BaseModel] | None = None,
    effect: Effect = "once",
    timeout: float | None = None,
    requires_approval: bool | Predicate = False,
    approval: Rule | Mapping[str, str] = "default",
) -> ToolDefinition:
    """A tool of a function. Arguments are checked before it is called; what it raises is shown to the model.

    With `parameters` (a JSON Schema, or a Pydantic model) it gets one dict, and as a second argument, if it takes
    one, the context of the call. Without, its type hints are the schema. A plain function runs in a thread.
    `approval` is "always", "never", "default" or `{"kind": "dynamic", "value": PREDICATE}`.

    :raises DefinitionInvalid: the field that it names cannot be used
    """
    _check(name, execute, effect, timeout, requires_approval)
    try:
        rule = rule_of(approval)
    except ValueError as error:
        raise _wrong(name, "approval", str(error)) from error
    if rule != "default" and requires_approval is not False:
        raise _wrong(name, "approval", "says when to ask, and so does requires_approval; give one of them")
    if parameters is None:
        said, schema, invoke = _typed(name, execute)
    else:
        said, schema, invoke = _given(name, execute, parameters)
    described = said if description is None else description
    if not str(described).strip():
        raise _wrong(name, "description", "is missing: it is how a model knows when to call the tool")
    return ToolDefinition(
        name=name,
        description=described,
        parameters=schema,
        execute=execute,
        effect=effect,
        timeout=timeout,
        requires_approval=requires_approval,
        invoke=invoke,
        approval=rule,
    )


@overload
def tool(function: Callable[..., Any], /) -> ToolDefinition: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect = "once",
    timeout: float | None = None,
    requires_approval: bool | Predicate = False,
    approval: Rule | Mapping[str, str] = "default",
) -> Callable[[Callable[..., Any]], ToolDefinition]: ...


def tool(function: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a tool of a typed function, as `@tool` or `@tool(effect="read")`: its name, docstring and type hints count.

    :raises DefinitionInvalid: its signature or an option cannot be used
    """
    unknown = [key for key in options if key not in OPTIONS]
    if unknown:
        raise DefinitionInvalid(f"@tool: unknown option {unknown[0]!r}", field=unknown[0])

    def make(found: Callable[..., Any]) -> ToolDefinition:
        if not callable(found):
            raise DefinitionInvalid(f"@tool makes a tool of a function, not of {type(found).__name__}", field="execute")
        called = name or str(getattr(found, "__name__", type(found).__name__))
        return define_tool(called, found, **options)

    return make if function is None else make(function)


def check_name(what: str, name: object) -> None:
    """Refuse a name that no provider takes.

    :raises DefinitionInvalid: it is none
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        shown = repr(name)[:80]
        raise DefinitionInvalid(
            f"{what}: name: {shown} must be a letter, then at most 63 letters, digits, '-' or '_'", field="name"
        )


def _check(name: str, execute: object, effect: object, timeout: object, rule: object) -> None:
    check_name("tool", name)
    if name in RESERVED:
        raise DefinitionInvalid(f"tool: name: {name!r} is reserved for structured answers", field="name")
    if not callable(execute):
        raise _wrong(name, "execute", f"must be a function, not {type(execute).__name__}")
    if effect not in get_args(Effect):
        raise _wrong(name, "effect", f"must be one of {', '.join(get_args(Effect))}, not {effect!r}")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
        raise _wrong(name, "timeout", f"must be a number of seconds above 0, not {timeout!r}")
    if not isinstance(rule, bool) and (not callable(rule) or inspect.iscoroutinefunction(rule)):
        raise _wrong(name, "requires_approval", "must be True, False or a plain function of the arguments")


def _wrong(name: str, field: str, problem: str) -> DefinitionInvalid:
    return DefinitionInvalid(f"tool {name}: {field} {problem}", field=field)


def _typed(name: str, execute: Callable[..., Any]) -> tuple[str, dict[str, Any], Invoke]:
    """A function whose type hints say what it takes."""
    names = _parameters(execute)
    signature = signature_of(execute, frozenset({CONTEXT}) & names.keys())

    def invoke(args: dict[str, Any], ctx: ToolCallContext, inner: ToolContext) -> Any:
        bound = signature.bind(args)
        if CONTEXT in names:
            bound[CONTEXT] = ctx
        if signature.context is not None:
            bound[signature.context] = inner
        return execute(**bound)

    return signature.description, signature.parameters, invoke


def _given(
    name: str, execute: Callable[..., Any], parameters: Mapping[str, Any] | type[BaseModel]
) -> tuple[str, dict[str, Any], Invoke]:
    """A function that gets one dict."""
    schema, bind = _schema(name, parameters)
    problem = schema_problem(schema)
    if schema.get("type") != "object" or problem:
        raise _wrong(name, "parameters", problem or 'must be a JSON Schema of type "object"')
    names = _parameters(execute)
    positional = [key for key, one in names.items() if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]

    def invoke(args: dict[str, Any], ctx: ToolCallContext, _: ToolContext) -> Any:
        if len(positional) > 1:
            return execute(bind(args), ctx)
        return execute(bind(args), **({CONTEXT: ctx} if CONTEXT in names else {}))

    return inspect.getdoc(execute) or "", schema, invoke


def _schema(
    name: str, parameters: Mapping[str, Any] | type[BaseModel]
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    if isinstance(parameters, Mapping):
        return {"type": "object", **parameters}, lambda args: args
    model: Any = parameters
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise _wrong(name, "parameters", "must be a JSON Schema (a mapping) or a Pydantic model")

    def bind(args: dict[str, Any]) -> dict[str, Any]:
        try:
            return model.model_validate(args).model_dump()
        except ValidationError as error:
            found = ("`{}`: {}".format(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors())
            raise ValueError("; ".join(found)) from error

    try:
        return model.model_json_schema(), bind
    except PydanticUserError as error:
        raise _wrong(name, "parameters", f"cannot be shown to a model: {error.message}") from error


def _parameters(execute: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(execute).parameters
    except (TypeError, ValueError):  # of a function written in C, which takes what it is given
        return {}
