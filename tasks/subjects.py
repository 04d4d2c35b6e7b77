"""Whose face it is: a source's subject rule, applied to one image after the other.

Subjects are composed (`schemas.texts.composed`), so that one person is one subject whatever system named the files.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from schemas.errors import SpecError, nearest
from schemas.sources import SubjectRule
from schemas.texts import composed

SubjectOf = Callable[[str, Mapping[str, Any]], str | None]
"""Called with the image's name and the fields around it (of the task's data, or of the Sloth entry)."""


BY_ENTRY = SubjectRule(field="subject")
"""The rule of a folder of Sloth/TAO ground truth that is given none: its entries may say it themselves."""


def subject_finder(rule: SubjectRule | None) -> SubjectOf:
    """The function that finds subjects by `rule`; it returns None where the rule finds none.

    Raises:
        SpecError: the rule's CSV can't be read, lacks a column, or gives an image two subjects.
    """
    if rule is None:
        return lambda name, fields: None
    if rule.csv is not None:
        table = _read_csv(Path(rule.csv), rule.csv_key, rule.csv_value)
        return lambda name, fields: _qualified(rule.dataset, table.get(composed(name)))
    if rule.pattern is not None:
        pattern = re.compile(rule.pattern)
        return lambda name, fields: _qualified(
            rule.dataset, (match := pattern.search(composed(name))) and match["subject"]
        )
    return lambda name, fields: _qualified(rule.dataset, fields.get(rule.field))


def _qualified(dataset: str, identity: Any) -> str | None:
    """`dataset/id`. A number is no id: JSON has lost the zeros before it. Nor is it both parts, and is left for
    validation to report."""
    if isinstance(identity, int | float) and not dataset:
        return str(identity)
    if not isinstance(identity, str) or not identity.strip():
        return None
    return composed(f"{dataset}/{identity.strip()}" if dataset else identity.strip())


def _read_csv(path: Path, key: str, value: str) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            for column in (key, value):
                if column not in columns:
                    raise SpecError(
                        str(path), f"has no column '{column}'{nearest(column, columns)}; it has {', '.join(columns)}"
                    )
            return _without_contradiction(path, rows, key, value)
    except OSError as error:
        raise SpecError(str(path), f"can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(str(path), f"is no CSV in UTF-8: {error}") from error
    except ValueError as error:  # of a name that no file can have
        raise SpecError(str(path), f"can't be read: {error}") from error


def _without_contradiction(path: Path, rows: csv.DictReader, key: str, value: str) -> dict[str, str]:
    table: dict[str, str] = {}
    for row in rows:
        name, identity = composed(row[key] or ""), composed(row[value] or "")
        if table.setdefault(name, identity) != identity:
            raise SpecError(f"{path}:{rows.line_num}", f"{name} has two subjects: {table[name]} and {identity}")
    return table
