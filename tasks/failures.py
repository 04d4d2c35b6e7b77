"""Faces that no candidate could be made of: remembered, so that not every look trains on them again for hours.

Only what the work itself comes to is: a training that diverged, a graph or an engine beyond its bound. A device that
fails, a full disk, a builder or a server that is not there may be well at the next look.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import DivergedError, GateError
from schemas.experiment import ExperimentSpec
from schemas.storage import read_json, write_json
from tasks.reuse import step_key
from tasks.run import Run
from tasks.snapshot import snapshot_id
from tasks.sync_decision import Decision, Outcome
from tasks.validate import Validation

OF_THE_WORK = (DivergedError, GateError)


@contextmanager
def remembered(run: Run, spec: ExperimentSpec, snapshot: str) -> Iterator[None]:
    """Note why the work inside fails, or forget what was noted once it is done.

    Args:
        snapshot: id of the one that the candidate is made of.
    """
    try:
        yield
    except OF_THE_WORK as error:
        write_json(run.workspace.failed, {"key": _key(run, spec, snapshot), "why": str(error)})
        raise
    run.workspace.failed.unlink(missing_ok=True)


def unless_failed(decision: Decision, run: Run, spec: ExperimentSpec, validation: Validation) -> Decision:
    """The decision to retrain, unless the same faces, configuration, spec and code failed when it was last tried."""
    file = run.workspace.failed
    noted = read_json(file) if file.is_file() else {}
    if noted.get("key") != _key(run, spec, snapshot_id(validation.faces, run.config.split)):
        return decision
    return Decision(Outcome.FAILED, f"{noted['why']}; `fpenet run retrain` tries again ({decision.reason})")


def _key(run: Run, spec: ExperimentSpec, snapshot: str) -> str:
    settings, trained_by = (part.model_dump(mode="json", by_alias=True) for part in (run.config, spec))
    return step_key("candidate", code="tasks.steps", settings=settings, spec=trained_by, snapshot=snapshot)
