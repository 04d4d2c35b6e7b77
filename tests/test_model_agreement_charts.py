from xml.etree import ElementTree

import pytest

from model.agreement_charts import (
    LARGEST_ARROW,
    MOST_ENLARGED,
    SPREAD_ENLARGED,
    bias_chart,
    enlargement,
    spread_chart,
)

SVG = "{http://www.w3.org/2000/svg}"
FACE = ((10.0, 20.0), (60.0, 20.0), (35.0, 70.0))


def test_discs_are_as_wide_as_the_spread_says():
    root = ElementTree.fromstring(spread_chart(FACE, (1.0, 2.0, 0.0), ("P1", "P2", "P3")))
    discs = [circle for circle in root.iter(f"{SVG}circle") if circle.find(f"{SVG}title") is not None]
    radii = [float(disc.get("r")) for disc in discs]
    assert radii[1] == 2 * radii[0] and 0 < radii[2] < radii[0]
    units = (float(discs[1].get("cx")) - float(discs[0].get("cx"))) / (FACE[1][0] - FACE[0][0])
    assert 2 * radii[0] == pytest.approx(SPREAD_ENLARGED * units)
    assert discs[1].find(f"{SVG}title").text == "P2: 2.00 crop pixels"


def test_arrows_point_where_the_annotator_leans():
    root = ElementTree.fromstring(bias_chart(FACE, ((2.0, 0.0), (0.0, -1.0), (0.0, 0.0)), enlarged=2, name="a"))
    right, up, none = (
        tuple(float(line.get(name)) for name in ("x1", "y1", "x2", "y2")) for line in root.iter(f"{SVG}line")
    )
    assert right[2] > right[0] and right[1] == right[3]
    assert up[0] == up[2] and up[3] < up[1]
    assert none[:2] == none[2:]
    assert right[2] - right[0] == pytest.approx(2 * (up[1] - up[3]))


def test_an_annotator_s_name_is_never_markup():
    assert "<b>" not in bias_chart(FACE, FACE, enlarged=1, name='"><b>')


def test_arrows_are_enlarged_to_be_seen_and_no_more():
    assert enlargement([((3.0, 0.0),), ((0.0, -0.5),)]) == pytest.approx(LARGEST_ARROW / 3)
    assert enlargement([((0.01, 0.0),)]) == MOST_ENLARGED
    assert enlargement([((0.0, 0.0),)]) == enlargement([]) == 1.0
