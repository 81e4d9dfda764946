"""The message of ADR-1: the only thing agents say to each other.

Required are sender, recipient, messageType, content, timestamp and messageId;
optional are replyTo, metadata and attachments.  On the wire it is JSON in
camelCase.  A message id is unique per recipient for as long as the message is
kept: sending the same id again changes nothing, which is what makes a retry safe.

A message is checked where it is made, in memory or of JSON, and written once.  It
is a struct and no pydantic model, because every turn makes, writes and reads one.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from runtime.errors import InvalidMessageError
from runtime.wire import Camel, encode, written

BYTES_MAX: Final = 2 << 20
REDELIVERED: Final = "redelivered"
"""Where the metadata say that a person had it delivered anew: {messageId, by, edited}."""
"""Of a message as JSON; what is larger is stored as content and attached by its hash."""
MESSAGE_ID_MAX: Final = 128
ADDRESS_MAX: Final = 240
MESSAGE_TYPE_MAX: Final = 64
_SHA256 = re.compile(r"[0-9a-f]{64}")
BROADCAST_PREFIX = "role:"
"""A recipient `role:reviewer` means every agent of the organization with that role."""


class Attachment(Camel, frozen=True, kw_only=True):
    """A reference to stored content, never the content itself."""

    name: str
    """At most 255 characters."""
    sha256: str
    """Content address of the bytes in the store."""
    media_type: str = written("application/octet-stream")
    """At most 127 characters."""
    size_bytes: int

    def __post_init__(self) -> None:
        _check_length("name", self.name, 0, 255)
        _check_length("mediaType", self.media_type, 0, 127)
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError("sha256 is not 64 hexadecimal digits")
        if self.size_bytes < 0:
            raise ValueError("sizeBytes is negative")


class Message(Camel, frozen=True, kw_only=True):
    """One message; immutable once made. ValueError where a field has not the length it may have."""

    message_id: str
    """1 to 128 characters."""
    sender: str
    """`kind:key` of the agent, or `client:name`; set by the runtime, never by the payload."""
    recipient: str
    """As the sender, 1 to 240 characters."""
    message_type: str
    """1 to 64 characters."""
    content: Any = None
    """Any JSON value; by convention an object."""
    timestamp: str
    """When it was made, RFC 3339 UTC with milliseconds."""
    reply_to: str | None = None
    """At most 128 characters."""
    metadata: dict[str, Any] | None = None
    attachments: tuple[Attachment, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.message_id) <= MESSAGE_ID_MAX:
            _check_length("messageId", self.message_id, 1, MESSAGE_ID_MAX)
        if not 0 < len(self.sender) <= ADDRESS_MAX:
            _check_length("sender", self.sender, 1, ADDRESS_MAX)
        if not 0 < len(self.recipient) <= ADDRESS_MAX:
            _check_length("recipient", self.recipient, 1, ADDRESS_MAX)
        if not 0 < len(self.message_type) <= MESSAGE_TYPE_MAX:
            _check_length("messageType", self.message_type, 1, MESSAGE_TYPE_MAX)
        if self.reply_to is not None:
            _check_length("replyTo", self.reply_to, 0, MESSAGE_ID_MAX)
        if self.metadata is not None and not isinstance(self.metadata, dict):
            raise ValueError("metadata is no object")

    @property
    def why(self) -> str | None:
        """The `reason` of its content: why something is asked for, for the audit trail.

        Raises:
            TypeError: it is no text.
        """
        reason = self.content.get("reason")
        if reason is not None and not isinstance(reason, str):
            raise TypeError("reason is no text")
        return reason or None

    def to_json(self) -> bytes:
        """The message as JSON bytes in camelCase, without absent fields.

        Raises:
            InvalidMessageError: they would be more than BYTES_MAX.
        """
        body = encode(self)
        if len(body) > BYTES_MAX:
            raise InvalidMessageError(
                f"{self.message_type} for {self.recipient} has {len(body)} bytes, "
                f"at most {BYTES_MAX}: attach what is large"
            )
        return body

    @classmethod
    def from_json(cls, body: bytes | str) -> Message:
        """Parse a message.

        Raises:
            InvalidMessageError: not JSON, a field missing, unknown or of the wrong type.
        """
        try:
            return _decode(body)
        except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors
            raise InvalidMessageError(str(error)) from error


def _check_length(name: str, value: str, least: int, most: int) -> None:
    if not least <= len(value) <= most:
        raise ValueError(f"{name} has {len(value)} characters, not {least}..{most}")


_decode = msgspec.json.Decoder(Message).decode
