"""The base of a job: the commit it started from, and the private git dir made for it.

Both are made once and never changed.  The git dir holds only what the job
adds; everything older is read from the mirror.  Its attributes win over every
.gitattributes, so files go in and come out byte for byte.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from actors.git import Git, decode
from actors.mirror import Mirror
from actors.room import disk_errors, quiet_rooms_removed, remove

ATTRIBUTES = "* -text !eol -crlf -filter -ident !working-tree-encoding !diff !merge\n"
SUBMODULE = "160000"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Base:
    """What a job started from; kept in `base.json`."""

    commit: str
    tree: str
    mirror: str
    files: int
    """Entries of the tree."""
    submodules: tuple[str, ...]
    """Their paths; their content is never fetched."""
    boot: str
    """Of the machine: after a power loss files may be half there, so all is made anew."""


def recorded(job: Path) -> Base | None:
    """The base noted in a job's directory."""
    try:
        return Base(**json.loads((job / "base.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


async def established(job: Path, copy: Mirror) -> Base:
    """The base for a mirror's commit: what is there if it is that and whole, else made anew."""
    base = recorded(job)
    if base is not None and _is_whole(job, base, copy):
        return base
    await remove(job / "base.json")
    await remove(job / "git")
    await quiet_rooms_removed(job)
    base = await _examined(copy)
    await _git_dir(job / "git", copy)
    with disk_errors():
        (job / "base.new").write_text(json.dumps(asdict(base)))
        (job / "base.new").rename(job / "base.json")
    return base


def _is_whole(job: Path, base: Base, copy: Mirror) -> bool:
    same = (base.commit, base.mirror, base.boot) == (copy.commit, str(copy.path), _boot())
    return same and (job / "git" / "HEAD").exists()


async def _examined(copy: Mirror) -> Base:
    tree = (await copy.git.run("rev-parse", "--verify", f"{copy.commit}^{{tree}}")).text
    listing = await copy.git.run("ls-tree", "-r", "-z", "--full-tree", tree)
    entries = [entry.partition("\t") for entry in decode(listing.stdout).split("\0")[:-1]]
    submodules = tuple(path for mode, _, path in entries if mode.startswith(SUBMODULE))
    return Base(copy.commit, tree, str(copy.path), len(entries), submodules, _boot())


def _boot() -> str:
    return BOOT_ID.read_text().strip()


async def _git_dir(git_dir: Path, copy: Mirror) -> None:
    object_format = "sha1" if len(copy.commit) == 40 else "sha256"
    await Git(git_dir).run(
        "init", "--quiet", "--bare", "--template=", f"--object-format={object_format}"
    )
    with disk_errors():
        _borrow(git_dir, copy.path)
    await Git(git_dir).run("config", "core.bare", "false")


def _borrow(git_dir: Path, mirror: Path) -> None:
    """Read older objects from the mirror, and take files as they are."""
    for directory in (git_dir, git_dir / "objects/info", git_dir / "info"):
        directory.mkdir(exist_ok=True, mode=0o700)
    (git_dir / "objects/info/alternates").write_text(f"{mirror / 'objects'}\n")
    (git_dir / "info/attributes").write_text(ATTRIBUTES)
    if (mirror / "shallow").exists():
        (git_dir / "shallow").write_bytes((mirror / "shallow").read_bytes())
