"""Builders by the name that a target gives."""

from __future__ import annotations

from deploy.builders.base import Builder
from deploy.builders.onnxruntime import OnnxRuntimeBuilder
from deploy.builders.tensorrt import TensorRtBuilder
from deploy.builders.tensorrt_rtx import TensorRtRtxBuilder
from deploy.builders.trtexec import TrtexecBuilder

_ALL: tuple[Builder, ...] = (OnnxRuntimeBuilder(), TensorRtRtxBuilder(), TensorRtBuilder(), TrtexecBuilder())
BUILDERS: dict[str, Builder] = {builder.name: builder for builder in _ALL}
