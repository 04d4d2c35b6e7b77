"""Counts what a model sees on a device. No image, no keypoint and no name leaves the device: only these counts.

Copy this one file to the device beside the profile of its model. It needs Python 3.6 and NumPy, nothing else of this
project, and no network: the flow `drift` fetches what it writes.

    recorder = DriftRecorder("drift/profile.npz", "drift/records")
    while running:
        keypoints, confidence = infer(engine, crops)    # (B, N, 2) and (B, N), the engine's two outputs
        recorder.record(keypoints, confidence)
    recorder.close()

Of each face it takes the mean confidence of every region, and how far its keypoints are from the shapes that the
model was trained on (a squared Mahalanobis distance, after a similarity laid them over the mean). Each of these
numbers falls into one of the bins that the profile fixes. A file an hour holds the counts; it is replaced as a whole.
A program that is killed loses at most the last minute. A disk that is full never stops the device: what can't be
written is tried again, for a day's hours at most. A profile that replaces the file is counted by within a minute.

Legend: B faces, N keypoints, D = 2N. One recorder to a folder, and one thread to a recorder.
"""
# The Python of JetPack 4 is 3.6, which the following is about.
# ruff: noqa: UP006, UP035, UP045, B905

import hashlib
import io
import json
import os
import time
from pathlib import Path
from typing import Callable, Dict, Optional

import numpy as np

FORMAT = 1
SHAPE = "shape"
FLUSH_S = 60.0
WAITING_HOURS = 24
"""Hours that are kept in memory while the disk refuses them."""
KEPT_FILES = 24 * 14
"""Of the newest: a device that nobody asks does not fill up."""


class Profile:
    """What to count, for one model: regions, bins and the shapes it was trained on. Made by the flow `drift`.

    Attributes:
        digest: SHA-256 of the file, hex: records of one profile can be added up.
        model: version of the registry, such as `fpenet/3`.
        edges: signal -> inner edges of its bins, rising; one bin more than edges.
    """

    def __init__(self, path: str) -> None:
        content = Path(path).read_bytes()  # once: the flow may replace the file at any moment
        self.digest = hashlib.sha256(content).hexdigest()
        with np.load(io.BytesIO(content)) as stored:
            if int(stored["format"]) != FORMAT:
                raise ValueError(f"{path} is of format {stored['format']}, this client reads {FORMAT}")
            self.model = str(stored["model"])
            self.edges: Dict[str, np.ndarray] = {
                str(name): stored[f"edges_{number}"] for number, name in enumerate(stored["signals"])
            }
            self._regions = {str(name): stored[f"region_{number}"] for number, name in enumerate(stored["regions"])}
            self._mean_N = stored["mean_N2"][:, 0] + 1j * stored["mean_N2"][:, 1]
            self._shift_D = stored["shift_D"]
            self._precision_DD = stored["precision_DD"].astype(np.float64)

    @property
    def num_keypoints(self) -> int:
        return len(self._mean_N)

    def values(self, keypoints_BN2: np.ndarray, confidence_BN: np.ndarray) -> Dict[str, np.ndarray]:
        """Signal -> its number (B,) of each face."""
        signals = {
            "confidence/" + name: confidence_BN[:, points].mean(axis=1) for name, points in self._regions.items()
        }
        signals[SHAPE] = self._distance(keypoints_BN2)
        return {name: signals[name] for name in self.edges}

    def counts(self, values: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Signal -> how many faces are in each of its bins."""
        return {
            name: np.bincount(np.searchsorted(edges, values[name], side="right"), minlength=len(edges) + 1)
            for name, edges in self.edges.items()
        }

    def _distance(self, keypoints_BN2: np.ndarray) -> np.ndarray:
        """As `model.shape_model.ShapeModel.distance` has it."""
        points_BN2 = np.asarray(keypoints_BN2, np.float64)
        shapes_BN = points_BN2[..., 0] + 1j * points_BN2[..., 1]
        shapes_BN = shapes_BN - shapes_BN.mean(axis=1, keepdims=True)
        size_B1 = np.linalg.norm(shapes_BN, axis=1)[:, None]
        shapes_BN = shapes_BN / np.where(size_B1 > 0, size_B1, 1.0)
        product_B1 = (shapes_BN * self._mean_N.conj()).sum(axis=1)[:, None]
        length_B1 = np.abs(product_B1)
        turned_BN = (
            shapes_BN * np.where(length_B1 > 0, product_B1.conj(), 1.0) / np.where(length_B1 > 0, length_B1, 1.0)
        )
        offset_BN = turned_BN - self._mean_N
        centred_BD = np.concatenate([offset_BN.real, offset_BN.imag], axis=1) - self._shift_D
        return ((centred_BD @ self._precision_DD) * centred_BD).sum(axis=1)


class DriftRecorder:
    """Counts predictions by hour (UTC) and writes a JSON file an hour into a folder.

    Attributes:
        profile: what it counts by; another one after the file was replaced.
        failure: why the last attempt to write, or to take up another profile, failed; None if none did.
    """

    def __init__(
        self, profile: str, folder: str, *, flush_s: float = FLUSH_S, clock: Callable[[], float] = time.time
    ) -> None:
        """
        Raises:
            OSError, ValueError, KeyError: the profile can't be read. Run on without a recorder then.
        """
        self.profile = Profile(profile)
        self.failure: Optional[str] = None
        self._source, self._folder, self._flush_s, self._clock = Path(profile), Path(folder), flush_s, clock
        self._hours: Dict[str, dict] = {}
        self._counting = ""
        self._refused: Optional[str] = None
        self._flushed = clock()

    def record(self, keypoints_BN2: np.ndarray, confidence_BN: np.ndarray) -> None:
        """Count the predictions of B faces. Faces with a number that is none are counted as unusable.

        Raises:
            ValueError: they are not of the profile's model.
        """
        now = self._clock()
        due = not 0 <= now - self._flushed < self._flush_s
        if due:
            self._refused = self._take_up()
        keypoints_BN2, confidence_BN = np.asarray(keypoints_BN2), np.asarray(confidence_BN)
        faces, points = len(keypoints_BN2), self.profile.num_keypoints
        if keypoints_BN2.shape != (faces, points, 2) or confidence_BN.shape != (faces, points):
            raise ValueError(
                f"keypoints {keypoints_BN2.shape} and confidences {confidence_BN.shape}: the profile is of "
                f"{self.profile.model} with {points} keypoints"
            )
        usable_B = np.isfinite(keypoints_BN2).all(axis=(1, 2)) & np.isfinite(confidence_BN).all(axis=1)
        counts = self.profile.counts(self.profile.values(keypoints_BN2[usable_B], confidence_BN[usable_B]))
        hour = self._hour(time.strftime("%Y-%m-%dT%H", time.gmtime(now)))
        hour["faces"] += int(usable_B.sum())
        hour["unusable"] += int(faces - usable_B.sum())
        for name, found in counts.items():
            hour["counts"][name] = [a + b for a, b in zip(hour["counts"][name], found.tolist())]
        if due:
            self.flush()

    def flush(self) -> None:
        """Write what was counted. What can't be written stays, and `failure` says why."""
        self._flushed = self._clock()
        self.failure = self._refused
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in sorted(self._hours):
                self._write(name)
                if name != self._counting:
                    del self._hours[name]
            for path in sorted(self._folder.glob("*.json"))[:-KEPT_FILES]:
                path.unlink()
        except OSError as error:
            self.failure = str(error)

    def close(self) -> None:
        """Write what is left."""
        self.flush()

    def _take_up(self) -> Optional[str]:
        """Count by another profile where one has come; what was counted stays with the earlier. Why not, or None."""
        try:
            if hashlib.sha256(self._source.read_bytes()).hexdigest() == self.profile.digest:
                return None
            found = Profile(str(self._source))
        except Exception as error:  # whatever is wrong with a file must not stop the device
            return f"{self._source}: {error}"
        if found.num_keypoints != self.profile.num_keypoints:  # predictions would be refused that were taken so far
            return f"{found.model} has {found.num_keypoints} keypoints; start the recorder anew"
        self.profile = found
        return None

    def _hour(self, hour: str) -> dict:
        """The counts of an hour by this profile, with those that an earlier process wrote."""
        name = self._counting = f"{hour}-{self.profile.digest[:12]}"
        if name not in self._hours:
            empty = {signal: [0] * (len(edges) + 1) for signal, edges in self.profile.edges.items()}
            fresh = {
                "format": FORMAT,
                "profile": self.profile.digest,
                "model": self.profile.model,
                "hour": hour,
                "faces": 0,
                "unusable": 0,
                "counts": empty,
            }
            # Before it comes in: a clock that was set back makes it the oldest.
            for oldest in sorted(self._hours)[: -(WAITING_HOURS - 1)]:
                del self._hours[oldest]
            self._hours[name] = self._written(name) or fresh
        return self._hours[name]

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _written(self, name: str) -> Optional[dict]:
        """What is on the disk of an hour; None if there is nothing, or nothing whole."""
        try:
            found = json.loads(self._path(name).read_text())
            bins = {name: len(counts) for name, counts in found["counts"].items()}
            wanted = {name: len(edges) + 1 for name, edges in self.profile.edges.items()}
            return found if found["profile"] == self.profile.digest and bins == wanted else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _write(self, name: str) -> None:
        path = self._path(name)
        temporary = path.with_suffix(".tmp")
        with temporary.open("w") as file:
            json.dump(self._hours[name], file, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
