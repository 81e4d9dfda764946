"""The errors of the department: one tree, the docstring is the default message.

Each sentence says what happened and what to do about it; the arguments name
the thing.  As in `runtime.errors`, arguments go unchanged to
`super().__init__`, because exceptions cross processes as `cls(*args)`.
"""

from __future__ import annotations

from runtime.errors import TroupeError


class AgentError(TroupeError):
    """The department could not do what was asked."""


class GitError(AgentError):
    """git refused or failed; the last lines of what it said follow."""


class GitTimeoutError(GitError):
    """git did not answer in time and was killed; try again, or raise the limit."""


class RefNameError(GitError):
    """Not a usable branch, tag or commit name; use letters, digits, `-`, `_`, `.` and `/`."""


class WorkspaceError(AgentError):
    """The workspace can't be used."""


class RepositoryUnknownError(WorkspaceError):
    """There is no such repository, or it can't be read; check the path or URL and its access."""


class NotARepositoryError(WorkspaceError):
    """This is not a git repository; run `git init` and commit, or name another directory."""


class RepositoryEmptyError(WorkspaceError):
    """The repository has no commit yet; commit something first."""


class RepositoryUnsafeError(WorkspaceError):
    """The repository holds objects that are damaged or made to do harm; git says which."""


class BaseRefUnknownError(WorkspaceError):
    """The repository has no such branch, tag or commit; push it, or name another base."""


class RepositoryBusyError(WorkspaceError):
    """Another process has been fetching this repository for too long; try again later."""


class DiskFullError(WorkspaceError):
    """The disk with the workspaces is full; free some space, then the work goes on."""


class TreeMissingError(WorkspaceError):
    """The tree, or something in it, is not here; apply the recorded deltas first."""


class DeltaDamagedError(WorkspaceError):
    """The recorded change can't be applied: it is damaged, or its base is not here."""


class SetupFailedError(WorkspaceError):
    """The repository's setup command failed."""


class SnapshotRefusedError(WorkspaceError):
    """The working tree holds something that can't be recorded exactly."""


class NestedRepositoryError(SnapshotRefusedError):
    """A git repository was made inside the workspace; remove it, its files can't be recorded."""


class FileTooLargeError(SnapshotRefusedError):
    """A file is larger than what a step may record; remove it, or ignore it in .gitignore."""


class SpecialFileError(SnapshotRefusedError):
    """A pipe, socket or device lies in the workspace and can't be recorded; remove it."""


class TooManyFilesError(SnapshotRefusedError):
    """The working tree has more files than a step may record; remove what was generated."""


class SandboxError(AgentError):
    """The sandbox could not run the command; nothing of it was run."""


class SandboxRefusedError(SandboxError):
    """Commands can't be isolated on this machine, so none is run."""


class SandboxMissingError(SandboxRefusedError):
    """bubblewrap is not installed; run `apt-get install bubblewrap` (0.7 or newer)."""
