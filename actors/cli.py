"""The `troupe` command: its groups put together, and nothing else.

Everything but up, down, keys, backup, restore, export, purge, demo and
`schedule next` talks HTTP to a running Troupe.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import click

from actors.commands.agents import agents
from actors.commands.backup import backup, restore
from actors.commands.base import TroupeGroup
from actors.commands.chaos import chaos
from actors.commands.demo import demo
from actors.commands.explain import explain
from actors.commands.export import export
from actors.commands.failures import EXIT_CODES
from actors.commands.issues import cancel, issues
from actors.commands.jobs import jobs
from actors.commands.keys import keys
from actors.commands.letters import letters
from actors.commands.lifecycle import down, status, up
from actors.commands.purge import purge
from actors.commands.review import review
from actors.commands.scheduler import scheduler
from actors.commands.schedules import schedule
from actors.commands.submit import submit
from actors.commands.verify import verify
from actors.commands.watch import watch


def _version() -> str:
    try:
        return version("troupe")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


@click.group(
    "troupe",
    cls=TroupeGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@click.version_option(_version(), prog_name="troupe")
def main() -> None:
    """Troupe: an AI engineering department on your own machine or Ray cluster.

    Hand an issue in, watch an agent work on it, review what comes out; nothing
    is lost on the way, whatever is killed.

    \b
    A first walk:
      troupe up
      troupe submit --repo . --title "Export fails over 50 pages" --watch
      troupe review show issue_...
      troupe review approve issue_...

    The command finds the Troupe of this machine by itself; TROUPE_URL and
    TROUPE_TOKEN name another.
    """


for command in (
    up, down, status, submit, watch, issues, jobs, agents, letters, review, schedule, scheduler,
    cancel, explain, keys, backup, restore, export, purge, verify, chaos, demo,
):  # fmt: skip
    main.add_command(command)


if __name__ == "__main__":
    main()
