"""TAO's commands."""

from __future__ import annotations

import argparse
from typing import Any

from flows.entry.commands.parsers import add_command, count
from schemas.sealed import Key


class _OnlyConst(argparse.Action):
    """An option of TAO's that can't act here, but for the value `const`: its help says why, and so does the error."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, value: object, option: str | None = None) -> None:
        if value != self.const:
            parser.error(f"{option}: {self.help}")


def add(commands: Any) -> None:
    convert, train, evaluate = _add_dataset_convert(commands), _add_train(commands), _add_evaluate(commands)
    inference, export = _add_inference(commands), _add_export(commands)
    _add_one_gpu(convert, "nothing: this command uses no GPU")
    for command in (evaluate, inference, export):
        _add_one_gpu(command, "which GPU to use, counted from 0 (default: the first)")
    for command in (convert, train, evaluate, inference, export):
        _add_what_cant_act(command)


def _add_dataset_convert(commands: Any) -> argparse.ArgumentParser:
    convert = add_command(
        commands, "dataset_convert", "tao:dataset_convert", "convert ground-truth JSON to TFRecords"
    )
    convert.add_argument(
        "-e", "--experiment_spec", "--experiment_spec_file", required=True, metavar="FILE", help="dataset spec (YAML)"
    )
    convert.add_argument("-r", "--results_dir", metavar="DIR", help="the report's place (default: beside the sets)")
    return convert


def _add_train(commands: Any) -> argparse.ArgumentParser:
    train = add_command(
        commands,
        "train",
        "tao:train",
        "train a network from TFRecords",
        more="Run it again after an interruption and it goes on from the last checkpoint.",
    )
    train.add_argument(
        "-e",
        "--experiment_spec",
        "--experiment_spec_file",
        required=True,
        metavar="FILE",
        help="experiment spec (YAML)",
    )
    train.add_argument("-r", "--results_dir", metavar="DIR", help="results (default: checkpoint_dir of the spec)")
    train.add_argument(
        "--allow-unknown-subjects",
        action="store_true",
        help="accept TFRecords that do not say whose face it is, as TAO's own: KPI subjects may be among them; and a "
        "set that the spec names for training and for the KPI",
    )
    train.add_argument(
        "--gpus", type=int, metavar="N", help="GPUs to use, each with the spec's batch_size (default: all visible)"
    )
    train.add_argument("--gpu_index", type=int, nargs="+", metavar="I", help="which GPUs to use, counted from 0")
    _add_key(train, "encrypts the model and the checkpoint, and opens an encrypted pretrained model")
    return train


def _add_evaluate(commands: Any) -> argparse.ArgumentParser:
    evaluate = add_command(commands, "evaluate", "tao:evaluate", "measure the region keypoint error on the KPI sets")
    evaluate.add_argument(
        "-m", "--model", "--model_folder_path", required=True, metavar="PATH", help="results folder, or a model file"
    )
    evaluate.add_argument(
        "-e",
        "--experiment_spec",
        "--experiment_spec_filename",
        metavar="FILE",
        help="experiment spec: a path, or else a name inside the results folder (default: the training's, which is "
        "experiment_spec.yaml there)",
    )
    evaluate.add_argument(
        "-r",
        "--results_dir",
        metavar="DIR",
        help="where the tables and evaluation.html go (default: the model's folder)",
    )
    evaluate.add_argument(
        "-type",
        "--eval_type",
        dest="type",
        default="kpi_testing",
        metavar="TYPE",
        help="what is measured: kpi_testing, as in TAO's scripts",
    )
    _add_key(evaluate, "opens an encrypted model")
    return evaluate


def _add_inference(commands: Any) -> argparse.ArgumentParser:
    inference = add_command(commands, "inference", "tao:inference", "find the keypoints of faces in images")
    inference.add_argument("-e", "--experiment_spec", required=True, metavar="FILE", help="experiment spec (YAML)")
    inference.add_argument(
        "-i",
        "--input",
        "--input_data_json_path",
        required=True,
        metavar="FILE",
        help="JSON with image names and face boxes",
    )
    inference.add_argument(
        "-m",
        "--model",
        "--model_path",
        required=True,
        metavar="FILE",
        help="model: .keras, .onnx, encrypted, or engine",
    )
    inference.add_argument(
        "-o",
        "--output",
        "--output_folder",
        required=True,
        metavar="DIR",
        help="folder for result.txt, result.json and the drawn images",
    )
    inference.add_argument(
        "-r", "--root", "--image_root_path", default="", metavar="DIR", help="folder the image names are relative to"
    )
    inference.add_argument("--no-images", action="store_true", help="write no drawn images: large ones take longest")
    _add_key(inference, "opens an encrypted model")
    return inference


def _add_one_gpu(parser: argparse.ArgumentParser, chooses: str) -> None:
    """TAO's container gives more than one GPU to `train` alone. `chooses`: what its index does here."""
    parser.add_argument(
        "--gpus", action=_OnlyConst, const=1, type=int, metavar="N", help="only 1: this command uses one device"
    )
    parser.add_argument("--gpu_index", type=int, metavar="I", help=chooses)


def _add_what_cant_act(parser: argparse.ArgumentParser) -> None:
    """Options that TAO's container, or its scripts, have beside those of a command."""
    parser.add_argument(
        "--use_amp",
        action=_OnlyConst,
        nargs=0,
        help="refused: for mixed precision set training_precision: bfloat16 in the experiment spec",
    )
    parser.add_argument(
        "-np",
        "--num_processes",
        action=_OnlyConst,
        const=-1,
        type=int,
        metavar="N",
        help="only -1: one process uses all GPUs, whose number is --gpus of train",
    )
    parser.add_argument(
        "--log_file", action=_OnlyConst, metavar="FILE", help="refused: write > FILE 2>&1 behind the command instead"
    )
    parser.add_argument(
        "-ll",
        "--log_level",
        action=_OnlyConst,
        const="INFO",
        metavar="LEVEL",
        help="only INFO: what a command prints has no levels",
    )


def _add_export(commands: Any) -> argparse.ArgumentParser:
    export = add_command(
        commands,
        "export",
        "tao:export",
        "export a trained model to ONNX",
        more="INT8 stands in the ONNX file, as Q/DQ; beside it are left the FP32 file (NAME.fp32.onnx) and the "
        "calibration cache (NAME.cal.bin) for builders that quantise by themselves. First and last convolution and "
        "soft-argmax stay in float, and so do layers that move keypoints too far. This INT8 is for GPUs: on a "
        "CPU ONNX Runtime is faster with FP32. INT8 of a CPU, target `cpu-int8`, is made by `fpenet run retrain`.",
    )
    export.add_argument(
        "-m",
        "--model",
        "--model_filename",
        required=True,
        metavar="FILE",
        help="trained model (.keras), encrypted or not",
    )
    export.add_argument(
        "-o",
        "--output",
        "--out_file",
        metavar="FILE",
        help="ONNX file; .onnx is added to other names (default: beside the model)",
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
    return export


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
        type=count,
        metavar="N",
        help="int8: batches to calibrate on (default: all images of the folder, a tenth of the training faces)",
    )
    export.add_argument("--batch_size", type=count, metavar="N", help="int8: faces in such a batch (default: 1)")
    export.add_argument(
        "--max_shift_px",
        type=float,
        metavar="PX",
        help="int8: refuse to write what moves the keypoints of a region by more than this from FP32, on average, in "
        "input pixels (default: aim at 0.07 and warn)",
    )


def _add_engine_file(export: argparse.ArgumentParser) -> None:
    export.add_argument("--engine_file", metavar="FILE", help="also build an engine")
    export.add_argument(
        "--target", metavar="NAME", help="engine: device, such as rtx (default: the GPU of this machine)"
    )
    export.add_argument(
        "--max_batch_size", type=count, metavar="N", help="engine: faces in one call at most (default: the target's)"
    )
    export.add_argument(
        "--opt_batch_size", type=count, metavar="N", help="engine: faces it is tuned for (default: the target's)"
    )
    export.add_argument(
        "--max_workspace_size", type=count, metavar="BYTES", help="engine: GPU memory to choose kernels in"
    )


def _batch(text: str) -> int:
    return -1 if text == "-1" else count(text)


def _three_integers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"'{text}' is not three whole numbers, such as 1,80,80")
    return tuple(count(part.strip()) for part in parts)


def _add_key(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "-k",
        "--key",
        type=Key,
        metavar="KEY",
        help=f"{what}. The environment variable FPENET_KEY keeps it off the list of processes; -k '' means no key",
    )
