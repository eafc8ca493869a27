"""Rules of approval as data: whether a person is asked before something is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Word = Literal["always", "never", "default"]
#: `plans`: before a stored plan may be executed. `tools`: before a tool call.
Channel = Literal["plans", "tools"]


class Dynamic(BaseModel):
    """A rule that a function of the application decides anew each time; `value` is the id of the predicate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["dynamic"] = "dynamic"
    value: str = Field(min_length=1)


#: "always": a person is asked. "never": nobody is. "default": as the level above says.
Rule = Word | Dynamic


class ApprovalRequest(Struct, frozen=True):
    """What a predicate decides about: a tool call (`subject` is its name), or a plan (`subject` is what it is called).

    `args` are the arguments of the call, or the plan.
    """

    channel: Channel
    agent: str
    subject: str
    args: Mapping[str, Any]


class Need(Struct, frozen=True):
    """What a rule comes to: a person is asked, or is when one of these predicates says so."""

    ask: bool = False
    predicates: tuple[str, ...] = ()

    def __or__(self, other: Need) -> Need:
        """The stricter of both."""
        if self.ask or other.ask:
            return Need(ask=True)
        return Need(predicates=tuple(dict.fromkeys((*self.predicates, *other.predicates))))

    def asks(self, verdicts: Mapping[str, bool]) -> bool:
        """Whether a person is asked, by what the predicates have said; one that has not is taken to ask."""
        return self.ask or any(verdicts.get(one, True) for one in self.predicates)


def need_of(rule: Rule) -> Need:
    """What a rule comes to; "default" that no level above replaces asks nobody."""
    return Need(predicates=(rule.value,)) if isinstance(rule, Dynamic) else Need(ask=rule == "always")


def first_set(*rules: Rule | None) -> Rule:
    """The first rule that is not "default", nor missing."""
    return next((rule for rule in rules if rule not in (None, "default")), None) or "default"


def rule_of(given: Any) -> Rule:
    """A rule of what somebody wrote.

    :raises ValueError: it is none
    """
    if isinstance(given, Dynamic) or given in get_args(Word):
        found: Rule = given
        return found
    try:
        return Dynamic.model_validate(given)
    except ValidationError:
        shown = repr(given)[:80]
        raise ValueError(
            f'{shown} is no rule: "always", "never", "default" or {{"kind": "dynamic", "value": PREDICATE}}'
        ) from None


def told(rule: Rule) -> str:
    """A rule in a few words."""
    return f"predicate {rule.value}" if isinstance(rule, Dynamic) else rule
