"""README.md of a bundle: what it is, what was measured, how it is used, what was not run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.builder_graph import network_input, soft_argmax_layers
from deploy.builders.trtexec_lines import build_line, pins_layers, version_of
from deploy.bundle import calibration, deepstream, triton
from deploy.bundle.release import Release
from deploy.bundle.signing import PUBLIC_SUFFIX, SIGNATURE, SUMS
from deploy.onnx_graph import heatmap_name
from deploy.targets import GpuTarget, TrtexecTarget
from schemas.layouts import layout

README = "README.md"
WITH_OPENSSL_3 = (6,)
"""From this JetPack on; those before it are of Ubuntu 18.04 and 20.04, which have 1.1.1."""
PUBLIC_KEY = f"../signer{PUBLIC_SUFFIX}"
STRONGLY_TYPED = (10,)
"""From this TensorRT on, types are those of the file (`--stronglyTyped`)."""
OTHER_TENSORRT = "10"
"""Whose `trtexec` line stands in the README where the target itself is not built by TensorRT."""


@dataclass(frozen=True)
class Accuracy:
    """Mean errors of the trained network on the KPI faces of a snapshot, in pixels of the crop.

    Attributes:
        snapshot_id: whose KPI faces.
        faces: how many.
        regions: region -> error.
    """

    snapshot_id: str
    faces: int
    regions: Mapping[str, float]


def readme(
    release: Release, files: Mapping[str, bytes], *, accuracy: Accuracy | None = None, signer: str = ""
) -> str:
    """Markdown. `files`: the bundle's other files; `signer`: fingerprint of the key, '' for an unsigned bundle."""
    sections = (
        _what(release),
        _genuine(release, signer),
        _contents(files),
        _accuracy(accuracy),
        _measured(release),
        _gates(release),
        _not_run(release),
        _valid_for(release),
        _building(release),
        _deepstream(release),
        _triton(release),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _what(release: Release) -> str:
    provenance, target = release.provenance, release.target
    channels, height, width = release.onnx.input_shape
    version = f" version {provenance.model_version}" if provenance.model_version else ""
    lines = [
        f"# FPENet for {target.title}",
        "",
        f"Finds {release.onnx.num_keypoints} keypoints of a face in its crop: {channels} x {height} x {width}, "
        "float32, 0..255, a square around the face. Out come keypoints in pixels of the crop (`softargmax`) and a "
        "confidence each (`softargmax:1`).",
        "",
        f"- model: {provenance.model_name}{version}",
        f"- training snapshot: `{provenance.snapshot_id}`",
        f"- target: `{target.name}`, {release.precision.upper()}, 1 to {target.batch.maximum} faces a call, tuned "
        f"for {target.batch.optimum}",
        f"- engine: `{release.manifest['build_key']}`, by {release.manifest['builder']}",
        f"- stage: {release.stage} since {release.since}",
    ]
    if release.stage != "production":
        lines += ["", f"**Not promoted to production**: it is at stage {release.stage}."]
    return "\n".join(lines)


def _genuine(release: Release, signer: str) -> str:
    if not signer:
        return (
            "## Is it genuine?\n\n**UNSIGNED**: nothing says who made it. Whether files were damaged on the way:\n\n"
            + _shell(f"sha256sum -c {SUMS}")
        )
    openssl = (
        f"openssl pkeyutl -verify -pubin -inkey {PUBLIC_KEY} -rawin -in {SUMS} -sigfile {SIGNATURE} && \\\n"
        f"  sha256sum -c {SUMS}"
    )
    return (
        f"## Is it genuine?\n\nSigned (Ed25519) by the key with the fingerprint `{signer}`. Check it with the "
        "signer's public key, which you have from the signer: a key that came with the files would prove nothing. In "
        "this folder:\n\n"
        + _shell(f"fpenet bundle verify . --public-key {PUBLIC_KEY}")
        + "\n\nor without this project, with OpenSSL 3, which does not notice added files:\n\n"
        + _shell(openssl)
        + _where_to_check(release)
    )


def _where_to_check(release: Release) -> str:
    target = release.target
    if not isinstance(target, GpuTarget) or target.jetpack is None or version_of(target.jetpack) >= WITH_OPENSSL_3:
        return ""
    return (
        f"\n\nJetPack {target.jetpack} has OpenSSL 1.1.1, whose `pkeyutl` can't check this signature: check the "
        "bundle where OpenSSL 3 or this project is, before you copy it to the device."
    )


def _contents(files: Mapping[str, bytes]) -> str:
    rows = ((f"`{name}`", f"{len(content):,}") for name, content in sorted(files.items()))
    return "## What is in it\n\n" + _table(("file", "bytes"), rows)


def _accuracy(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return "## How accurate is the network?\n\nIts errors stand on the page of its version in the registry."
    rows = ((region, f"{px:.2f}") for region, px in accuracy.regions.items())
    return (
        f"## How accurate is the network?\n\nMean distance from the labels on the {accuracy.faces:,} KPI faces of "
        f"snapshot `{accuracy.snapshot_id}`, in pixels of the crop.\n\n" + _table(("region", "px"), rows)
    )


def _measured(release: Release) -> str:
    check = release.manifest["check"]
    columns = {"ONNX file": check["graph"], "engine": check["parity"]}
    known = {name: parity for name, parity in columns.items() if parity}
    head = ("region", *(f"{name}, {kind}" for name in known for kind in ("mean px", "worst px")))
    rows = (
        (
            region,
            *(f"{parity[kind][region]:.2g}" for parity in known.values() for kind in ("mean_px", "max_px")),
        )
        for region in check["graph"]["mean_px"]
    )
    text = (
        "## How far is the engine from the network?\n\nDistance of its keypoints from those of the trained network "
        f"in float, in pixels of the crop, on {check['graph']['faces']} faces of the KPI set."
    )
    speed = _speed(check["latency"], check["device"]) if check["latency"] else ""
    return "\n\n".join(part for part in (text, _table(head, rows), speed) if part)


def _gates(release: Release) -> str:
    """What the target asks, and whether it was reached: a bundle has no gate that was missed."""
    gates = release.manifest["check"]["gates"]
    if not gates:
        return ""
    rows = (
        (
            gate["name"],
            "not measured" if gate["value"] is None else f"{gate['value']:.4g}",
            f"{gate['bound']:g}",
            gate["unit"],
        )
        for gate in gates
    )
    ladder = [f"- {rung}" for rung in release.manifest["ladder"]]
    tried = ["Precisions that were tried:", "\n".join(ladder)] if ladder else []
    return "\n\n".join(("## What the target asks", _table(("", "measured", "bound", ""), rows), *tried))


def _speed(latency: Mapping[str, Any], device: str) -> str:
    where = f" on {device}" if device else ""
    return (
        f"One call{where}, batch {latency['batch']}: p50 {latency['p50_ms']:.2f} ms, p99 {latency['p99_ms']:.2f} ms, "
        f"{1000 * latency['batch'] / latency['p50_ms']:,.0f} faces a second ({latency['runs']} calls)."
    )


def _not_run(release: Release) -> str:
    check, missing = release.manifest["check"], []
    if check["parity"] is None:
        missing.append(
            f"The engine was built and **not run**: it {check['reason']}. Its ONNX file was run on a CPU instead; "
            "measure engine and speed on the device before you rely on them."
        )
    if release.needs_gpu:
        missing.append(
            "The DeepStream files were checked against the ONNX file, not in a DeepStream pipeline. An engine that "
            "DeepStream builds of it is another one than the engine that was checked."
        )
    missing.append("The Triton configuration was checked against the model, not in a Triton server.")
    return "## What was not run\n\n" + "\n".join(f"- {line}" for line in missing)


def _valid_for(release: Release) -> str:
    target, device = release.target, release.device or {}
    built_on = {"GPU": device.get("gpu"), "JetPack": device.get("jetpack"), "driver": device.get("driver")}
    runs_on = {
        "GPU": target.devices if release.needs_gpu else None,
        "TensorRT": release.tensorrt,
        "JetPack": target.jetpack if isinstance(target, GpuTarget) else None,
    }
    rows = [("built by", f"{name} {version}") for name, version in sorted(release.manifest["versions"].items())]
    rows += [(f"built on {name}", value) for name, value in built_on.items() if value]
    rows += [(f"runs with {name}", value) for name, value in runs_on.items() if value]
    rows.append(("ONNX opset", str(release.onnx.opset)))
    note = "An engine runs on no other GPU and with no other TensorRT: build it again there." * release.is_plan
    return "\n\n".join(part for part in ("## What it is valid for", _table(("", ""), rows), note) if part)


def _building(release: Release) -> str:
    text = (
        "## Build the engine again\n\n"
        f"`engine/{release.manifest['reproduce']}` does what was done, with this project installed."
    )
    if not release.needs_gpu:
        return text
    version = release.tensorrt or OTHER_TENSORRT
    return (
        f"{text} With nothing but TensorRT {version}, in a copy of `engine/`:\n\n"
        f"{_shell(trtexec_line(release, version))}\n\n{_on_precision(release, version)}"
    )


def _on_precision(release: Release, version: str) -> str:
    strongly_typed = version_of(version) >= STRONGLY_TYPED
    told = "The precision stands in the ONNX file, INT8's scales too (Q/DQ)" + (
        "." if strongly_typed else f"; TensorRT {version} wants to be told as well."
    )
    if release.precision != "fp32":
        told = f"{told} {_on_soft_argmax(release, version)}"
    if release.exported is None:
        return told
    return (
        f"{told}\n\nA builder that quantises by itself (TensorRT up to 10) takes `{calibration.FOLDER}/` instead: "
        f"`--onnx={calibration.MODEL} --int8 --fp16 --calib={calibration.CACHE}`. It chooses by itself what runs in "
        "INT8, so measure what comes out."
    )


def _on_soft_argmax(release: Release, version: str) -> str:
    why = "FP16 knows no steps below 1/16 px beyond pixel 64"
    if pins_layers(version):
        return f"Soft-argmax stays in FP32: {why}."
    measured = (
        "see above how far the engine is from the network"
        if release.manifest["check"]["parity"]
        else "measure how far the engine is from the network"
    )
    return (
        f"Soft-argmax may run in FP16, for the trtexec of TensorRT {version} has no option that keeps layers in "
        f"FP32: {why}, so {measured}. nvinfer has one (`layer-device-precision`, also in DeepStream 6.0 of JetPack "
        "4.6), and the configuration in this bundle uses it for the engine that DeepStream builds."
    )


def trtexec_line(release: Release, version: str) -> str:
    """The command that builds the bundle's engine with this version of TensorRT, one option a line."""
    like = release.target.model_dump(include={"name", "title", "precision", "opset_ceiling", "batch", "gates"})
    known = {"compute_capability": 75, "workspace_mib": None, **release.target.model_dump(include={"workspace_mib"})}
    target = TrtexecTarget.model_validate({**like, **known, "builder": "trtexec", "tensorrt": version})
    model = release.model
    layers = soft_argmax_layers(model)
    program, *options = build_line("trtexec", version, target, network_input(model), float32_layers=layers)
    return " \\\n  ".join((program, *map(shlex.quote, options)))


def _deepstream(release: Release) -> str:
    if not release.needs_gpu:
        return "## DeepStream\n\nNo files for it: DeepStream needs a GPU."
    num_keypoints = release.onnx.num_keypoints
    folder, config = deepstream.FOLDER, deepstream.CONFIG
    engine = (
        f"To run the very engine that was checked, take `{deepstream.ENGINE_CONFIG}`: its TensorRT must be "
        "DeepStream's, and it puts out no heatmap, which NVIDIA's sample does not read."
        if release.is_plan
        else "The engine in `engine/` is TensorRT-RTX's, which DeepStream does not read."
    )
    steps = (
        f"Copy the bundle to where it can be written: nvinfer keeps the engine that it builds at first start in "
        f"`{folder}/`.",
        f"Set `config-file-path` of the secondary nvinfer, behind a face detector, to `{folder}/{config}`. Its "
        f"tensors are `softargmax` ({num_keypoints} x 2), `softargmax:1` ({num_keypoints}) and "
        f"`{heatmap_name(num_keypoints)}`. {engine}",
        "Make the detector's boxes square, on the longer side, before this stage, as NVIDIA's sample does: nvinfer "
        "scales a box to the crop whatever its shape.",
        "For the sample (`deepstream-faciallandmark-app` of deepstream_tao_apps) name `config-file-path` of "
        "`secondary-gie` and of `model-config` in its YAML: "
        f"`{config}` and `sample_faciallandmarks_config.yml`; `.txt` is for its older versions. {_sample(release)} "
        "The first versions know 80 points only, under TAO's old names (`fpenet export --backend tfonnx`).",
    )
    return "## DeepStream\n\n" + "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))


def _sample(release: Release) -> str:
    known = layout(release.onnx.num_keypoints)
    if known.is_face:
        return "Its eye rectangles go around points 37 to 48, which are the eyes here too."
    return "Its eye rectangles go around points 37 to 48, which are no eyes in this layout: leave them out."


def _triton(release: Release) -> str:
    served = (
        "It serves the engine in `engine/`: take the Triton whose TensorRT is that of the table above."
        if release.is_plan
        else "It serves the ONNX file by ONNX Runtime."
    )
    return (
        f"## Triton\n\n{served}\n\n{_shell(f'tritonserver --model-repository=$PWD/{triton.FOLDER}')}\n\n"
        f"The model is called `{triton.NAME}`, as in NVIDIA's DeepStream samples."
    )


def _shell(command: str) -> str:
    return f"```sh\n{command}\n```"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
