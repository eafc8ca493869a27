"""What happens when a task fails: it is tried again, then replaced, else undone."""

import asyncio

from flux import ExecutionContext, task, workflow
from flux.errors import ExecutionError

tries: list[str] = []


@task.with_options(retry_max_attempts=3, retry_delay=0.01, retry_backoff=2)
async def flaky() -> str:
    tries.append("flaky")
    if len(tries) < 3:
        raise ConnectionError("no answer")
    return f"worked at try {len(tries)}"


async def cheaper(city: str) -> str:
    return f"a hostel in {city}"


@task.with_options(fallback=cheaper)
async def book_hotel(city: str) -> str:
    raise ValueError(f"no rooms in {city}")


async def refund(amount: int) -> None:
    print("refunded", amount)


@task.with_options(rollback=refund)
async def pay(amount: int) -> None:
    raise ValueError("card declined")


@task.with_options(timeout=0.05)
async def forever() -> None:
    await asyncio.sleep(3600)


@workflow
async def failures(ctx: ExecutionContext[str]) -> list[str]:
    told = [await flaky(), await book_hotel(ctx.input)]
    for step in (pay(100), forever()):
        try:
            await step
        except ExecutionError as error:
            told.append(str(error))
    return told


if __name__ == "__main__":
    for line in failures.run("Rome").output:
        print(line)
