"""The contract as bytes: which methods there are and how calls, results and errors are written.

A method is declared once, by its signature in a Protocol; both sides read the
table here.  What carries the bytes is a `Transport` and knows nothing of
stores: `answer(store, method, payload)` is the whole of the serving side.

    payload   msgpack [arguments in the order of the contract]
    answer    msgpack [true, result]  |  [false, [error class, [its arguments]]]

Nothing is ever pickled.  Errors come back as the class they were.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar, get_type_hints

import msgspec

from runtime import errors
from runtime.store.contract import Store, Upkeep
from runtime.store.copies import Copies

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Transport(Protocol):
    """Carries a call to a store and its answer back."""

    async def call(self, method: str, payload: bytes, wait_s: float) -> bytes:
        """The answer's bytes.

        Args:
            wait_s: how long the store itself may wait before it answers.

        Raises:
            StoreUnavailableError: no answer; whether the call was done is unknown.
        """

    async def close(self) -> None:
        """Give up all calls and take no more. Idempotent."""


@dataclass(frozen=True)
class Method(Generic[T]):
    """How one method of the contract is written down."""

    name: str
    repeatable: bool
    """Doing it twice is as good as once, so a broken call may be repeated unseen."""
    wait_at: int | None
    """Which argument says how long the store may wait before it answers."""
    arguments: msgspec.msgpack.Decoder[Any]
    result: msgspec.msgpack.Decoder[T]


METHODS: Final[dict[str, Method[Any]]] = {}


def _method(function: Callable[..., Coroutine[Any, Any, T]], repeatable: bool = True) -> Method[T]:
    hints = get_type_hints(function)
    result: type[T] = hints.pop("return")
    names = list(inspect.signature(function).parameters)[1:]
    arguments: Any = tuple.__class_getitem__(tuple(hints[name] for name in names))
    method = Method(
        function.__name__,
        repeatable,
        names.index("wait_s") if "wait_s" in names else None,
        msgspec.msgpack.Decoder(arguments),
        msgspec.msgpack.Decoder(result),
    )
    METHODS[method.name] = method
    return method


COMMIT: Final = _method(Store.commit, repeatable=False)
REGISTER: Final = _method(Store.register)
RENEW: Final = _method(Store.renew)
CLAIM: Final = _method(Store.claim, repeatable=False)
RELEASE: Final = _method(Store.release)
POLL: Final = _method(Store.poll, repeatable=False)
"""Repeating it would hide from a host that its connection broke, and its lease with it."""
INBOX: Final = _method(Store.inbox)
HISTORY: Final = _method(Store.history)
OUTCOME: Final = _method(Store.outcome)
JOURNAL: Final = _method(Store.journal)
STEPS: Final = _method(Store.steps)
GET: Final = _method(Store.get)
GET_MANY: Final = _method(Store.get_many)
LIST: Final = _method(Store.list_documents)
COUNT: Final = _method(Store.count)
TAIL: Final = _method(Store.tail)
HEALTH: Final = _method(Store.health)
PRUNE: Final = _method(Upkeep.prune)
PURGE: Final = _method(Upkeep.purge)
BACKUP: Final = _method(Copies.backup)

encode: Final = msgspec.msgpack.Encoder().encode


class _Outcome(msgspec.Struct, array_like=True):
    ok: bool
    value: msgspec.Raw


class _Failure(msgspec.Struct, array_like=True):
    kind: str
    arguments: list[Any]


_decode_outcome = msgspec.msgpack.Decoder(_Outcome).decode
_decode_failure = msgspec.msgpack.Decoder(_Failure).decode
_KINDS: Final[dict[str, type[Exception]]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.TroupeError)
} | {"ValueError": ValueError}


async def answer(store: Store, method: str, payload: bytes | msgspec.Raw) -> bytes:
    """Do a call that came over a transport; its answer, errors included."""
    try:
        arguments = METHODS[method].arguments.decode(payload)
        if not hasattr(store, method):
            raise errors.StoreError(f"this store has no {method}")
        result = await getattr(store, method)(*arguments)
    except (errors.TroupeError, ValueError) as error:
        return refusal(error)
    except Exception as error:  # the boundary of this process: the caller must hear of a defect
        logger.exception("a call of the store failed", extra={"action": "store.defect"})
        return refusal(error)
    return encode(_Outcome(True, msgspec.Raw(encode(result))))


def refusal(error: Exception) -> bytes:
    """The answer of a call that ends with an error."""
    return encode(_Outcome(False, msgspec.Raw(_failure(error))))


def read_answer(method: Method[T], body: bytes | msgspec.Raw) -> T:
    """The result of a call, or its error raised as the class it was."""
    outcome = _decode_outcome(body)
    if outcome.ok:
        return method.result.decode(outcome.value)
    failure = _decode_failure(outcome.value)
    raise _KINDS.get(failure.kind, errors.StoreError)(*failure.arguments)


def _failure(error: Exception) -> bytes:
    kind = type(error).__name__
    if isinstance(error, msgspec.MsgspecError):
        return encode(_Failure("ValueError", [str(error)]))
    if _KINDS.get(kind) is not type(error):
        return encode(_Failure("StoreError", [f"{kind}: {error}"]))
    return encode(_Failure(kind, [_plain(argument) for argument in error.args]))


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
