"""dataset_convert side by side with the plain way and with what the machine can do.

    python bench/dataset_convert.py --folder bench-frames                  # 400 frames, some minutes
    python bench/dataset_convert.py --folder bench-frames --frames 20000 --decoded 2000 --annotations 100000   # 10 GB

The frames (`bench/frame_set.py`) are made on the first run and stay in the folder. Each run of each way is a process
of its own; its time is that of the whole process, imports included, unless the row says otherwise. The ways take
turns, and the table shows the median of their runs. What a file system has cached is not thrown away: once read, the
frames come from memory wherever they fit.

    plain      one process decodes each image with OpenCV to learn its size, then writes the record
    limit      two threads decode the same images with OpenCV to gray, nothing else
    cold       `dataset_convert` without an index: every byte read, hashed and checked, nothing decoded
    indexed    `dataset_convert` again, with the index that the cold run has left
    embedded   `dataset_convert` with `embed_crops`, with the index; embedded, cold: without one
    changed    `tasks.convert.convert` of a snapshot in which one annotation was changed; the step alone
    memory     the peaks of the indexed and the embedded run for two numbers of faces
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hardware import hardware

from schemas.config import ConversionSettings
from tasks.dataset_convert import INDEX, dataset_convert
from tasks.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent
BUCKETS = 64


@dataclass(frozen=True)
class Usage:
    """Of a finished process: wall and processor time in seconds, peak memory in MiB, and what it said."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    told: str


def plain(folder: Path, set_id: str) -> None:
    import cv2
    from frame_set import NUM_KEYPOINTS

    from model.tfrecords import serialize_face, write_records
    from schemas import sloth
    from schemas.geometry import tight_square
    from schemas.records import Face

    def records():
        for entry in json.loads((folder / "gt" / set_id / "gt.json").read_bytes()):
            height, width = cv2.imread(str(folder / entry["filename"])).shape[:2]
            (face,), _ = sloth.read(entry, num_keypoints=NUM_KEYPOINTS, flags_known=True)
            yield serialize_face(
                Face(
                    source_key="",
                    image="",
                    image_name=entry["filename"],
                    image_sha256="",
                    frame_width=width,
                    frame_height=height,
                    subject=None,
                    set_id=set_id,
                    points_N2=face.points_N2,
                    flags_N=face.flags_N,
                ),
                tight_square(face.points_N2),
            )

    write_records(folder / "plain" / "data.tfrecords", records())


def limit(folder: Path, set_id: str) -> None:
    import cv2

    names = [entry["filename"] for entry in json.loads((folder / "gt" / set_id / "gt.json").read_bytes())]
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(names), 256):
            decoded = pool.map(
                lambda name: cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE).shape, names[start : start + 256]
            )
            for shape in decoded:
                assert shape


def ours(folder: Path, set_id: str, *, embed: bool) -> None:
    from frame_set import spec_of

    dataset_convert(spec_of(folder, set_id, embed=embed, save="out-embedded" if embed else "out"))


def convert_snapshot(folder: Path, frames: int, faces: int, *, embed: bool, changed: bool) -> None:
    """Prints the seconds that the step took, and how many shards it wrote."""
    from frame_set import frame_name, make_snapshot

    from tasks.convert import convert

    names = [frame_name(number) for number in range(frames)]
    snapshot = make_snapshot(folder, names, faces, changed=changed)
    workspace = Workspace(folder / ("workspace-embedded" if embed else "workspace"))
    started = time.perf_counter()
    conversion = convert(snapshot, ConversionSettings(embed_crops=embed, buckets=BUCKETS), workspace)
    print(f"{time.perf_counter() - started} {conversion.written}")


def run(part: str, arguments: argparse.Namespace, *, faces: int | None = None) -> Usage:
    """One part in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(arguments.folder), "--frames", str(arguments.frames)]
    command += ["--decoded", str(arguments.decoded), "--annotations", str(arguments.annotations), "--part", part]
    command += ["--faces", str(faces or arguments.frames)]
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    told = child.stdout.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    child.stdout.close()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{part} failed")
    seconds = time.perf_counter() - started
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, told)


def run_part(arguments: argparse.Namespace) -> None:
    folder, set_id = arguments.folder, f"set-{arguments.faces}"
    match arguments.part.split():
        case ["plain"]:
            plain(folder, set_id)
        case ["limit"]:
            limit(folder, set_id)
        case ["cold", *embedded]:
            (folder / ("out-embedded" if embedded else "out") / INDEX).unlink(missing_ok=True)
            ours(folder, set_id, embed=bool(embedded))
        case ["indexed"]:
            ours(folder, set_id, embed=False)
        case ["embedded"]:
            ours(folder, set_id, embed=True)
        case ["snapshot" | "changed" as which, *embedded]:
            annotations = arguments.decoded if embedded else arguments.annotations
            convert_snapshot(folder, arguments.frames, annotations, embed=bool(embedded), changed=which == "changed")


def rates(arguments: argparse.Namespace) -> None:
    parts = ("limit", "plain", "cold", "indexed", "cold embedded", "embedded")
    frames = {part: arguments.frames if part in ("cold", "indexed") else arguments.decoded for part in parts}
    runs: dict[str, list[Usage]] = {part: [] for part in parts}
    for _ in range(arguments.repetitions):
        for part in parts:
            runs[part].append(run(part, arguments, faces=frames[part]))
    rate = {part: frames[part] / statistics.median(done.seconds for done in runs[part]) for part in parts}
    print(f"\n{arguments.repetitions} runs each, whole processes\n")
    print("| way | frames | frames/s | x plain | of the limit | CPU ms a frame |\n|---|---|---|---|---|---|")
    for part in parts:
        cpu_ms = 1e3 * statistics.median(done.cpu_seconds for done in runs[part]) / frames[part]
        ratios = f"{rate[part] / rate['plain']:.1f} | {rate[part] / rate['limit']:.0%}"
        print(f"| {part} | {frames[part]:,} | {rate[part]:,.0f} | {ratios} | {cpu_ms:.2f} |")


def memory(arguments: argparse.Namespace) -> None:
    print("\n| faces | peak MiB | peak MiB, embedded |\n|---|---|---|")
    for faces in (arguments.decoded // 4, arguments.decoded):
        peaks = [run(part, arguments, faces=faces).peak_mib for part in ("indexed", "embedded")]
        print(f"| {faces:,} | " + " | ".join(f"{peak:.0f}" for peak in peaks) + " |")


def one_changed(arguments: argparse.Namespace) -> None:
    print(f"\none changed annotation, {BUCKETS} buckets per split\n")
    print("| crops | annotations | all shards s | one changed s (median) | shards written |\n|---|---|---|---|---|")
    for embedded, faces in (("", arguments.annotations), (" embedded", arguments.decoded)):
        first = float(run("snapshot" + embedded, arguments).told.split()[0])
        seconds, written = [], set()
        for _ in range(arguments.repetitions):
            taken, shards = run("changed" + embedded, arguments).told.split()
            seconds.append(float(taken))
            written.add(int(shards))
            forget_changed(arguments, embedded)
        shown = f"{first:.1f} | {statistics.median(seconds):.2f} | {'/'.join(map(str, sorted(written)))}"
        print(f"| {embedded.strip() or 'none'} | {faces:,} | {shown} |")


def forget_changed(arguments: argparse.Namespace, embedded: str) -> None:
    """Take away the shard and the conversion of the changed snapshot, so that the next run makes them again."""
    workspace = Workspace(arguments.folder / ("workspace-embedded" if embedded else "workspace"))
    newest = max(workspace.shards.glob("*.tfrecords"), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    newest.with_suffix(".json").unlink()
    conversions = workspace.conversions.glob("*/manifest.json")
    shutil.rmtree(max(conversions, key=lambda path: path.stat().st_mtime_ns).parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the frames are, or are to be made")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument(
        "--decoded", type=int, help="frames, and faces of a snapshot, for the ways that decode each (default: FRAMES)"
    )
    parser.add_argument("--annotations", type=int, default=5000, help="faces of the snapshot of which one changes")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--faces", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.resolve()
    arguments.decoded = arguments.decoded or arguments.frames
    if arguments.part:
        run_part(arguments)
        return
    from frame_set import make_frames, make_set, make_snapshot

    frames = make_frames(arguments.folder, arguments.frames)
    for faces in sorted({arguments.decoded // 4, arguments.decoded, arguments.frames}):
        make_set(arguments.folder, f"set-{faces}", frames, faces)
    for faces in sorted({arguments.decoded, arguments.annotations}):
        for changed in (False, True):
            make_snapshot(arguments.folder, frames, faces, changed=changed)
    size = sum((arguments.folder / name).stat().st_size for name in frames) / len(frames)
    print(f"{hardware()}; frames of {size / 1e6:.2f} MB")
    rates(arguments)
    memory(arguments)
    one_changed(arguments)


if __name__ == "__main__":
    main()
