"""This machine as the device of a target."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from deploy.builders.base import Predictions
from deploy.builders.registry import BUILDERS
from deploy.builders.trtexec import program_here
from deploy.device.run import run_there
from deploy.parity import Latency, measure_latency
from deploy.shells.local import LocalShell
from deploy.targets import GpuTarget, Target, TrtexecTarget


def run_here(target: Target, engine: Path, images_BSSC: np.ndarray) -> tuple[Predictions, Latency]:
    """As `run_there`. A GPU's engine runs in a process of its own: one that crashes is an error and no more.

    Raises:
        ModelFileError: it can't be loaded, or can't run here.
    """
    if isinstance(target, GpuTarget):
        program = program_here() if isinstance(target, TrtexecTarget) else sys.executable
        with tempfile.TemporaryDirectory() as folder:
            here = LocalShell("this machine", folder)
            return run_there(here, target, str(engine.absolute()), images_BSSC, program=program)
    opened = BUILDERS[target.builder].open_engine(engine, target)
    found = opened.predict(images_BSSC)
    return found, measure_latency(opened, images_BSSC, batch=target.batch.optimum)
