"""The flow `on_device`: runs on a device's own worker, and works there for a rollout that runs elsewhere."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from tasks.fleet.on_device import serve


@flow(name="on-device", persist_result=False)
def on_device(session: str, directory: str, name: str) -> str:
    """Do on this device what a rollout asks for in a folder that both can reach, until it is closed.

    Args:
        session: the folder.
        directory: where this device keeps its engines.
        name: of the device.

    Returns:
        What came of it, for people.
    """
    return f"{name}: {serve(Path(session), directory, name)} requests"
