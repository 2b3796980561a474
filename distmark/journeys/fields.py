"""How words of a journey file become values: a base for such values, and the problem that they raise."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

REFERENCE = "x-reference"


def problem(code: str, **values: str) -> PydanticCustomError:
    """Return the error of a value that cannot be read; `code` is a row of `findings.MESSAGES`, `values` fill its text."""
    return PydanticCustomError(
        code, "{code} {values}", {"code": code, "values": ", ".join(f"{k}={v}" for k, v in values.items()), **values}
    )


def reference(model: str) -> dict[str, Any]:
    """Return a place-holder for a reference to `model`, which `schema.py` puts in: pydantic follows references that it does not know."""
    return {REFERENCE: model}


class Written:
    """A value that a journey file writes as a word or two. A subclass says how it is read, printed and described."""

    __slots__ = ()

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the value that `value` writes; raises `problem(...)` when it cannot be read."""
        raise NotImplementedError(f"{cls.__name__} does not say how it is read.")

    @classmethod
    def described(cls) -> dict[str, Any]:
        """Return the JSON Schema of the written form."""
        return {"type": "string"}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.read(value), serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return cls.described()


class DefinitionPart(BaseModel):
    """A part of a journey file: unknown fields are refused, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
