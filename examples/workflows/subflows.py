"""A workflow that calls another one, which is an execution of its own."""

from flux import ExecutionContext, call, task, workflow


@task
async def double(x: int) -> int:
    return x * 2


@workflow
async def inner(ctx: ExecutionContext[int]) -> int:
    return await double(ctx.input)


@workflow
async def subflows(ctx: ExecutionContext[list[int]]) -> list[int]:
    return [await call(inner, x) for x in ctx.input]


if __name__ == "__main__":
    print(subflows.run([1, 2, 3]).output)
