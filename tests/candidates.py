"""A small trained candidate, for tests of what happens to one."""

from __future__ import annotations

from pathlib import Path

from model.evaluation_files import write_reference_files
from schemas.experiment import ExperimentSpec
from schemas.yamlspec import parse_spec
from tasks.tracking import Candidate
from tests.evaluation_sets import made_up_evaluation

SPEC = """
num_keypoints: 68
model: {model_parameters: {type: FpeNet_public, width: 4}}
dataloader: {num_keypoints: 68, batch_size: 8}
"""


def make_candidate(folder: Path) -> Candidate:
    """A network with fresh weights, and an evaluation of made-up predictions."""
    from model.network import build_network

    spec = parse_spec(ExperimentSpec, SPEC, "test spec")
    build_network(spec.model.model_parameters, num_keypoints=68).save(folder / "model.keras")
    (folder / "model.onnx").write_bytes(b"stands for an ONNX file")
    (folder / "figures").mkdir()
    (folder / "figures" / "curve.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "snapshot").mkdir()
    return Candidate(
        key="0123456789abcdef",
        spec=spec,
        snapshot_id="5" * 64,
        snapshot=folder / "snapshot",
        split_counts={"train": 10, "kpi": 2},
        history=[
            {"epoch": 1, "loss": 3.0, "terms": {"region/eyes": 1.0}, "validation_error_px": None, "best": True},
            {"epoch": 2, "loss": 2.0, "terms": {"region/eyes": 0.5}, "validation_error_px": 3.5, "best": True},
        ],
        report=write_reference_files(made_up_evaluation(num_keypoints=68), folder / "evaluation"),
        keras_model=folder / "model.keras",
        onnx_model=folder / "model.onnx",
        evaluation=folder / "evaluation",
        figures=folder / "figures",
        versions={"code_version": "c0de", "git_commit": None},
    )
