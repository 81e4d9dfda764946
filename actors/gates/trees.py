"""Reading from git what gates and policy look at: two calls a tree, then no git.

A listing names every file of a tree with its kind and size; the contents that
are wanted come in one batch, by object id, so that no name is ever an option or
a revision.  Nothing is checked out and no file over SCAN_BYTES_MAX is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from actors.gates.candidate import (
    SCAN_BYTES_MAX,
    SUBMODULE,
    Candidate,
    Change,
    CheckVerdict,
    Reader,
    SuiteVerdict,
    UnscannableError,
)
from actors.git import Git, check_object, decode
from actors.policy import POLICY_READS, RepositoryPolicy, load_policy

BATCH_BYTES_MAX: Final = 32 << 20
"""Content fetched by one call; below the bound on what git may print."""


@dataclass(frozen=True)
class Entry:
    """A file of a tree."""

    mode: str
    object_id: str
    size_bytes: int


async def list_tree(git: Git, tree: str) -> dict[str, Entry]:
    """Every file, link and submodule of a tree, by path."""
    listed = await git.run("ls-tree", "-r", "-l", "-z", "--full-tree", check_object(tree))
    entries: dict[str, Entry] = {}
    for line in listed.stdout.split(b"\0"):
        if line:
            head, _, path = line.partition(b"\t")
            mode, _, object_id, size = head.decode("ascii").split()
            entries[decode(path)] = Entry(mode, object_id, int(size) if size.isdigit() else 0)
    return entries


async def read_files(git: Git, tree: Mapping[str, Entry], paths: Collection[str]) -> Reader:
    """A reader of some paths of a listed tree; of all others it answers None."""
    wanted = {path: tree[path] for path in paths if path in tree and tree[path].mode != SUBMODULE}
    ids = {item.object_id: item.size_bytes for item in wanted.values()}
    contents: dict[str, bytes] = {}
    for batch in _batches(ids):
        contents |= await _read_batch(git, batch)

    def read(path: str) -> bytes | None:
        entry = wanted.get(path)
        if entry is None:
            return None
        if entry.size_bytes > SCAN_BYTES_MAX:
            raise UnscannableError(path, entry.size_bytes)
        return contents[entry.object_id]

    return read


async def read_policy(git: Git, base_tree: str) -> RepositoryPolicy:
    """The policy of a base tree.

    Raises:
        PolicyError: its `.troupe.yaml` can't be used.
    """
    tree = await list_tree(git, base_tree)
    small = [path for path in POLICY_READS if path in tree and tree[path].size_bytes < 1 << 20]
    return load_policy(await read_files(git, tree, small), tree.keys())


async def make_candidate(
    git: Git,
    base_tree: str,
    final_tree: str,
    changes: Sequence[Change],
    patch: bytes,
    policy: RepositoryPolicy,
    tests_before: SuiteVerdict | None,
    tests_after: SuiteVerdict | None,
    checks_before: Mapping[str, CheckVerdict] = MappingProxyType({}),
    checks_after: Mapping[str, CheckVerdict] = MappingProxyType({}),
) -> Candidate:
    """The candidate between two trees, with everything in memory that gates read."""
    base, final = await list_tree(git, base_tree), await list_tree(git, final_tree)
    old = {change.old_path or change.path for change in changes}
    new = {change.path for change in changes}
    return Candidate(
        base=await read_files(git, base, old),
        final=await read_files(git, final, new),
        changes=changes,
        patch=patch,
        policy=policy,
        tests_before=tests_before,
        tests_after=tests_after,
        checks_before=checks_before,
        checks_after=checks_after,
        final_names=frozenset(final),
    )


def _batches(ids: Mapping[str, int]) -> list[list[str]]:
    batches: list[list[str]] = []
    room = 0
    for object_id, size in ids.items():
        if size > SCAN_BYTES_MAX:
            continue
        if size + len(object_id) > room:
            batches.append([])
            room = BATCH_BYTES_MAX
        batches[-1].append(object_id)
        room -= size + 2 * len(object_id)
    return batches


async def _read_batch(git: Git, ids: Sequence[str]) -> dict[str, bytes]:
    """`<id> blob <size> LF <content> LF`, once for each id asked for."""
    asked = "".join(f"{object_id}\n" for object_id in ids)
    printed = (await git.run("cat-file", "--batch", stdin=asked.encode())).stdout
    contents: dict[str, bytes] = {}
    at = 0
    while at < len(printed):
        end = printed.index(b"\n", at)
        object_id, _, size = printed[at:end].decode("ascii").split()
        contents[object_id] = printed[end + 1 : end + 1 + int(size)]
        at = end + 2 + int(size)
    return contents
