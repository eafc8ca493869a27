"""One task for each of many items."""

from flux import ExecutionContext, task, workflow


@task
async def count(word: str) -> int:
    return len(word)


@workflow
async def task_map(ctx: ExecutionContext[list[str]]) -> int:
    return sum(await count.map(ctx.input))


if __name__ == "__main__":
    print(task_map.run(["many", "words", "here"]).output)
