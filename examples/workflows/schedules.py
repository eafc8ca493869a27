"""A workflow that brings its own schedule: it is made, or changed, when the file is registered."""

from flux import ExecutionContext, interval, task, workflow


@task
async def look() -> str:
    return "all is well"


@workflow.with_options(schedule=interval(hours=6))
async def watch(ctx: ExecutionContext[None]) -> str:
    return await look()


if __name__ == "__main__":
    print(watch.run().output)
