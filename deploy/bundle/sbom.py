"""A bill of materials (CycloneDX 1.6, JSON): what is in a bundle, what it was made of and by.

It names the snapshot of the training data by its id only: no annotation, image or person. Nothing in it is random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from uuid import NAMESPACE_URL, UUID, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from deploy.bundle.release import Release
from schemas.storage import sha256_of

NAME = "sbom.cdx.json"
PROJECT = "fpenet-workflow"
BUILT_ON = ("gpu", "tensorrt", "jetpack", "driver")
"""Of a device's facts; neither its name nor its disk belongs to an engine."""


def bill_of_materials(release: Release, files: Mapping[str, bytes]) -> bytes:
    """The JSON of a bundle with these files. Its time is when the engine came to its stage."""
    provenance = release.provenance
    model = Component(
        name=provenance.model_name,
        version=provenance.model_version or None,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        description="FPENet: finds the keypoints of a face in its crop",
        hashes=[_sha256(release.manifest["onnx_sha256"])],
        properties=[Property(name="fpenet:hash-of", value="the exported ONNX file, in FP32")],
    )
    snapshot = Component(
        name="training snapshot",
        version=provenance.snapshot_id,
        type=ComponentType.DATA,
        bom_ref="snapshot",
        description="Annotated faces that the model was trained and measured on, named by the hash of their content",
    )
    shipped = [_file(name, content) for name, content in sorted(files.items())]
    builders = [_builder(release, *item) for item in sorted(release.manifest["versions"].items())]
    packages = [_package(*item) for item in sorted(release.manifest["packages"].items())]
    bom = Bom(
        serial_number=_serial(release),
        components=[model, snapshot, *shipped, *builders, *packages],
        metadata=BomMetaData(
            timestamp=datetime.fromisoformat(release.since),
            component=_bundle(release),
            tools=ToolRepository(components=[_package(PROJECT, version(PROJECT))]),
        ),
    )
    bom.register_dependency(bom.metadata.component, [model, *shipped])
    bom.register_dependency(model, [snapshot, *packages])
    for file in shipped:
        bom.register_dependency(file, [model, *builders] if _is_engine(release, file.name) else [model])
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)
    return text.encode() + b"\n"


def _bundle(release: Release) -> Component:
    manifest, target = release.manifest, release.target
    facts = {
        "target": target.name,
        "stage": release.stage,
        "precision": release.precision,
        "build-key": manifest["build_key"],
        "builder": manifest["builder"],
        "check": manifest["check"]["state"],
        **{f"built-on-{name}": value for name, value in (release.device or {}).items() if name in BUILT_ON},
    }
    return Component(
        name=f"fpenet-{target.name}",
        version=manifest["build_key"],
        type=ComponentType.APPLICATION,
        bom_ref="bundle",
        properties=[Property(name=f"fpenet:{name}", value=value) for name, value in facts.items() if value],
    )


def _is_engine(release: Release, name: str) -> bool:
    return name == f"engine/{release.engine.name}"


def _builder(release: Release, name: str, builder_version: str) -> Component:
    """A Python package, or the TensorRT of a device, which comes with JetPack or CUDA."""
    if release.target.builder != "trtexec":
        return _package(name, builder_version)
    return Component(name=name, version=builder_version, type=ComponentType.LIBRARY, bom_ref=f"builder:{name}")


def _file(name: str, content: bytes) -> Component:
    sha256 = hashlib.sha256(content).hexdigest()
    return Component(name=name, type=ComponentType.FILE, bom_ref=f"file:{name}", hashes=[_sha256(sha256)])


def _package(name: str, release: str) -> Component:
    return Component(
        name=name,
        version=release,
        type=ComponentType.LIBRARY,
        bom_ref=f"package:{name}",
        purl=PackageURL("pypi", name=name.lower().replace("_", "-"), version=release),
    )


def _sha256(content: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=content)


def _serial(release: Release) -> UUID:
    return uuid5(NAMESPACE_URL, sha256_of([release.manifest, release.stage, release.since]))
