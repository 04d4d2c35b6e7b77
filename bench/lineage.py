"""How long `fpenet lineage` takes, both ways, beside reading the snapshots' tables at every question.

    python bench/lineage.py
    python bench/lineage.py --faces 100000 --snapshots 10 --engines 100 --repeats 7

Makes a workspace of snapshots (each holds most faces of the one before, and new ones), a version for each, and their
engines, in a temporary folder. The index is made by the code that flows use; its time and size are printed. Then
whole commands are timed in turn, process start included: `fpenet lineage` with the index, and a plain program that
answers the same by reading manifests and Parquet tables with pyarrow. Their answers are compared first. With --json
our answer from an engine names every subject and annotation; the plain one only counts. The default size writes
and indexes a million rows, then starts 69 processes: minutes on a quiet machine, a quarter of an hour or more where
others use the cores. --faces 10000 --repeats 1 is a tenth of the rows and 15 processes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hardware import hardware

from schemas.storage import write_json
from tasks.lineage.index import index_path, open_index
from tasks.lineage.versions import VersionRecord, record_version
from tasks.workspace import Workspace

FACES_OF_A_SUBJECT = 20
KEPT_FROM_BEFORE = 0.98
TARGETS = ("cpu", "jetson-nano", "xavier-nx", "agx-xavier", "orin", "t4", "a10", "l4", "h100", "rtx")

PLAIN = """
import json, sys
from pathlib import Path
import pyarrow.compute as pc
import pyarrow.parquet as pq
root, word = Path(sys.argv[1]), sys.argv[2]
engines = [json.loads(path.read_bytes()) for path in root.glob("engines/*/manifest.json")]
named = [engine for engine in engines if engine["build_key"] == word]
if named:
    path = root / "snapshots" / named[0]["provenance"]["snapshot_id"] / "faces.parquet"
    table = pq.read_table(path, columns=["split", "subject", "source_key"])
    counts = pc.value_counts(table["split"]).to_pylist()
    answer = {row["values"]: row["counts"] for row in counts}
    table.group_by(["split", "subject"]).aggregate([("source_key", "count")])
else:
    column, answer = "subject" if ":" not in word else "source_key", []
    for path in sorted(root.glob("snapshots/*/faces.parquet")):
        table = pq.read_table(path, columns=["split", column], filters=[(column, "=", word)])
        if len(table):
            answer += [engine["build_key"] for engine in engines
                       if engine["provenance"]["snapshot_id"] == path.parent.name]
    answer.sort()
print(json.dumps(answer))
"""


def make_workspace(root: Path, *, faces: int, snapshots: int, engines: int) -> Workspace:
    workspace = Workspace(root)
    first = 0
    for number in range(snapshots):
        name = hashlib.sha256(f"snapshot {number}".encode()).hexdigest()
        write_snapshot(workspace.snapshots / name, range(first, first + faces), taken=number)
        first += round(faces * (1 - KEPT_FROM_BEFORE))
        onnx = hashlib.sha256(f"onnx {number}".encode()).hexdigest()
        record = VersionRecord("fpenet", str(number + 1), name, f"run{number}", f"training{number}", onnx)
        record_version(workspace, record)
        for built in range(number * engines // snapshots, (number + 1) * engines // snapshots):
            write_engine(workspace, record, TARGETS[built % len(TARGETS)], built)
    return workspace


def write_snapshot(folder: Path, numbers: Sequence[int], *, taken: int) -> None:
    folder.mkdir(parents=True)
    subjects = [number // FACES_OF_A_SUBJECT for number in numbers]
    splits = ["kpi" if subject % 10 == 0 else "validation" if subject % 20 == 1 else "train" for subject in subjects]
    texts = {
        "content_hash": [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers],
        "split": splits,
        "subject": [f"multipie/{subject:05d}" for subject in subjects],
        "source_key": [f"team{number % 3}:task/{number}/annotation/{number}" for number in numbers],
    }
    points = np.random.default_rng(taken).uniform(0, 600, len(numbers) * 160).astype(np.float32)
    columns = {name: pa.array(values) for name, values in texts.items()}
    columns["points"] = pa.FixedSizeListArray.from_arrays(pa.array(points), 160)
    table = pa.table(columns)
    pq.write_table(table, folder / "faces.parquet", compression="zstd", row_group_size=8192)
    pq.write_table(table.slice(0, 0), folder / "superseded.parquet")
    write_json(folder / "provenance.json", {"taken_at": f"2026-01-{taken + 1:02d}T00:00:00+00:00"})
    write_json(folder / "manifest.json", {"result": {"snapshot": folder.name}})


def write_engine(workspace: Workspace, record: VersionRecord, target: str, number: int) -> None:
    key, sha256 = (hashlib.sha256(f"{what} {number}".encode()).hexdigest() for what in ("key", "engine"))
    origin = {"model_name": record.name, "model_version": record.version, "snapshot_id": record.snapshot}
    manifest = {
        "build_key": key[:20],
        "engine": "engine.plan",
        "engine_sha256": sha256,
        "model_sha256": record.onnx_sha256,
        "onnx_sha256": record.onnx_sha256,
        "target": {"name": target},
        "precision": "fp16",
        "builder": "bench",
        "provenance": origin,
    }
    write_json(workspace.engines / key[:20] / "manifest.json", manifest)
    write_json(workspace.targets / target / "staging.json", {"event": {"engine": {"build_key": key[:20]}}})


def timed(command: Sequence[str]) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def refuse_other_answers(ours: str, plain: str) -> None:
    told, expected = json.loads(ours), json.loads(plain)
    if told["kind"] == "engine":
        (contents,) = told["snapshots"]
        found = {place: part["faces"] for place, part in contents["parts"].items()}
    else:
        found = sorted(
            engine["build_key"]
            for appearance in told["appearances"]
            for version in appearance["versions"]
            for engine in version["engines"]
        )
    if found != expected:
        raise SystemExit(f"the answers differ: {found} and {expected}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=100_000, help="in each snapshot (%(default)s)")
    parser.add_argument("--snapshots", type=int, default=10)
    parser.add_argument("--engines", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print(f"{hardware()}; Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        workspace = make_workspace(
            Path(folder), faces=options.faces, snapshots=options.snapshots, engines=options.engines
        )
        start = time.perf_counter()
        with open_index(workspace):
            seconds = time.perf_counter() - start
        size = index_path(workspace).stat().st_size
        print(f"index of {options.snapshots} snapshots: {seconds:.1f} s, {size / 2**20:.0f} MiB")
        measure(workspace, options.faces, options.repeats)


def measure(workspace: Workspace, faces: int, repeats: int) -> None:
    engine = sorted(path.parent.name for path in workspace.engines.glob("*/manifest.json"))[0]
    number = faces // 2
    words = {
        "back from an engine": engine,
        "on from an annotation": f"team{number % 3}:task/{number}/annotation/{number}",
        "on from a subject": f"multipie/{number // FACES_OF_A_SUBJECT:05d}",
    }
    ours = [sys.executable, "-m", "flows.entry.cli", "lineage", "--workspace", str(workspace.root)]
    for what, word in words.items():
        commands = {
            "fpenet lineage": [*ours, word],
            "fpenet lineage --json": [*ours, word, "--json"],
            "plain": [sys.executable, "-c", PLAIN, str(workspace.root), word],
        }
        refuse_other_answers(timed(commands["fpenet lineage --json"])[1], timed(commands["plain"])[1])
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(repeats):
            for name, command in commands.items():
                seconds[name].append(timed(command)[0])
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        for name, median in medians.items():
            ratio = medians["plain"] / median
            print(f"{what:<22} {name:<22} median {median:6.3f} s, worst {max(seconds[name]):6.3f} s, {ratio:5.1f} x")


if __name__ == "__main__":
    main()
