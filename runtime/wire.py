"""Records on the wire and in the store: camelCase, nothing unknown accepted, no absent field.

    WireModel    pydantic: checked where it is made; what HTTP takes and answers
    Camel        a struct; what the runtime makes, writes and reads all the time
      Message    checked where it is made, read strictly (`runtime.message`)
      WireStruct checks nothing where it is made: a job's record and its parts

Every other field is written, whether or not it has its default.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, create_model
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema, to_jsonable_python


class WireModel(BaseModel):
    """A record as it is seen from outside."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )

    def to_wire(self) -> dict[str, Any]:
        """The record as JSON-able data in camelCase, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_json(self) -> bytes:
        """The record as JSON bytes in camelCase, without absent fields."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


def _plain(value: Any) -> Any:
    """What an author's data may hold beside JSON's own values, as JSON."""
    if value is None or isinstance(value, (bool, tuple, list)):  # JSON's own: so it is a key
        raise TypeError(f"{value!r} can't be a key of a JSON object")
    return to_jsonable_python(value, by_alias=True, exclude_none=True)


encode = msgspec.json.Encoder(enc_hook=_plain).encode
"""A record's JSON bytes, whatever an author has put into it."""


def written(default: Any) -> Any:
    """A field's default that is written too; a bare one is absent from the bytes.

    Args:
        default: nothing that can change; it is shared.
    """
    return msgspec.field(default_factory=lambda: default)


class Camel(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """Base of all structs on the wire; a subclass says `frozen=True, kw_only=True` too.

    Only None may be a bare default: see `written`.
    """

    def to_wire(self) -> dict[str, Any]:
        """The record as JSON-able data in camelCase, without absent fields."""
        wire: dict[str, Any] = msgspec.json.decode(self.to_json())
        return wire

    def to_json(self) -> bytes:
        """The record as JSON bytes in camelCase, without absent fields."""
        return encode(self)


class WireStruct(Camel, frozen=True, kw_only=True):
    """Base of a record that is trusted where it is made.

    Who takes values from an author's code makes them `checked`; what has been written
    can then be read.  Numbers are read as leniently as a `WireModel` reads them (`3.0`
    where an integer is due), so that what an author's code once left in a record goes
    on being read.  Where pydantic meets such a struct (in an answer that OpenAPI
    describes) it sees the model of the same fields.
    """

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read decoded JSON.

        Raises:
            ValueError: a field is missing, unknown or of the wrong type.
        """
        return msgspec.convert(wire, cls, strict=False)

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read JSON bytes; errors as `from_wire`."""
        return msgspec.json.decode(body, type=cls, strict=False)

    def checked(self) -> Self:
        """The record as it is read once it was written; errors as `from_wire`."""
        return self.from_json(self.to_json())

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Self], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            lambda value, _: value if isinstance(value, cls) else cls.from_wire(value),
            handler.generate_schema(_model(cls)),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.to_wire),
        )


@cache
def _model(struct: type[WireStruct]) -> type[WireModel]:
    """The pydantic model of a struct's fields."""
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        default = ... if field.required else field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if isinstance(default, dict):  # made anew for each, and so not told as a constant
            default = Field(default_factory=dict)
        fields[field.name] = (field.type, default)
    return create_model(
        struct.__name__,
        __base__=WireModel,
        __doc__=struct.__doc__,
        __module__=struct.__module__,
        **fields,
    )
