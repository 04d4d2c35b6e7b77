"""The flow `retrain`: a new candidate, whatever has changed."""

from __future__ import annotations

from prefect import flow

from flows.turn import work_on_project


@flow(name="retrain", persist_result=False)
def retrain(config: str) -> str:
    """Make a candidate: pull, validate, snapshot, convert, train, evaluate, export, register, build, check, stage.

    If another run has the project's lease, the request is left to it: it retrains before it ends.

    Args:
        config: path of a configuration (`schemas.config.WorkflowConfig`).

    Returns:
        What came of it, for people.

    Raises:
        GateError: the ONNX file or an engine is further from Keras than its bound.
        FpenetError: see `schemas.errors`.
    """
    return work_on_project(config, "retrain")
