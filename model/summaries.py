"""TensorBoard's event files: curves and pictures of a training.

Legend: B faces, H W C rows, columns, channels; N keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import tensorflow as tf
from tensorboard.plugins.image.metadata import create_summary_metadata

from model.checkpoint import EpochResult
from model.figures import draw_keypoints
from model.images import encode_png
from model.progress import Plan, Watcher
from model.shards import plain_message
from model.warp import move_points
from schemas.errors import StorageError
from schemas.experiment import ExperimentSpec
from schemas.storage import atomic_path

EVENTS = "events"
PER_EPOCH = 10
"""Times that curves get a point in an epoch, as in the reference."""
ENLARGED = 3
RADIUS_PX = 0.7

Predict = Callable[[tf.Tensor], tf.Tensor]
"""Crops (B, H, W, C) -> keypoints (B, N, 2)."""


class Summaries(Watcher):
    """Writes event files below `directory`, with the reference's names; does nothing to the training.

    Curves: `learning_rate`, `<loss>_net_loss`, `elt_<loss>_net_loss`, `heatmap_loss`, `regularisation_loss`,
    `total_loss`; with `weights_dict` the net losses are `weighted_...` and beside them there are
    `<loss>_face_loss`, `_eyelids_loss`, `_mouth_loss` (and `_pupil_loss` with a weight of its own); each epoch
    `validation_loss` and `validation_error_px` (crop pixels). The step counts from 1.

    Pictures, the first `visualize_num_images` faces of an epoch's last batch, as the network gets them
    (`input_image_face_<phase>`) and enlarged with keypoints (`kpts_image_<phase>`): phases `training` (true points),
    `training_predictions`, with ELT `training_elt` (moved image, true points moved alike); and of the first batch of
    a validation `validation`, `validation_predictions`.

    Args:
        predict: with the network as of the last step.
    """

    def __init__(self, directory: Path, spec: ExperimentSpec, *, predict: Predict) -> None:
        self._directory, self._spec, self._predict = directory, spec, predict
        self._pictures = spec.visualize_num_images
        self._writer: tf.summary.SummaryWriter | None = None
        self._steps = self._step = 0

    def begin(self, plan: Plan) -> None:
        self._steps, self._step = plan.steps, plan.epochs_done * plan.steps
        forget_after(self._directory, self._step)

    def step(self, number: int, terms: Mapping[str, float], learning_rate: float) -> None:
        self._step = number
        if number % max(1, self._steps // PER_EPOCH) == 0:
            with self._recording():
                tf.summary.scalar("learning_rate", learning_rate)
                for name, value in terms.items():
                    if title := scalar_name(name, self._spec):
                        tf.summary.scalar(title, value)

    def trained_on(self, batch: Mapping[str, tf.Tensor]) -> None:
        if not self._pictures:
            return
        faces = {name: values[: self._pictures] for name, values in batch.items()}
        predicted_BN2 = self._predict(faces["image_BHWC"])
        self._faces("training", faces["image_BHWC"], {"": faces["points_BN2"], "_predictions": predicted_BN2})
        if "moved_BHWC" in faces:
            moved_BN2 = move_points(faces["move_B33"], faces["points_BN2"])
            self._faces("training_elt", faces["moved_BHWC"], {"": moved_BN2})

    def validated_on(self, image_BHWC: np.ndarray, points_BN2: tf.Tensor, keypoints_BN2: tf.Tensor) -> None:
        if self._pictures:
            self._faces("validation", image_BHWC, {"": points_BN2, "_predictions": keypoints_BN2})

    def epoch(self, result: EpochResult) -> None:
        """Flush, so that what a checkpoint remembers is in the files."""
        with self._recording() as writer:
            for name in ("validation_loss", "validation_error_px"):
                if (value := getattr(result, name)) is not None:
                    tf.summary.scalar(name, value)
            writer.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer:
            self._writer.close()

    def _faces(self, phase: str, image_BHWC: np.ndarray | tf.Tensor, points: Mapping[str, tf.Tensor]) -> None:
        """Pictures of the first faces of a batch; `points` by what to add to the phase."""
        pixels_BHWC = np.rint(np.clip(image_BHWC[: self._pictures], 0, 255)).astype(np.uint8)
        with self._recording():
            write_images(f"input_image_face_{phase}", pixels_BHWC)
            for title, drawn_BN2 in points.items():
                pairs = zip(pixels_BHWC, drawn_BN2[: self._pictures].numpy(), strict=True)
                write_images(f"kpts_image_{phase}{title}", [drawn_face(*pair) for pair in pairs])

    @contextmanager
    def _recording(self) -> Iterator[tf.summary.SummaryWriter]:
        """Summaries made inside go to the file, which is there from the first on."""
        try:
            self._writer = self._writer or tf.summary.create_file_writer(str(self._directory))
            with self._writer.as_default(step=self._step):
                yield self._writer
        except tf.errors.OpError as error:
            hint = "free space, or set enable_visualization: false"
            raise StorageError(f"{self._directory}: can't be written: {plain_message(error)}; {hint}") from error


def scalar_name(term: str, spec: ExperimentSpec) -> str | None:
    """The reference's name of a term of the loss; None for what it has no curve of."""
    loss, weights = spec.loss.loss_type, spec.loss.weights_dict
    if term.startswith("region/"):
        region = term.removeprefix("region/")
        return f"{loss}_{'eyelids' if region == 'eyes' else region}_loss" if weights else None
    net = f"weighted_{loss}_net_loss" if weights else f"{loss}_net_loss"
    names = {"loss": "total_loss", "keypoints": net, "elt": f"elt_{net}"}
    return names.get(term, f"{term}_loss")


def write_images(tag: str, images: Iterable[np.ndarray]) -> None:
    """`tf.summary.image` for uint8 (H, W, C), whose own PNG encoder takes ten times as long."""
    images = [image.squeeze(axis=2) if image.shape[2] == 1 else image for image in images]
    height, width = images[0].shape[:2]
    content = [str(width).encode(), str(height).encode(), *map(encode_png, images)]
    metadata = create_summary_metadata(display_name=None, description=None, converted_to_tensor=True)
    tf.summary.write(tag, tf.constant(content), metadata=metadata)


def drawn_face(image_HWC: np.ndarray, points_N2: np.ndarray) -> np.ndarray:
    """The crop enlarged, uint8 RGB, keypoints in the colours of their regions."""
    size = (image_HWC.shape[1] * ENLARGED, image_HWC.shape[0] * ENLARGED)
    canvas = cv2.resize(image_HWC, size, interpolation=cv2.INTER_CUBIC)
    canvas = cv2.cvtColor(canvas, cv2.COLOR_GRAY2BGR if canvas.ndim == 2 else cv2.COLOR_RGB2BGR)
    draw_keypoints(canvas, (points_N2 + 0.5) * ENLARGED - 0.5, radius_px=RADIUS_PX * ENLARGED)
    return cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB)


def forget_after(directory: Path, step: int) -> None:
    """Take all events after `step` out of the files in `directory`, and what a kill left half written.

    A resumed training does these steps again, and TensorBoard would show them twice.
    """
    for path in sorted(directory.glob("events.out.tfevents.*")):
        records, whole = _records(path)
        kept = [record for record in records if tf.compat.v1.Event.FromString(record).step <= step]
        if not any(tf.compat.v1.Event.FromString(record).HasField("summary") for record in kept):
            path.unlink()
        elif len(kept) < len(records) or not whole:
            with atomic_path(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
                for record in kept:
                    writer.write(record)


def _records(path: Path) -> tuple[list[bytes], bool]:
    """Serialised events up to the first damage, and whether there was none."""
    records: list[bytes] = []
    try:
        records.extend(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    except tf.errors.DataLossError:
        return records, False
    return records, True
