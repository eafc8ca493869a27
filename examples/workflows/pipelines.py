"""Steps one after the other, and side by side."""

from flux import ExecutionContext, task, workflow
from flux.tasks import parallel, pipeline


@task
async def multiply_by_two(x: int) -> int:
    return x * 2


@task
async def add_three(x: int) -> int:
    return x + 3


@task
async def square(x: int) -> int:
    return x * x


@workflow
async def pipelines(ctx: ExecutionContext[int]) -> dict[str, object]:
    return {
        "one after the other": await pipeline(multiply_by_two, add_three, square, input=ctx.input),
        "side by side": await parallel(multiply_by_two(ctx.input), add_three(ctx.input), square(ctx.input)),
    }


if __name__ == "__main__":
    print(pipelines.run(5).output)
