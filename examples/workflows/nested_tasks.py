"""Tasks that call tasks: each result is remembered, inner ones too."""

from flux import ExecutionContext, task, workflow


@task
async def price(item: str) -> int:
    return {"apple": 2, "pear": 3}.get(item, 1)


@task
async def total(items: list[str]) -> int:
    return sum([await price(item) for item in items])


@workflow
async def nested_tasks(ctx: ExecutionContext[list[str]]) -> int:
    return await total(ctx.input)


if __name__ == "__main__":
    print(nested_tasks.run(["apple", "pear", "plum"]).output)
