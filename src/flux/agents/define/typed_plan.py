"""The part of a definition that says which typed plan an agent works with, and what it may do with it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from flux.tools.schema import schema_problem

#: The tools that a typed plan brings, by what the agent may do.
STORING = ("storePlan", "getPlan")
EXECUTING = ("getPlan", "executePlan", "resolveRef", "glimpseRef")


class TypedPlan(BaseModel):
    """A kind of plan. `json_schema` describes the whole, `lists` name its fields that hold actions.

    `actions` binds each type of action, by its `type`, to a tool (a name, or `{"function": "module:attribute"}`).
    `model` names the Pydantic model that checks more than the schema can say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")
    description: str = ""
    json_schema: dict[str, Any]
    lists: tuple[str, ...] = Field(min_length=1)
    actions: dict[str, str | dict[str, str]] = Field(min_length=1)
    may: tuple[Literal["store", "execute"], ...] = ("store", "execute")
    model: str | None = None

    @field_validator("json_schema")
    @classmethod
    def _usable(cls, schema: dict[str, Any]) -> dict[str, Any]:
        problem = schema_problem(schema)
        if schema.get("type") != "object" or problem:
            raise ValueError(problem or 'must be a JSON Schema of type "object"')
        return schema

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of the tools that it brings."""
        may = (*(STORING if "store" in self.may else ()), *(EXECUTING if "execute" in self.may else ()))
        return tuple(dict.fromkeys(may))
