"""What no candidate could be made of is not tried again by every look, and everything else is."""

from dataclasses import replace

import pytest

from schemas.config import load_config
from schemas.errors import DivergedError, EngineBuildError, GateError, TrackingError, TrainingError
from schemas.experiment import ExperimentSpec
from tasks.failures import remembered, unless_failed
from tasks.run import Run
from tasks.snapshot import snapshot_id
from tasks.sync_decision import Decision, Outcome
from tasks.validate import Counts, Validation
from tests.retrain_project import experiment, write_project
from tests.test_tasks_changes import face

SPEC = ExperimentSpec.model_validate(experiment())
RETRAIN = Decision(Outcome.RETRAIN, "10 faces differ")
FACES = Validation([face(number) for number in range(10)], [], [], Counts(10, 10, 0, 0, 0))


@pytest.fixture
def run(tmp_path):
    return Run(load_config(write_project(tmp_path, faces=tmp_path)))


def work(run, error=None):
    with remembered(run, SPEC, snapshot_id(FACES.faces, run.config.split)):
        if error:
            raise error


@pytest.mark.parametrize("error", [DivergedError("the loss is nan"), GateError("2 px from Keras")])
def test_what_failed_is_told_until_faces_spec_or_configuration_are_others(run, error):
    assert unless_failed(RETRAIN, run, SPEC, FACES) == RETRAIN
    with pytest.raises(type(error)):
        work(run, error)
    told = unless_failed(RETRAIN, run, SPEC, FACES)
    assert told.outcome is Outcome.FAILED
    assert told.reason == f"{error}; `fpenet run retrain` tries again (10 faces differ)"
    others = Run(run.config.model_copy(update={"targets": ["cpu", "rtx"]}))
    for changed in (
        (run, SPEC, replace(FACES, faces=FACES.faces[1:])),
        (run, SPEC.model_copy(update={"num_epoch": 3}), FACES),
        (others, SPEC, FACES),
    ):
        assert unless_failed(RETRAIN, *changed) == RETRAIN
    work(run)
    assert unless_failed(RETRAIN, run, SPEC, FACES) == RETRAIN, "a `retrain` has succeeded since"


@pytest.mark.parametrize("error", [TrainingError("no memory"), EngineBuildError("no GPU"), TrackingError("down")])
def test_what_may_be_well_at_the_next_look_is_tried_again(run, error):
    with pytest.raises(type(error)):
        work(run, error)
    assert unless_failed(RETRAIN, run, SPEC, FACES) == RETRAIN
