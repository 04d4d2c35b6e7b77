"""What a device is, and whether a target's engines can run on it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from deploy.builders.trtexec_lines import banner_line, read_banner
from deploy.gpus import read_gpu
from deploy.shells.base import Shell
from deploy.targets import GpuTarget, Target, TrtexecTarget, load_targets, meets
from schemas.errors import DeviceError, EngineMismatchError

TIMEOUT_S = 120.0
TENSORRT_MODULE = "deploy.builders.tensorrt"
_VERSION_SAID = re.compile(r'"(\d[\w.+]*)"')

# One round trip for all that needs no TensorRT. A device that lacks one of these tools says nothing there.
_SURVEY = """
df -Pk . | tail -n 1; echo '#'
dpkg-query --show --showformat='${Version}' nvidia-jetpack 2>/dev/null; echo; echo '#'
cat /etc/nv_tegra_release 2>/dev/null; echo '#'
set -- --query-gpu=name,compute_cap,driver_version --format=csv,noheader
case ${CUDA_VISIBLE_DEVICES-all} in
    '') ;;
    all | MIG-*) nvidia-smi "$@" ;;
    *) nvidia-smi --id="${CUDA_VISIBLE_DEVICES%%,*}" "$@" ;;
esac 2>/dev/null; echo '#'
"""

# JetPack of a release of L4T and of those after it that are not listed, for devices without the package
# nvidia-jetpack: L4T's major version -> from which minor version on.
_JETPACKS = {
    32: {6: "4.6"},
    34: {1: "5.0"},
    35: {1: "5.0", 2: "5.1"},
    36: {2: "6.0", 4: "6.1", 5: "6.2"},
    38: {2: "7.0", 4: "7.1"},
}


@dataclass(frozen=True)
class DeviceFacts:
    """A device as it is now; None for what it has not, or does not say.

    Attributes:
        gpu: its name.
        compute_capability: 53 for 5.3.
        tensorrt, jetpack, driver: versions.
        free_bytes: on the disk that its engines are on.
        device: its name in the fleet.
    """

    gpu: str | None
    compute_capability: int | None
    tensorrt: str | None
    jetpack: str | None
    driver: str | None
    free_bytes: int | None
    device: str = "the device"

    @property
    def versions(self) -> dict[str, str]:
        """What an engine depends on. TensorRT 8 and 10 load only what exactly their version has built."""
        return {} if self.tensorrt is None else {"tensorrt": self.tensorrt}


def read_facts(shell: Shell, target: Target, *, program: str) -> DeviceFacts:
    """Ask a device what it is.

    Args:
        program: what builds and runs there: `trtexec`, or the Python that has this project.

    Raises:
        DeviceOfflineError: it went away.
        DeviceError: `program` is not there, or does not start.
    """
    disk, jetpack, l4t, gpus = _survey(shell)
    name, capability, driver = read_gpu(gpus.split("\n")[0])
    facts = DeviceFacts(
        gpu=name,
        compute_capability=capability,
        tensorrt=None,
        jetpack=jetpack or jetpack_of(l4t),
        driver=driver or release_of(l4t),
        free_bytes=_free_bytes(disk),
        device=shell.name,
    )
    if isinstance(target, TrtexecTarget):
        return _with_trtexec(facts, shell, program)
    if isinstance(target, GpuTarget):
        return replace(facts, tensorrt=_python_tensorrt(shell, program, target))
    return facts


def free_bytes(shell: Shell) -> int | None:
    """Of the disk that a device's engines are on."""
    return _free_bytes(_survey(shell)[0])


def require_match(facts: DeviceFacts, target: Target) -> None:
    """Let a device of the target pass.

    Raises:
        EngineMismatchError: GPU, TensorRT or JetPack are others; says which target fits, or what to install.
    """
    if isinstance(target, GpuTarget) and (problems := _gpu_problems(facts, target)):
        raise EngineMismatchError(
            f"{facts.device} is no device of target '{target.name}': {'; '.join(problems)}. {_remedy(facts, target)}"
        )


def require_same(built: dict[str, Any], facts: DeviceFacts) -> None:
    """Let an engine pass that this device can load.

    Args:
        built: an engine's `build.json` or manifest: `target`, `versions`.

    Raises:
        EngineMismatchError: the engine was built for another GPU, or by another TensorRT.
    """
    settings, versions = built["target"], built["versions"]
    problems = []
    capability = settings.get("compute_capability")
    if capability not in (None, facts.compute_capability):
        problems.append(f"it was built for SM{capability}, {_gpu(facts)}")
    if "tensorrt" in versions and facts.tensorrt != versions["tensorrt"]:
        problems.append(
            f"it was built by TensorRT {versions['tensorrt']}, {facts.device} has {facts.tensorrt or 'none'}"
        )
    if problems:
        raise EngineMismatchError(
            f"engine {built['build_key']} of target '{settings['name']}' does not run on {facts.device}: "
            f"{'; '.join(problems)}. Bring the device to the versions of the others of its target, or list it in a "
            "target of its own, so that an engine is built for it"
        )


def _gpu_problems(facts: DeviceFacts, target: GpuTarget) -> list[str]:
    problems = []
    if facts.compute_capability != target.compute_capability:
        problems.append(f"{_gpu(facts)}, the target's is SM{target.compute_capability}")
    if not meets(facts.tensorrt, target.tensorrt):
        problems.append(f"it has {_named('TensorRT', facts.tensorrt)}, the target {target.tensorrt}")
    if target.jetpack is not None and not meets(facts.jetpack, target.jetpack):
        problems.append(f"it has {_named('JetPack', facts.jetpack)}, the target {target.jetpack}")
    return problems


def _remedy(facts: DeviceFacts, target: Target) -> str:
    """What to do: the targets that the device does meet, else what to install."""
    fitting = [other.name for other in load_targets().values() if _fits(facts, other)]
    if fitting:
        names = " or ".join(f"'{name}'" for name in fitting)
        return f"In the devices file make it a device of target {names}"
    if isinstance(target, GpuTarget) and facts.compute_capability == target.compute_capability:
        return f"Install {_lacking(facts, target)} there, or add a target with its versions to deploy/targets.yaml"
    return "Add a target for it to deploy/targets.yaml, or correct the address of the device in the devices file"


def _lacking(facts: DeviceFacts, target: GpuTarget) -> str:
    """What to install: a JetPack brings its TensorRT along, and a later one of the same name another."""
    if target.jetpack is None:
        return f"TensorRT {target.tensorrt}"
    if meets(facts.jetpack, target.jetpack):
        return f"TensorRT {target.tensorrt} (a later JetPack {target.jetpack}.x has it)"
    return f"JetPack {target.jetpack}"


def _fits(facts: DeviceFacts, target: Target) -> bool:
    return isinstance(target, GpuTarget) and not _gpu_problems(facts, target)


def _named(what: str, version: str | None) -> str:
    return f"no {what}" if version is None else f"{what} {version}"


def _gpu(facts: DeviceFacts) -> str:
    if facts.compute_capability is None:
        return f"{facts.device} shows no GPU"
    return f"its GPU ({facts.gpu}) is SM{facts.compute_capability}"


def _survey(shell: Shell) -> tuple[str, str, str, str]:
    """Disk, JetPack, L4T and GPUs, each as the device's tools print it, or ''."""
    finished = shell.run(["sh", "-c", _SURVEY], timeout_s=TIMEOUT_S)
    parts = [part.strip() for part in finished.output.split("#\n")]
    if finished.failure or len(parts) != 5:
        raise DeviceError(f"device '{shell.name}' does not say what it is: {finished.failure or finished.output!r}")
    disk, jetpack, l4t, gpus, _ = parts
    return disk, jetpack, l4t, gpus


def _free_bytes(disk: str) -> int | None:
    """Of a line of `df -Pk`: device, blocks, used, available, ..."""
    columns = disk.split()
    return int(columns[3]) * 1024 if len(columns) > 4 and columns[3].isdigit() else None


def release_of(l4t: str) -> str | None:
    """`R32.7.1` of `# R32 (release), REVISION: 7.1, ...`: on a Jetson the driver belongs to it."""
    words = l4t.replace(",", " ").split()
    if "REVISION:" not in words:
        return None
    major = next((word for word in words if word.startswith("R") and word[1:].isdigit()), None)
    return None if major is None else f"{major}.{words[words.index('REVISION:') + 1]}"


def jetpack_of(l4t: str) -> str | None:
    """JetPack's version of a release of L4T, as /etc/nv_tegra_release has it; None for one that is not known."""
    release = release_of(l4t)
    if release is None:
        return None
    major, minor, *_ = (*map(int, re.findall(r"\d+", release)), 0)
    found = [jetpack for first, jetpack in _JETPACKS.get(major, {}).items() if first <= minor]
    return found[-1] if found else None


def _with_trtexec(facts: DeviceFacts, shell: Shell, program: str) -> DeviceFacts:
    finished = shell.run(banner_line(program), timeout_s=TIMEOUT_S)
    banner = read_banner(finished.output)
    if banner.version is None:
        raise DeviceError(
            f"device '{shell.name}': {program} is not there, or is no trtexec: {finished.failure}. Install "
            "TensorRT's samples there (JetPack has them: libnvinfer-bin), or name the program with `trtexec` in "
            "the devices file"
        )
    return replace(
        facts,
        tensorrt=banner.version,
        gpu=banner.gpu or facts.gpu,
        compute_capability=banner.compute_capability or facts.compute_capability,
    )


def _python_tensorrt(shell: Shell, program: str, target: GpuTarget) -> str | None:
    finished = shell.run([program, "-m", TENSORRT_MODULE, "--version"], timeout_s=TIMEOUT_S)
    said = finished.output.splitlines()[-1:]
    version = _VERSION_SAID.fullmatch(said[0]) if said else None
    if finished.failure or version is None:
        raise DeviceError(
            f"device '{shell.name}': {program} has no working TensorRT: {finished.failure or 'it named no version'}. "
            f"Install this project there with its extra 'tensorrt{target.tensorrt_major}', or name the Python "
            "that has it with `python` in the devices file"
        )
    return version[1]
