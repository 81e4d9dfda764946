"""The message of ADR-1: the only thing agents say to each other.

Required are sender, recipient, messageType, content, timestamp and messageId;
optional are replyTo, metadata and attachments.  On the wire it is JSON in
camelCase.  A message id is unique per recipient for as long as the message is
kept: sending the same id again changes nothing, which is what makes a retry safe.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from runtime.errors import InvalidMessageError

CONTENT_BYTES_MAX = 1 << 20
BROADCAST_PREFIX = "role:"
"""A recipient `role:reviewer` means every agent of the organization with that role."""


class WireModel(BaseModel):
    """A record as it is seen from outside: camelCase, nothing unknown accepted."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )

    def to_wire(self) -> dict[str, Any]:
        """The record as JSON-able data in camelCase, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_json(self) -> bytes:
        """The record as JSON bytes in camelCase, without absent fields."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class Attachment(WireModel):
    """A reference to stored content, never the content itself."""

    name: str = Field(max_length=255)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Content address of the bytes in the store."""
    media_type: str = Field(default="application/octet-stream", max_length=127)
    size_bytes: int = Field(ge=0)


class Message(WireModel):
    """One message; immutable once made."""

    message_id: str = Field(min_length=1, max_length=128)
    sender: str = Field(min_length=1, max_length=240)
    """`kind:key` of the agent, or `client:name`; set by the runtime, never by the payload."""
    recipient: str = Field(min_length=1, max_length=240)
    message_type: str = Field(min_length=1, max_length=64)
    content: Any = None
    """Any JSON value; by convention an object."""
    timestamp: str
    """When it was made, RFC 3339 UTC with milliseconds."""
    reply_to: str | None = Field(default=None, max_length=128)
    metadata: dict[str, Any] | None = None
    attachments: tuple[Attachment, ...] | None = None

    @classmethod
    def from_json(cls, body: bytes | str) -> Message:
        """Parse a message.

        Raises:
            InvalidMessageError: not JSON, a field missing, unknown or of the wrong type.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise InvalidMessageError(str(error)) from error
