"""A task that a person must approve, depending on its arguments.

`python approvals.py` stops at the question; `flux execution approvals` shows it, `flux execution approve` answers.
"""

from flux import ExecutionContext, task, workflow


@task.with_options(requires_approval=lambda amount: amount > 100)
async def transfer(amount: int) -> str:
    return f"transferred {amount}"


@workflow
async def approvals(ctx: ExecutionContext[int]) -> str:
    return await transfer(ctx.input)


if __name__ == "__main__":
    print(approvals.run(50).output)
    print(approvals.run(500).state)
