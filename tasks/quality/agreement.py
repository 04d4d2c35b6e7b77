"""What several annotators of the same faces say: how far they agree, and which tasks to look at again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model.agreement import Agreement, PairAgreement, measure_agreement, measure_repeatability
from schemas.config import QualitySettings
from tasks.quality.compare import Compared
from tasks.quality.disputes import Dispute, find_disputes


@dataclass(frozen=True)
class AgreementReport:
    """What several annotators of the same faces say.

    Attributes:
        agreement: None where no face has two known annotators.
        repeatability: of annotators who annotated a face more than once.
        disputes: the worst first; those that were reviewed last.
        notes: what could not be said, and why.
    """

    agreement: Agreement | None = None
    repeatability: tuple[PairAgreement, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def open_disputes(self) -> tuple[Dispute, ...]:
        """Those that nobody has decided."""
        return tuple(dispute for dispute in self.disputes if not dispute.reviewed)


def report_agreement(compared: Compared, settings: QualitySettings, reviewed: Iterable[str]) -> AgreementReport:
    """Measure, and find the faces in dispute.

    Args:
        reviewed: records that somebody has decided, see `reviewed_records`.
    """
    return AgreementReport(
        agreement=measure_agreement(compared.views) if compared.views else None,
        repeatability=measure_repeatability(compared.repeats),
        disputes=find_disputes(compared, settings, frozenset(reviewed)),
        notes=_notes(compared),
    )


def _notes(compared: Compared) -> tuple[str, ...]:
    notes = []
    names = sorted(compared.annotators)
    if not compared.views:
        who = {0: "No annotation names its annotator", 1: f"All annotations are by annotator {''.join(names)}"}
        notes.append(
            who.get(len(names), f"No face was annotated by two of the {len(names)} annotators")
            + ": nothing can be said about agreement. Let a second person annotate some of the same faces."
        )
    elif len({name for view in compared.views for name in view.annotators}) == 2:
        notes.append(
            "With two annotators a bias can't be laid at one's door: both have it, with opposite signs. A third "
            "opinion on some faces would tell."
        )
    if compared.unnamed:
        notes.append(
            f"{compared.unnamed} annotations of faces with several name no annotator. They may be by anyone, so they "
            "are in no comparison."
        )
    return tuple(notes)
