"""Asking devices what they saw, and giving them the profile of the model that they run.

`<directory>/<target>/drift/` on a device holds

    profile.npz         of the model in current.json; replaced when that changes
    drift_client.py     `deploy.drift_client`, to be imported by whatever runs the engine
    records/            what it writes: a JSON file an hour
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Lock

from pydantic import ValidationError

import deploy.drift_client
from deploy.delivery import CURRENT, CurrentEngine
from deploy.device.scratch import remove_cut_off
from deploy.devices import Device
from deploy.shells.base import Shell
from schemas.config import WorkflowConfig
from schemas.errors import DeviceOfflineError, FpenetError
from schemas.storage import sha256_file
from tasks.drift.records import DeviceRecords, files_of_shell, read_records
from tasks.drift.reference import PROFILE, Reference, reference_of
from tasks.drift.watch import DeviceDrift, by_model, compare
from tasks.workspace import Workspace

FOLDER, RECORDS = "drift", "records"


@dataclass(frozen=True, eq=False)
class References:
    """References by version, each made once, whoever asks first."""

    config: WorkflowConfig
    workspace: Workspace
    _known: dict[str, Reference | FpenetError] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, model: str) -> Reference:
        """
        Raises:
            FpenetError: as `tasks.drift.reference.reference_of`.
        """
        with self._lock:
            if model not in self._known:
                name, _, version = model.rpartition("/")
                try:
                    self._known[model] = reference_of(name, version, self.config.tracking, self.workspace)
                except FpenetError as error:
                    self._known[model] = error
            found = self._known[model]
        if isinstance(found, FpenetError):
            raise found
        return found


def watch_device(
    device: Device,
    references: References,
    *,
    since: datetime,
    now: datetime,
    open_shell: Callable[[Device], AbstractContextManager[Shell]],
) -> list[DeviceDrift]:
    """What a device saw since then, one result for each model that it ran; never raises for what the device does.

    On the way the device gets the profile of the model that it runs now.
    """
    try:
        with open_shell(device) as shell:
            files = files_of_shell(shell, f"{device.target}/{FOLDER}/{RECORDS}", since=since)
            running, problem = _equip(shell, device.target, references)
    except DeviceOfflineError as error:
        return [DeviceDrift(device.name, "offline", why=str(error))]
    except FpenetError as error:
        return [DeviceDrift(device.name, "failed", why=str(error))]
    return judge(read_records(device.name, files, since=since, now=now), references, problem, running=running)


def judge(
    records: DeviceRecords, references: References, problem: str = "", *, running: str = ""
) -> list[DeviceDrift]:
    """One result for each model that was counted; one that says so where nothing was.

    Args:
        problem: what else there is to say of the device.
        running: the model that it runs now, such as `fpenet/4`; '' where that is not known.
    """
    problems = (*records.problems, *filter(None, (problem, _miscounted(records, running))))
    results = []
    for model, hours in by_model(records):
        try:
            reference = references.of(model)
        except FpenetError as error:
            results.append(DeviceDrift(records.device, "no reference", model, why=str(error)))
        else:
            results.append(compare(records.device, hours, reference, references.config.drift))
    if not results:
        return [DeviceDrift(records.device, "no records", problems=problems)]
    first, *others = results
    return [first.with_problems(problems), *others]


def _miscounted(records: DeviceRecords, running: str) -> str:
    """That the last hour was counted under another model's name only, or ''."""
    last = max((record.hour for record in records.hours), default="")
    counted = {record.model for record in records.hours if record.hour == last}
    if not running or not counted or running in counted:
        return ""
    other = ", ".join(sorted(counted))
    return (
        f"it runs {running}, and counts by {other}: what it saw since the change is judged as {other}'s; if the next "
        "run says so too, restart the program that runs its engine"
    )


def _equip(shell: Shell, target: str, references: References) -> tuple[str, str]:
    """Put profile and client there, unless they are there; which model it runs, and why not, or ''."""
    content = shell.read(f"{target}/{CURRENT}")
    if content is None:
        return "", "it runs no engine of this project yet, so it gets no profile"
    try:
        current = CurrentEngine.model_validate_json(content)
    except ValidationError:
        return "", f"its {CURRENT} can't be read, so it gets no profile; promote an engine to it again"
    running = f"{current.model_name}/{current.model_version}"
    try:
        reference = references.of(running)
    except FpenetError as error:
        return running, f"no profile for the model that it runs: {error}"
    remove_cut_off(shell, f"{target}/{FOLDER}")
    for local in (reference.profile, Path(deploy.drift_client.__file__)):
        remote = f"{target}/{FOLDER}/{PROFILE if local == reference.profile else local.name}"
        if shell.sha256(remote) != sha256_file(local):
            shell.put(local, remote)
    return running, ""
