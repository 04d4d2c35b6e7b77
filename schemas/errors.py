"""Every error that this project raises on purpose.

    FpenetError                      exit code 1
    ├── InputError                   2   what the user gave is wrong
    │   ├── SpecError                    a key or value of a spec or config file
    │   ├── AnnotationFileError          an annotation file that can't be read (file, line, column)
    │   ├── ViolationsError              too large a share of the records breaks the rules
    │   ├── SplitError                   records that can't be split into training, validation and KPI as asked
    │   ├── SubjectLeakError             a KPI subject in training or validation data
    │   ├── UnknownSubjectError          records that name no subject
    │   ├── ShardError                   a TFRecord file that can't be read, or names an image that is not there
    │   ├── ImageError                   an image that can't be read, or is another one than was looked at before
    │   ├── ModelFileError               a model or engine file that can't be used
    │   ├── SealedFileError              an encrypted file: no key, a wrong one, damaged, or of another kind
    │   ├── CalibrationError             calibration faces, a tensorfile or a cache that can't be used for INT8
    │   ├── TrainingError                a training that can't go on: other settings than before, or a device failed
    │   │   └── DivergedError                its loss is no number any more; so it would be again
    │   ├── EngineMismatchError          an engine of another TensorRT, GPU or JetPack than the device's
    │   ├── ReviewError                  an approval that does not hold: lapsed, of another report, without a reason
    │   ├── SignatureError               a bundle that was changed, or is signed by nobody known
    │   └── DeliveryError                a webhook's delivery that is forged, stale, repeated or not understood
    ├── SourceError                  3   an annotation source can't give what was asked
    │   ├── SourceEmptyError
    │   ├── SourceUnreachableError
    │   ├── SourceRefusedError           wrong or expired token
    │   └── ProjectNotFoundError
    ├── GateError                    4   a number is on the wrong side of its bound
    ├── StorageError                 5   disk full, no permission, damaged output
    ├── TrackingError                6   MLflow can't be reached, or refuses
    ├── EngineBuildError             7   a builder that made no engine
    ├── DeviceError                  8   a device that does not do what it is asked
    │   ├── DeviceOfflineError           it does not answer, or went away; it is asked again when it is back
    │   └── DeviceRefusedError           it refuses the key or the user, or is not the host that it should be
    └── ForwardError                 1   Prefect can't be reached, or refuses an event

A message says what is wrong, where it is, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class FpenetError(Exception):
    """Root of the tree; `str()` is the text a user sees."""

    exit_code = 1


class InputError(FpenetError):
    exit_code = 2


class SpecError(InputError):
    """A key or value of a spec file. `where` is `file: dotted.key`."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where


class AnnotationFileError(InputError):
    """An annotation file that can't be gone through: of another format, cut off, or not there."""

    def __init__(self, path: Path | str, problem: str, *, line: int | None = None, column: int | None = None) -> None:
        place = f"{path}" if line is None else f"{path}:{line}:{column}"
        super().__init__(f"{place}: {problem}")
        self.path, self.line, self.column = Path(path), line, column


class ViolationsError(InputError):
    pass


class SplitError(InputError):
    pass


class SubjectLeakError(InputError):
    """KPI subjects found where a model would learn from them."""

    def __init__(self, subjects: Iterable[str], place: str) -> None:
        self.subjects = sorted(subjects)
        shown = ", ".join(self.subjects[:10]) + (" ..." if len(self.subjects) > 10 else "")
        super().__init__(
            f"{place}: KPI subject{'s' if len(self.subjects) > 1 else ''} {shown} must not be trained on; "
            "take them out of this set, or out of the KPI list or sets"
        )


class UnknownSubjectError(InputError):
    pass


class ShardError(InputError):
    pass


class ImageError(InputError):
    pass


class ModelFileError(InputError):
    pass


class SealedFileError(InputError):
    pass


class CalibrationError(InputError):
    pass


class TrainingError(InputError):
    pass


class DivergedError(TrainingError):
    pass


class EngineMismatchError(InputError):
    pass


class ReviewError(InputError):
    pass


class SignatureError(InputError):
    pass


class DeliveryError(InputError):
    """A delivery that is refused. `reason` is one of few words, for a metric and for the answer's status."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class SourceError(FpenetError):
    exit_code = 3


class SourceEmptyError(SourceError):
    pass


class SourceUnreachableError(SourceError):
    pass


class SourceRefusedError(SourceError):
    pass


class ProjectNotFoundError(SourceError):
    pass


class GateError(FpenetError):
    exit_code = 4


class StorageError(FpenetError):
    exit_code = 5


class TrackingError(FpenetError):
    exit_code = 6


class EngineBuildError(FpenetError):
    exit_code = 7


class DeviceError(FpenetError):
    exit_code = 8


class DeviceOfflineError(DeviceError):
    pass


class DeviceRefusedError(DeviceError):
    pass


class ForwardError(FpenetError):
    """Prefect does not answer, or took no event. `final`: it never will, so there is no use in sending it again."""

    def __init__(self, problem: str, *, final: bool = False) -> None:
        super().__init__(problem)
        self.final = final


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest of `known`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
