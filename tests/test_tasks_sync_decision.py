"""Whether changed annotations are worth a new model now."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.config import SyncSettings
from tasks.changes import Changes, FaceChange, Kind
from tasks.sync_decision import Comparison, Outcome, decide

SETTINGS = SyncSettings(min_changed_faces=10, min_changed_share=0.05, quiet_s=600)


def quiet():
    return {"a": 601.0, "b": float("inf")}


def compared(changed: int, *, before: int = 1000, model: str = "fpenet version 1") -> Comparison:
    faces = tuple(FaceChange(Kind.CHANGED, f"a:task/{i}/annotation/1") for i in range(changed))
    return Comparison(model, Changes(before, before, faces))


@pytest.mark.parametrize(
    ("changed", "before", "outcome"),
    [
        (0, 1000, Outcome.UNCHANGED),
        (9, 1000, Outcome.TOO_FEW),
        (10, 1000, Outcome.RETRAIN),
        (4, 100, Outcome.TOO_FEW),
        (5, 100, Outcome.RETRAIN),
    ],
)
def test_a_number_or_a_share_of_the_faces(changed, before, outcome):
    decision = decide([compared(changed, before=before)], SETTINGS, quiet)
    assert decision.outcome is outcome
    assert "fpenet version 1" in decision.reason


def test_the_first_model_needs_no_number():
    assert decide([], SETTINGS, quiet).outcome is Outcome.RETRAIN
    assert decide([], SETTINGS, lambda: {"a": 0.0}).outcome is Outcome.NOT_QUIET


def test_a_candidate_that_waits_for_its_review_is_not_trained_again():
    champion, challenger = compared(200, model="champion"), compared(0, model="challenger")
    decision = decide([champion, challenger], SETTINGS, quiet)
    assert (decision.outcome, "challenger" in decision.reason) == (Outcome.UNCHANGED, True)
    assert decide([champion, compared(3)], SETTINGS, quiet).outcome is Outcome.TOO_FEW


def test_what_is_taken_back_to_the_champion_s_faces_needs_no_model():
    assert decide([compared(0), compared(200)], SETTINGS, quiet).outcome is Outcome.UNCHANGED


@given(st.floats(0, 1e6), st.floats(0, 1e6))
@example(500.0, 100.0)
@example(100.0, 500.0)
@example(SETTINGS.quiet_s, SETTINGS.quiet_s)
def test_it_waits_for_the_source_that_changed_last_and_then_no_longer(a, b):
    decision = decide([compared(50)], SETTINGS, lambda: {"a": a, "b": b})
    later = {"a": a + decision.wait_s, "b": b + decision.wait_s}
    if min(a, b) >= SETTINGS.quiet_s:
        assert (decision.outcome, decision.wait_s) == (Outcome.RETRAIN, 0)
    else:
        assert decision.outcome is Outcome.NOT_QUIET
        assert decision.wait_s == SETTINGS.quiet_s - min(a, b)
        again = decide([compared(50)], SETTINGS, lambda: {name: since + 1e-6 for name, since in later.items()})
        assert again.outcome is Outcome.RETRAIN
