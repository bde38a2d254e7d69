"""How settings are checked, in a recipe and in a notebook alike: no other keys, finite numbers."""

from typing import TypeVar, cast, dataclass_transform

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Settings = TypeVar("Settings")


@dataclass_transform(frozen_default=True)
def checked(cls: type[Settings]) -> type[Settings]:
    """A frozen dataclass whose values have the types and ranges that its fields say.

    Raises:
        pydantic.ValidationError: when it is made of others; a ValueError.
    """
    return cast("type[Settings]", dataclass(frozen=True, config=STRICT)(cls))
