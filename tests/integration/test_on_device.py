"""A device that is reached through its own Prefect worker: a real server and a real worker, beside which it is."""

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deploy.devices import Device, WorkPoolReach
from deploy.pointers import utc_now
from deploy.targets import find_target
from schemas.errors import DeviceOfflineError
from tasks.fleet.plan import Plan
from tasks.fleet.rollout import roll_out_target
from tasks.fleet.work_pool import open_device
from tasks.workspace import Workspace
from tests.fleets import small_material
from tests.prefect_servers import POOL, ask, prefect, prefect_server, prefect_worker

pytestmark = pytest.mark.slow
DEPLOYMENT = "on-device/example"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of clients of a server that has the deployment, and no worker."""
    folder = tmp_path_factory.mktemp("prefect")
    with prefect_server(folder) as found:
        prefect(found, "work-pool", "create", "--type", "process", POOL)
        prefect(found, "--no-prompt", "deploy", "--name", DEPLOYMENT.split("/")[1])
        with temporary_settings({PREFECT_API_URL: found["PREFECT_API_URL"]}):
            yield found


def device(folder, *, offline_after_s):
    (folder / "exchange").mkdir(exist_ok=True)
    reach = WorkPoolReach(
        kind="work_pool",
        deployment=DEPLOYMENT,
        directory=str(folder / "device"),
        exchange=str(folder / "exchange"),
        offline_after_s=offline_after_s,
    )
    return Device(name="served", target="cpu", ring="canary", reach=reach)


def runs(environment):
    return ask(environment, "flow_runs", flows={"name": {"any_": ["on-device"]}}, sort="START_TIME_DESC")


def test_a_device_whose_worker_starts_nothing_is_offline_and_nothing_is_left_to_start(environment, tmp_path):
    with (
        pytest.raises(DeviceOfflineError, match="'served' does not answer: nobody started its flow run"),
        open_device(device(tmp_path, offline_after_s=2)),
    ):
        pass
    assert [run["state_type"] for run in runs(environment)] == ["CANCELLED"]
    assert list((tmp_path / "exchange").iterdir()) == []


def test_an_engine_comes_into_production_by_way_of_a_worker(environment, tmp_path):
    served = device(tmp_path, offline_after_s=200)
    place = Workspace(tmp_path / "workspace")
    plan = Plan(small_material(tmp_path), [served], place, open_device, "test", "a test", utc_now())
    with prefect_worker(environment, tmp_path / "worker.log"):
        row = roll_out_target(plan, find_target("cpu"))
    assert (row.state, row.devices[0].state) == ("promoted", "active"), row.devices[0].why
    assert row.devices[0].parity_px < 1e-3
    assert (tmp_path / "device/cpu/current.json").is_file()
    assert list((tmp_path / "exchange").iterdir()) == []
    assert {run["state_type"] for run in runs(environment)} <= {"COMPLETED", "CANCELLED", "RUNNING"}
