"""Train the experiment spec's network on a conversion's shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import SpecError
from schemas.experiment import ExperimentSpec
from schemas.records import Split
from schemas.storage import sha256_file, write_bytes
from schemas.yamlspec import dump_spec
from tasks.convert import Conversion
from tasks.reuse import StepOutput, reuse_or_run, step_key

if TYPE_CHECKING:
    from model.progress import Watcher

MODEL, SPEC = "model.keras", "experiment_spec.yaml"


def train_network(
    spec: ExperimentSpec,
    conversion: Conversion,
    *,
    kpi_subjects: Collection[str],
    parent: Path,
    progress: Callable[[], Watcher] | None = None,
) -> StepOutput:
    """Train, or find the network that the same spec, shards and pretrained weights gave before.

    An interrupted training goes on from its last checkpoint.

    Raises:
        SubjectLeakError, UnknownSubjectError: a set without labels holds a KPI subject, or nobody knows whom; also
            where the network is there already, as subjects may have joined the KPI list since.

    Returns:
        Directory with `experiment_spec.yaml` and what `model.training` leaves; `result` has `history` (a mapping an
        epoch), `best_epoch`, `resumed_after`, `faces`, `validation_faces`, and the network's `parameters` and `macs`.
    """
    settings = spec.model_dump(mode="json", by_alias=True, exclude={"checkpoint_dir": True})
    shards = [conversion.hashes(split) for split in (Split.TRAIN, Split.VALIDATION)]
    unlabelled = _unlabelled_files(spec)
    if unlabelled:
        from model.shards import refuse_leaks, survey

        refuse_leaks(survey(unlabelled, spec, labelled=False), kpi_subjects, allow_unknown=False)
        shards.append([sha256_file(path) for path in unlabelled])
    key = step_key("train", code="model.training", spec=settings, shards=shards, pretrained=_pretrained_sha256(spec))

    def run(directory: Path) -> dict[str, Any]:
        from model.network import network_cost
        from model.training import train
        from model.weights import load_network

        write_bytes(directory / SPEC, dump_spec(spec).encode())
        result = train(
            spec,
            train_files=conversion.files[Split.TRAIN],
            validation_files=conversion.files[Split.VALIDATION],
            unlabelled_files=unlabelled,
            directory=directory,
            kpi_subjects=kpi_subjects,
            allow_unknown_subjects=True,  # `validation.require_subject` has decided
            progress=progress() if progress else None,
        )
        cost = network_cost(load_network(result.model_path))
        return {
            "parameters": cost.parameters,
            "macs": cost.macs,
            "history": [dataclasses.asdict(epoch) for epoch in result.history],
            "best_epoch": result.best.epoch,
            "resumed_after": result.resumed_after,
            "faces": result.training_faces,
            "validation_faces": result.validation_faces,
        }

    return reuse_or_run(parent, key, run)


def _pretrained_sha256(spec: ExperimentSpec) -> str | None:
    """Of the weights to start from; None for fresh ones, and for a file that is not there: the training says so."""
    path = spec.model.model_parameters.pretrained_model_path
    return sha256_file(Path(path)) if path and Path(path).is_file() else None


def _unlabelled_files(spec: ExperimentSpec) -> list[Path]:
    """TFRecord files of the spec's `unlabelled_sets`, which no conversion of this flow makes."""
    sets, info = spec.loss.elt_loss_info.unlabelled_sets, spec.dataloader.dataset_info
    if sets and info is None:
        raise SpecError("loss.elt_loss_info.unlabelled_sets", "dataloader.dataset_info is needed to find these sets")
    files = info.files(sets) if sets and info else []
    for path in files:
        if not path.is_file():
            raise SpecError("loss.elt_loss_info.unlabelled_sets", f"{path} is not there")
    return files
