"""A commit as redis_commit.lua reads it: the contract's arrays, bodies packed once more.

The msgpack of Redis (lua-cmsgpack) does not know the binary type.  A body is
packed here, and its msgpack travels as a text that the script never unpacks: it
is stored and answered as it came.  Positions are the contract's;
`tests/unit/test_store_redis.py` holds them to it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from runtime.store.contract import Commit

_encode: Final = msgspec.msgpack.Encoder().encode


def encode_commit(commit: Commit) -> bytes:
    """The commit's msgpack; parts that are empty are nil."""
    return _encode(
        (
            commit.organization,
            commit.agent,
            commit.fence,
            commit.expected_version,
            [(one.message_id, _body(one.reply)) for one in commit.acks] or None,
            commit.retries or None,
            commit.buries or None,
            [(one.name, _body(one.body), one.schema) for one in commit.events] or None,
            commit.snapshot and (_body(commit.snapshot.body), commit.snapshot.schema),
            [
                (one.message_id, one.sender, one.recipient, _body(one.body), one.reply_to)
                for one in commit.sends
            ]
            or None,
            *(_rest(commit) if _has_rest(commit) else ()),
        )
    )


def _has_rest(commit: Commit) -> bool:
    return bool(commit.reminders or commit.intents or commit.results or commit.puts or commit.feed)


def _rest(commit: Commit) -> tuple[list[Any] | None, ...]:
    return (
        [(one.key, one.due_ms, _body(one.body)) for one in commit.reminders] or None,
        [(one.job, one.key, one.kind, _body(one.body)) for one in commit.intents] or None,
        [(one.job, one.key, _body(one.body)) for one in commit.results] or None,
        [
            (one.collection, one.key, one.organization, _body(one.body), one.terms, one.expect)
            for one in commit.puts
        ]
        or None,
        [
            (one.organization, one.event, one.rooms, one.at_ms, _body(one.body))
            for one in commit.feed
        ]
        or None,
    )


def _body(body: bytes | None) -> msgspec.Raw | None:
    """A text of: bytes as msgpack."""
    if body is None:
        return None
    packed = _encode(body)
    return msgspec.Raw(b"\xdb" + len(packed).to_bytes(4, "big") + packed)
