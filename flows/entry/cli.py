"""The command line `fpenet`. Only the parser lives here: a command's code is imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from flows.entry.commands import annotations, bundle, fleet, gateway, label_studio, lineage, review, tao, workflow
from flows.entry.held_output import hold_opencv_warnings, hold_tensorflow_start
from schemas.errors import FpenetError

DESCRIPTION = (
    "From facial-keypoint annotations to engines on devices: TAO's fpenet commands, and the flows around them."
)
EPILOG = """\
the whole line, from annotations to checked engines:
  fpenet run retrain --config examples/demo.yaml

TAO's commands keep their options and spec files:
  fpenet dataset_convert -e dataset_config.yaml
  fpenet train -e experiment_spec.yaml -r results --allow-unknown-subjects
  fpenet evaluate -m results
  fpenet export -m results/model.keras -o model.onnx
  fpenet inference -e experiment_spec.yaml -i faces.json -m model.onnx -o out -r images
With a key (-k KEY, or FPENET_KEY) given to all of them, the files are model.keras.sealed and model.onnx.sealed.

`fpenet COMMAND --help` explains one command. Exit codes: 0 done, 2 bad input, 3 a source can't deliver,
4 a gate refused, 5 storage, 6 MLflow, 7 no engine was built, 8 a device failed, 130 interrupted, 1 anything else.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fpenet", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (tao, workflow, fleet, label_studio, gateway, annotations, lineage, review, bundle):
        group.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its errors become one message and an exit code."""
    parsed = build_parser().parse_args(arguments)
    hold_tensorflow_start()
    hold_opencv_warnings()
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
