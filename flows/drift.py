"""The flow `drift`: whether devices still see what their model was tested on."""

from __future__ import annotations

from prefect import flow

from schemas.config import load_config
from tasks.drift_steps import ask_devices, read_folder, tell_drift
from tasks.lease import present
from tasks.run import Run


@flow(name="drift", persist_result=False)
def drift(config: str, records: str | None = None) -> str:
    """Fetch what the devices counted, compare it with the faces that their model was tested on, and tell.

    A device that sees something else raises the event `fpenet.drift.detected` with the numbers; `prefect.yaml` shows
    how it starts `suggest`. Devices that are new, or run another model, get its profile on the way. No image is asked
    for, and none is there.

    Args:
        config: path of a configuration (`schemas.config.WorkflowConfig`).
        records: a folder of records, `<records>/<device>/*.json`, instead of asking the devices.

    Returns:
        Path of a JSON file with every device, signal and number.

    Raises:
        InputError: `records` is no folder.
        FpenetError: see `schemas.errors`. What is wrong with a device or a record is in the result instead.
    """
    run = Run(load_config(config))
    with present(run.workspace.lease):
        return str(tell_drift(run, read_folder(run, records) if records else ask_devices(run)))
