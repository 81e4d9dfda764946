"""The cache of dependencies: made once, whole or not at all, within its limits."""

from __future__ import annotations

import asyncio
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.errors import RepositoryBusyError, SetupFailedError
from actors.setup.cache import Dependencies
from actors.setup.recipe import Recipe
from actors.setup.run import SetupLimits
from actors.workspace import Workspace
from tests.workshop import SANDBOX, bash, names, needs_sandbox, put, until, workspace

pytestmark = needs_sandbox
KEY = "0" * 64
WITHIN_S = 30.0


def dependencies(root: Path, **limits: object) -> Dependencies:
    return Dependencies(root / "data" / "dependencies", SANDBOX, SetupLimits(**limits))  # type: ignore[arg-type]


def to_do(command: str, key: str = KEY, python: bool = False) -> Recipe:
    return Recipe(command, key, python)


async def laid(root: Path, command: str, job_id: str = "job_1", **limits: object) -> Workspace:
    """A job's workspace after a setup."""
    space = await workspace(root, job_id=job_id)
    await dependencies(root, **limits).lay(to_do(command), space, job_id)
    return space


async def run(space: Workspace, command: str, **how: object) -> tuple[int, str]:
    """A command as an agent's tool runs it."""
    assert space.laid is not None
    binds = space.laid.binds(space.tree_path)
    env = space.laid.environment(("/usr/bin", "/bin"))
    done = await bash(space.tree_path, command, binds=binds, env=env, **how)
    return done.exit_code, (done.stdout + done.stderr).decode()


async def test_folders_are_mounted_files_are_copied_and_the_tree_stays_as_it_is(
    tmp_path: Path,
) -> None:
    """Every snapshot would walk through the dependencies, and a restore remove them."""
    command = "mkdir -p a/lib; echo 1 > a/lib/x; echo 2 > '*v [1].txt'; ln -s a l"
    space = await laid(tmp_path, command)
    assert space.laid is not None
    assert space.laid.names == ("a/", "*v [1].txt", "l")
    everything = "cat a/lib/x *v*; readlink l"
    assert await run(space, everything) == (0, "1\n2\na\n")
    assert await run(space, everything, read_only=True) == (0, "1\n2\na\n")
    assert names(space.tree_path / "a") == [], "seen in the sandbox alone"
    put(space.tree_path, {"new": "x"})
    tree = await space.snapshot()
    assert [change.path for change in await space.changes(space.base_tree, tree)] == ["new"]
    await space.restore(space.base_tree)
    assert names(space.tree_path) == ["*v [1].txt", "README.md", "a", "l"]
    assert await run(space, everything) == (0, "1\n2\na\n")
    assert await space.snapshot() == space.base_tree


async def test_files_that_a_setup_changes_in_the_tree_are_as_they_were(tmp_path: Path) -> None:
    """A job would begin with a change that is not its agent's."""
    space = await laid(tmp_path, "echo x >> README.md; rm -f gone; mkdir lib")
    assert (await run(space, "cat README.md"))[1] == "hello\n"
    assert await space.snapshot() == space.base_tree


async def test_a_setup_killed_half_way_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    """A job would run its tests on half of the dependencies for ever."""
    space = await workspace(tmp_path)
    script = (
        "import asyncio; from pathlib import Path\n"
        "from tests.unit.test_setup_cache import dependencies, to_do, workspace\n"
        f"root = Path({str(tmp_path)!r})\n"
        "async def main():\n"
        "    space = await workspace(root, job_id='job_2')\n"
        "    half = to_do('mkdir lib; echo half > lib/x; sleep 600')\n"
        "    await dependencies(root).lay(half, space, 'job_2')\n"
        "asyncio.run(main())\n"
    )
    victim = subprocess.Popen([sys.executable, "-c", script], cwd=Path.cwd())
    half = tmp_path / "data" / "dependencies" / f"{KEY}.new" / "work" / "lib" / "x"
    await until(lambda: (half.exists() and half.read_text()) or victim.poll() is not None)
    assert victim.poll() is None
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    await dependencies(tmp_path).lay(to_do("mkdir lib; echo whole > lib/y"), space, "job_1")
    assert await run(space, "ls lib; cat lib/*") == (0, "y\nwhole\n")
    assert names(tmp_path / "data" / "dependencies") == [KEY, f"{KEY}.lock"]


async def test_a_copy_killed_half_way_is_made_again(tmp_path: Path) -> None:
    """A resumed job would find half of its dependencies."""
    space = await laid(tmp_path, "mkdir lib; echo 1 > lib/x")
    beside = space.tree_path.parent
    (beside / "dependencies").rename(beside / "dependencies.new")
    (beside / "dependencies.new" / "tree" / "lib" / "x").unlink()
    made = await dependencies(tmp_path).lay(to_do("exit 9"), space, "job_1")
    assert made.cached
    assert await run(space, "cat lib/x") == (0, "1\n")


async def test_jobs_that_begin_together_install_once(tmp_path: Path) -> None:
    """Five jobs would download the same five times, over each other."""
    spaces = [await workspace(tmp_path, job_id=f"job_{n}") for n in range(3)]
    command = "mkdir lib; date +%s%N > lib/when"
    made = await asyncio.gather(
        *(
            dependencies(tmp_path).lay(to_do(command), space, f"job_{n}")
            for n, space in enumerate(spaces)
        )
    )
    assert sorted(one.cached for one in made) == [False, True, True]
    assert len({(await run(space, "cat lib/when"))[1] for space in spaces}) == 1


async def test_who_waits_too_long_for_another_jobs_setup_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job would hold its slot for ever behind a setup that hangs."""
    monkeypatch.setattr("actors.setup.cache.COPY_WAIT_S", 0.0)
    spaces = [await workspace(tmp_path, job_id=f"job_{n}") for n in range(2)]
    first = asyncio.ensure_future(
        dependencies(tmp_path).lay(to_do("mkdir lib; sleep 600"), spaces[0], "job_0")
    )
    work = tmp_path / "data" / "dependencies" / f"{KEY}.new" / "work" / "lib"
    await until(work.exists)
    with pytest.raises(RepositoryBusyError):
        await dependencies(tmp_path, timeout_s=0.1).lay(to_do("true"), spaces[1], "job_1")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert names(tmp_path / "data" / "dependencies") == [f"{KEY}.lock"], "cancel leaves nothing"


@pytest.mark.parametrize(
    ("command", "limits", "words"),
    [
        ("sleep 600", {"timeout_s": 0.5}, "killed after 0.5 s"),
        (
            "head -c 30000000 /dev/zero > big; sleep 600",
            {"bytes_max": 20 << 20, "timeout_s": 20},
            "more than 20 MB",
        ),
        ("head -c 3000000 /dev/zero > big", {"bytes_max": 2 << 20}, "2 MB"),
        ("mkdir d; for n in $(seq 300); do echo > $n; done", {}, "301 places"),
        ("exit 4", {"hosts": ("example.org",)}, "exit code 4"),
    ],
)
async def test_a_setup_that_exceeds_a_limit_fails_and_leaves_nothing(
    tmp_path: Path, command: str, limits: dict[str, object], words: str
) -> None:
    """A setup would take the machine's time or disk without end."""
    began = time.monotonic()
    with pytest.raises(SetupFailedError, match=words) as failed:
        await laid(tmp_path, command, **limits)
    assert time.monotonic() - began < WITHIN_S / 2
    assert names(tmp_path / "data" / "dependencies") == [f"{KEY}.lock"]
    assert ("TROUPE_SETUP_HOSTS" in str(failed.value)) == (command == "sleep 600")


async def test_a_place_that_became_somebody_elses_is_not_mounted_over(tmp_path: Path) -> None:
    """A link in the tree would make our side write outside of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    space = await laid(tmp_path, "mkdir -p README.d a/b/lib; echo 1 > a/b/lib/x; echo 2 > a/b/f")
    assert space.laid is not None and space.laid.names == ("README.d/", "a/")
    for name in ("README.d", "a"):
        space.laid.binds(space.tree_path)
        (space.tree_path / name).rmdir()
        (space.tree_path / name).symlink_to(outside)
    assert space.laid.binds(space.tree_path).keys() == {"/tmp/home"}
    assert names(outside) == []


async def test_a_way_through_a_link_is_not_taken(tmp_path: Path) -> None:
    """A folder swapped for a link would get our files into the machine's own folders."""
    outside = tmp_path / "outside"
    outside.mkdir()
    origin = {"src/a.py": "1\n"}
    space = await workspace(tmp_path, origin)
    await dependencies(tmp_path).lay(to_do("mkdir src/lib; echo 2 > src/f"), space, "job_1")
    assert space.laid is not None and space.laid.names == ("src/lib/", "src/f")
    (space.tree_path / "src").rename(tmp_path / "moved")
    (space.tree_path / "src").symlink_to(outside)
    assert space.laid.binds(space.tree_path).keys() == {"/tmp/home"}
    assert names(outside) == []


# The network


@contextmanager
def index(root: Path) -> Iterator[int]:
    """A package index with one package, served over true HTTP at 127.0.0.2."""
    place = root / "simple" / "tiny-shop"
    place.mkdir(parents=True)
    info = "tiny_shop-1.0.dist-info"
    with zipfile.ZipFile(place / "tiny_shop-1.0-py3-none-any.whl", "w") as wheel:
        about = "Metadata-Version: 2.1\nName: tiny-shop\nVersion: 1.0\n"
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("tiny_shop.py", "PRICE = 42\n")
        wheel.writestr(f"{info}/METADATA", about)
        wheel.writestr(f"{info}/WHEEL", kind)
        wheel.writestr(f"{info}/RECORD", "")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(root))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.2", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


async def test_packages_are_installed_from_an_allowed_host_and_imported(tmp_path: Path) -> None:
    """The usual `pip install -r requirements.txt` would not work at all."""
    with index(tmp_path / "index") as port:
        place = f"--index-url http://127.0.0.2:{port}/simple --trusted-host 127.0.0.2"
        command = f"pip install {place} tiny-shop"
        space = await workspace(tmp_path)
        allowed = dependencies(tmp_path, hosts=(f"127.0.0.2:{port}",))
        await allowed.lay(to_do(command, python=True), space, "job_1")
    assert await run(space, "python -c 'import tiny_shop; print(tiny_shop.PRICE)'") == (0, "42\n")
    assert (await run(space, "pip --version"))[0] == 0
    assert await space.snapshot() == space.base_tree


async def test_the_machines_certificates_are_the_setups(tmp_path: Path) -> None:
    """Behind an authority of the operator's own, no package could be loaded over https."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if not bundle.exists():
        pytest.skip("this machine keeps its certificates elsewhere")
    command = 'test "$PIP_CERT" = "$SSL_CERT_FILE" && wc -c < "$NODE_EXTRA_CA_CERTS" > size'
    space = await laid(tmp_path, command)
    assert (await run(space, "cat size"))[1].strip() == str(bundle.stat().st_size)


async def test_without_an_allowed_host_a_setup_reaches_nothing_and_says_what_it_asked_for(
    tmp_path: Path,
) -> None:
    """A setup would load code from anywhere, or the operator could not know what to allow."""
    with index(tmp_path / "index") as port:
        direct = f"curl -sS --noproxy '*' -m 5 http://127.0.0.2:{port}/ && echo reached"
        through = f"curl -sSf -m 5 http://127.0.0.2:{port}/ || exit 6"
        with pytest.raises(SetupFailedError) as failed:
            await laid(tmp_path, f"{direct}; {through}")
    said = str(failed.value)
    assert "exit code 6" in said and "reached" not in said
    assert f"it asked for 127.0.0.2:{port}; the operator may" in said
