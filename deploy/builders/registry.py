"""Builders by the name that a target gives."""

from __future__ import annotations

from deploy.builders.base import Builder, Probe
from deploy.builders.onnxruntime import OnnxRuntimeBuilder
from deploy.builders.tensorrt import TensorRtBuilder
from deploy.builders.tensorrt_rtx import TensorRtRtxBuilder
from deploy.builders.trtexec import TrtexecBuilder
from deploy.targets import Target
from schemas.errors import EngineBuildError

_ALL: tuple[Builder, ...] = (OnnxRuntimeBuilder(), TensorRtRtxBuilder(), TensorRtBuilder(), TrtexecBuilder())
BUILDERS: dict[str, Builder] = {builder.name: builder for builder in _ALL}


def require_here(target: Target) -> Probe:
    """What builds for a target on this machine.

    Raises:
        EngineBuildError: its builder does not work here.
    """
    builder = BUILDERS[target.builder]
    probe = builder.probe()
    if not probe.available:
        raise EngineBuildError(f"target '{target.name}': {builder.name} does not build here: {probe.reason}")
    return probe
