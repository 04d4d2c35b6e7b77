"""What a run of the flow `quality` found, as plain data: the one input of its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.quality.agreement import AgreementReport
from tasks.quality.findings import Duplicates, LabelErrors
from tasks.quality.send_back import SentBack
from tasks.summary import Rejection, StepSummary
from tasks.validate import Counts


@dataclass(frozen=True)
class FacePicture:
    """A drawn face: `picture` is a PNG file, named from the page's folder; `key` is the source key of the face or
    record that it is shown for. Whoever forgets `subject` finds the file by this."""

    key: str
    subject: str | None
    picture: str


@dataclass(frozen=True)
class QualitySummary:
    """Everything a person is shown about the quality of labels. All of it is JSON (`dataclasses.asdict`).

    Attributes:
        run_id, started_at: id and ISO 8601 time with zone.
        seconds: wall time of the whole run.
        num_keypoints: N.
        code_version: of the project.
        sources: names.
        counts: of the annotations that were looked at.
        rejections: why annotations were rejected.
        settings: `schemas.config.QualitySettings`.
        agreement, label_errors, duplicates: what was found.
        sent_back: tabs in Label Studio; empty where there is no server, or none was asked for.
        steps: of the flow.
        links: source key of a face or record -> where a browser finds its task.
        pictures: of the first disputes, suspects and pairs.
    """

    run_id: str
    started_at: str
    seconds: float
    num_keypoints: int
    code_version: str
    sources: tuple[str, ...]
    counts: Counts
    rejections: tuple[Rejection, ...]
    settings: Mapping[str, Any]
    agreement: AgreementReport
    label_errors: LabelErrors
    duplicates: Duplicates
    sent_back: tuple[SentBack, ...] = ()
    steps: tuple[StepSummary, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[FacePicture, ...] = ()

    @property
    def sources_text(self) -> str:
        return ", ".join(self.sources)

    @property
    def leaks(self) -> int:
        """Pairs of alike images that connect two splits or two subjects."""
        return sum(pair.crosses is not None or pair.subjects_known for pair in self.duplicates.pairs)
