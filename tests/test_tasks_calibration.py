import numpy as np

from schemas.records import Split
from schemas.storage import sha256_file
from tasks.calibration import CalibrationCrops
from tasks.convert import Conversion
from tests.shard_files import blob_face, small_spec, write_shard


def conversion(path):
    entry = {"files": [{"file": path.name, "sha256": sha256_file(path)}], "records": 12}
    splits = dict.fromkeys(Split, entry)
    return Conversion("key", {split: [path] for split in Split}, {"splits": splits}, written=0, reused=3)


def test_the_same_training_faces_each_time_and_no_more_than_there_are(tmp_path):
    made = conversion(write_shard(tmp_path / "train.tfrecords", [blob_face(index) for index in range(12)]))
    some, again, every = (CalibrationCrops(made, small_spec(), faces=count) for count in (5, 5, 256))
    assert some().shape == (5, 80, 80, 1)
    np.testing.assert_array_equal(some(), again())
    assert some.id == again.id != every.id
    assert len(every()) == 12
    assert every.id == CalibrationCrops(made, small_spec(), faces=12).id
