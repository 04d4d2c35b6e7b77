from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.charts import line_chart, region_chart
from model.evaluation_report import evaluation_report
from model.svg import Axis
from tests.evaluation_sets import made_up_evaluation

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50))
def test_every_point_lies_inside_the_picture(values):
    svg = line_chart(list(enumerate(values)), label="loss", mark=0)
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    points = root.find(f"{SVG}polyline").get("points").split()
    assert len(points) == len(values)
    for x, y in (map(float, point.split(",")) for point in points):
        assert 0 <= x <= width and 0 <= y <= height


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e6), st.booleans())
def test_ticks_are_few_and_inside(low, ratio, logarithmic):
    ticks = Axis(low, low * ratio, 0, 100, logarithmic).ticks()
    assert len(ticks) <= 6
    assert all(-1e-6 <= Axis(low, low * ratio, 0, 100, logarithmic)(tick) <= 100 + 1e-6 for tick in ticks)


def test_a_higher_value_is_drawn_higher():
    axis = Axis(1.0, 100.0, 200.0, 0.0, logarithmic=True)
    assert axis(1.0) == 200.0 and axis(100.0) == 0.0 and axis(10.0) == pytest.approx(100.0)


def test_the_marked_point_is_named():
    assert "2.25" in texts(line_chart([(1, 4.0), (2, 2.25), (3, 3.0)], label="px", mark=2))


def test_no_point_is_an_error():
    with pytest.raises(ValueError, match="at least one point"):
        line_chart([], label="px")


@pytest.mark.parametrize("num_keypoints", [5, 80])
def test_the_region_chart_has_a_row_per_region(num_keypoints):
    report = evaluation_report(made_up_evaluation(num_keypoints=num_keypoints))
    svg = region_chart(report["regions"])
    assert set(report["regions"]) <= set(texts(svg))
    assert svg.count("<rect") == 2 * len(report["regions"])


def test_regions_without_visible_points_have_one_bar():
    report = evaluation_report(made_up_evaluation())
    for table in report["regions"].values():
        table["crop_px"]["visible"] = {"error": None, "low": None, "high": None}
    assert region_chart(report["regions"]).count("<rect") == len(report["regions"])
