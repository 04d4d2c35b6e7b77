"""The learning rate over a training."""

from __future__ import annotations

from math import exp, log

from schemas.experiment import LearningRateSchedule


def learning_rate(schedule: LearningRateSchedule, *, step: int, steps: int) -> float:
    """TAO's soft start and annealing, exponential between the two rates.

    With progress p = step / steps: t = p / soft_start before the soft start ends, (1 - p) / (1 - annealing) after
    annealing begins, else 1; rate = min ** (1 - t) * base ** t. A `soft_start` of 0 or an `annealing` of 1 switches
    that end off. `last_step` of the spec does not count, as in the reference.
    """
    progress = step / steps
    share = 1.0
    if progress < schedule.soft_start:
        share = progress / schedule.soft_start
    if progress > schedule.annealing:
        share = (1 - progress) / (1 - schedule.annealing)
    low, high = log(schedule.min_learning_rate), log(schedule.base_learning_rate)
    return exp(low + share * (high - low))
