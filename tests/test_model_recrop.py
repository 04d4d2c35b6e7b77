"""KPI faces through another model's crop, out of the records of this one."""

import numpy as np
import pytest

from model.pipeline import evaluation_batches
from model.recrop import recropped_batches
from schemas.errors import ShardError
from tests.shard_files import blob_face, small_spec, write_shard

CONVERTED = 1.3
FACES = [blob_face(i, ratio=CONVERTED) for i in range(5)]


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    return write_shard(tmp_path_factory.mktemp("shards") / "a", FACES)


def test_at_the_ratio_of_the_conversion_nothing_changes(shard):
    (ours,) = recropped_batches([shard], small_spec(), ratio=CONVERTED)
    (theirs,) = evaluation_batches([shard], small_spec())
    np.testing.assert_allclose(ours.images_BHWC, theirs.images_BHWC, atol=0.05)  # two ways to the same sum
    for name in ("points_BN2", "flags_BN", "boxes_B4", "names", "subjects", "sets"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("ratio", [1.0, 1.6])
def test_it_is_what_a_conversion_with_that_ratio_would_have_given(shard, tmp_path, ratio):
    other = write_shard(tmp_path / "other", [blob_face(i, ratio=ratio) for i in range(5)])
    (ours,) = recropped_batches([shard], small_spec(), ratio=ratio)
    (theirs,) = evaluation_batches([other], small_spec())
    np.testing.assert_array_equal(ours.boxes_B4, theirs.boxes_B4)
    assert np.abs(ours.images_BHWC - theirs.images_BHWC).mean() < 1.5  # gray values: another context's grid
    (unmoved,) = evaluation_batches([shard], small_spec())
    assert np.abs(unmoved.images_BHWC - theirs.images_BHWC).mean() > 5


def test_every_face_comes_once_in_batches_of_the_spec(shard):
    spec = small_spec()
    spec = spec.model_copy(update={"dataloader": spec.dataloader.model_copy(update={"batch_size": 2})})
    batches = list(recropped_batches([shard], spec, ratio=1.0))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert [name for batch in batches for name in batch.names] == [face.name for face in FACES]


def test_a_damaged_shard_is_told(shard, tmp_path):
    cut = tmp_path / "cut"
    cut.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ShardError):
        list(recropped_batches([cut], small_spec(), ratio=1.0))
