"""`troupe backup` and `troupe restore`: the store as one file, and back.

Both work on the machine that Troupe runs on, on the data directory itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from actors.commands.bars import bar
from actors.commands.base import Session, TroupeCommand
from actors.commands.failures import CommandError, WrongUsageError

if TYPE_CHECKING:
    from runtime.store.backup import Manifest
    from runtime.store.copies import Copied

PAGE_BYTES: Final = 4096
_File = click.Path(path_type=Path, dir_okay=False)


@click.command(
    cls=TroupeCommand,
    examples=[
        "troupe backup /var/backups/troupe.db",
        "troupe backup latest.db --force --json",
    ],
)
@click.argument("file", type=_File)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
async def backup(session: Session, file: Path, force: bool) -> None:
    """Write a backup of everything the store holds to FILE, while Troupe runs.

    The copy is as the store is when it ends. It is checked before it gets its
    name; what is there under that name stays until then. FILE holds whatever
    agents have seen and written: it is readable by you only.

    Not in it, because they can be made again: mirrors and workspaces. Not in it
    either: admin.key (a new one is made), logs, deliveries/.
    """
    from runtime.cluster import recovery  # noqa: PLC0415 - the other commands need no SQLite
    from runtime.cluster.recovery import (  # noqa: PLC0415
        BackupExistsError,
        RedisKeepsItselfError,
    )

    _here(session)
    out = session.out
    try:
        with bar(out, f"Copying to {file}") as advance:

            def copied(so_far: Copied) -> None:
                advance(so_far.pages_copied * PAGE_BYTES, so_far.pages * PAGE_BYTES)

            made = await recovery.backup(session.data, file, replace=force, on_copied=copied)
    except BackupExistsError as error:
        raise WrongUsageError(str(error), "Replace it with --force, or name another.") from error
    except RedisKeepsItselfError as error:
        raise WrongUsageError(str(error), REDIS) from error
    name, size = _facts(file)
    if out.as_json:
        return out.result({"file": name, "sizeBytes": size, **_wire(made)})
    out.say(f"{file}: {size:,} bytes, as of {made.taken_at}, checked.")
    out.say(f"Restore it with: troupe down && troupe restore {file}")


@click.command(
    cls=TroupeCommand,
    examples=["troupe restore /var/backups/troupe.db"],
)
@click.argument("file", type=_File)
def restore(session: Session, file: Path) -> None:
    """Make FILE, a backup, the store of the data directory. Troupe must be stopped.

    The store that was there is kept beside it. What was accepted after the
    backup is gone; what had an effect outside, such as a delivered branch, is
    found there and not made twice where it can be found. Everybody who followed
    events is told to read anew.
    """
    from runtime.cluster import recovery  # noqa: PLC0415 - as above
    from runtime.cluster.recovery import RedisKeepsItselfError, RunningError  # noqa: PLC0415

    _here(session)
    out = session.out
    try:
        with bar(out, f"Restoring {file}") as advance:
            done = recovery.restore(session.data, file, advance)
    except RunningError as error:
        raise CommandError(str(error), "Stop it with: troupe down") from error
    except RedisKeepsItselfError as error:
        raise WrongUsageError(str(error), REDIS) from error
    if out.as_json:
        kept = str(done.kept) if done.kept else None
        return out.result(
            {
                "data": str(session.data),
                "incarnation": done.incarnation,
                "kept": kept,
                "backup": _wire(done.manifest),
            }
        )
    out.say(f"The store is as it was at {done.manifest.taken_at}.")
    if done.kept:
        out.say(f"What it replaced is kept: {done.kept}")
    out.say("Start it with: troupe up")


REDIS: Final = (
    "Back up what Redis writes (AOF, RDB) with your own means. After you have put one back, "
    "restart redis-server: Troupe sees its new run id and voids everything of before."
)


def _here(session: Session) -> None:
    if session.settings.url:
        raise WrongUsageError(
            "This works on the machine that Troupe runs on.", "Run it there, without --url."
        )


def _facts(file: Path) -> tuple[str, int]:
    return str(file.absolute()), file.stat().st_size


def _wire(manifest: Manifest) -> dict[str, object]:
    return {
        "takenAt": manifest.taken_at,
        "schemaVersion": manifest.schema_version,
        "incarnation": manifest.incarnation,
        "headSeq": manifest.head_seq,
        "headCursor": manifest.head_cursor,
    }
