import json
from pathlib import Path

import pytest

from model.schedule import learning_rate
from schemas.experiment import LearningRateSchedule

CASES = json.loads((Path(__file__).parent / "golden" / "lr.json").read_text())


def test_a_rate_may_stay_where_it_is_and_fall_where_its_rise_ends():
    schedule = LearningRateSchedule(soft_start=0.5, annealing=0.5, base_learning_rate=1e-3, min_learning_rate=1e-5)
    rates = [learning_rate(schedule, step=step, steps=4) for step in range(5)]
    assert rates == pytest.approx([1e-5, 1e-4, 1e-3, 1e-4, 1e-5])
    flat = LearningRateSchedule(base_learning_rate=1e-3, min_learning_rate=1e-3)
    assert learning_rate(flat, step=1, steps=40) == pytest.approx(1e-3)


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
