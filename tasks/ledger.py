"""The rules about several annotations: an image shows one subject, and no face is there twice.

Of each sound annotation some numbers are kept, about a hundred bytes, and the rest lies in a `FaceSpool`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.annotation import Problem
from schemas.records import Violation, box_bytes
from tasks.candidates import Findings
from tasks.rules import duplicate_face, two_subjects
from tasks.spool import FaceSpool, SpooledFaces

_IMAGE_DIGITS = 16  # of either end of the hash in hex: 128 bits tell a billion images apart


class Ledger:
    """Collects the sound annotations of all batches, and finds those that are to be used.

    Args:
        folder: where the faces are kept meanwhile, see `FaceSpool`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._spool = FaceSpool(folder)
        self._subjects: dict[str, int] = {}
        self._keys: list[pa.Array] = []
        self._images: list[np.ndarray] = []
        self._subject_numbers: list[np.ndarray] = []
        self._contents: list[np.ndarray] = []
        self._superseded: list[np.ndarray] = []

    def enter(self, findings: Findings) -> None:
        """Take over the sound annotations of a batch."""
        rows = findings.rows
        if not rows:
            return
        self._spool.add(rows)
        self._keys.append(pa.array([row[0].encode(errors="surrogatepass") for row in rows], pa.large_binary()))
        digits = "".join([row[3][:_IMAGE_DIGITS] + row[3][-_IMAGE_DIGITS:] for row in rows])
        self._images.append(np.frombuffer(bytes.fromhex(digits), np.uint64).reshape(-1, 2))
        number_of = self._subjects
        numbers = [number_of.setdefault(row[6] or "unknown", len(number_of)) for row in rows]
        self._subject_numbers.append(np.array(numbers, np.int32))
        self._contents.append(np.array([_content(row) for row in rows], np.int64))
        self._superseded.append(np.array(findings.superseded))

    def close(self) -> tuple[SpooledFaces, SpooledFaces, list[Violation]]:
        """Accepted and superseded faces, each sorted by source key, and the violations of the others."""
        if not self._keys:
            return self._spool.faces(np.empty(0)), self._spool.faces(np.empty(0)), []
        order = pc.sort_indices(pa.chunked_array(self._keys)).to_numpy()
        superseded = np.concatenate(self._superseded)
        used, others = order[~superseded[order]], order[superseded[order]]
        violations = []
        in_doubt = self._under_two_subjects(used)
        for number, problem in self._subject_problems(used[in_doubt]):
            violations.append(self._violation(number, problem))
        used = used[~in_doubt]
        accepted = np.ones(len(used), bool)
        for position, problem in self._duplicates(used):
            violations.append(self._violation(used[position], problem))
            accepted[position] = False
        return self._spool.faces(used[accepted]), self._spool.faces(others), violations

    def _under_two_subjects(self, used: np.ndarray) -> np.ndarray:
        """For each of these annotations, whether its image is there with another subject too."""
        images_B2, subjects_B = np.concatenate(self._images)[used], np.concatenate(self._subject_numbers)[used]
        order = np.lexsort((subjects_B, images_B2[:, 1], images_B2[:, 0]))
        same_image = (images_B2[order[1:]] == images_B2[order[:-1]]).all(axis=1)
        other_subject = subjects_B[order[1:]] != subjects_B[order[:-1]]
        image_number = np.concatenate([[0], np.cumsum(~same_image)])
        found = np.zeros(len(used), bool)
        found[order] = np.isin(image_number, image_number[1:][same_image & other_subject])
        return found

    def _subject_problems(self, numbers: np.ndarray) -> Iterator[tuple[int, Problem]]:
        images_B2 = np.concatenate(self._images)[numbers]
        subjects_B = np.concatenate(self._subject_numbers)[numbers]
        names = list(self._subjects)
        subjects_of: dict[bytes, set[str]] = defaultdict(set)
        for image_2, subject in zip(images_B2, subjects_B, strict=True):
            subjects_of[image_2.tobytes()].add(names[subject])
        for number, image_2 in zip(numbers, images_B2, strict=True):
            yield number, two_subjects(subjects_of[image_2.tobytes()])

    def _duplicates(self, used: np.ndarray) -> Iterator[tuple[int, Problem]]:
        """Positions in `used` of the faces whose content an earlier one has."""
        contents = np.concatenate(self._contents)[used]
        _, inverse, counts = np.unique(contents, return_inverse=True, return_counts=True)
        several = np.flatnonzero(counts[inverse] > 1)
        first_with: dict[str, str] = {}
        for position, face in zip(several, self._spool.faces(used[several]), strict=True):
            # The hash that was kept is short; the long one decides.
            first = first_with.setdefault(face.content_hash(), face.source_key)
            if first != face.source_key:
                yield position, duplicate_face(first)

    def _violation(self, number: int, problem: Problem) -> Violation:
        face = self._spool.faces(np.array([number]))[0]
        return replace(problem, face="").in_record(face.source_key, face.image_name)


def _content(row: tuple) -> int:
    """The same for faces of the same content hash, and for hardly any others; differs from run to run."""
    digest, subject, points, flags, tight, outer = row[3], row[6], row[8], row[9], row[10], row[11]
    return hash((digest, subject, points, flags, tight and box_bytes(tight), outer and box_bytes(outer)))
