"""git, with everything that a hostile repository could make it run switched off.

Every call is a fresh process with an environment made from nothing, no hooks,
no filters of the machine's configuration, no prompt, no transport unless the
call names it, a time limit and a bound on what it may print.  Nothing is
discovered: the git dir is always named, so a `.git` that lies in a working
tree is never looked at.  Callers put operands that they did not make
themselves behind `--end-of-options` or `--`, and names of refs through
`check_ref`; what the commands mean is the callers' business.

Source: the measured attack cases on configuration, hooks, filters and options.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from actors.errors import DiskFullError, GitError, GitTimeoutError, RefNameError

Transport = Literal["file", "https", "ssh"]
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
OUTPUT_BYTES_MAX = 64 << 20
"""Printed by one call, each stream; a call that prints more is killed."""
TIMEOUT_S = 60.0
CHUNK_BYTES = 1 << 16
REF_LENGTH_MAX = 240
ERROR_CHARS_MAX = 600
DISK_FULL = ("No space left on device", "Disk quota exceeded", "unable to write file",
             "unable to write new index file")  # fmt: skip
"""What git says when a write fails; a file that may not be opened is told differently."""

LOCAL_UPLOAD_PACK = "git -c safe.directory='*' -c pack.window=0 upload-pack"
"""Reads a local repository whoever owns it; upload-pack runs nothing of its configuration.
Without a network in between, looking for deltas to make the pack small only takes time."""

HARDENING = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.autocrlf=false",
    "core.safecrlf=false",
    "core.fileMode=true",
    "core.protectHFS=true",
    "core.quotePath=false",
    "core.pager=cat",
    "core.askPass=/bin/false",
    "core.fsync=committed,reference",
    "credential.helper=",
    "gpg.program=/bin/false",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "http.followRedirects=false",
    "safe.bareRepository=explicit",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=no",
    "fetch.unpackLimit=1",
    "transfer.fsckObjects=true",
    # Harmless flaws of old, well-known repositories, which nobody can mend any more.
    "fetch.fsck.badTimezone=ignore",
    "fetch.fsck.missingSpaceBeforeDate=ignore",
    "fetch.fsck.zeroPaddedFilemode=ignore",
    "log.mailmap=false",
    "log.showSignature=false",
    "pack.threads=1",
)
CACHE = (
    "-c", "core.fsync=none",
    "-c", "core.looseCompression=1",
    # Writing 5,000 entries anew for one that changed took 5 ms, twice a snapshot.
    "-c", "core.splitIndex=true",
)  # fmt: skip
"""For a git dir that can be made again: fast instead of durable and small."""
ENVIRONMENT = {
    "PATH": SYSTEM_PATH,
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oPermitLocalCommand=no -oConnectTimeout=30",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": "/bin/false",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_PROTOCOL_FROM_USER": "0",
}

_REF_BAD = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|\.$|/$|^[-/.]|^@$")
_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def check_ref(name: str) -> str:
    """Return `name` if git would take it as the name of a ref and never as an option.

    Raises:
        RefNameError: it breaks a rule of git-check-ref-format, or is longer than 240.
    """
    if not name or len(name) > REF_LENGTH_MAX or _REF_BAD.search(name):
        raise RefNameError(repr(name[:REF_LENGTH_MAX]))
    return name


def check_object(object_id: str) -> str:
    """Return `object_id` if it is a full hexadecimal object id.

    Raises:
        RefNameError: it is not.
    """
    if not _OBJECT_ID.fullmatch(object_id):
        raise RefNameError(repr(object_id[:REF_LENGTH_MAX]))
    return object_id


def decode(raw: bytes) -> str:
    """Text of git's output; bytes that are not UTF-8 survive as surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The inverse of `decode`."""
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class GitOutput:
    """What one call answered."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output without the last newline."""
        return decode(self.stdout).removesuffix("\n")


@dataclass(frozen=True)
class Git:
    """Runs git on one git dir (and perhaps a working tree and an index of its own)."""

    git_dir: Path
    work_tree: Path | None = None
    index: Path | None = None
    inherit_fds: tuple[int, ...] = ()
    """Kept open by every call, so that a lock on them lasts as long as the slowest."""
    durable: bool = True
    """Whether what is written survives a power loss; a cache needs no fsync."""

    async def run(
        self,
        *args: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        config: Mapping[str, str] | None = None,
        allow: Sequence[Transport] = (),
        codes: Sequence[int] = (0,),
        timeout_s: float = TIMEOUT_S,
        output_bytes_max: int = OUTPUT_BYTES_MAX,
    ) -> GitOutput:
        """Run `git ARGS` and return what it printed.

        Args:
            env: added to the environment made from nothing (author names, proxies).
            config: settings for this call that must not show in the process list,
                such as `http.extraHeader`; they travel in the environment.
            allow: transports this call may use; none by default.
            codes: exit codes that are an answer; any other raises.

        Raises:
            GitError: another exit code, or more output than the bound; its last lines.
            GitTimeoutError: killed after `timeout_s`, with all it had started.
            DiskFullError: git found no space left.
        """
        argv = [find_git(), *_settings(allow), *(() if self.durable else CACHE), *args]
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment(env or {}, config or {}),
            cwd="/",
            start_new_session=True,
            pass_fds=self.inherit_fds,
        )
        try:
            async with asyncio.timeout(timeout_s):
                output = await _communicate(process, stdin, output_bytes_max)
        except TimeoutError as error:
            raise GitTimeoutError(_name(args), f"{timeout_s:g} s") from error
        finally:
            await _end(process)
        return _judge(args, output, codes)

    def _environment(self, extra: Mapping[str, str], config: Mapping[str, str]) -> dict[str, str]:
        made = {**ENVIRONMENT, "GIT_DIR": str(self.git_dir), **extra}
        if self.work_tree is not None:
            made["GIT_WORK_TREE"] = str(self.work_tree)
        if self.index is not None:
            made["GIT_INDEX_FILE"] = str(self.index)
        if config:
            made["GIT_CONFIG_COUNT"] = str(len(config))
        for number, (key, value) in enumerate(config.items()):
            made[f"GIT_CONFIG_KEY_{number}"] = key
            made[f"GIT_CONFIG_VALUE_{number}"] = value
        return made


def find_git() -> str:
    """The system's git, never one from the working directory or the user's PATH.

    Raises:
        GitError: none is installed.
    """
    found = shutil.which("git", path=SYSTEM_PATH)
    if found is None:
        raise GitError("git is not installed; run `apt-get install git`")
    return found


def _settings(allow: Sequence[Transport]) -> list[str]:
    settings = [*HARDENING, *(f"protocol.{name}.allow=always" for name in allow)]
    return [word for setting in settings for word in ("-c", setting)]


async def _communicate(
    process: asyncio.subprocess.Process, stdin: bytes, output_bytes_max: int
) -> GitOutput:
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr, _ = await asyncio.gather(
        _read(process.stdout, output_bytes_max),
        _read(process.stderr, output_bytes_max),
        _feed(process, stdin),
    )
    return GitOutput(await process.wait(), stdout, stderr)


async def _read(stream: asyncio.StreamReader, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await stream.read(CHUNK_BYTES):
        size += len(chunk)
        if size > bytes_max:
            raise GitError(f"printed more than {bytes_max} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


async def _feed(process: asyncio.subprocess.Process, stdin: bytes) -> None:
    if process.stdin is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(stdin)
        await process.stdin.drain()
    process.stdin.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the call and the transports it started; nothing of it runs on after return."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(process.wait())


def _judge(args: Sequence[str], output: GitOutput, codes: Sequence[int]) -> GitOutput:
    if output.exit_code in codes:
        return output
    said = decode(output.stderr)[-ERROR_CHARS_MAX:].strip()
    if any(sign in said for sign in DISK_FULL):
        raise DiskFullError(said)
    raise GitError(_name(args), f"exit code {output.exit_code}", said)


def _name(args: Sequence[str]) -> str:
    return f"git {args[0] if args else ''}"
