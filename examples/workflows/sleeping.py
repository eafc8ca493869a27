"""A sleep that no restart shortens or prolongs."""

from datetime import timedelta

from flux import ExecutionContext, task, workflow
from flux.tasks import sleep


@task
async def note(what: str) -> str:
    return what


@workflow
async def sleeping(ctx: ExecutionContext[float]) -> list[str]:
    before = await note("before")
    await sleep(timedelta(seconds=ctx.input))
    return [before, await note("after")]


if __name__ == "__main__":
    print(sleeping.run(0.1).output)
