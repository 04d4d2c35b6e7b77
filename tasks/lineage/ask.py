"""`fpenet lineage`: find what a word names, and follow it both ways."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from schemas.errors import InputError, nearest
from schemas.storage import sha256_file
from schemas.texts import spellings
from tasks.lineage.engines import EngineFacts, engines_of
from tasks.lineage.index import LineageIndex, open_index
from tasks.lineage.trace import Backward, Forward, Lineage, redacted_subjects, tie_versions
from tasks.lineage.versions import recorded_versions
from tasks.tombstones import Tombstones
from tasks.workspace import Workspace

FIRST = 10
"""Subjects and annotations of each place that an answer names unless all are asked for."""

_HEX = re.compile(r"[0-9a-f]{4,64}")
_KINDS = (
    "an engine (the first 4 or more digits of its build key or SHA-256, or its file), "
    "a version (fpenet/3, or 3), "
    "an annotation (source:task/17/annotation/29, or source:gt/train.json#12), "
    "a subject (multipie/079)"
)


def ask(word: str, workspace: Workspace, *, every: bool = False) -> Backward | Forward:
    """The lineage of what `word` names in a workspace: back from an engine or a version, forward from an annotation
    or a subject. The index of the workspace is brought up to date first.

    Args:
        every: name all subjects and annotations, not the first ones.

    Raises:
        InputError: nothing has that name, or more than one thing.
        StorageError: a snapshot can't be read, or the index can't be written.
    """
    engines = engines_of(workspace)
    limit = -1 if every else FIRST
    with open_index(workspace) as index:
        versions = tie_versions(recorded_versions(workspace), engines)
        lineage = Lineage(index, engines, versions, redacted_subjects(workspace))
        found = dict(_found(word, lineage, workspace, limit))
        if not found:
            raise InputError(
                f"nothing in {workspace.root} is called '{word}'{_nearest(word, lineage)}; ask for {_KINDS}"
            )
        if len(found) > 1:
            raise InputError(f"'{word}' may mean {' or '.join(found)}; write more of the name")
        (answer,) = found.values()
        return answer()


def _found(
    word: str, lineage: Lineage, workspace: Workspace, limit: int
) -> Iterator[tuple[str, Callable[[], Backward | Forward]]]:
    """Everything that may be meant, in words, and how to answer for it."""
    for engine in _engines(word, lineage.engines):
        yield f"engine {engine.build_key}", lambda engine=engine: lineage.of_engine(engine, limit=limit)
    for version in lineage.versions:
        if word in (str(version.record), version.record.version):
            yield f"version {version.record}", lambda version=version: lineage.of_version(version, limit=limit)
    for annotation in _annotations(word, lineage.index):
        yield f"annotation {annotation}", lambda annotation=annotation: lineage.of_annotation(annotation)
    subject = _subject(word, lineage, workspace)
    if subject:
        yield f"subject {subject}", lambda: lineage.of_subject(subject)


def _engines(word: str, engines: list[EngineFacts]) -> list[EngineFacts]:
    path = Path(word)
    if os.path.isdir(path):  # noqa: PTH112 - any text may be asked for, too long for a name
        return [engine for engine in engines if engine.build_key == path.name]
    digest = sha256_file(path) if os.path.isfile(path) else word  # noqa: PTH113 - the same
    if not _HEX.fullmatch(digest):
        return []
    return [engine for engine in engines if engine.build_key.startswith(digest) or engine.sha256.startswith(digest)]


def _annotations(word: str, index: LineageIndex) -> list[str]:
    """The annotation of that name, else those of the task or the entry of that name."""
    if ":" not in word:
        return []
    if index.places_of_annotation(word):
        return [word]
    return index.annotations_starting(f"{word}/", FIRST)


def _subject(word: str, lineage: Lineage, workspace: Workspace) -> str:
    """The subject of that name, however its letters are composed, as it may be shown: by its mark if it has been
    forgotten; '' if there is none."""
    written = sorted(spellings(word))
    if known := [name for name in written if name in lineage.redacted or lineage.index.places_of_subject(name)]:
        return known[0]
    tombstones = Tombstones.of(workspace.root)
    marks = map(tombstones.redacted, written) if tombstones.cover(word) else ()
    return next((mark for mark in marks if mark in lineage.redacted), "")


def _nearest(word: str, lineage: Lineage) -> str:
    names = [str(version.record) for version in lineage.versions]
    names += [engine.build_key for engine in lineage.engines]
    for length in range(len(word), -1, -1):
        index, start = lineage.index, word[:length]
        close = index.annotations_starting(start, 50) if ":" in start else index.subjects_starting(start, 50)
        if close:
            return nearest(word, [*names, *close])
    return nearest(word, names)
