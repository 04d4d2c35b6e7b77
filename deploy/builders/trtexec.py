"""Engines by `trtexec`, for devices whose Python is too old for this project, such as Jetsons.

It is a program of TensorRT, 8.x to 11.x, and is run through a shell: on this machine here, on a device behind SSH by
`deploy.device`, which does all the work.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from deploy.builders.base import BuildResult, Predictions, Probe
from deploy.builders.process import run_program
from deploy.builders.trtexec_lines import Banner, banner_line, read_banner
from deploy.targets import TrtexecTarget, meets
from schemas.errors import ModelFileError

PROGRAM = "trtexec"
PROGRAMS = (PROGRAM, "/usr/src/tensorrt/bin/trtexec")
"""On the path, and where TensorRT's packages put it."""

BANNER_TIMEOUT_S = 120.0


class TrtexecBuilder:
    """Builds and runs here only where `trtexec` and a GPU are; elsewhere on a device."""

    name = "trtexec"
    suffix = ".engine"
    recipe = "deploy.builder_graph"

    def versions(self) -> dict[str, str]:
        version = _banner().version
        return {} if version is None else {"tensorrt": version}

    def probe(self) -> Probe:
        banner = _banner()
        if banner.version is None:
            return Probe(False, "trtexec is not here; engines are built on the device")
        versions = {"tensorrt": banner.version}
        if banner.compute_capability is None:
            return Probe(False, f"trtexec {banner.version} sees no GPU", versions)
        return Probe(True, f"trtexec {banner.version}, builds for {banner.gpu}", versions)

    def build(self, onnx: Path, target: TrtexecTarget, directory: Path) -> BuildResult:
        """Build for the GPU of this machine.

        Raises:
            EngineMismatchError: GPU, TensorRT or JetPack here are not the target's.
            EngineBuildError: trtexec refused the model.
        """
        from deploy.device.build import build_there
        from deploy.shells.local import LocalShell

        here = LocalShell("this machine", str(directory.parent))
        return build_there(here, target, onnx, directory, program=program_here())

    def not_runnable(self, target: TrtexecTarget) -> str:
        """Why not: no trtexec, another GPU, or another TensorRT than the target's."""
        banner = _banner()
        if banner.version is None or banner.compute_capability != target.compute_capability:
            return f"needs a device with trtexec ({target.devices})"
        wanted = target.tensorrt
        return "" if meets(banner.version, wanted) else f"needs TensorRT {wanted}; here is {banner.version}"

    def open_engine(self, path: Path, target: TrtexecTarget) -> TrtexecEngine:
        if reason := self.not_runnable(target):
            raise ModelFileError(f"{path}: can't be run here: it {reason}")
        return TrtexecEngine(path, target)


class TrtexecEngine:
    """An engine that runs in a process of `trtexec` for each call of `predict`."""

    def __init__(self, path: Path, target: TrtexecTarget) -> None:
        self._path, self._target = path, target

    def predict(self, images_BSSC: np.ndarray) -> Predictions:
        """See `Engine.predict`."""
        from deploy.device.run import predict_there
        from deploy.shells.local import LocalShell

        with tempfile.TemporaryDirectory() as folder:
            here = LocalShell("this machine", folder)
            return predict_there(here, self._target, str(self._path.absolute()), images_BSSC, program=program_here())


def program_here() -> str:
    """`trtexec` of this machine, or its name."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), PROGRAM)


def _banner() -> Banner:
    if shutil.which(program_here()) is None:
        return Banner(None, None, None)
    return read_banner(run_program(banner_line(program_here()), timeout_s=BANNER_TIMEOUT_S).output)
