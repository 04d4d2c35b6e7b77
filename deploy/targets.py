"""The catalogue of target devices."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter, field_validator, model_validator

from schemas.errors import SpecError, nearest
from schemas.layouts import layout
from schemas.yamlspec import SpecModel, load_spec

CATALOGUE = Path(__file__).with_name("targets.yaml")

Precision = Literal["fp32", "fp16", "mixed", "int8"]
RtxComputeCapability = Literal[75, 80, 86, 89, 120, 121]
Version = Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]


def meets(found: str | None, wanted: str) -> bool:
    """Whether a version begins with all parts of another: 8.2.1 meets 8.2, 8.20 does not.

    A fourth part counts only where the version has one: `trtexec` tells three of its own.
    """
    has, asked = _parts(found or ""), _parts(wanted)
    return has[: len(asked)] == asked[: max(len(has), 3)]


def _parts(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


class BatchProfile(SpecModel):
    """Faces in one call: the fewest, the number the engine is tuned for, the most."""

    minimum: PositiveInt = 1
    optimum: PositiveInt = 1
    maximum: PositiveInt = 1

    @model_validator(mode="after")
    def _ordered(self) -> BatchProfile:
        if not self.minimum <= self.optimum <= self.maximum:
            raise ValueError(
                f"minimum {self.minimum}, optimum {self.optimum} and maximum {self.maximum} must not decrease"
            )
        return self


class ParityBound(SpecModel):
    """Largest distance from Keras in network-input pixels: mean over a region's keypoints, and any one keypoint."""

    mean_px: PositiveFloat
    max_px: PositiveFloat


class TargetGates(SpecModel):
    """What an engine must reach. Null sets no bound.

    Attributes:
        parity: of every region, against the network in float.
        regions: region -> another bound than `parity`.
        confidence: largest mean difference of a confidence, in spreads: see `deploy.parity.Parity`. A constant, which
            says nothing, is off by 1 or more.
        min_fps: faces a second at `batch.optimum`, measured on the device.
        max_p99_ms: 99th percentile of one call at `batch.optimum`, measured on the device.
        max_size_mib: of the engine's file.
    """

    parity: ParityBound
    regions: dict[str, ParityBound] = {}
    confidence: PositiveFloat = 0.5
    min_fps: PositiveFloat | None = None
    max_p99_ms: PositiveFloat | None = None
    max_size_mib: PositiveFloat | None = None

    @field_validator("regions")
    @classmethod
    def _known(cls, regions: dict[str, ParityBound]) -> dict[str, ParityBound]:
        known = layout(80).regions
        for name in regions:
            if name not in known:
                raise ValueError(f"there is no region '{name}'{nearest(name, known)}; known: {', '.join(known)}")
        return regions

    def parity_of(self, region: str) -> ParityBound:
        return self.regions.get(region, self.parity)


_NOT_BUILT = {"title", "opset_ceiling", "gates", "expected_fps"}


class TargetBase(SpecModel):
    """A kind of device.

    Attributes:
        name: key of the catalogue.
        title: what it is, for people.
        precision: of everything up to the heatmap; soft-argmax is always FP32. `int8` falls back to `mixed` (more
            layers in float) and then to `fp16` where the graph is beyond the gate's parity.
        opset_ceiling: newest ONNX opset that its parser reads.
        expected_fps: of the published model, for people; null where nobody has published one. The gate is `min_fps`.
    """

    name: str
    title: str
    precision: Precision
    opset_ceiling: Annotated[int, Field(ge=13)]
    batch: BatchProfile
    gates: TargetGates
    expected_fps: PositiveFloat | None = None

    def build_settings(self) -> dict[str, Any]:
        """All that decides what the builder makes: part of an engine's `build_key`."""
        return self.model_dump(mode="json", exclude=_NOT_BUILT, exclude_none=True)


class OnnxRuntimeTarget(TargetBase):
    """`threads`: of one inference session."""

    builder: Literal["onnxruntime"]
    threads: PositiveInt = 1


class TensorRtRtxTarget(TargetBase):
    """`compute_capabilities`: GPU generations one file serves, 86 for 8.6.

    `workspace_bytes`: GPU memory that the builder's choice of kernels may need beside weights and activations; null
    leaves it to the builder.
    """

    builder: Literal["tensorrt-rtx"]
    compute_capabilities: Annotated[list[RtxComputeCapability], Field(min_length=1)]
    workspace_bytes: PositiveInt | None = None

    @property
    def devices(self) -> str:
        return ", ".join(f"SM{capability}" for capability in self.compute_capabilities)


class GpuTarget(TargetBase):
    """A kind of GPU whose engines run only on it, with the TensorRT they were built by.

    Attributes:
        compute_capability: 53 for 5.3.
        tensorrt: version that the devices have, as many of its parts as must match: 8.2 is met by 8.2.1.
        jetpack: the same of a Jetson's JetPack; null for others.
        workspace_mib: GPU memory that the builder's choice of kernels may need; null leaves it to the builder.
    """

    compute_capability: Annotated[int, Field(ge=50, le=130)]
    tensorrt: Version
    jetpack: Version | None = None
    workspace_mib: PositiveInt | None = None

    @property
    def devices(self) -> str:
        return f"SM{self.compute_capability}"

    @property
    def tensorrt_major(self) -> int:
        return int(self.tensorrt.split(".")[0])


class TensorRtTarget(GpuTarget):
    """Built by TensorRT's Python package, on a machine with such a GPU."""

    builder: Literal["tensorrt"]


class TrtexecTarget(GpuTarget):
    """Built by `trtexec`, on such a device itself."""

    builder: Literal["trtexec"]


Target = Annotated[
    OnnxRuntimeTarget | TensorRtRtxTarget | TensorRtTarget | TrtexecTarget, Field(discriminator="builder")
]


def with_names(data: Any, section: str) -> Any:
    """A file whose `section` maps names to bodies, each body with its name in it; what is no such file, as it is."""
    entries = data.get(section) if isinstance(data, dict) else None
    if not isinstance(entries, dict):
        return data
    named = {key: {**body, "name": key} if isinstance(body, dict) else body for key, body in entries.items()}
    return {**data, section: named}


class Catalogue(SpecModel):
    targets: dict[str, Target]

    @model_validator(mode="before")
    @classmethod
    def _name_targets(cls, data: Any) -> Any:
        return with_names(data, "targets")


def load_targets(path: Path = CATALOGUE) -> dict[str, Target]:
    """Targets by name.

    Raises:
        SpecError: the catalogue has an unknown key or a bad value.
    """
    return load_spec(Catalogue, path).targets


def find_target(name: str, path: Path = CATALOGUE) -> Target:
    """One target.

    Raises:
        SpecError: the catalogue has no such target; the nearest name is in the message.
    """
    targets = load_targets(path)
    if name not in targets:
        raise SpecError(
            str(path), f"there is no target '{name}'{nearest(name, targets)}; known: {', '.join(targets)}"
        )
    return targets[name]


def target_as_built(settings: dict[str, Any]) -> Target:
    """The target that an engine was built for: its settings are those of then, its title and gates the catalogue's.

    Args:
        settings: `build_settings` of then, as an engine's `build.json` or manifest has them.

    Raises:
        SpecError: the catalogue has no such target any more.
    """
    known = find_target(settings["name"]).model_dump(include=_NOT_BUILT)
    return TypeAdapter(Target).validate_python({**known, **settings})
