"""What a version of our code is made of. That steps are redone where it changes: `test_tasks_reuse.py`."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor

from schemas.source_code import code_version


class Knot:
    """Garbage whose collection, wherever it happens, lets another thread run."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        time.sleep(0)


def test_two_threads_may_ask_at_once():
    """As targets do that are rolled out side by side."""

    def ask(_: int) -> set[str]:
        found = set()
        for _ in range(5):
            _knots = [Knot() for _ in range(100)]
            found.add(code_version.__wrapped__("deploy.engine"))
        return found

    before = gc.get_threshold()
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(2) as pool:
            found = set().union(*pool.map(ask, range(2)))
    finally:
        gc.set_threshold(*before)
    assert found == {code_version("deploy.engine")}
