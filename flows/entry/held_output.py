"""A terminal without what TensorFlow's libraries print while they are loaded, and OpenCV of every missing image.

Six lines about oneDNN and CUDA come on every import, before TensorFlow's own log level is in force, so no setting
keeps them back. They are held while `import tensorflow` runs, whoever imports it, and shown if it fails.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def hold_tensorflow_start() -> None:
    """Keep the standard error quiet during the first `import tensorflow`; later ones and other output pass."""
    if "tensorflow" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions too
        sys.meta_path.insert(0, _Finder())


def hold_opencv_warnings() -> None:
    """Commands say themselves which images can't be read. Must come before OpenCV is imported: it reads this then."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with _standard_error_held():
            self._loader.exec_module(module)
            module.config.list_physical_devices()  # the first look says that a machine has no GPU: three lines more


@contextmanager
def _standard_error_held() -> Iterator[None]:
    """Of this process, native code included; shown after an exception."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(terminal, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
