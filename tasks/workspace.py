"""The catalogue: every path of a workspace, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_RAW, _RAW_OF_EXPORTS = "raw", "raw-of-exports"


@dataclass(frozen=True)
class Workspace:
    """A directory that holds everything a project of this workflow keeps. What may go: `tasks.prune`.

    raw/<source>/      raw.jsonl as pulled from files, raw.sqlite from a server, images downloaded
    raw-of-exports/<source>/   the same as an export pulled it: a training may be reading what a pull takes away
    rendered/<source>/<key>/   faces that the project renders, and their ground truth
    image-index.sqlite   what is known of image files; violations.parquet: what the last validation found
    snapshots/<id>/    faces.parquet, superseded.parquet, violations.parquet, manifest.json, provenance.json
    shards/            TFRecords by content hash; conversions/<key>/manifest.json names those of a conversion
    models/<name>-<version>-<run>/   the Keras file of a registered version
    training/<key>/    experiment_spec.yaml, checkpoints, model.keras, history.csv
    evaluation/<key>/  the reference's three files, report.json, figures
    exports/<key>/     model.onnx and its parity
    verdicts/<key>/    verdict.json, faces.parquet: challenger against champion, face by face
    engines/<build_key>/   engine and manifest; checks/: what they were measured to be
    targets/<target>/  a pointer file per stage, log.jsonl
    bundles/           what `fpenet bundle` wrote: <target>-<stage>.tar.gz
    reports/<run>/     index.html, summary.json
    rollouts/<id>/     index.html, result.json: a version on its way to the devices; lease/: who rolls out
    review/            what was accepted, a log of decisions; pages/<key>/: what reviewers read
    gateway/           the journal of the webhook gateway
    lease/             who works on the project, and what is asked of it meanwhile
    seen.json          what the last look at the sources found, and since when
    failed.json        what no candidate could be made of, and why
    face-signatures.sqlite   what duplicates are found by: hashes and thumbnails of faces
    quality/<run>/     index.html, quality.json, suspects.parquet, duplicates.parquet, pictures
    labelling/<run>/   suggestions.json: tasks to label next, and what was written for them
    drift/<run>/       drift.json: what devices saw; references/<key>/: what a version is expected to see
    lineage/           index.sqlite: what is in which snapshot; versions/: what registered versions were made of
    prefect/           Prefect's own notes of runs without a server
    forgotten/         what was withdrawn, by hash; tombstones.json keeps it out of pulls
    """

    root: Path
    _pulled: str = _RAW

    @property
    def for_exports(self) -> Workspace:
        """The same with a place of its own for what is pulled."""
        return replace(self, _pulled=_RAW_OF_EXPORTS)

    def raw(self, source: str) -> Path:
        return self.root / self._pulled / source

    def of_every_pull(self, name: str) -> Iterator[Path]:
        """What is called so in the folders of all sources, wherever they were pulled to."""
        for pulled in (_RAW, _RAW_OF_EXPORTS):
            yield from sorted(self.root.glob(f"{pulled}/*/{name}"))

    @property
    def image_index(self) -> Path:
        return self.root / "image-index.sqlite"

    @property
    def violations(self) -> Path:
        return self.root / "violations.parquet"

    @property
    def rendered(self) -> Path:
        return self.root / "rendered"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    @property
    def conversions(self) -> Path:
        return self.root / "conversions"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def training(self) -> Path:
        return self.root / "training"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def verdicts(self) -> Path:
        return self.root / "verdicts"

    @property
    def engines(self) -> Path:
        return self.root / "engines"

    @property
    def targets(self) -> Path:
        return self.root / "targets"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def review(self) -> Path:
        return self.root / "review"

    @property
    def review_pages(self) -> Path:
        return self.review / "pages"

    @property
    def accepted(self) -> Path:
        return self.review / "accepted.json"

    @property
    def rollouts(self) -> Path:
        return self.root / "rollouts"

    @property
    def face_signatures(self) -> Path:
        return self.root / "face-signatures.sqlite"

    @property
    def quality(self) -> Path:
        return self.root / "quality"

    @property
    def labelling(self) -> Path:
        return self.root / "labelling"

    @property
    def lease(self) -> Path:
        return self.root / "lease"

    @property
    def seen(self) -> Path:
        return self.root / "seen.json"

    @property
    def failed(self) -> Path:
        return self.root / "failed.json"

    @property
    def gateway(self) -> Path:
        return self.root / "gateway"

    @property
    def forgotten(self) -> Path:
        return self.root / "forgotten"

    @property
    def drift(self) -> Path:
        return self.root / "drift"

    @property
    def lineage(self) -> Path:
        return self.root / "lineage"

    @property
    def versions(self) -> Path:
        return self.lineage / "versions"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{(self.root / 'mlflow.db').resolve()}"

    @property
    def artifacts(self) -> Path:
        return self.root / "mlflow-artifacts"
