"""Configuration dataclasses <-> JSON values, strict about what they do not know."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from gaussian_head.errors import UserError

T = TypeVar("T")


def to_json(config: Any) -> dict[str, Any]:  # noqa: ANN401 -- any dataclass
    """Turn a dataclass (nested ones too) into JSON values; tuples become lists."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_json(cls: type[T], document: dict[str, Any]) -> T:
    """Rebuild a dataclass from `to_json`'s values.

    Raises:
        UserError: A key is not a field of the class; the valid ones are listed.
    """
    hints = get_type_hints(cls)
    unknown = sorted(set(document) - {field.name for field in dataclasses.fields(cls)})
    if unknown:
        valid = ", ".join(field.name for field in dataclasses.fields(cls))
        raise UserError(f"{cls.__name__} has no option {', '.join(unknown)}; the options are: {valid}.")
    return cls(**{name: _typed(hints[name], value) for name, value in document.items()})


def _plain(value: Any) -> Any:  # noqa: ANN401
    if dataclasses.is_dataclass(value):
        return to_json(value)
    return list(value) if isinstance(value, tuple) else value


def _typed(hint: Any, value: Any) -> Any:  # noqa: ANN401
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value)
    if get_origin(hint) is tuple or (value.__class__ is list and tuple in map(get_origin, get_args(hint))):
        return tuple(value)
    return value
