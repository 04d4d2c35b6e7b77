import pytest

from deploy.devices import load_devices
from schemas.errors import SpecError

NANO = "devices: {{nano-1: {{target: {target}, ring: canary, reach: {{kind: local, directory: engines}}}}}}\n"


def test_the_devices_that_come_with_the_project_load():
    assert all(name == device.name for name, device in load_devices().items())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("t5", r"there is no target 't5' \(did you mean 't4'"),
        (
            "rtx",
            r"built ahead of time and bundled, not run by this project.*`fpenet bundle --target rtx`.*: cpu, .*t4",
        ),
    ],
)
def test_a_device_of_a_target_that_no_device_can_be_of(target, message, tmp_path):
    path = tmp_path / "devices.yaml"
    path.write_text(NANO.format(target="jetson-nano"))
    assert load_devices(path)["nano-1"].target == "jetson-nano"
    path.write_text(NANO.format(target=target))
    with pytest.raises(SpecError, match=rf"devices\.yaml: devices\.nano-1\.target: .*{message}"):
        load_devices(path)
