from xml.etree import ElementTree

import pytest

from model.evaluation_charts import error_curve_chart, evaluation_charts, reliability_chart, roc_chart, slice_chart
from model.evaluation_report import evaluation_report
from model.region_error import Unit
from tests.evaluation_sets import made_up_evaluation

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def polyline(svg):
    root = ElementTree.fromstring(svg)
    return [tuple(map(float, point.split(","))) for point in root.find(f"{SVG}polyline").get("points").split()]


def circles(svg):
    return [float(element.get("cx")) for element in ElementTree.fromstring(svg).iter(f"{SVG}circle")]


def part(name, error, low=None, high=None):
    return {"name": name, "regions": {"All": {"crop_px": {"all": {"error": error, "low": low, "high": high}}}}}


def test_a_face_set_has_all_charts_and_other_points_have_those_that_they_can():
    face = evaluation_report(made_up_evaluation(30, 80, sets=["one"] * 12 + ["two"] * 18))
    assert set(evaluation_charts(face)) == {
        "region_error",
        "slices_yaw",
        "slices_set",
        "curve_crop_px",
        "curve_inter_ocular_percent",
        "roc",
        "reliability",
    }
    assert set(evaluation_charts(evaluation_report(made_up_evaluation(8, 1)))) >= {"region_error", "curve_crop_px"}


def test_a_slice_is_a_dot_with_whiskers_where_there_is_an_interval():
    svg = slice_chart([part("first", 1.0, 0.5, 1.5), part("second", 2.0), part("n" * 60, 4.0)], whole=2.0)
    first, second, third = circles(svg)
    assert first < second < third and third - second == pytest.approx(2 * (second - first), abs=0.2)
    assert {"first", "second", "1.00", "n" * 27 + "…"} <= set(texts(svg))
    alone = slice_chart([part("second", 2.0)], whole=2.0)
    assert svg.count("<line") > alone.count("<line") + 2


def test_the_error_curve_rises_to_the_right_and_names_its_bound():
    curve = {"bound": 4.0, "points": [[0, 0.0], [4, 0.5], [8, 1.0]]}
    svg = error_curve_chart(curve, Unit.CROP)
    xs, ys = zip(*polyline(svg), strict=True)
    assert list(xs) == sorted(xs) and list(ys) == sorted(ys, reverse=True)
    assert "bound 4" in texts(svg) and "100%" in texts(svg)


def test_the_roc_curve_names_its_area():
    assert "area 0.812" in texts(roc_chart({"auc": 0.8123, "roc": [[0, 0], [0.1, 0.6], [1, 1]]}))


@pytest.mark.parametrize("top", [0.9, 0.02])
def test_small_confidences_get_an_axis_of_their_own(top):
    bins = [{"confidence": top * i / 4, "visible_share": i / 4} for i in range(5)]
    xs = circles(reliability_chart(bins))
    assert len(xs) == 5 and xs[-1] - xs[0] > 300
