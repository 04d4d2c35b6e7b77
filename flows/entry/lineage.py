"""`fpenet lineage`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence

import orjson

from flows.entry.terminal import console
from flows.entry.workspaces import workspace_of
from tasks.lineage.ask import ask
from tasks.lineage.engines import EngineFacts
from tasks.lineage.trace import Backward, Forward, Part, SnapshotContents, VersionTrace

_SHORT = 12
"""Digits of a hash that are shown."""


def lineage(arguments: argparse.Namespace) -> int:
    answer = ask(arguments.name, workspace_of(arguments), every=arguments.all or arguments.json)
    if arguments.json:
        console.file.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())
    elif isinstance(answer, Backward):
        console.out("\n".join(_back(answer)))
    else:
        console.out("\n".join(_on(answer)))
    return 0


def _back(answer: Backward) -> Iterable[str]:
    yield f"{answer.kind} {answer.name}"
    if answer.engine is not None:
        yield from _engine(answer.engine)
    for version in answer.versions:
        yield from _version(version, with_engines=answer.engine is None)
    if not answer.versions:
        yield "  version    none: it was built outside the flows"
    for contents in answer.snapshots:
        yield from _contents(contents)


def _on(answer: Forward) -> Iterable[str]:
    yield f"{answer.kind} {answer.name}" + (": forgotten; what held it until then:" if answer.forgotten else "")
    for appearance in answer.appearances:
        held = _counts(appearance.faces)
        yield f"snapshot {appearance.snapshot[:_SHORT]}{_taken(appearance.taken_at)}: {held}"
        for version in appearance.versions:
            yield from _version(version, with_engines=True)
        if not appearance.versions:
            yield "  no version was registered of it"


def _engine(engine: EngineFacts) -> Iterable[str]:
    yield f"  target     {engine.target}, {engine.precision}, {engine.builder}"
    yield f"  file       {engine.file}, SHA-256 {engine.sha256}"
    yield f"  stages     {_list(engine.stages)}"
    yield f"  devices    {_devices(engine)}"


def _version(version: VersionTrace, *, with_engines: bool) -> Iterable[str]:
    record = version.record
    yield f"  version    {record}, MLflow run {record.run_id or 'not on record'}"
    yield f"    training {record.training or 'not on record'}, ONNX {record.onnx_sha256[:_SHORT] or 'not on record'}"
    for engine in version.engines if with_engines else ():
        where = f"stages {_list(engine.stages)}; devices {_devices(engine)}"
        yield f"    engine   {engine.build_key} {engine.target}, {engine.precision}: {where}"


def _contents(contents: SnapshotContents) -> Iterable[str]:
    yield f"  snapshot   {contents.snapshot}{_taken(contents.taken_at)}"
    if not contents.present:
        yield "    no longer in this workspace"
    for place, part in contents.parts.items():
        sources = ", ".join(f"{source} {faces:,}" for source, faces in part.sources.items())
        yield f"    {place}: {part.faces:,} faces of {part.subjects:,} subjects; {sources}"
        yield from _names(part)
    for mark, places in contents.redacted.items():
        yield f"    forgotten since: {mark}, {_counts(places)}"


def _names(part: Part) -> Iterable[str]:
    for what, names, number in (
        ("subjects", part.subject_names, part.subjects),
        ("annotations", part.annotations, part.faces),
    ):
        more = f", and {number - len(names):,} more (--all)" if number > len(names) else ""
        if names:
            yield f"      {what}: {', '.join(names)}{more}"


def _counts(places: Mapping[str, int]) -> str:
    return ", ".join(f"{faces:,} {place}" for place, faces in places.items())


def _taken(at: str) -> str:
    return f", taken {at[:16].replace('T', ' ')} UTC" if at else ""


def _devices(engine: EngineFacts) -> str:
    return _list([*engine.devices, *(f"{name} (kept, not run)" for name in engine.kept_on)])


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
