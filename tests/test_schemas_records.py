"""The content hash, which names snapshots and shards: the same values for ever."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.config import SplitPolicy
from schemas.geometry import Box
from schemas.records import Face
from tasks.snapshot import snapshot_id

GOLDEN = json.loads((Path(__file__).parent / "golden" / "content_hashes.json").read_text())
CHANGES = [
    {},
    {"subject": None},
    {"subject": 'dä/"q\\u\x01"'},
    {"tight_box": Box(1, 2.1, 3, 4)},
    {"outer_box": Box(0.3, -2, 30, 40.7)},
    {"num_keypoints": 80, "tight_box": Box(1, 2, 3, 4), "outer_box": Box(5, 6, 7, 8)},
    {"subject": "日本/7"},
]


def face(number: int, num_keypoints: int = 3, **changes) -> Face:
    grid_N2 = np.arange(2 * num_keypoints, dtype=np.float32).reshape(num_keypoints, 2)
    fields = {
        "source_key": f"s:{number}",
        "image": "a.png",
        "image_name": "a.png",
        "image_sha256": f"{number:x}" * 64,
        "frame_width": 64,
        "frame_height": 48,
        "subject": f"d/{number}",
        "set_id": "all",
        "points_N2": grid_N2 * np.float32(1.1) + np.float32(number) / 3,
        "flags_N": np.array([(k + number) % 3 - 1 for k in range(num_keypoints)], np.int8),
    }
    return Face(**fields | changes)


FACES = [face(number, **change) for number, change in enumerate(CHANGES)]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_content_hash_is_the_one_of_the_first_release(number):
    assert FACES[number].content_hash() == GOLDEN["content_hashes"][number]


def test_snapshot_id_is_the_one_of_the_first_release():
    policy = SplitPolicy(kpi_subjects=["d/0"], validation_share=0.4)
    assert snapshot_id(FACES, policy) == GOLDEN["snapshot_id"]


boxes = st.none() | st.builds(Box, *[st.floats(-1e4, 1e4)] * 4)


@given(
    subject=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    points_N2=hnp.arrays(np.float32, (4, 2), elements=st.floats(width=32)),
    flags_N=hnp.arrays(np.int8, 4, elements=st.integers(-1, 1)),
    tight=boxes,
    outer=boxes,
)
def test_content_hash_is_of_the_canonical_json(subject, points_N2, flags_N, tight, outer):
    def hexed(values, dtype):
        return None if values is None else np.asarray(values, dtype).tobytes().hex()

    content = ["f" * 64, subject, 4, hexed(points_N2, "<f4"), hexed(flags_N, "i1")]
    content += [hexed(tight, "<f4"), hexed(outer, "<f4")]
    canonical = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    changes = {"points_N2": points_N2, "flags_N": flags_N, "tight_box": tight, "outer_box": outer}
    found = face(15, 4, subject=subject, **changes).content_hash()
    assert found == sha256(canonical).hexdigest()


def test_a_box_beyond_float32_has_the_hash_of_an_endless_one():
    far, endless = (face(0, tight_box=Box(0, 0, side, side)) for side in (1e39, np.inf))
    assert far.content_hash() == endless.content_hash() != face(0).content_hash()
