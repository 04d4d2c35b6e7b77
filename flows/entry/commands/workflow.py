"""Running flows, and what stands beside them."""

from __future__ import annotations

import argparse
from typing import Any

from flows.entry.commands.parsers import add_command, count

FLOWS = {
    "retrain": "the whole line: pull, validate, train, evaluate, export, build, stage for review",
    "sync": "pull what changed; retrain if enough did",
    "quality": "annotators' agreement, likely wrong labels, the same picture twice",
    "suggest": "pre-annotations and what to label next, into Label Studio",
    "review": "act on reviewers' decisions in MLflow; then roll out",
    "rollout": "bring the version that was accepted last to the devices",
    "drift": "compare what devices counted with what their model was tested on",
}
"""Each is the function of its name in `flows.<name>`, and takes the path of a configuration."""
_RUN = "flows:\n" + "\n".join(f"  {name:<9} {does}" for name, does in FLOWS.items())


def add(commands: Any) -> None:
    run = add_command(
        commands,
        "run",
        "workflow:run",
        "run a flow here, without a Prefect server to start",
        more="Running it again redoes only what has changed, and says what it reused.",
    )
    run.epilog, run.formatter_class = _RUN, argparse.RawDescriptionHelpFormatter
    run.add_argument("flow", choices=FLOWS, metavar="FLOW", help="one of those below")
    run.add_argument("--config", required=True, metavar="FILE", help="configuration (YAML)")
    run.add_argument(
        "--version",
        metavar="V",
        help="rollout only: begin anew with this version, which must be the one accepted last: what was gated, "
        "failed or refused is tried again; default: go on with what is left",
    )
    run.add_argument(
        "--records",
        metavar="DIR",
        help="drift only: what the devices counted, brought by hand because they can't be reached: a folder for "
        "each, named as the device, with the files of its drift/records; default: ask the devices",
    )
    run.add_argument("--verbose", action="store_true", help="show Prefect's log")

    _add_forget(commands)
    _add_prune(commands)
    add_command(commands, "doctor", "workflow:doctor", "show what is installed, missing, and can be built here")


def _add_prune(commands: Any) -> None:
    prune = add_command(
        commands,
        "prune",
        "prune:prune",
        "free disk space: remove what is old, and of no version in use",
        more="Trainings, evaluations, ONNX exports, engines, TFRecords and pages go, if they are old and of no "
        "version that is champion or challenger, accepted, rolled out, on a device, to go back to, or new. "
        "Snapshots, verdicts, reviews and the records of versions and rollouts all stay; what goes is made again "
        "where it is asked for. Run it while no flow works, for instance each week.",
    )
    prune.add_argument(
        "--config", required=True, metavar="FILE", help="the flows' configuration: which workspace, which MLflow"
    )
    prune.add_argument(
        "--days", type=count, default=30, metavar="N", help="keep what was written in the last N days (%(default)s)"
    )
    prune.add_argument(
        "--versions", type=count, default=5, metavar="N", help="keep the newest N of each model (%(default)s)"
    )
    prune.add_argument("--dry-run", action="store_true", help="only show what would go")


def _add_forget(commands: Any) -> None:
    forget = add_command(
        commands,
        "forget",
        "forget:forget",
        "withdraw a person: purge a subject everywhere, and keep it out",
        more="Raw annotations, images, snapshots, crops in TFRecords, figures, pages, TensorBoard's pictures and "
        "MLflow's artifacts are purged; a tombstone keeps pulls from bringing the subject back; models that must be "
        "trained again and engines to take off devices are listed. Run it again after an interruption. Label Studio "
        "and the folders that annotations come from are left alone: delete there too.",
    )
    forget.add_argument("--subject", required=True, metavar="DATASET/ID", help="such as multipie/079")
    forget.add_argument(
        "--config", required=True, metavar="FILE", help="the flows' configuration: which workspace, which MLflow"
    )
    forget.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="DIR",
        help="purge this folder too, such as results of `fpenet train`; may be given several times",
    )
    forget.add_argument("--reason", required=True, metavar="TEXT", help="why; kept beside the tombstone")
    forget.add_argument("--by", metavar="NAME", help="who decides (default: the login name)")
    forget.add_argument("--dry-run", action="store_true", help="only show what is held")
