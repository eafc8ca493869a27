"""Telling how far a task is, to whoever watches."""

from flux import ExecutionContext, task, workflow
from flux.tasks import progress as tell


@task
async def crunch(parts: int) -> int:
    for part in range(parts):
        await tell({"done": part + 1, "of": parts})
    return parts


@workflow
async def progress(ctx: ExecutionContext[int]) -> int:
    return await crunch(ctx.input)


if __name__ == "__main__":
    print(progress.run(3).output)
