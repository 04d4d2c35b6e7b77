"""Builders by the name that a target gives."""

from __future__ import annotations

from deploy.builders.base import Builder
from deploy.builders.onnxruntime import OnnxRuntimeBuilder
from deploy.builders.tensorrt_rtx import TensorRtRtxBuilder

BUILDERS: dict[str, Builder] = {builder.name: builder for builder in (OnnxRuntimeBuilder(), TensorRtRtxBuilder())}
