"""YAML files into frozen pydantic models, with errors that name file, line, key and the nearest known key."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import SpecError, nearest
from schemas.texts import read_text


class SpecModel(BaseModel):
    """Base of every spec section: frozen, no unknown keys, no silent conversions between types, finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, strict=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=SpecModel)

_MOST_VALUES = 100_000
"""Aliases of aliases stand for more than any memory holds."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as TAO reads it, except that a key given twice is an error and `1e-7` is a number."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """An impossible value, such as a 13th month, or one that its tag can't be of, has a place, too."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            problem, cause = str(error), error
        except (LookupError, AttributeError) as error:  # PyYAML looks `!!bool maybe` up
            problem, cause = f"'{node.value}' is no {node.tag.rpartition(':')[2]}", error
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from cause


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_spec(model: type[Model], path: Path | str) -> Model:
    """Read `path` into `model`.

    Raises:
        SpecError: the file is missing, not UTF-8 or not YAML, has an unknown, doubled or missing key, or a bad value.
            All problems are listed, each with its line.
    """
    return parse_spec(model, read_text(path), str(path))


def parse_spec(model: type[Model], text: str, name: str) -> Model:
    """`load_spec` for text already read; `name` stands for the file in messages."""
    try:
        root = yaml.compose(text, Loader=_Loader)
        lines: dict[tuple[str | int, ...], int] = {}
        if root is not None:
            _note_lines(root, (), lines, name)
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise SpecError(place, f"not YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(f"{name}:{line}", f"not YAML: has the character #x{error.character:02x}") from error
    except RecursionError as error:
        raise SpecError(name, "is nested too deeply, or has an alias inside what it stands for") from error
    if not isinstance(data, dict):
        raise SpecError(name, f"holds {type(data).__name__}, not a mapping of keys to values")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_describe(model, item, lines, name) for item in error.errors()]
        where, problem = problems[0]
        more = "".join(f"\n{w}: {p}" for w, p in problems[1:])
        raise SpecError(where, problem + more) from None


def place_in(path: Path | str, key: str) -> str:
    """`file:line: key`: where a spec that has been read sets `key` (dotted), for a value whose use shows it wrong."""
    lines: dict[tuple[str | int, ...], int] = {}
    root = yaml.compose(read_text(path), Loader=_Loader)
    _note_lines(root, (), lines, str(path))
    parts = tuple(key.split("."))
    return f"{path}:{lines.get(parts, 1)}: {key}"


def dump_spec(spec: SpecModel) -> str:
    """YAML that `parse_spec` reads back to an equal model."""
    return yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=True, allow_unicode=True)


def _note_lines(node: yaml.Node, path: tuple[str | int, ...], lines: dict, name: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if len(lines) > _MOST_VALUES:
        raise SpecError(name, f"holds more than {_MOST_VALUES:,} values, with what its aliases stand for")
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            where = f"{name}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise SpecError(where, "a key must be a word, not a list or a mapping")
            if key.value in seen:
                raise SpecError(where, f"key '{key.value}' is given twice")
            seen.add(key.value)
            lines[(*path, key.value)] = key.start_mark.line + 1
            _note_lines(value, (*path, key.value), lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(value, (*path, index), lines, name)


def _describe(model: type[SpecModel], item: Any, lines: dict, name: str) -> tuple[str, str]:
    location = tuple(part for part in item["loc"])
    known = location
    while known and known not in lines:
        known = known[:-1]
    where = f"{name}:{lines.get(known, 1)}: {'.'.join(map(str, location)) or '(top level)'}"
    if item["type"] == "extra_forbidden":
        return where, f"unknown key{nearest(str(location[-1]), _keys_at(model, location[:-1]))}"
    if item["type"] == "missing":
        return where, "is required and missing"
    if item["type"] == "value_error":
        return where, str(item["ctx"]["error"])
    return where, f"{item['msg'][0].lower()}{item['msg'][1:]}, not {item['input']!r}"


def _keys_at(model: type[SpecModel], location: tuple[str | int, ...]) -> list[str]:
    for part in location:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None:
            continue  # the tag of a discriminated union, or a list index
        model = _model_in(field.annotation, location) or model
    return [field.alias or key for key, field in model.model_fields.items()]


def _model_in(annotation: Any, location: tuple[str | int, ...]) -> type[SpecModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation  # type: ignore[return-value]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, list, dict):
        found = [m for a in typing.get_args(annotation) if (m := _model_in(a, location))]
        tagged = [m for m in found if not _tags(m).isdisjoint(location)]
        return next(iter(tagged or found), None)
    return None


def _tags(model: type[SpecModel]) -> set[str]:
    """Values of the fields that can hold but one: what a discriminated union tells its members by."""
    literals = [typing.get_args(field.annotation) for field in model.model_fields.values()]
    return {values[0] for values in literals if len(values) == 1 and isinstance(values[0], str)}
