"""The command line `fpenet`. Only the parser lives here: a command's code is imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from flows.entry.quiet import hold_tensorflow_start
from schemas.errors import FpenetError
from schemas.sealed import Key

DESCRIPTION = (
    "From facial-keypoint annotations to engines on devices: TAO's fpenet commands, and the flows around them."
)
EPILOG = """\
the whole line, from annotations to checked engines:
  fpenet run retrain --config examples/demo.yaml

TAO's commands keep their options and spec files:
  fpenet dataset_convert -e dataset_config.yaml
  fpenet train -e experiment_spec.yaml -r results -k KEY
  fpenet evaluate -m results -e experiment_spec.yaml
  fpenet export -m results/model.keras -o model.onnx
  fpenet inference -e experiment_spec.yaml -i faces.json -m model.onnx -o out -r images

`fpenet COMMAND --help` explains one command. Exit codes: 0 done, 2 bad input, 3 a source can't deliver,
4 a gate refused, 5 storage, 6 MLflow, 1 anything else.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fpenet", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_tao_commands(commands)
    _add_workflow_commands(commands)
    _add_label_studio_commands(commands)
    return parser


def _command(commands: Any, name: str, handler: str, summary: str, *, more: str = "") -> argparse.ArgumentParser:
    """Add a command. `handler` is `module:function`; it takes the parsed arguments, returns an exit code or None."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {more}".strip())
    parser.set_defaults(handler=f"flows.entry.{handler}")
    return parser


def _add_tao_commands(commands: Any) -> None:
    convert = _command(commands, "dataset_convert", "tao:dataset_convert", "convert ground-truth JSON to TFRecords")
    convert.add_argument("-e", "--experiment_spec", required=True, metavar="FILE", help="dataset spec (YAML)")
    convert.add_argument("-r", "--results_dir", metavar="DIR", help="the report's place (default: beside the sets)")

    train = _command(
        commands,
        "train",
        "tao:train",
        "train a network from TFRecords",
        more="Run it again after an interruption and it goes on from the last checkpoint.",
    )
    train.add_argument("-e", "--experiment_spec", required=True, metavar="FILE", help="experiment spec (YAML)")
    train.add_argument("-r", "--results_dir", metavar="DIR", help="results (default: checkpoint_dir of the spec)")
    train.add_argument(
        "--allow-unknown-subjects",
        action="store_true",
        help="accept TFRecords that do not say whose face it is, as TAO's own: KPI subjects may be among them",
    )
    train.add_argument(
        "--gpus", type=int, metavar="N", help="GPUs to use, each with the spec's batch_size (default: all visible)"
    )
    train.add_argument("--gpu_index", type=int, nargs="+", metavar="I", help="which GPUs to use, counted from 0")
    _add_key(train, "encrypts the model and the checkpoint, and opens an encrypted pretrained model")

    evaluate = _command(commands, "evaluate", "tao:evaluate", "measure the region keypoint error on the KPI sets")
    evaluate.add_argument("-m", "--model", required=True, metavar="PATH", help="results folder, or a model file")
    evaluate.add_argument(
        "-e",
        "--experiment_spec",
        default="experiment_spec.yaml",
        metavar="FILE",
        help="experiment spec: a path, or a name inside the results folder (default: %(default)s)",
    )
    evaluate.add_argument(
        "-r",
        "--results_dir",
        metavar="DIR",
        help="where the tables and evaluation.html go (default: the model's folder)",
    )
    evaluate.add_argument(
        "-type", default="kpi_testing", metavar="TYPE", help="what is measured: kpi_testing, as in TAO's scripts"
    )
    _add_key(evaluate, "opens an encrypted model")

    inference = _command(commands, "inference", "tao:inference", "find the keypoints of faces in images")
    inference.add_argument("-e", "--experiment_spec", required=True, metavar="FILE", help="experiment spec (YAML)")
    inference.add_argument(
        "-i", "--input", required=True, metavar="FILE", help="JSON with image names and face boxes"
    )
    inference.add_argument(
        "-m", "--model", required=True, metavar="FILE", help="model: .keras, .onnx, encrypted, or engine"
    )
    inference.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="folder for result.txt, result.json and the drawn images"
    )
    inference.add_argument("-r", "--root", default="", metavar="DIR", help="folder the image names are relative to")
    inference.add_argument("--no-images", action="store_true", help="write no drawn images: large ones take longest")
    _add_key(inference, "opens an encrypted model")

    _add_export(commands)


def _add_export(commands: Any) -> None:
    export = _command(
        commands,
        "export",
        "tao:export",
        "export a trained model to ONNX",
        more="INT8 stands in the ONNX file, as Q/DQ; beside it are left the FP32 file (NAME.fp32.onnx) and the "
        "calibration cache (NAME.cal.bin) for builders that quantise by themselves. First and last convolution and "
        "soft-argmax stay in float, and so do layers that move keypoints too far. INT8 is for GPUs: on a CPU "
        "ONNX Runtime is faster with FP32.",
    )
    export.add_argument(
        "-m", "--model", required=True, metavar="FILE", help="trained model (.keras), encrypted or not"
    )
    export.add_argument(
        "-o", "--output", metavar="FILE", help="ONNX file; .onnx is added to other names (default: beside the model)"
    )
    _add_key(export, "opens an encrypted model, and encrypts the ONNX file")
    export.add_argument(
        "-t",
        "--target_opset",
        type=int,
        default=13,
        metavar="N",
        help="ONNX opset, 10 to 13; int8 needs 13 (default: %(default)s, in TAO 10)",
    )
    export.add_argument(
        "-b",
        "--backend",
        choices=("onnx", "tfonnx", "uff"),
        default="onnx",
        help="tensor names: onnx has input_face_images, softargmax, softargmax:1; tfonnx TAO's old "
        "input_face_images:0, softargmax/strided_slice:0, softargmax/strided_slice_1:0; uff is gone with TensorRT 9 "
        "(default: %(default)s, in TAO tfonnx)",
    )
    export.add_argument(
        "--heatmap", action="store_true", help="give the heatmap as a third output, as DeepStream wants"
    )
    export.add_argument(
        "-d",
        "--input_dims",
        type=_three_integers,
        metavar="C,H,W",
        help="checked against the model; H,W,C is understood too",
    )
    export.add_argument(
        "--static_batch_size",
        type=_batch,
        default=-1,
        metavar="N",
        help="fixed batch; -1 is any (default: %(default)s)",
    )
    export.add_argument(
        "-e",
        "--experiment_spec",
        metavar="FILE",
        help="the training's spec: its image_info is checked against the model, and int8 without --cal_image_dir "
        "calibrates on its training faces",
    )
    export.add_argument("-r", "--results_dir", metavar="DIR", help="also write what was done here, as export.json")
    export.add_argument(
        "-s",
        "--strict_type_constraints",
        action="store_true",
        help="always so: the precision stands in the ONNX file, and builders keep to it",
    )
    _add_calibration(export)
    _add_engine_file(export)


def _add_calibration(export: argparse.ArgumentParser) -> None:
    export.add_argument(
        "--data_type", choices=("fp32", "fp16", "int8"), default="fp32", help="precision (default: %(default)s)"
    )
    export.add_argument("--cal_image_dir", metavar="DIR", help="int8: folder of face crops to calibrate on")
    export.add_argument(
        "--cal_data_file", metavar="FILE", help="int8: TAO's tensorfile; used if it is there, else written"
    )
    export.add_argument(
        "--cal_cache_file",
        metavar="FILE",
        help="int8: TensorRT's calibration cache; used if it is there, which skips calibration, else written "
        "(default: NAME.cal.bin beside the ONNX file, always written; in TAO ./cal.bin)",
    )
    export.add_argument(
        "--batches",
        type=_count,
        metavar="N",
        help="int8: batches to calibrate on (default: all images of the folder, a tenth of the training faces)",
    )
    export.add_argument("--batch_size", type=_count, metavar="N", help="int8: faces in such a batch (default: 1)")
    export.add_argument(
        "--max_shift_px",
        type=float,
        metavar="PX",
        help="int8: refuse to write what moves the keypoints of a region by more than this from FP32, on average, in "
        "input pixels (default: aim at 0.08 and warn)",
    )


def _add_engine_file(export: argparse.ArgumentParser) -> None:
    export.add_argument("--engine_file", metavar="FILE", help="also build an engine")
    export.add_argument(
        "--target", metavar="NAME", help="engine: device, such as rtx-sm86 (default: the GPU of this machine)"
    )
    export.add_argument(
        "--max_batch_size", type=_count, metavar="N", help="engine: faces in one call at most (default: the target's)"
    )
    export.add_argument(
        "--opt_batch_size", type=_count, metavar="N", help="engine: faces it is tuned for (default: the target's)"
    )
    export.add_argument(
        "--max_workspace_size", type=_count, metavar="BYTES", help="engine: GPU memory to choose kernels in"
    )


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def _batch(text: str) -> int:
    return -1 if text == "-1" else _count(text)


def _three_integers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"'{text}' is not three whole numbers, such as 1,80,80")
    return tuple(_count(part.strip()) for part in parts)


def _add_key(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "-k",
        "--key",
        type=Key,
        metavar="KEY",
        help=f"{what}. The environment variable FPENET_KEY keeps it off the list of processes; -k '' means no key",
    )


def _add_workflow_commands(commands: Any) -> None:
    run = _command(
        commands,
        "run",
        "workflow:run",
        "run a flow here, without a Prefect server to start",
        more="Running it again redoes only what has changed, and says what it reused.",
    )
    run.add_argument("flow", choices=("retrain",), help="which flow")
    run.add_argument("--config", required=True, metavar="FILE", help="configuration (YAML)")
    run.add_argument("--verbose", action="store_true", help="show Prefect's log")

    _add_workspace(_command(commands, "status", "workflow:status", "show which engine is at which stage, per target"))
    for name, summary in (
        ("promote", "make the staged engine of a target its production engine"),
        ("rollback", "restore the production engine that a target had before"),
    ):
        parser = _command(commands, name, f"workflow:{name}", summary)
        parser.add_argument("--target", required=True, metavar="NAME", help="target device, such as cpu")
        parser.add_argument("--by", metavar="NAME", help="who decides (default: the login name)")
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; kept in the target's log")
        _add_workspace(parser)

    _command(commands, "doctor", "workflow:doctor", "show what is installed, missing, and can be built here")


def _add_workspace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workspace", default="workspace", metavar="DIR", help="workspace of the flow (%(default)s)")


def _add_label_studio_commands(commands: Any) -> None:
    parser = commands.add_parser("label-studio", help="set up Label Studio projects")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    load = _command(
        actions,
        "import",
        "label_studio:import_folder",
        "make a project from a folder of Sloth/TAO ground truth",
        more="The token comes from the environment variable LABEL_STUDIO_API_KEY. Running it twice doubles nothing.",
    )
    load.add_argument("--url", required=True, metavar="URL", help="Label Studio, such as http://127.0.0.1:8080")
    load.add_argument(
        "--title", required=True, metavar="TEXT", help="title of the project, created if it is not there"
    )
    load.add_argument("--folder", required=True, metavar="DIR", help="folder with gt/**/*.json and the images")
    load.add_argument("--num-keypoints", type=int, default=80, metavar="N", help="(default: %(default)s)")
    load.add_argument("--dataset", required=True, metavar="NAME", help="first part of the subjects: NAME/<id>")
    subject = load.add_mutually_exclusive_group(required=True)
    subject.add_argument("--subject-csv", metavar="FILE", help="CSV with the columns file and subject_id")
    subject.add_argument(
        "--subject-pattern", metavar="REGEX", help="on the image name, with a group (?P<subject>...)"
    )

    serve = _command(
        actions,
        "serve",
        "label_studio:serve",
        "start a Label Studio for this machine alone",
        more="It needs the environment that `make label-studio` makes.",
    )
    serve.add_argument("--data", default="workspace/label-studio", metavar="DIR", help="its database (%(default)s)")
    serve.add_argument("--port", type=int, default=8080, metavar="N", help="on the loopback interface (%(default)s)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its errors become one message and an exit code."""
    parsed = build_parser().parse_args(arguments)
    hold_tensorflow_start()
    module, function = parsed.handler.split(":")
    try:
        return getattr(importlib.import_module(module), function)(parsed) or 0
    except FpenetError as error:
        sys.stderr.write(f"fpenet: error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("fpenet: interrupted; run the same command again to go on\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
