"""The hierarchy of approvals, as a pure decision; the gate alone applies it.

From the weakest level to the strongest: the floor, the runtime's policies or in their absence the coordinator's
rules, the agent's own rules, and those of one tool: the agent's for it and the tool's own, of which the stricter wins.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ConfigDict

from flux.tools.rules import ApprovalRequest, Channel, Need, Rule, first_set, need_of, told

logger = logging.getLogger(__name__)

Predicate = Callable[[ApprovalRequest], bool | Awaitable[bool]]


class Channels(BaseModel):
    """A rule per channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plans: Rule = "default"
    tools: Rule = "default"

    def of(self, channel: Channel) -> Rule:
        """The rule of a channel."""
        rule: Rule = getattr(self, channel)
        return rule


#: What holds where nobody says otherwise.
FLOOR = Channels(plans="always", tools="never")


class Approvals(Channels):
    """The rules of one agent, with those of the levels above worked in.

    `overrides` are rules of single tools; `predicates` say where a predicate is found, as `module:name`.
    """

    overrides: dict[str, Rule] = {}
    predicates: dict[str, str] = {}


def base_rule(
    channel: Channel, *, runtime: Channels | None, coordinator: Channels | None, agent: Channels | None
) -> Rule:
    """The rule of an agent for a channel, before anything is said of single tools."""
    above = coordinator if runtime is None else runtime
    levels = (agent, above, FLOOR)
    return first_set(*(level.of(channel) for level in levels if level is not None))


def tool_need(approvals: Approvals, name: str, own: Rule) -> tuple[Need, str]:
    """What a call of a tool needs, whose own rule is `own`; and the rule it comes from."""
    override = approvals.overrides.get(name, "default")
    if override == "default" and own == "default":
        rule = first_set(approvals.tools, FLOOR.tools)
        return need_of(rule), f"approval of tools: {told(rule)}"
    said = [f"tool_approvals: {name}: {told(override)}"] * (override != "default")
    said += [f"the tool {name}: {told(own)}"] * (own != "default")
    return need_of(override) | need_of(own), "; ".join(said)


def plan_need(approvals: Approvals | None) -> tuple[Need, str]:
    """What a stored plan needs before it may be executed; and the rule it comes from."""
    rule = first_set(approvals.plans if approvals else None, FLOOR.plans)
    return need_of(rule), f"approval of plans: {told(rule)}"


async def judged(
    names: Iterable[str], predicates: Mapping[str, Predicate], request: ApprovalRequest
) -> dict[str, bool]:
    """What predicates say, each asked once. One that raises, or is not known here, says to ask a person."""
    return {name: await _says(name, predicates.get(name), request) for name in names}


async def _says(name: str, predicate: Predicate | None, request: ApprovalRequest) -> bool:
    if predicate is None:
        logger.warning("the predicate %s is not known here, so a person is asked", name)
        return True
    with suppress(Exception):
        return bool(await _called(predicate, request))
    logger.warning("the predicate %s failed for %s, so a person is asked", name, request.subject)
    return True


async def _called(predicate: Predicate, request: ApprovalRequest) -> Any:
    if inspect.iscoroutinefunction(predicate):
        return await predicate(request)
    verdict = await asyncio.to_thread(predicate, request)
    return await verdict if inspect.isawaitable(verdict) else verdict
