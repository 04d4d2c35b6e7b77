"""Labels that an order saves, and the chart of it."""

from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parent.parent / "bench"
LABELS = [50, 100, 200]


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


def test_labels_are_read_off_between_points_over_the_logarithm():
    from labelling_curve import labels_for_error

    assert labels_for_error(LABELS, [4.0, 3.0, 2.0], 3.0) == pytest.approx(100)
    assert labels_for_error(LABELS, [4.0, 3.0, 2.0], 3.5) == pytest.approx(np.sqrt(50 * 100))
    assert labels_for_error(LABELS, [4.0, 3.0, 2.0], 5.0) == 50


def test_an_error_that_is_never_reached_has_no_labels():
    from labelling_curve import labels_for_error

    assert labels_for_error(LABELS, [4.0, 3.0, 2.0], 1.9) is None


def test_a_bump_counts_as_the_lower_point_before_it():
    from labelling_curve import labels_for_error

    assert labels_for_error(LABELS, [3.0, 3.4, 2.0], 3.2) == 50
    assert labels_for_error(LABELS, [3.0, 3.4, 2.0], 2.5) == pytest.approx(np.sqrt(100 * 200))


def test_the_chart_names_both_curves_and_the_labels():
    from labelling_curve import curve_chart

    curves = {"ours": np.array([[4.0, 3.0, 2.0]]), "random": np.array([[4.0, 3.5, 3.0]])}
    svg = curve_chart(LABELS, curves, label="Error against labels", y_label="px")
    assert svg.startswith("<svg")
    assert all(f">{text}<" in svg for text in ("ours", "random", "50", "100", "200", "px"))
    with pytest.raises(ValueError, match="not 0 over 3"):
        curve_chart(LABELS, {}, label="", y_label="")
