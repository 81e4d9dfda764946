"""The errors of the runtime: one tree, the docstring is the default message.

Constructor arguments go unchanged to `super().__init__` and the sentence is
built in `__str__`, because exceptions cross Ray by pickle as `cls(*args)`.
"""

from __future__ import annotations

import inspect

from pydantic import ValidationError

from runtime.clock import LATEST_MS


class TroupeError(Exception):
    """Something in Troupe went wrong."""

    def __str__(self) -> str:
        sentence = inspect.cleandoc(type(self).__doc__ or "").split("\n\n")[0]
        detail = "; ".join(str(arg) for arg in self.args)
        return f"{sentence} ({detail})" if detail else sentence


class StoreError(TroupeError):
    """The store could not do what was asked."""


class StoreUnavailableError(StoreError):
    """The store did not answer: whether the work was done is unknown.

    Retry the same call with the same ids; a commit that did land is refused
    the second time and changes nothing.
    """


class UndoneError(StoreError):
    """What was heard before it was durable has been undone; begin anew from what the store says."""


class StoreLockedError(StoreError):
    """Another process already holds this store; only one may open it."""


class CommitRefusedError(StoreError):
    """The store refused a commit; nothing of it was written."""


class InvalidIdError(TroupeError):
    """An id is not of the form kind:key."""


class InvalidMessageError(TroupeError):
    """A message does not follow the envelope of ADR-1."""


class NotYoursError(TroupeError):
    """An agent can't write what is another organization's, or the runtime's own."""


class UnknownAgentKindError(TroupeError):
    """No agent class is registered for this kind."""


class DeadLetterError(TroupeError):
    """The agent gave the message up; it is a dead letter with this reason."""


class HistoryForgottenError(TroupeError):
    """The agent's journal was forgotten up to here: its state of before can't be told."""


class StateChangedInTaskError(TroupeError):
    """A job changed self.state in process_task; only receive_message may, in a turn."""


class NondeterminismError(TroupeError):
    """A recorded step was asked for again with a different request."""


class SettingsError(TroupeError):
    """A setting has a value that can't be used."""


class InvalidScheduleError(TroupeError):
    """A schedule can't be meant: what was written is wrong, or means two things.

    Args: code (such as `out_of_range`; docs/schedules.md has all), position
    (0-based offset in the text where it goes wrong), detail (what is wrong there
    and what to write instead).
    """

    def __init__(self, code: str, position: int, detail: str) -> None:
        super().__init__(code, position, detail)
        self.code = code
        self.position = position
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.detail} ({self.code} at {self.position})"


class ScheduleRefusedError(TroupeError):
    """The scheduler did not do what was asked of a schedule. Args: code, detail."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.detail} ({self.code})"


class NotRunningError(TroupeError):
    """Troupe is not running here; start it with `troupe up`."""


class JobControl(BaseException):
    """Ends process_task early on purpose; tools can't swallow it and it never leaves the host."""


class JobWaiting(JobControl):
    """The job holds no slot and no memory until it is made ready again.

    Args: reason (a code such as `model_not_configured`), resume_at_ms (None:
    only a message makes it ready). TypeError or ValueError where they are not: the
    job's record could not hold them.
    """

    def __init__(self, reason: str, resume_at_ms: int | None = None) -> None:
        if not isinstance(reason, str | None) or type(resume_at_ms) not in (int, type(None)):
            raise TypeError("a job waits for a reason, a text, until a time, whole milliseconds")
        if resume_at_ms is not None and resume_at_ms > LATEST_MS:
            raise ValueError(f"a job waits until {LATEST_MS} ms at the latest")
        super().__init__(reason, resume_at_ms)
        self.reason = reason
        self.resume_at_ms = resume_at_ms


class JobCancelled(JobControl):
    """The job was cancelled."""


class JobPaused(JobControl):
    """The job was paused between two steps."""


class JobFailedError(TroupeError):
    """The job can't succeed and must not be retried."""


class StoreFullError(StoreUnavailableError):
    """The store has no room: nothing of the call was written.

    Reading goes on, and writing does as soon as there is room.
    """


class InboxFullError(TroupeError):
    """Too many messages wait for this agent; nothing of the call was accepted. Try later."""


def told(error: BaseException) -> str:
    """`Class: what it says`, as text that every store can write.

    Of a record that is not as it must be, where and why: not what it says, which is somebody's.
    """
    says = str(error)
    if isinstance(error, ValidationError):
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        says = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong)
    return f"{type(error).__name__}: {says}".encode(errors="replace").decode()
