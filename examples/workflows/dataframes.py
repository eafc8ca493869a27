"""Results that are no plain JSON: data frames, dates, decimals and your own data classes come back as they were."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import pandas as pd

from flux import ExecutionContext, task, workflow


@dataclass
class Sale:
    day: date
    amount: Decimal


@task
async def load() -> list[Sale]:
    return [Sale(date(2026, 1, 5), Decimal("9.50")), Sale(date(2026, 1, 6), Decimal("20.25"))]


@task
async def table(sales: list[Sale]) -> pd.DataFrame:
    return pd.DataFrame({"day": [str(sale.day) for sale in sales], "amount": [float(sale.amount) for sale in sales]})


@workflow
async def dataframes(ctx: ExecutionContext[None]) -> dict[str, object]:
    frame = await table(await load())
    return {"rows": len(frame), "sum": frame["amount"].sum().item()}


if __name__ == "__main__":
    print(dataframes.run().output)
