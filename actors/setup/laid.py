"""Laid dependencies: one job's own copy of what a setup made, seen at its places in the workspace.

The copy lies beside the tree, never in it.  Folders are mounted over their
places for the time of a run, so no snapshot ever meets them; single files are
put into the tree and named in `scratch`, which is never recorded.  The copy is
the job's to change, and goes with its room.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actors.sandbox import WORKSPACE
from actors.sandbox.command import ENVIRONMENT

HOME: Final = ENVIRONMENT["HOME"]
VENV: Final = f"{HOME}/venv"
"""Of a Python project: where a bare `pip install` puts packages."""
_PROGRAMS: Final = ("venv/bin", ".local/bin", ".cargo/bin", "go/bin")
"""Below HOME: where package managers put programs."""
MADE: Final = "made.json"


@dataclass(frozen=True)
class Laid:
    """A copy at `place`: `home/` is HOME as the setup left it, `tree/` what lies in the tree."""

    place: Path
    key: str
    folders: tuple[str, ...]
    """Paths in the tree that are the setup's alone."""
    files: tuple[str, ...]

    @classmethod
    def at(cls, place: Path) -> Laid | None:
        """What lies at a place, if it is whole: `made.json` comes with the rest or not at all."""
        try:
            made = json.loads((place / MADE).read_text())
            return cls(place, made["key"], tuple(made["folders"]), tuple(made["files"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def names(self) -> tuple[str, ...]:
        """What is the setup's in the tree; a folder with a slash behind."""
        return (*(f"{folder}/" for folder in self.folders), *self.files)

    def covers(self, path: str) -> bool:
        """Whether a path in the tree is the setup's."""
        return path in (*self.files, *self.folders) or any(
            path.startswith(f"{folder}/") for folder in self.folders
        )

    def binds(self, tree: Path) -> dict[str, Path]:
        """Path inside to path outside, with the places in the tree made ready for it.

        A place that is not there any more, or is somebody else's now, is left out: the
        folder around it was removed or is a link, or a file took its name.
        """
        found = {HOME: self.place / "home"}
        for name in self.folders:
            place = tree / name
            if _is_folder(tree, name) and not place.is_symlink():
                if not place.exists():
                    place.mkdir()
                if place.is_dir():
                    found[f"{WORKSPACE}/{name}"] = self.place / "tree" / name
        for name in self.files:
            if _is_folder(tree, name) and not os.path.lexists(tree / name):
                _copy(self.place / "tree" / name, tree / name)
        return found

    def environment(self, path: Sequence[str]) -> Mapping[str, str]:
        """Variables with which the setup's programs are found.

        Args:
            path: folders of programs that every run has.
        """
        home = self.place / "home"
        own = [f"{HOME}/{name}" for name in _PROGRAMS if (home / name).is_dir()]
        venv = {"VIRTUAL_ENV": VENV} if (home / "venv/bin/python").is_symlink() else {}
        return {"PATH": ":".join((*own, *path)), **venv}


def _is_folder(tree: Path, name: str) -> bool:
    """Whether what a name lies in is a folder of the tree, reached without a link."""
    above = tree
    for part in Path(name).parts[:-1]:
        above /= part
        if above.is_symlink():
            return False
    return above.is_dir()


def _copy(source: Path, target: Path) -> None:
    shutil.copy2(source, target, follow_symlinks=False)
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
