"""Running a setup: in the sandbox, with a home and scratch space of its own, bounded.

It gets more than an agent's command: a HOME that is kept, room for large
downloads, and a way to the hosts the operator named (`egress`).  It gets
nothing else: no other network, no secret, no part of the machine.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actors.disk import used_bytes
from actors.errors import SetupFailedError
from actors.sandbox import Completed, Sandbox, relay
from actors.sandbox.command import SYSTEM_PATH
from actors.setup.egress import Egress
from actors.setup.laid import HOME, VENV
from actors.setup.recipe import Recipe
from actors.tools.text import visible

OUTPUT_BYTES_MAX: Final = 1 << 20
TAIL_CHARS: Final = 1_500
MEASURE_S: Final = 3.0
"""Between two looks at how much has been written."""
SCRATCH: Final = "/tmp/scratch"  # noqa: S108 - inside the sandbox, its own
PROXY: Final = f"http://127.0.0.1:{relay.PORT}"
ENVIRONMENT: Final = {
    "CI": "true",
    "TMPDIR": SCRATCH,
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), PROXY),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1"),
    "NODE_USE_ENV_PROXY": "1",
    # Caches of downloads would only be copied along with what was made of them.
    "PIP_NO_CACHE_DIR": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "UV_CACHE_DIR": f"{SCRATCH}/uv",
    "npm_config_cache": f"{SCRATCH}/npm",
    "npm_config_update_notifier": "false",
    "YARN_CACHE_FOLDER": f"{SCRATCH}/yarn",
}
_CERTIFICATES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
_CERTIFICATE_VARIABLES: Final = (
    "SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
)  # fmt: skip
"""Package managers bring certificates of their own; an operator's authority is in the machine's."""
MAKE_VENV: Final = '"$1" -m venv "$2" >/dev/null 2>&1 || rm -rf "$2"; '
RUN: Final = 'exec bash -c "$3"'


@dataclass(frozen=True)
class SetupLimits:
    """What the operator gives to one setup."""

    hosts: tuple[str, ...] = ()
    """That it may load from; none: it has no network at all."""
    timeout_s: float = 900.0
    bytes_max: int = 10 << 30
    """Of all it writes."""


@dataclass(frozen=True)
class SetupPlace:
    """Where it works; all of it belongs to the job's user."""

    tree: Path
    home: Path
    scratch: Path


async def run_setup(
    sandbox: Sandbox, recipe: Recipe, place: SetupPlace, limits: SetupLimits, hold: int
) -> None:
    """Run a recipe's command to its good end.

    Raises:
        SetupFailedError: it failed or exceeded a limit; with the end of its output.
        SandboxError, DiskFullError: see `Sandbox.run`.
    """
    egress = Egress(limits.hosts)
    async with egress.opened() as socket:
        running = asyncio.ensure_future(_run(sandbox, recipe, place, limits, hold, socket))
        measuring = asyncio.ensure_future(_exceeds(place, limits.bytes_max))
        try:
            await asyncio.wait({running, measuring}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                measuring.result()
                raise SetupFailedError(f"it wrote more than {limits.bytes_max >> 20} MB")
            done = running.result()
        finally:
            for task in (running, measuring):
                task.cancel()
            await asyncio.gather(running, measuring, return_exceptions=True)
    if done.exit_code != 0 or done.stopped is not None:
        raise SetupFailedError(_ending(done, limits), _tail(done.stdout), *_hint(egress, limits))


async def _run(
    sandbox: Sandbox, recipe: Recipe, place: SetupPlace, limits: SetupLimits, hold: int, way: Path
) -> Completed:
    python = sandbox.toolchain.python
    script = (MAKE_VENV if recipe.python else "") + RUN
    path = ":".join((f"{VENV}/bin", *sandbox.toolchain.bin, SYSTEM_PATH))
    venv = {"VIRTUAL_ENV": VENV, "PATH": path} if recipe.python else {}
    return await sandbox.run(
        [python, "-I", "-S", relay.INSIDE, "bash", "-c", script, "bash", python, VENV,
         recipe.command],
        workspace=place.tree,
        timeout_s=limits.timeout_s,
        env={**ENVIRONMENT, **_certificates(), **venv},
        output_bytes_max=OUTPUT_BYTES_MAX,
        extra_ro_binds={relay.INSIDE: Path(relay.__file__), relay.SOCKET: way},
        binds={HOME: place.home, SCRATCH: place.scratch},
        merge_streams=True,
        hold=hold,
    )  # fmt: skip


def _certificates() -> dict[str, str]:
    found = [path for path in _CERTIFICATES if Path(path).exists()][:1]
    return {name: path for name in _CERTIFICATE_VARIABLES for path in found}


async def _exceeds(place: SetupPlace, bytes_max: int) -> None:
    """Return once more than so much has been written."""
    while True:
        if await used_bytes(place.tree.parent) > bytes_max:
            return
        await asyncio.sleep(MEASURE_S)


def _ending(done: Completed, limits: SetupLimits) -> str:
    return {
        None: f"exit code {done.exit_code}",
        "timeout": f"killed after {limits.timeout_s:g} s",
        "output": "killed: it printed too much",
        "disk": "killed: the disk is nearly full",
        "memory": "killed: it used too much memory",
    }[done.stopped]


def _tail(output: bytes) -> str:
    """The end of the output, as people read it."""
    return f"the end of its output:\n{visible(output).strip()[-TAIL_CHARS:]}\n"


def _hint(egress: Egress, limits: SetupLimits) -> list[str]:
    if egress.refused:
        hosts = ", ".join(egress.refused)
        return [f"it asked for {hosts}; the operator may allow hosts in TROUPE_SETUP_HOSTS"]
    if not limits.hosts:
        return ["it ran without network; the operator may allow hosts in TROUPE_SETUP_HOSTS"]
    return []
