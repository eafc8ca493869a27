"""What servers ask people, in all three shapes, as one question; and the answers, as servers want them.

A question carries what its call needs to go on, so that it may be answered days later in another process:
`shape` is in_flight (the call waited, and is issued again), required (error -32042: the same) or input (the server
returned what it needs, and gets it with the repeated call).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from flux.tools.base import Answer, NeedsInput
from flux.tools.mcp.config import check_url, digest_of
from flux.tools.mcp.outgoing import check_shown
from flux.tools.schema import faults

LARGEST_URL = 8_000
LONGEST_MESSAGE = 4_000


class Refused(Exception):
    """What the server asks cannot be shown to anybody; the text says why."""


def question(server: str, params: Any, state: Mapping[str, Any], note: str = "", own: str | None = None) -> NeedsInput:
    """What is asked, as the person sees it; `own` is the server's address, None of a program.

    :raises Refused: it is not fit to be shown
    """
    message = f"{note}{params.message}"[:LONGEST_MESSAGE]
    shown = {"message": message, "server_name": server}
    if params.mode == "url":
        try:
            check_url(params.url)
            check_shown(params.url, own)
        except ValueError as error:
            raise Refused(f"it asks to open an address that {error}") from error
        if len(params.url) > LARGEST_URL:
            raise Refused("it asks to open an address that is too long")
        id = params.elicitation_id or fingerprint(params)
        shown |= {"mode": "url", "url": params.url, "elicitation_id": id}
        return NeedsInput("elicitation", {**shown, "state": dict(state)})
    schema = params.requested_schema
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise Refused("it asks for a form without a schema")
    return NeedsInput(
        "elicitation",
        {**shown, "mode": "form", "schema": schema, "elicitation_id": fingerprint(params), "state": dict(state)},
    )


def fingerprint(params: Any) -> str:
    """What makes two questions the same, though one is asked again in a new call."""
    about = params.url.partition("?")[0] if params.mode == "url" else params.requested_schema
    return digest_of([params.mode, params.message, about])


def result(answer: Answer, schema: Mapping[str, Any] | None) -> types.ElicitResult:
    """A person's answer for the server.

    :raises Refused: the form is not filled in as its schema wants
    """
    if answer.decision != "accept":
        return types.ElicitResult(action="decline" if answer.decision == "decline" else "cancel")
    if schema is None:
        return types.ElicitResult(action="accept")
    content = answer.content if answer.content is not None else {}
    if not isinstance(content, dict):
        raise Refused("the answer to a form must be an object of its fields")
    content = _defaults(schema) | content
    wrong = faults(schema, content)
    if wrong:
        raise Refused("; ".join(wrong))
    try:
        return types.ElicitResult(action="accept", content=content)
    except ValidationError as error:
        raise Refused("the fields of a form are texts, numbers, booleans or lists of texts") from error


def problem(answer: Answer, schema: Mapping[str, Any] | None) -> str | None:
    """What is wrong with an answer; None when the server can have it."""
    try:
        result(answer, schema)
    except Refused as refused:
        return str(refused)
    return None


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What counts for the fields that a person left out."""
    fields = schema.get("properties")
    if not isinstance(fields, dict):
        return {}
    return {name: field["default"] for name, field in fields.items() if isinstance(field, dict) and "default" in field}


def required(error: MCPError) -> list[Any]:
    """What an error -32042 asks for; empty when it is another error.

    :raises Refused: it asks in no form that is known
    """
    if error.code != types.URL_ELICITATION_REQUIRED:
        return []
    found = error.data.get("elicitations") if isinstance(error.data, dict) else None
    if not isinstance(found, list) or not found:
        raise Refused("it wants something of a person and does not say what")
    return asked(found)


def asked(found: Sequence[Any]) -> list[Any]:
    """Parameters of elicitations as they were sent or kept.

    :raises Refused: they have no form that is known
    """
    try:
        return [_params(one) for one in found]
    except ValidationError as error:
        raise Refused(f"it asks in no form that is known: {error.errors(include_url=False)[0]['msg']}") from error


def _params(one: Any) -> Any:
    mode = one.get("mode", "form") if isinstance(one, dict) else None
    kind = types.ElicitRequestURLParams if mode == "url" else types.ElicitRequestFormParams
    return kind.model_validate(one, by_name=False)


def kept(params: Any) -> dict[str, Any]:
    """Parameters as they are kept in the state of a question."""
    found: dict[str, Any] = params.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"meta", "task"})
    return found
