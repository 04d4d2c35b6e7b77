"""Tags of a model version that a review is made of. People set the first five, flows write the others."""

from __future__ import annotations

REVIEW = "review"
APPROVED, REJECTED = "approved", "rejected"
"""What `review` is set to."""
BY, REASON, REPORT, OVERRIDE = "review.by", "review.reason", "review.report", "review.override"
"""Who decided and why; hash of the report that was read; why a gate that did not pass does not matter."""
DECISION = (REVIEW, BY, REASON, REPORT, OVERRIDE)

REPORT_HASH = "review_sha256"
"""Over what the version's page shows (`tasks.review.page`)."""
COMPARED_WITH = "review.champion"
"""Version that was the champion when the page was made, or `NOBODY`."""
NOTED = "review.noted"
"""When a flow first saw this decision, and the decision's fingerprint: MLflow does not keep when a tag was set."""
USED = "review.used"
"""When a decision was acted on, and its fingerprint: an approval moves the alias once."""
STATE = "review.state"
"""What became of it, in words that say what to do."""
GATE, GATE_SUMMARY = "gate", "gate.summary"

NOBODY = "none"
