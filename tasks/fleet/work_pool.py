"""A shell on a device that has a Prefect worker of its own.

The worker runs the flow `on_device` for as long as the shell is open: it does what it finds asked for in a
folder, one request after the other, and leaves the answers there. Both machines can reach the folder.

    <exchange>/<session>/open                 the shell is open; it goes, and then the folder, when that is closed
                         0001.request.json    method and arguments
                         0001.file            bytes that go with a request or with its answer
                         0001.answer.json     result, or the kind and words of an error
                         alive                a number that the device counts up as long as it is there

Every file appears whole, by a rename. A device that counts nothing up for `offline_after_s` is taken to be gone; a
flow that is left alone ends by itself.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.builders.process import Finished
from deploy.devices import Device, WorkPoolReach
from deploy.shells.base import Shell
from deploy.shells.opening import open_shell
from schemas import errors
from schemas.errors import DeviceError, DeviceOfflineError
from schemas.storage import read_json, write_bytes, write_json

POLL_S = 0.2
OPEN, REQUEST, ANSWER, FILE, ALIVE = "open", "request.json", "answer.json", "file", "alive"


@contextmanager
def open_device(device: Device) -> Iterator[Shell]:
    """A connection to a device of any kind, closed at the end.

    Raises:
        As `deploy.shells.opening.open_shell`; DeviceOfflineError also where nobody starts the device's flow.
    """
    if isinstance(device.reach, WorkPoolReach):
        with _open_work_pool(device, device.reach) as shell:
            yield shell
    else:
        with open_shell(device) as shell:
            yield shell


class ExchangeShell:
    """`deploy.shells.base.Shell` over a folder that a device watches."""

    def __init__(self, name: str, session: Path, *, offline_after_s: float) -> None:
        self.name = name
        self._session, self._offline_after_s = session, offline_after_s
        self._number = 0
        self._count, self._counted_at = "", time.monotonic()
        self.directory = PurePosixPath(self._ask("directory"))

    def run(self, command: Sequence[str], *, timeout_s: float) -> Finished:
        return Finished(**self._ask("run", command=list(command), timeout_s=timeout_s))

    def put(self, local: Path, remote: str) -> None:
        self.write(local.read_bytes(), remote)

    def write(self, content: bytes, remote: str) -> None:
        self._ask("write", content, remote=remote)

    def fetch(self, remote: str, local: Path) -> None:
        content = self.read(remote)
        if content is None:
            raise DeviceError(f"device '{self.name}': {remote} is not there")
        write_bytes(local, content)

    def read(self, remote: str) -> bytes | None:
        if not self._ask("read", remote=remote):
            return None
        return self._file(self._number, FILE).read_bytes()

    def sha256(self, remote: str) -> str | None:
        return self._ask("sha256", remote=remote)

    def remove(self, remote: str) -> None:
        self._ask("remove", remote=remote)

    def list(self, remote: str = "") -> list[str]:
        return self._ask("list", remote=remote)

    def _ask(self, method: str, content: bytes | None = None, **arguments: Any) -> Any:
        self._number += 1
        if content is not None:
            write_bytes(self._file(self._number, FILE), content)
        write_json(self._file(self._number, REQUEST), {"method": method, "arguments": arguments})
        answer = self._file(self._number, ANSWER)
        while not answer.is_file():
            self._require_alive(method)
            time.sleep(POLL_S)
        told = read_json(answer)
        if "error" in told:
            raise getattr(errors, told["error"])(told["words"])
        return told["result"]

    def _require_alive(self, method: str) -> None:
        count = _text(self._session / ALIVE)
        now = time.monotonic()
        if count != self._count:
            self._count, self._counted_at = count, now
        elif now - self._counted_at > self._offline_after_s:
            raise DeviceOfflineError(
                f"device '{self.name}' went away at '{method}': its flow has been silent for "
                f"{self._offline_after_s:g} s; see that its worker runs and reaches {self._session.parent}"
            )

    def _file(self, number: int, suffix: str) -> Path:
        return self._session / f"{number:04d}.{suffix}"


@contextmanager
def _open_work_pool(device: Device, reach: WorkPoolReach) -> Iterator[ExchangeShell]:
    exchange = Path(reach.exchange)
    if not exchange.is_dir():
        raise DeviceError(
            f"device '{device.name}': {exchange}, the directory through which it is reached, is not here; mount it, "
            "or correct `exchange` in the devices file"
        )
    session = exchange / f"{device.name}-{uuid.uuid4().hex}"
    try:
        write_bytes(session / OPEN, b"")
        _start(device, reach, session)
        yield ExchangeShell(device.name, session, offline_after_s=reach.offline_after_s)
    finally:
        # First, for the flow may be writing into the folder, and so bring it back: what that leaves is no failure.
        with suppress(OSError):
            (session / OPEN).unlink(missing_ok=True)
        shutil.rmtree(session, ignore_errors=True)


def _start(device: Device, reach: WorkPoolReach, session: Path) -> None:
    """Have the device's worker run its flow, and wait until it does.

    Raises:
        DeviceOfflineError: nobody starts the run in time; it is cancelled.
        DeviceError: Prefect has no such deployment.
    """
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    there = str(PurePosixPath(reach.exchange_there or str(Path(reach.exchange).resolve())) / session.name)
    parameters = {"session": there, "directory": reach.directory, "name": device.name}
    try:
        run = run_deployment(reach.deployment, parameters=parameters, timeout=0, as_subflow=False)
    except ObjectNotFound as error:
        raise DeviceError(
            f"device '{device.name}': Prefect has no deployment {reach.deployment}; deploy `on-device` of "
            "prefect.yaml under this name to the device's work pool"
        ) from error
    given_up_at = time.monotonic() + reach.offline_after_s
    while not (session / ALIVE).is_file():
        if time.monotonic() > given_up_at:
            _cancel(run.id)
            raise DeviceOfflineError(
                f"device '{device.name}' does not answer: nobody started its flow run '{run.name}' within "
                f"{reach.offline_after_s:g} s; start its worker"
            )
        time.sleep(POLL_S)


def _cancel(run_id: Any) -> None:
    """A run that waits would start when nobody is there any more."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, Cancelled(message="the device did not start it in time"), force=True)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
