"""The command that looks for what may be wrong."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

import click
from attrs import asdict

from gateway import config
from gateway.cli.output import json_option, show_json
from gateway.config import Config
from gateway.doctor.examination import examine
from gateway.doctor.findings import Finding, Health

_MARKS: Final = {
    Health.OK: ("ok", "green"),
    Health.WARNING: ("warning", "yellow"),
    Health.FAILED: ("FAILED", "red"),
    Health.SKIPPED: ("-", "bright_black"),
}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look for what may be wrong, and say what to do.

    Database, migrations, secret, clocks, Redis, data directory, disk, file modes, backends and who else
    reaches them, slots, time-outs, the proxy in front. Changes nothing. Exits with 1 when a check failed.

    \b
    Examples:
      neuronetz-gateway doctor
      neuronetz-gateway doctor --json
    """
    findings = asyncio.run(_all(config.load()))
    if as_json:
        show_json([{**asdict(one), "health": one.health.value} for one in findings])
    else:
        _show(findings)
    if any(one.health is Health.FAILED for one in findings):
        raise SystemExit(1)


async def _all(settings: Config) -> list[Finding]:
    return [finding async for finding in examine(settings)]


def _show(findings: Sequence[Finding]) -> None:
    """A line each, and below it what to do: nothing of it is cut, however narrow the terminal."""
    width = max(len(one.check) for one in findings)
    for one in findings:
        mark, colour = _MARKS[one.health]
        click.echo(f"{click.style(f'{mark:<7}', fg=colour)}  {one.check:<{width}}  {one.sentence}")
        if one.remedy:
            click.echo(f"{'':7}  {'':{width}}  → {one.remedy}")
    counted = Counter(one.health for one in findings)
    click.echo(
        f"\n{counted[Health.FAILED]} failed, {counted[Health.WARNING]} to look at, {counted[Health.OK]} fine."
    )
