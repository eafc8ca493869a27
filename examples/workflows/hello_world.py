"""The smallest workflow: one task. Run it with `python hello_world.py`."""

from flux import ExecutionContext, task, workflow


@task
async def say_hello(name: str) -> str:
    return f"Hello, {name}"


@workflow
async def hello_world(ctx: ExecutionContext[str]) -> str:
    return await say_hello(ctx.input)


if __name__ == "__main__":
    context = hello_world.run("Joe")
    print(context.state, context.output)
