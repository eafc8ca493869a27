"""Chance and the clock, remembered: the same when the workflow goes on."""

from flux import ExecutionContext, pause, workflow
from flux.tasks import choice, now, randint, randrange, uuid4


@workflow
async def determinism(ctx: ExecutionContext[None]) -> bool:
    before = [await now(), await uuid4(), await choice(["a", "b"]), await randint(1, 9), await randrange(0, 9, 3)]
    shown = await pause("look", output=[str(value) for value in before])
    return [str(value) for value in before] == shown


if __name__ == "__main__":
    context = determinism.run()
    print(determinism.resume(context.execution_id, context.pause["output"]).output)
