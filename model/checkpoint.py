"""Checkpoints: one file that holds all a training needs to go on as if it had not stopped."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import keras
import numpy as np

from schemas.errors import TrainingError
from schemas.sealed import Key, Kind, read_content, sealed_path, write_sealed
from schemas.storage import write_bytes

_META = "meta"
_FORMAT = 3
"""Of the file. To be raised with every change to what a checkpoint holds or means; 1 is a file that names none."""

_DAMAGED = (zipfile.BadZipFile, KeyError, ValueError, EOFError, RuntimeError)
"""What reading such a file raises; `RuntimeError` where its zip claims to be encrypted, or packed in another way."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch of training came to.

    Attributes:
        epoch: epochs done, from 1.
        step: steps done in the whole training.
        loss: mean over the epoch's steps of what was minimised.
        terms: the same for what it is made of, and for the loss regions (`region/eyes`), which are not weighted.
        validation_loss: without ELT and regularisation; None without validation faces.
        validation_error_px: mean distance over keypoints and faces, in crop pixels (`Unit.CROP`); None likewise.
        learning_rate: of the last step.
        seconds: wall time since the epoch before was over: with validation, and with the saving of that one.
        best: this epoch's network is the best so far and was kept.
    """

    epoch: int
    step: int
    loss: float
    terms: dict[str, float]
    validation_loss: float | None
    validation_error_px: float | None
    learning_rate: float
    seconds: float
    best: bool


def save_checkpoint(
    path: Path,
    variables: Sequence[keras.Variable],
    history: Sequence[EpochResult],
    fingerprint: str,
    *,
    key: Key | None = None,
) -> None:
    """Write variables and history to `path`, atomically; with a key encrypted, under its sealed name."""
    arrays = {f"{i:04d}": variable.numpy() for i, variable in enumerate(variables)}
    meta = {"format": _FORMAT, "fingerprint": fingerprint, "history": [asdict(result) for result in history]}
    content = io.BytesIO()
    np.savez(content, **{_META: np.array(json.dumps(meta))}, **arrays)
    if key:
        write_sealed(sealed_path(path, key), content.getvalue(), Kind.CHECKPOINT, key)
    else:
        write_bytes(path, content.getvalue())


def restore_checkpoint(
    path: Path, variables: Sequence[keras.Variable], fingerprint: str, *, key: Key | None = None
) -> list[EpochResult]:
    """Set the variables to what `save_checkpoint` wrote with the same key (or none) and give back the history.

    The history is empty if there is no file.

    Raises:
        TrainingError: the checkpoint is damaged or belongs to a training with another spec or other data.
        SealedFileError: the key is wrong, or the sealed file is damaged.
    """
    path = sealed_path(path, key)
    if not path.exists():
        return []
    try:
        with np.load(io.BytesIO(read_content(path, Kind.CHECKPOINT, key))) as stored:
            meta = json.loads(str(stored[_META]))
            if (found := meta.get("format", 1)) != _FORMAT:
                raise TrainingError(
                    f"{path}: a checkpoint of format {found}, and this version reads and writes format {_FORMAT}; "
                    f"finish the training with the version that began it, or remove this file to start anew"
                )
            if meta["fingerprint"] != fingerprint:
                raise TrainingError(
                    f"{path}: belongs to a training with another spec or other data, or on another number of "
                    "GPUs; choose another results directory, or remove this file to start anew"
                )
            for i, variable in enumerate(variables):
                variable.assign(stored[f"{i:04d}"])
    except _DAMAGED as error:
        raise TrainingError(f"{path}: damaged; remove it to start anew") from error
    names = {field.name for field in fields(EpochResult)}
    return [EpochResult(**{name: row[name] for name in names}) for row in meta["history"]]
