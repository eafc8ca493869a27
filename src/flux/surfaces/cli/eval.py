"""`flux eval`: run cases against an agent, in a place of its own, and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from flux.errors import InvalidInput
from flux.surfaces.cli.connect import run
from flux.surfaces.cli.options import MODEL, format_option, print_json, print_table, server_option
from flux.surfaces.evaluation import Verdict, cases_of, chosen


@click.command("eval")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--case", "names", multiple=True, metavar="NAME", help="Only this case; may be repeated.")
@click.option("--model", metavar=MODEL, help="Use this model instead of that of the agents.")
@click.option(
    "--jobs", type=click.IntRange(1, 64), metavar="N", default=4, show_default=True, help="Cases at the same time."
)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Also write the JSON report there.")
@format_option()
@server_option
def evaluate(
    file: Path,
    names: tuple[str, ...],
    model: str | None,
    jobs: int,
    report: Path | None,
    format_: str,
    server: str | None,
) -> int:
    """Run the cases in FILE: what is said, and what must come of it. Exit code 1: a case did not do as it should."""
    from flux.surfaces.cli.evaluating import Evaluation

    cases = cases_of(file)
    if report is not None:
        _check_writable(report)
    evaluation = Evaluation(cases, file.parent, model, server)
    verdicts = run(evaluation.run(chosen(cases.cases, names), jobs))
    told = told_as_json(verdicts)
    if report is not None:
        report.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    if format_ == "json":
        print_json(told)
    else:
        rows = [_row(one) for one in verdicts]
        print_table(("CASE", "RESULT", "SECONDS", "WHY"), rows, "No cases.")
        click.echo(f"{told['passed']} of {len(verdicts)} cases passed.", err=True)
    return 0 if told["failed"] == 0 else 1


def _check_writable(report: Path) -> None:
    """Before cases run, which may cost something.

    :raises InvalidInput: nothing can be written there
    """
    try:
        report.touch()
    except OSError as error:
        raise InvalidInput(f"--report {report}: {error.strerror or error}") from error


def _row(one: Verdict) -> tuple[str, ...]:
    return one.name, "passed" if one.passed else "FAILED", f"{one.seconds:.1f}", "; ".join(one.faults)


def told_as_json(verdicts: list[Verdict]) -> dict[str, Any]:
    """The report."""
    cases = [
        {
            "name": one.name,
            "passed": one.passed,
            "seconds": round(one.seconds, 3),
            "faults": list(one.faults),
            "text": one.text,
        }
        for one in verdicts
    ]
    passed = sum(one.passed for one in verdicts)
    return {"passed": passed, "failed": len(verdicts) - passed, "cases": cases}
