"""`fpenet export`: TAO's options, each of which acts or is refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from flows.entry.terminal import console, say, warn
from schemas.errors import InputError
from schemas.experiment import ExperimentSpec
from schemas.sealed import Key
from schemas.storage import write_json
from schemas.yamlspec import load_spec

if TYPE_CHECKING:
    from deploy.calibration import CalibrationFaces
    from deploy.engine_file import EngineFile
    from deploy.export import ImageShape, Int8Export, OnnxForm
    from deploy.onnx_export import OnnxSummary

INT8_ONLY = ("cal_image_dir", "cal_data_file", "cal_cache_file", "batches", "batch_size", "max_shift_px")
ENGINE_ONLY = ("max_batch_size", "opt_batch_size", "max_workspace_size", "target")
REPORT = "export.json"

TrainingFiles = Callable[[ExperimentSpec, str], list[Path]]


def run_export(arguments: argparse.Namespace, *, key: Key | None, training_files: TrainingFiles) -> int:
    """Export, build an engine if one was asked for, and say what was written.

    Args:
        arguments: as the command line parses them.
        training_files: TFRecord files of the training sets of a spec (and its file name).

    Raises:
        InputError: an option that can't act together with the others, or a value that can't be used.
    """
    refuse_idle(arguments)
    refuse_int8_of_cpu(arguments)
    spec = load_spec(ExperimentSpec, arguments.experiment_spec) if arguments.experiment_spec else None
    form, model = _form(arguments, spec), Path(arguments.model)
    output = Path(arguments.output) if arguments.output else None
    if arguments.data_type == "int8":
        report = _export_int8(arguments, model, output, form, key, spec, training_files)
    else:
        from deploy.export import export_model

        summary = export_model(model, output, precision=arguments.data_type, form=form, key=key)
        _say(summary, arguments.data_type)
        report = {"onnx": summary}
    if arguments.engine_file:
        report["engine"] = _build_engine(arguments, report["onnx"].path, key)
    if arguments.results_dir:
        told = to_jsonable_python({"precision": arguments.data_type, **report})
        write_json(Path(arguments.results_dir) / REPORT, told)
    return 0


def refuse_idle(arguments: argparse.Namespace) -> None:
    """Stop at options that would have no effect together with the others.

    Raises:
        InputError: names the option, and what to do.
    """
    if arguments.backend == "uff":
        raise InputError("--backend uff: TensorRT 9 dropped UFF; use onnx, or tfonnx for TAO's old tensor names")
    given = {name for name, value in vars(arguments).items() if value is not None}
    if arguments.data_type != "int8" and (idle := [name for name in INT8_ONLY if name in given]):
        raise InputError(
            f"--{idle[0]} is for INT8 and would do nothing with --data_type {arguments.data_type}: leave it out, or "
            "give --data_type int8"
        )
    if arguments.engine_file is None and (idle := [name for name in ENGINE_ONLY if name in given]):
        raise InputError(
            f"--{idle[0]} is for the engine and would do nothing without --engine_file: leave it out, or give "
            "--engine_file"
        )


def refuse_int8_of_cpu(arguments: argparse.Namespace) -> None:
    """Stop at an engine of a CPU in INT8: Q/DQ stand where GPUs read them, which is slower than FP32 on a CPU.

    Raises:
        SpecError: no such target.
        InputError: names the target, and what to do.
    """
    if arguments.engine_file is None or arguments.target is None:
        return
    from deploy.precision import CALIBRATED
    from deploy.targets import OnnxRuntimeTarget, find_target

    target = find_target(arguments.target)
    if isinstance(target, OnnxRuntimeTarget) and (arguments.data_type == "int8" or target.precision in CALIBRATED):
        raise InputError(
            f"--target {target.name} with --data_type {arguments.data_type}: export writes the INT8 of GPUs, which a "
            "CPU runs slower than FP32. For INT8 of a CPU put `cpu-int8` among the configuration's targets and run "
            "`fpenet run retrain`; else give --target cpu --data_type fp32"
        )


def _form(arguments: argparse.Namespace, spec: ExperimentSpec | None) -> OnnxForm:
    from deploy.export import OnnxForm

    dims = arguments.input_dims
    if dims is None and spec is not None:
        image = spec.dataloader.image_info.image
        dims = (image.channel, image.height, image.width)
    return OnnxForm(
        opset=arguments.target_opset,
        heatmap=arguments.heatmap,
        naming=arguments.backend,
        batch=None if arguments.static_batch_size == -1 else arguments.static_batch_size,
        input_dims=dims,
    )


def _export_int8(
    arguments: argparse.Namespace,
    model: Path,
    output: Path | None,
    form: OnnxForm,
    key: Key | None,
    spec: ExperimentSpec | None,
    training_files: TrainingFiles,
) -> dict[str, Any]:
    from deploy.export import export_int8

    def choose_faces(image_shape: ImageShape) -> CalibrationFaces:
        return _faces(arguments, image_shape, spec, training_files)

    has_faces = any((arguments.cal_image_dir, arguments.cal_data_file, spec))
    done = export_int8(
        model,
        output,
        choose_faces=choose_faces if has_faces else None,
        cache=Path(arguments.cal_cache_file) if arguments.cal_cache_file else None,
        max_shift_px=arguments.max_shift_px,
        form=form,
        key=key,
    )
    _say(done.onnx, "int8")
    _say_int8(done)
    return {"onnx": done.onnx, "int8": done}


def _faces(
    arguments: argparse.Namespace, image_shape: ImageShape, spec: ExperimentSpec | None, training_files: TrainingFiles
) -> CalibrationFaces:
    """The tensorfile named, if it is there; else faces of the folder or the training set, written to it if named."""
    from deploy.calibration import folder_faces, record_faces, tensorfile_faces
    from deploy.tensorfile import write_tensorfile

    batches, batch_size = arguments.batches, arguments.batch_size
    stored = Path(arguments.cal_data_file) if arguments.cal_data_file else None
    if stored and stored.exists():
        say(f"{stored}: is there, and is used as it is")
        return tensorfile_faces(stored, image_shape=image_shape, batches=batches, batch_size=batch_size)
    sample = {"batches": batches, "batch_size": batch_size or 1}
    if arguments.cal_image_dir:
        faces = folder_faces(Path(arguments.cal_image_dir), image_shape=image_shape, **sample)
    elif spec is not None:
        faces = record_faces(training_files(spec, arguments.experiment_spec), spec, **sample)
    else:
        raise InputError(
            f"{stored}: no such tensorfile, and nothing to make it of: give a folder of face crops with "
            "--cal_image_dir, or the experiment spec with -e"
        )
    if stored is None:
        return faces
    write_tensorfile(stored, faces)
    say(f"{stored}: {faces.origin}")
    return tensorfile_faces(stored, image_shape=image_shape)


def _build_engine(arguments: argparse.Namespace, onnx: Path, key: Key | None) -> EngineFile:
    from deploy.engine_file import EngineOptions, build_engine_file

    options = EngineOptions(
        target=arguments.target,
        optimum=arguments.opt_batch_size,
        maximum=arguments.max_batch_size,
        workspace_bytes=arguments.max_workspace_size,
    )
    built = build_engine_file(onnx, Path(arguments.engine_file), options, key=key)
    state = f"not run here: {built.not_runnable}" if built.not_runnable else "runs here"
    say(
        f"{built.path}: {built.target.precision} engine for {built.target.title}, {built.size:,} bytes, by "
        f"{built.builder} in {built.seconds:.1f} s; {state}",
    )
    return built


def _say(summary: OnnxSummary, precision: str) -> None:
    say(
        f"{summary.path}: {precision}, opset {summary.opset}, {summary.size:,} bytes, batch "
        f"{summary.batch or 'dynamic'}, outputs {', '.join(summary.outputs)}",
    )


def _say_int8(done: Int8Export) -> None:
    if done.cache_reused:
        say(f"{done.cache}: calibration cache is there and is used; nothing was calibrated")
        if done.cache_unknown:
            warn(
                f"{done.cache}: nothing beside it says which model it is of; keypoints move by no more than "
                f"{done.max_shift_px:g} px with it"
            )
    else:
        say(f"calibrated on {done.origin}")
    say(f"in float: {', '.join(done.float_layers)}, and the soft-argmax")
    if done.shift is None:
        console.print("[yellow]not measured[/]: how far keypoints move; give faces with --cal_image_dir or -e")
    else:
        regions = ", ".join(f"{region} {px:.3f}" for region, px in done.shift.mean_px.items())
        say(
            f"keypoints move by, mean over {done.shift.faces} of these faces, in input px: {regions}; "
            f"95 % by less than {done.shift.p95_px['All']:.3f}, at most {done.shift.max_px['All']:.2f}"
        )
        if done.moves_too_far:
            warn(
                f"{done.shift.worst_region} moves by more than the {done.max_shift_px:g} px aimed "
                "at: calibrate on more faces, or use fp16; --max_shift_px makes it a condition"
            )
    say(
        f"builders that read Q/DQ (TensorRT 8.2 and newer, TensorRT-RTX, ONNX Runtime) take {done.onnx.path}\n"
        f"builders that quantise by themselves (TensorRT up to 10, --int8 --calib) take {done.plain.path} with "
        f"{done.cache}"
    )
