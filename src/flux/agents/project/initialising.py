"""An agent of a project as one instance has it, and the store that it asks its conversations to be kept in."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from flux.agents.code.stores import SessionKey, check_store, exported, loaded
from flux.agents.define.agent import AgentCreateContext, CreatedAgent, Resolved, resolve
from flux.engine.running.run import Run
from flux.errors import AgentFailed, DefinitionInvalid, FluxError, InvalidInput, describe
from flux.store import log
from flux.store.log import History


async def initialised(agent: CreatedAgent, id: str, env: Any) -> Resolved:
    """The agent for an instance.

    :raises DefinitionInvalid, InvalidInput: its initialiser failed, or what that returned cannot be an agent
    """
    with telling(f"the initialiser of agent {agent.name} failed", DefinitionInvalid):
        resolved = await resolve(agent, AgentCreateContext(id, env))
    if resolved.persist is not None:
        check_store(resolved.persist)
    return resolved


async def history_of(agent: CreatedAgent, env: Any, key: SessionKey) -> History:
    """What a new session begins with: what the agent's store keeps of it.

    :raises AgentFailed: the agent cannot be initialised, or its store cannot be used
    """
    try:
        resolved = await initialised(agent, key.instance, env)
        if resolved.persist is None:
            return History()
        with telling(f"the session store of agent {agent.name} failed", AgentFailed):
            return await loaded(resolved.persist, key)
    except InvalidInput as error:  # nothing that the caller sent
        raise AgentFailed(str(error)) from error


async def forget(agent: CreatedAgent, env: Any, key: SessionKey) -> None:
    """Have the agent's store keep nothing of a session any more.

    :raises DefinitionInvalid, InvalidInput, AgentFailed: as `history_of`
    """
    resolved = await initialised(agent, key.instance, env)
    if resolved.persist is not None:
        with telling(f"the session store of agent {agent.name} failed", AgentFailed):
            await resolved.persist.delete(key)


async def save(resolved: Resolved, run: Run) -> None:
    """Give the store of an agent, if it has one, a session as it is now.

    :raises AgentFailed: the store cannot be used
    """
    row = run.execution
    if resolved.persist is None:
        return
    rows = await run.database.read(log.read(run.scope, row.id))
    key = SessionKey(resolved.name, row.instance or "", row.name or "")
    what = f"the session store of agent {resolved.name} failed; the next run of this session saves it"
    with telling(what, AgentFailed):
        await resolved.persist.save(key, exported([one.stored() for one in rows]))


class telling:  # noqa: N801 - used as a function is
    """Says of whatever code of the application raises whose it was."""

    def __init__(self, what: str, error: type[FluxError]) -> None:
        self._what = what
        self._error = error

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Tell."""
        if isinstance(error, Exception) and not isinstance(error, FluxError):
            raise self._error(f"{self._what}: {describe(error)}") from error
