"""`troupe chaos`: a deployment of its own under faults, judged; a running Troupe is not touched."""

from __future__ import annotations

from typing import Final

import click

from actors.commands.base import Session, TroupeCommand

STORES: Final = ("sqlite", "redis")


@click.command(
    cls=TroupeCommand,
    examples=["troupe chaos", "troupe chaos --minutes 10 --store redis --seed 7"],
)
@click.option("--minutes", type=click.FloatRange(0.5), default=2.0, show_default=True)
@click.option("--store", type=click.Choice(STORES), default="sqlite", show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--whole/--processes",
    default=True,
    show_default=True,
    help="Whether Ray's own processes are killed too; each costs half a minute.",
)
def chaos(session: Session, minutes: float, store: str, seed: int, whole: bool) -> int:
    """Kill and pause the processes of a deployment of its own, and judge what is left.

    Clients send messages and hire workers over HTTP all the while, schedules fire,
    and the department works on issues: an agent on the scripted model in the
    sandbox, a reviewing agent, a person who approves or rejects, a branch in a bare
    repository. When everything is down, what was committed, promised and stored,
    has arrived, was billed and has outlived its host is judged by 27 rules; the
    report names those it had nothing to judge by. Without a sandbox on this machine
    the department is left out, and the report says why. It needs about two minutes
    more than it is given, 2 GB of memory, and redis-server for --store redis.
    """
    from actors.verification.department import Department  # noqa: PLC0415
    from actors.verification.sandboxes import refusal  # noqa: PLC0415
    from runtime.verify.chaos.plan import Plan  # noqa: PLC0415
    from runtime.verify.chaos.run import chaos as run  # noqa: PLC0415

    refused = refusal()
    plan = Plan(minutes, seed, store, whole, left_out=refused)
    made = run(plan, None if refused else Department())
    session.out.result(made.figure)
    session.out.say(made.sentence)
    for line in made.details:
        session.out.remark(line)
    return 0 if made.good else 1
