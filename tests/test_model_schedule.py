import json
from pathlib import Path

import pytest

from model.schedule import learning_rate
from schemas.experiment import LearningRateSchedule

CASES = json.loads((Path(__file__).parent / "golden" / "lr.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_rate_is_the_references(case):
    schedule = LearningRateSchedule(
        soft_start=case["soft_start"],
        annealing=case["annealing"],
        base_learning_rate=case["base_lr"],
        min_learning_rate=case["min_lr"],
        last_step=5,
    )
    for progress, expected in case["points_formula_float64"]:
        assert learning_rate(schedule, step=round(progress * 1000), steps=1000) == pytest.approx(expected, rel=1e-9)
    for progress, expected in case["points_ref_float32"]:
        assert learning_rate(schedule, step=round(progress * 1000), steps=1000) == pytest.approx(expected, rel=1e-5)
