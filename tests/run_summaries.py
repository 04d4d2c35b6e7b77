"""A made-up run, for tests of what a person is shown of one."""

from __future__ import annotations

from pathlib import Path

from model.evaluation_report import evaluation_report
from model.figures import write_figures
from model.paired import Outcome, Row
from schemas.experiment import ExperimentSpec
from schemas.records import Violation
from tasks.summary import (
    CandidateSummary,
    EngineSummary,
    FaceSummary,
    GateResult,
    LaterEngine,
    RunSummary,
    SourceSummary,
    SplitSummary,
    StepSummary,
    VerdictSummary,
    rejections,
)
from tests.evaluation_sets import made_up_evaluation

HISTORY = tuple(
    {
        "epoch": epoch,
        "loss": 90.0 / epoch,
        "validation_error_px": 2.0 + 6.0 / epoch,
        "seconds": 13.0,
        "best": epoch <= 18,
    }
    for epoch in range(1, 21)
)
VIOLATIONS = [
    Violation(
        "keypoint-outside-frame",
        f"faces:gt/a.json#{i}",
        f"images/{i:03d}.png",
        "P7",
        "(-12.0, 40.0) in a frame of 640 x 480",
        "keypoints lie on the frame",
        "move the keypoint onto the image or mark it",
    )
    for i in range(7)
] + [
    Violation("image-missing", "faces:gt/b.json#1", "<b>.png", None, "no such file", "images are there", "copy it"),
]


def made_up_summary(folder: Path, *, num_keypoints: int = 80) -> RunSummary:
    evaluation = made_up_evaluation(30, num_keypoints, sets=["one"] * 12 + ["two"] * 18)
    report = evaluation_report(evaluation)
    faces = write_figures(evaluation, report, HISTORY, folder / "figures")
    best, worst = (
        tuple(FaceSummary(str(folder / "figures" / f.file), f.name, f.subject, f.error_crop_px) for f in faces[kind])
        for kind in ("best", "worst")
    )
    return RunSummary(
        run_id="2026-01-01-ab12",
        started_at="2026-01-01 02:00:07 +01:00",
        seconds=312.4,
        snapshot_id="f" * 64,
        model_version="fpenet/3",
        code_version="0.1.0+c0de",
        git_commit=None,
        network="FpeNet_public, width 16, 139 k parameters",
        candidate=made_up_candidate(num_keypoints),
        sources=(SourceSummary("faces", "sloth", 1000, 992, 8, 0, 0, points_of(992, num_keypoints)),),
        splits=tuple(
            SplitSummary(split, faces, subjects, 0, faces, points_of(faces, num_keypoints))
            for split, faces, subjects in (("train", 800, 60), ("validation", 92, 7), ("kpi", 100, 15))
        ),
        rejections=rejections(VIOLATIONS),
        history=HISTORY,
        evaluation=report,
        best=best,
        worst=worst,
        engines=(
            EngineSummary(
                "cpu",
                "any CPU, ONNX Runtime",
                "onnxruntime 1.31.1",
                "fp32",
                812_345,
                "staging",
                2.1e-5,
                1.2e-4,
                1.34,
                2.1e-5,
            ),
            EngineSummary(
                "rtx",
                "Turing (T4, RTX 20), TensorRT-RTX",
                "tensorrt-rtx 1.7.1",
                "fp16",
                2_345_678,
                "staging",
                None,
                None,
                None,
                0.004,
                not_run="no GPU",
            ),
        ),
        gates=(
            GateResult("KPI error, all points", report["regions"]["All"]["crop_px"]["all"]["error"], 3.0, "crop px"),
            GateResult("ONNX parity", 2.3e-5, 1e-3, "px"),
        ),
        steps=(
            StepSummary("pull", 0.4, "reused", "1000 records"),
            StepSummary("validate", 3.2, "ran", "992 accepted, 8 rejected"),
            StepSummary("train", 261.0, "resumed", "20 epochs"),
        ),
        verdict=made_up_verdict(),
        later=(LaterEngine("jetson-nano", "Jetson Nano", "trtexec", "no trtexec here"),),
    )


def points_of(faces: int, num_keypoints: int) -> dict[str, int]:
    """A tenth of the points is occluded, and nothing said of three a face."""
    points = faces * num_keypoints
    return {"unknown": 3 * faces, "visible": points - 3 * faces - points // 10, "occluded": points // 10}


def made_up_candidate(num_keypoints: int) -> CandidateSummary:
    spec = ExperimentSpec.model_validate(
        {"num_keypoints": num_keypoints, "dataloader": {"num_keypoints": num_keypoints, "bbox_enlarge_ratio": 1.15}}
    )
    settings = spec.model_dump(mode="json", by_alias=True)
    return CandidateSummary("0c" * 10, "0.1.0", "beef", settings, parameters=139_024, macs=73_000_000)


def made_up_verdict() -> VerdictSummary:
    """A challenger that is better as a whole and worse on turned faces."""
    return VerdictSummary(
        state="failed",
        summary="failed against version 2 on 100 faces of 25 subjects: yaw over 60° +0.310 px",
        blocks=True,
        champion="2",
        rows=(
            Row("region", "All", 100, 25, 2.41, 2.3, -0.11, -0.19, -0.04, 0.05, Outcome.PASSED),
            Row("region", "Ears", 100, 25, 5.0, 5.1, 0.1, -0.2, 0.4, None, Outcome.SHOWN),
            Row("yaw", "0° to 15°", 80, 25, 2.1, 2.0, -0.12, -0.21, -0.03, 0.2, Outcome.PASSED),
            Row("yaw", "over 60°", 12, 21, 4.02, 4.33, 0.31, 0.12, 0.52, 0.2, Outcome.FAILED),
            Row("set", "night", 3, 2, 3.0, 3.1, 0.1, 0.0, 0.2, 0.2, Outcome.INCONCLUSIVE),
        ),
    )
