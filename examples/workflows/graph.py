"""A graph of tasks with a condition."""

from flux import ExecutionContext, task, workflow
from flux.tasks import Graph


@task
async def weigh(kilos: int) -> int:
    return kilos


@task
async def by_bike(kilos: int) -> str:
    return f"{kilos} kg by bike"


@task
async def by_truck(kilos: int) -> str:
    return f"{kilos} kg by truck"


@task
async def bill(how: str) -> str:
    return f"billed: {how}"


@workflow
async def deliver(ctx: ExecutionContext[int]) -> str:
    graph = (
        Graph("deliver")
        .add_node("weigh", weigh)
        .add_node("bike", by_bike)
        .add_node("truck", by_truck)
        .add_node("bill", bill)
        .add_edge("weigh", "bike", condition=lambda kilos: kilos < 20)
        .add_edge("weigh", "truck", condition=lambda kilos: kilos >= 20)
        .add_edge("bike", "bill")
        .add_edge("truck", "bill")
        .start_with("weigh")
        .end_with("bill")
    )
    return str(await graph(ctx.input))


if __name__ == "__main__":
    print(deliver.run(5).output)
    print(deliver.run(50).output)
