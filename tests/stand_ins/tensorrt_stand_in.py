"""A stand-in for the package `tensorrt`, for tests: TensorRT-RTX's own bindings, which have the same builder API.

NOT TensorRT. It says to be 10.16.1 and builds for SM86, as without a GPU a generation must be named. Everything else
is NVIDIA's: the parser, the strongly typed network, the profile, the timing cache. Put its folder on PYTHONPATH as
`tensorrt.py`.
"""

from __future__ import annotations

from typing import Any

import tensorrt_rtx_bindings
from tensorrt_rtx_bindings import *  # noqa: F403 - the whole API under another name

__version__ = "10.16.1"


class Builder(tensorrt_rtx_bindings.Builder):
    """Configurations are for SM86."""

    def create_builder_config(self) -> Any:
        config = super().create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(tensorrt_rtx_bindings.ComputeCapability.SM86, 0)
        return config
