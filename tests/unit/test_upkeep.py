"""What jobs leave on a machine is bounded, and nothing that is in use is ever removed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.department import kinds
from actors.mirror import RepositorySource, Share, locked, mirror
from actors.settings import DepartmentSettings
from actors.upkeep import EVERY_S, QUIET_S, Upkeep
from actors.workspace import Workspace
from tests.unit.test_setup_cache import dependencies, to_do
from tests.workshop import git, names, needs_sandbox, put, refusals, repository, until, workspace

DAY_S = 86_400.0
LARGE = 1 << 40


def upkeep(root: Path, days: float = 30.0, bytes_max: int = LARGE, later_s: float = 0.0) -> Upkeep:
    """At work `later_s` from now."""
    return Upkeep(root / "data", days, bytes_max, lambda: time.time() + later_s)


def mirrors(root: Path) -> list[str]:
    return names(root / "data" / "mirrors")


async def used(root: Path, name: str, days_ago: float = 0.0, bytes_: int = 100) -> Workspace:
    """A repository of some size, worked on so many days ago; the workspace is open."""
    origin = repository(root / name, {"a": os.urandom(bytes_)})
    source = RepositorySource(str(origin))
    space = await Workspace.open(root / "data", f"job_{name}", source)
    then = time.time() - days_ago * DAY_S
    os.utime(space.git.git_dir.parents[2] / "mirrors" / _use_of(space), (then, then))
    return space


def _use_of(space: Workspace) -> str:
    return Path(space._base.mirror).with_suffix(".use").name


async def test_a_mirror_that_nobody_used_for_long_is_removed_and_fetched_again(
    tmp_path: Path,
) -> None:
    """Every repository that was ever worked on would stay on the disk for ever."""
    old, new = await used(tmp_path, "old", days_ago=31), await used(tmp_path, "new", days_ago=29)
    await old.close()
    await new.close()
    await upkeep(tmp_path).run()
    kept = Path(new._base.mirror).stem
    assert mirrors(tmp_path) == [f"{kept}.git", f"{kept}.lock", f"{kept}.use"]
    again = await Workspace.open(
        tmp_path / "data", "job_2", RepositorySource(str(tmp_path / "old")),
        base_commit=old.base_commit,
    )  # fmt: skip
    assert (again.tree_path / "a").exists()


@needs_sandbox
async def test_use_makes_mirrors_and_dependencies_young_again(tmp_path: Path) -> None:
    """What is used every day would be removed a month after it was made."""
    await (await used(tmp_path, "old", days_ago=40)).close()
    entries = tmp_path / "data" / "dependencies"
    source = RepositorySource(str(tmp_path / "old"))
    for number in range(2):
        space = await Workspace.open(tmp_path / "data", f"job_{number}", source)
        await dependencies(tmp_path).lay(to_do("mkdir lib"), space, f"job_{number}")
        await space.close()
        for lock in entries.glob("*.lock") if number == 0 else ():
            os.utime(lock, (0, 0))
    await upkeep(tmp_path).run()
    assert len(mirrors(tmp_path)) == 3 and len(names(entries)) == 2


async def test_a_mirror_in_use_is_never_removed(tmp_path: Path) -> None:
    """A running job would lose the files it reads, in the middle of its work."""
    space = await used(tmp_path, "old", days_ago=365)
    await upkeep(tmp_path, bytes_max=0).run()
    assert await space.has(space.base_tree)
    put(space.tree_path, {"b": "1"})
    await space.snapshot()
    space.release()
    await upkeep(tmp_path, bytes_max=0).run()
    assert mirrors(tmp_path) == []


async def test_a_mirror_that_is_being_fetched_is_left_alone(tmp_path: Path) -> None:
    """A fetch would write into a folder that is gone."""
    space = await used(tmp_path, "old", days_ago=365)
    place = Path(space._base.mirror)
    await space.close()
    async with locked(place.with_suffix(".lock")):
        await upkeep(tmp_path).run()
        assert place.exists()
    await upkeep(tmp_path).run()
    assert not place.exists()


async def test_beyond_the_size_those_unused_longest_go_first(tmp_path: Path) -> None:
    """A busy machine would fill its disk within the days."""
    for days_ago, name in enumerate(("newest", "middle", "oldest")):
        await (await used(tmp_path, name, days_ago, bytes_=300_000)).close()
    await upkeep(tmp_path, bytes_max=800_000).run()
    left = [name for name in mirrors(tmp_path) if name.endswith(".git")]
    assert len(left) == 2
    for name in ("newest", "middle"):
        source = RepositorySource(str(tmp_path / name))
        known = git(tmp_path / name, "rev-parse", "HEAD")
        (tmp_path / name).rename(tmp_path / f"{name}-away")
        (tmp_path / name).mkdir()
        assert (await mirror(tmp_path / "data", source, None, known)).commit == known


async def test_opening_waits_while_a_mirror_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that begins in that moment would work on half of a mirror."""
    space = await used(tmp_path, "old", days_ago=365)
    await space.close()
    use = Path(space._base.mirror).with_suffix(".use")
    refused = refusals(monkeypatch, Share, "taken")
    async with locked(use):
        opening = asyncio.ensure_future(
            Workspace.open(tmp_path / "data", "job_2", RepositorySource(str(tmp_path / "old")))
        )
        async with asyncio.timeout(20):
            await refused.wait()
        assert not opening.done()
        use.unlink()  # as upkeep does, before it lets go
    again = await opening
    await upkeep(tmp_path, bytes_max=0, later_s=400 * DAY_S).run()
    assert await again.has(again.base_tree), "the share is in the file that is there now"


async def test_a_share_in_a_mirror_that_was_just_removed_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job would hold a lock that nobody looks at any more, and lose its mirror later."""
    take = Share.taken
    rivals = iter([Path.unlink])

    def late(share: Share) -> bool:
        for remove in rivals:  # the other process is done between our two calls
            remove(next((tmp_path / "data" / "mirrors").glob("*.use")))
        return take(share)

    monkeypatch.setattr(Share, "taken", late)
    space = await workspace(tmp_path)
    await upkeep(tmp_path, bytes_max=0, later_s=400 * DAY_S).run()
    assert await space.has(space.base_tree)


async def test_a_removal_or_a_clone_killed_half_way_is_finished(tmp_path: Path) -> None:
    """Halves would stay on the disk for ever, or be taken for whole."""
    folder = tmp_path / "data" / "mirrors"
    for name in ("a.gone", "b.new"):
        put(folder / name, {"objects/x": "1"})
    space = await used(tmp_path, "new")
    half = Path(space._base.mirror) / "objects" / "pack" / "tmp_pack_Ab12"
    half.write_text("half")
    await upkeep(tmp_path).run()
    assert not half.exists()
    assert [name for name in mirrors(tmp_path) if name.endswith((".gone", ".new"))] == []
    assert await space.has(space.base_tree)


async def test_a_mirror_of_many_packs_is_packed_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading would slow down with every push, or a job's base be gone after a force-push."""
    monkeypatch.setattr("actors.upkeep.PACKS_MAX", 3)
    origin = repository(tmp_path / "origin")
    seen = []
    for number in range(5):
        put(origin, {"a": str(number)})
        git(origin, "add", "--all")
        git(origin, "commit", "--quiet", "--amend", "--message", str(number))
        space = await workspace(tmp_path, job_id=f"job_{number}")
        seen.append(space.base_commit)
        await space.close()
    [place] = (tmp_path / "data" / "mirrors").glob("*.git")
    assert len(list(place.glob("objects/pack/*.pack"))) == 5
    await upkeep(tmp_path).run()
    assert len(list(place.glob("objects/pack/*.pack"))) == 1
    for base in seen:
        again = await Workspace.open(
            tmp_path / "data", f"again_{base}", RepositorySource(str(origin)), base_commit=base
        )
        assert again.base_commit == base


# Jobs


async def test_what_a_killed_host_left_is_removed_once_it_is_quiet_for_long(tmp_path: Path) -> None:
    """Workspaces of jobs that ended elsewhere would fill the disk."""
    script = (
        "import asyncio; from pathlib import Path; from tests.workshop import workspace\n"
        f"space = asyncio.run(workspace(Path({str(tmp_path)!r})))\n"
        "print('open', flush=True); input()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    victim = subprocess.Popen([sys.executable, "-c", script], cwd=Path.cwd(), **pipes)  # type: ignore[call-overload]
    assert victim.stdout.readline() == b"open\n"
    jobs = tmp_path / "data" / "jobs"
    await upkeep(tmp_path, later_s=2 * QUIET_S).run()
    assert names(jobs) == ["job_1"], "a living host is in it"
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    (jobs / ".opening-job_9").touch()
    await upkeep(tmp_path, later_s=QUIET_S / 2).run()
    assert names(jobs) == [".opening-job_9", "job_1"], "its job may yet go on here"
    await upkeep(tmp_path, later_s=2 * QUIET_S).run()
    assert names(jobs) == []


async def test_a_place_that_is_being_opened_is_left_alone(tmp_path: Path) -> None:
    """A job that goes on here would lose its tree while it looks at it."""
    space = await workspace(tmp_path)
    space.release()
    async with locked(tmp_path / "data" / "jobs" / ".opening-job_1"):
        await upkeep(tmp_path, later_s=2 * QUIET_S).run()
    assert (await workspace(tmp_path)).tree_path == space.tree_path


# Dependencies


@needs_sandbox
async def test_dependencies_are_bounded_the_same_way(tmp_path: Path) -> None:
    """Every state of a lock file would stay on the disk for ever."""
    space = await workspace(tmp_path)
    entries = tmp_path / "data" / "dependencies"
    for number in range(3):
        key = str(number) * 64
        recipe = to_do("head -c 300000 /dev/zero > lib", key)
        await dependencies(tmp_path).lay(recipe, space, "job_1")
        then = time.time() - (40 - 10 * number) * DAY_S
        os.utime(entries / f"{key}.lock", (then, then))
    await upkeep(tmp_path, days=35.0).run()
    assert names(entries) == ["1" * 64, f"{'1' * 64}.lock", "2" * 64, f"{'2' * 64}.lock"]
    async with locked(entries / f"{'1' * 64}.lock"):
        await upkeep(tmp_path, days=25.0).run()
        assert len(names(entries)) == 4, "it is being copied"
    await upkeep(tmp_path, bytes_max=700_000).run()
    assert names(entries) == ["2" * 64, f"{'2' * 64}.lock"]


# When


async def test_only_one_process_does_it_at_a_time(tmp_path: Path) -> None:
    """Two hosts would remove under each other's feet."""
    await (await used(tmp_path, "old", days_ago=365)).close()
    async with locked(tmp_path / "data" / "upkeep.lock"):
        await upkeep(tmp_path).run()
        assert len(mirrors(tmp_path)) == 3
    await upkeep(tmp_path).run()
    assert mirrors(tmp_path) == []


async def test_a_host_begins_it_when_it_starts(tmp_path: Path) -> None:
    """Nothing would ever be removed."""
    await (await used(tmp_path, "old", days_ago=365)).close()
    (tmp_path / "data").rename(tmp_path / "workspaces")
    made = kinds(DepartmentSettings(data_dir=tmp_path))
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == "upkeep"]
    await until(lambda: not names(tmp_path / "workspaces" / "mirrors"))
    assert made and EVERY_S <= 3_600 and not task.done()
    task.cancel()


async def test_a_failure_is_logged_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One unreadable folder would end all upkeep of a host, unseen."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "upkeep.lock").mkdir()
    host = upkeep(tmp_path)
    host.begin()
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == "upkeep"]
    await until(lambda: [one for one in caplog.records if one.name == "actors.upkeep"])
    said = next(one for one in caplog.records if one.name == "actors.upkeep")
    assert said.__dict__["action"] == "caches.failed" and not task.done()
    task.cancel()


async def test_a_machine_without_any_job_has_nothing_to_do(tmp_path: Path) -> None:
    """A host that starts for the first time would fail."""
    await upkeep(tmp_path).run()
    assert not (tmp_path / "data").exists()
