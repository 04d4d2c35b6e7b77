import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# `make test` tries the same few examples each time: it fails by the change. `make test-all` looks for new ones.
settings.register_profile("quick", settings.get_profile("thorough"), max_examples=25, derandomize=True)
settings.load_profile("quick")

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """Loads one of the reference implementation's golden files by its stem."""
    return lambda name: json.loads((GOLDEN / f"{name}.json").read_text())
