"""How accurate a version is, from the verdict that was found on it."""

from __future__ import annotations

from pathlib import Path

from deploy.bundle.readme import Accuracy
from model.paired import REGION
from tasks.verdict import VERDICT, read_verdict


def accuracy_of(verdicts: Path, model: str, version: str) -> Accuracy | None:
    """Errors per region of a registered version; None where no verdict measured it.

    Several verdicts on a version, by other rules or against other champions, hold the same errors of its own: the
    first by key is taken.
    """
    for path in sorted(verdicts.glob(f"*/{VERDICT}")):
        verdict = read_verdict(path.parent)
        if (verdict.model, verdict.version) == (model, version) and verdict.rows:
            errors = {row.name: row.challenger_px for row in verdict.rows if row.dimension == REGION}
            known = {name: px for name, px in errors.items() if px is not None}
            return Accuracy(verdict.snapshot_id, verdict.faces, known)
    return None
