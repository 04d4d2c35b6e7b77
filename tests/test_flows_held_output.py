import subprocess
import sys

IMPORT = "from flows.entry.held_output import hold_tensorflow_start; hold_tensorflow_start(); "


def _run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", IMPORT + code], capture_output=True, text=True, check=False)


def test_importing_tensorflow_prints_nothing_and_what_comes_later_is_shown():
    done = _run("import os, tensorflow as tf; assert tf.constant(1) == 1; os.write(2, b'later')")

    assert (done.returncode, done.stderr) == (0, "later")


def test_what_a_failing_import_printed_is_shown(tmp_path):
    broken = tmp_path / "tensorflow.py"
    broken.write_text("import os; os.write(2, b'libfoo.so is missing\\n'); raise ImportError('no foo')")

    done = _run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tensorflow")

    assert done.returncode == 1
    assert done.stderr.startswith("libfoo.so is missing")
    assert done.stderr.rstrip().endswith("ImportError: no foo")


def test_opencv_says_nothing_of_an_image_that_is_not_there():
    hold = "from flows.entry.held_output import hold_opencv_warnings; hold_opencv_warnings(); "
    done = _run(hold + "import cv2; assert cv2.imread('no.png') is None")

    assert (done.returncode, done.stderr) == (0, "")
