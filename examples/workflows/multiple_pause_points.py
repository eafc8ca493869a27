"""Several pauses: one after the other, and several open at once that are answered by name."""

from flux import ExecutionContext, pause, workflow
from flux.tasks import parallel


@workflow
async def multiple_pause_points(ctx: ExecutionContext[str]) -> list[object]:
    first = await pause("first")
    others = await parallel(pause("left"), pause("right"))
    return [first, *others]


if __name__ == "__main__":
    context = multiple_pause_points.run()
    id = context.execution_id
    context = multiple_pause_points.resume(id, 1)
    context = multiple_pause_points.resume(id, "R", pause="right")
    context = multiple_pause_points.resume(id, "L")
    print(context.state, context.output)
