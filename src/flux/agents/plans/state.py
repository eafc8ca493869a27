"""Where a typed plan stands: a fold of its entries in the logs of a session and of those that belong to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from flux.agents.plans.checks import Checked
from flux.engine.running.run import Run
from flux.errors import PlanInvalid
from flux.events import PlanChanged, PlanState, ToolDone
from flux.store import log
from flux.store.database import Database, Scope

STOPPED = "its run was stopped"
#: The only ways from one state to the next.
ARROWS: Mapping[PlanState, tuple[PlanState, ...]] = {
    "draft": ("awaiting_approval",),
    "awaiting_approval": ("approved", "rejected"),
    "approved": ("executing",),
    "rejected": (),
    "executing": ("completed", "failed", "cancelled"),
    "completed": (),
    "failed": (),
    "cancelled": (),
}


class StoredPlan(Struct, frozen=True):
    """A version of a plan and its state. `call` is the call that brought it there; `actions` tell how they ended.

    `stale`: the log has it as executing, but the call that executed it is over, without a word of the plan.
    """

    name: str
    version: int
    state: PlanState
    digest: str
    value: dict[str, Any]
    call: str
    rule: str = ""
    reason: str = ""
    actions: tuple[dict[str, Any], ...] = ()
    stale: bool = False

    def to(self, state: PlanState, call: str, **more: Any) -> PlanChanged:
        """The entry by which it gets into another state.

        :raises PlanInvalid: no arrow leads there
        """
        if state not in ARROWS[self.state]:
            raise PlanInvalid(f"plan {self.name} version {self.version} is {self.state}; it cannot become {state}")
        return PlanChanged(plan=self.name, revision=self.version, state=state, digest=self.digest, call=call, **more)

    def told(self) -> dict[str, Any]:
        """The plan as JSON."""
        state = "cancelled" if self.stale else self.state
        said = {"plan": self.name, "version": self.version, "state": state, "digest": self.digest}
        more = {"reason": STOPPED if self.stale else self.reason, "actions": list(self.actions)}
        return {**said, "value": self.value, **{key: value for key, value in more.items() if value}}


def drafted(name: str, before: StoredPlan | None, checked: Checked, call: str) -> PlanChanged:
    """The entry of a new version."""
    version = before.version + 1 if before is not None else 1
    return PlanChanged(
        plan=name, revision=version, state="draft", digest=checked.digest, call=call, value=checked.value
    )


def after(plan: StoredPlan | None, entry: PlanChanged) -> StoredPlan:
    """The plan as an entry leaves it."""
    if plan is None or entry.revision != plan.version:
        return StoredPlan(
            entry.plan, entry.revision, entry.state, entry.digest, entry.value or {}, entry.call, entry.rule
        )
    return replace(
        plan,
        state=entry.state,
        call=entry.call,
        rule=entry.rule or plan.rule,
        reason=entry.reason,
        actions=entry.actions or plan.actions,
    )


def folded(entries: Sequence[PlanChanged], name: str | None = None) -> StoredPlan | None:
    """The newest version of a plan of this name, or of any."""
    plan: StoredPlan | None = None
    for entry in entries:
        if name is not None and entry.plan != name:
            continue
        before = plan if plan is not None and plan.name == entry.plan else None
        if before is None or entry.revision >= before.version:
            plan = after(before, entry)
    return plan


async def current(run: Run, name: str) -> StoredPlan | None:
    """The newest version of a plan, whoever of the session's family stored it."""
    return await newest(run.database, run.scope, run.execution.root, name)


async def newest(database: Database, scope: Scope, root: str, name: str | None = None) -> StoredPlan | None:
    """The same for whoever asks about a session from outside; without a name, the plan that changed last."""
    rows = await database.read(log.read_in_tree(scope, root, PlanChanged))
    plan = folded([entry for row in rows if isinstance(entry := row.stored().entry, PlanChanged)], name)
    if plan is None or plan.state != "executing":
        return plan
    done = await database.read(log.read_in_tree(scope, root, ToolDone))
    over = any(isinstance(entry := row.stored().entry, ToolDone) and entry.call == plan.call for row in done)
    return replace(plan, stale=over)
