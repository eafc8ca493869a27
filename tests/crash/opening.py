"""Flux as a process opens it that is going to be killed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from flux.agents.define.definition import define
from flux.agents.process import Process, open_process
from flux.models.base import Model
from flux.settings import Settings
from flux.store.database import LOCAL
from flux.tools.base import Tool
from tests.crash.stage import Stage


def settings_of(stage: Stage, **more: Any) -> Settings:
    """The settings of a plan. A kill takes nothing that was written: only those who cut the power need syncs."""
    given = {"synchronous": "normal", **stage.plan.settings, **more}
    return Settings(home=stage.home / "flux", database_url=stage.plan.database, **given)


@asynccontextmanager
async def opened(
    stage: Stage,
    model: Model,
    tools: Mapping[str, Tool] | None = None,
    agent: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Process]:
    """Flux on the plan's home, with the model `crash/test`, these tools and this agent."""
    async with open_process(
        settings_of(stage, **settings),
        environment=dict(os.environ),
        workspace=stage.home,
        factories={"crash": lambda _: model},
        tools=tools,
        observer=stage.commits,
        worker=stage.plan.worker,
    ) as process:
        stage.process = process
        if agent is not None:
            await process.agents.put(LOCAL, define(dict(agent)), create=True, update=True)
        yield process
