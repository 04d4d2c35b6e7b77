"""Both ways along the lineage: from an engine or a version to its annotations, and from those to engines and devices.

annotation, subject — snapshot — training — version (ONNX) — engine — stage — device
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.storage import read_json
from tasks.lineage.engines import EngineFacts
from tasks.lineage.index import PLACES, LineageIndex
from tasks.lineage.versions import VersionRecord, in_order
from tasks.workspace import Workspace

Places = Mapping[str, int]
"""Place in a snapshot (`train`, `validation`, `kpi`, `superseded`) -> number of faces."""


@dataclass(frozen=True)
class VersionTrace:
    """A version and the engines that were built of its ONNX file."""

    record: VersionRecord
    engines: tuple[EngineFacts, ...]


@dataclass(frozen=True)
class Part:
    """What a snapshot holds in one place.

    Attributes:
        faces, subjects: how many.
        sources: source -> number of faces.
        subject_names, annotations: sorted; the first ones, or all.
    """

    faces: int
    subjects: int
    sources: dict[str, int]
    subject_names: tuple[str, ...]
    annotations: tuple[str, ...]


@dataclass(frozen=True)
class SnapshotContents:
    """What a snapshot holds.

    Attributes:
        present: False if the workspace no longer has it.
        redacted: mark of a forgotten subject -> place -> number of faces that were taken out.
    """

    snapshot: str
    present: bool
    taken_at: str
    parts: dict[str, Part]
    redacted: dict[str, Places]


@dataclass(frozen=True)
class Backward:
    """What is in an engine, or in a version.

    Attributes:
        kind: `engine` or `version`.
        engine: where that was asked for.
        versions: an engine has more than one if one training was registered more than once.
        snapshots: of these versions, oldest first.
    """

    kind: str
    name: str
    engine: EngineFacts | None
    versions: tuple[VersionTrace, ...]
    snapshots: tuple[SnapshotContents, ...]


@dataclass(frozen=True)
class Appearance:
    """A snapshot that holds what was asked for, and what was made of it."""

    snapshot: str
    taken_at: str
    faces: Places
    versions: tuple[VersionTrace, ...]


@dataclass(frozen=True)
class Forward:
    """Where an annotation or a subject went.

    Attributes:
        kind: `annotation` or `subject`.
        name: a forgotten subject goes by its mark.
        forgotten: True if the subject has been forgotten: the faces are those that were taken out.
        appearances: oldest snapshot first.
    """

    kind: str
    name: str
    forgotten: bool
    appearances: tuple[Appearance, ...]


@dataclass(frozen=True)
class Lineage:
    """Everything that ties a workspace's things together.

    Attributes:
        index: of its snapshots, open.
        engines: all of them.
        versions: those on record, and those that only engines name.
        redacted: mark of a forgotten subject -> snapshot -> places, as `fpenet forget` wrote them down.
    """

    index: LineageIndex
    engines: Sequence[EngineFacts]
    versions: Sequence[VersionTrace]
    redacted: Mapping[str, Mapping[str, Places]] = field(default_factory=dict)

    def of_engine(self, engine: EngineFacts, *, limit: int) -> Backward:
        """Back from an engine; at most `limit` subjects and annotations of each place, -1 for all."""
        versions = tuple(version for version in self.versions if engine in version.engines)
        snapshots = {version.record.snapshot for version in versions} | {engine.snapshot}
        return Backward("engine", engine.build_key, engine, versions, self._contents(snapshots, limit))

    def of_version(self, version: VersionTrace, *, limit: int) -> Backward:
        """Back from a version, and forward to its engines."""
        contents = self._contents({version.record.snapshot}, limit)
        return Backward("version", str(version.record), None, (version,), contents)

    def of_annotation(self, annotation: str) -> Forward:
        places = self.index.places_of_annotation(annotation)
        return Forward("annotation", annotation, False, self._appearances(places))

    def of_subject(self, subject: str) -> Forward:
        """Forward from a subject, or from the mark of a forgotten one."""
        forgotten = subject in self.redacted
        places = self.redacted[subject] if forgotten else self.index.places_of_subject(subject)
        return Forward("subject", subject, forgotten, self._appearances(places))

    def _appearances(self, places: Mapping[str, Places]) -> tuple[Appearance, ...]:
        return tuple(
            Appearance(
                snapshot,
                taken_at,
                places[snapshot],
                tuple(version for version in self.versions if version.record.snapshot == snapshot),
            )
            for snapshot, taken_at in self._dated(places)
        )

    def _dated(self, snapshots: Iterable[str]) -> list[tuple[str, str]]:
        """Snapshots with their times, oldest first; those that the workspace no longer has come first."""
        taken = self.index.snapshots()
        return sorted(((name, taken.get(name, "")) for name in snapshots), key=lambda pair: (pair[1], pair[0]))

    def _contents(self, snapshots: Iterable[str], limit: int) -> tuple[SnapshotContents, ...]:
        present = self.index.snapshots()
        return tuple(
            SnapshotContents(
                name,
                name in present,
                taken_at,
                {
                    place: self._part(name, place, sources, limit)
                    for place, sources in self.index.counts(name).items()
                },
                {mark: held[name] for mark, held in self.redacted.items() if name in held},
            )
            for name, taken_at in self._dated(name for name in snapshots if name)
        )

    def _part(self, snapshot: str, place: str, sources: dict[str, int], limit: int) -> Part:
        return Part(
            sum(sources.values()),
            self.index.number_of_subjects(snapshot, place),
            sources,
            tuple(self.index.subjects_in(snapshot, place, limit)),
            tuple(self.index.annotations_in(snapshot, place, limit)),
        )


def tie_versions(records: Iterable[VersionRecord], engines: Sequence[EngineFacts]) -> list[VersionTrace]:
    """Versions with their engines: those that name the version, and those of the same ONNX file.

    A version that was registered before records were kept is known by its engines.
    """
    known = {(record.name, record.version): record for record in records}
    for engine in engines:
        named = (engine.model_name, engine.model_version)
        if engine.model_version and named not in known:
            known[named] = VersionRecord(*named, engine.snapshot, onnx_sha256=engine.onnx_sha256)
    return [
        VersionTrace(record, tuple(engine for engine in engines if _is_of(engine, record)))
        for record in sorted(known.values(), key=in_order)
    ]


def _is_of(engine: EngineFacts, record: VersionRecord) -> bool:
    named = (engine.model_name, engine.model_version) == (record.name, record.version)
    return named or engine.onnx_sha256 == record.onnx_sha256


def redacted_subjects(workspace: Workspace) -> dict[str, dict[str, Places]]:
    """What `fpenet forget` wrote down of every forgotten subject: mark -> snapshot -> place -> number of faces."""
    return {
        f"redacted/{path.stem}": {name: _in_order(places) for name, places in read_json(path)["snapshots"].items()}
        for path in sorted(workspace.forgotten.glob("*.json"))
    }


def _in_order(places: Places) -> dict[str, int]:
    return {place: places[place] for place in PLACES if place in places}
