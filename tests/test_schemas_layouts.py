import pytest

from schemas.layouts import layout


@pytest.mark.parametrize("n", [68, 80, 104])
def test_flip_map_is_the_reference_s(golden, n):
    assert list(layout(n).flip) == golden("hflip_maps")[str(n)]


@pytest.mark.parametrize("n", [68, 80, 104])
def test_flip_is_an_involution_that_keeps_regions(n):
    flip = layout(n).flip
    assert [flip[i] for i in flip] == list(range(n))
    for name, region in layout(n).regions.items():
        assert {flip[i] for i in region} == set(region), name


@pytest.mark.parametrize(("n", "key"), [(68, "68"), (80, "80"), (10, "other")])
def test_evaluation_regions_are_the_reference_s(golden, n, key):
    reference = golden("regions")
    regions = layout(n).regions
    assert list(regions) == reference["eval_regions"][key]["order"]
    for name, indices in regions.items():
        expected = reference["eval_index"][name]
        if name == "All":
            expected = [0, n]
        assert list(indices) == (list(range(*expected)) if len(expected) == 2 else expected)


@pytest.mark.parametrize("n", [68, 80, 104])
def test_loss_regions_cover_every_point_once(n):
    covered = sorted(i for region in layout(n).loss_regions.values() for i in region)
    assert covered == list(range(n))


def test_extra_eye_points_of_104_belong_to_the_eyes():
    assert set(range(80, 104)) <= set(layout(104).regions["Eyes"])


def test_a_layout_needs_a_point():
    with pytest.raises(ValueError, match="not 0"):
        layout(0)


@pytest.mark.parametrize("n", [68, 80, 104])
def test_contours_are_runs_that_mirroring_keeps(n):
    face = layout(n)
    members = [point for contour in face.contours for point in contour]
    assert members == list(range(len(members)))
    assert n - len(members) in (0, 2)  # P103 and P104 stand alone
    mirrored = {frozenset(face.flip[point] for point in contour) for contour in face.contours}
    assert mirrored == {frozenset(contour) for contour in face.contours}
    assert layout(5).contours == ()
