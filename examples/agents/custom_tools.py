"""Tools of an agent: every `@task` at the top level is one.

    flux agent create support-bot --model scripted/demo --system-prompt "You are a support agent." \
        --tools-file examples/agents/custom_tools.py

The file is stored with the agent, and workers load it from there.
"""

from dataclasses import dataclass
from typing import Literal

from flux import task

ORDERS = {"A-17": "on its way", "B-4": "delivered"}
RATES = {"standard": 4.90, "express": 12.50}


@dataclass
class Parcel:
    weight_kg: float
    service: Literal["standard", "express"] = "standard"


@task.with_options(effect="read", timeout=10)
async def order_status(order: str) -> str:
    """Where an order is.

    Args:
        order: Its number, such as A-17.
    """
    return ORDERS.get(order, "there is no such order")


@task.with_options(effect="read")
def shipping_cost(parcels: list[Parcel]) -> dict[str, float]:
    """What it costs to send parcels, in euros."""
    return {"total": round(sum(RATES[one.service] + one.weight_kg for one in parcels), 2)}


def large(order: str, amount: float, reason: str = "") -> bool:
    return amount > 20


@task.with_options(requires_approval=large)
async def refund(order: str, amount: float, reason: str = "") -> str:
    """Pay money back. A person approves what is more than 20 euros."""
    return f"{amount:.2f} EUR for {order} paid back"
