"""`troupe verify`: the runtime itself under simulated trouble; a running Troupe is not touched."""

from __future__ import annotations

import click

from actors.commands.base import Session, TroupeCommand


@click.command(
    cls=TroupeCommand,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    no_args_is_help=True,
    examples=[
        "troupe verify simulate --help",
        "troupe verify simulate --seeds 20",
        'troupe verify planted "limit off by one"',
        "troupe verify conformance --runs 20 --stores memory sqlite",
        "troupe verify powerloss --points 100",
        "troupe verify schedules --days 3 --schedules 30",
        "troupe verify cron --cases 1000",
    ],
)
@click.argument("name", metavar="NAME")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def verify(session: Session, name: str, options: tuple[str, ...]) -> int:
    """Run one verification: its figure as JSON, a sentence; exit code 1 when something was found.

    \b
    simulate       the runtime's own code under kills, cuts and lies, on virtual time
    planted        bugs put into it, each of which must be found
    crashpoints    a kill before and after every durable write and outside call of a job
    powerloss      power cuts of the SQLite file
    conformance    random work on every store and on a model of the contract
    authorization  every operation of the API with every kind of caller
    exposure       what a neighbour can reach of a deployment of its own
    secrets        canaries, searched for in all that a deployment writes and tells
    schedules      a month of schedules under kills, edits and clock steps; its books
    cron           due times of schedules beside a scan of every minute

    `troupe verify NAME --help` lists the options of one. Each needs no running
    Troupe: what it tries, it starts itself.

    A failing simulation names the seed and the first fact that shows it; the
    same seed does the same again.
    """
    from actors.verification.table import VERIFICATIONS  # noqa: PLC0415 - others start fast
    from runtime.verify.__main__ import main  # noqa: PLC0415

    as_json = ["--json"] if session.out.as_json else []
    return main([name, *options, *as_json], "troupe verify", VERIFICATIONS)
