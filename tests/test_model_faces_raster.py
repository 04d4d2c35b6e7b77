import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.faces.raster import grid_triangles, rasterise, signed_areas

SIZE = (23, 17)


def nearest_by_hand(xy, depth, triangles):
    """For every pixel in turn, every triangle in turn."""
    best = np.full((SIZE[1], SIZE[0]), np.inf)
    for y in range(SIZE[1]):
        for x in range(SIZE[0]):
            for triangle in triangles:
                p, q, r = xy[triangle]
                matrix = np.array([[p[0], q[0], r[0]], [p[1], q[1], r[1]], [1, 1, 1]])
                weights = np.linalg.solve(matrix, [x, y, 1])
                if (weights >= 0).all():
                    best[y, x] = min(best[y, x], weights @ depth[triangle])
    return best


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_depth_is_that_of_the_nearest_triangle_of_each_pixel(seed):
    rng = np.random.default_rng(seed)
    xy, depth = rng.uniform(-6, 28, (12, 2)), rng.uniform(1, 9, 12)
    triangles = rng.permutation(12).reshape(4, 3)
    triangles = triangles[np.abs(signed_areas(xy, triangles)) > 0.5]

    expected = nearest_by_hand(xy, depth, triangles)
    found = rasterise(xy, depth, triangles, SIZE).depth_HW

    # On an edge rounding decides whether the pixel counts.
    assert np.isclose(found, expected, atol=1e-3, equal_nan=True).mean() > 0.99


def test_interpolates_between_corners():
    xy = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 15.0]])
    triangles = np.array([[0, 1, 2]])

    raster = rasterise(xy, np.ones(3), triangles, SIZE)
    at = raster.interpolate(xy.astype(np.float32), triangles)

    y, x = np.divmod(raster.pixel_P, SIZE[0])
    assert np.allclose(at, np.stack([x, y], 1), atol=1e-3)
    assert len(at) == np.count_nonzero(np.add.outer(np.arange(17) / 15, np.arange(23) / 20) <= 1 + 1e-9)


def test_a_grid_seen_from_outside_has_positive_areas_and_no_gaps():
    x, y = np.meshgrid(np.linspace(-1, 23, 6), np.linspace(-1, 17, 5))
    xy = np.stack([x, y], -1).reshape(-1, 2)

    for step in (1, 2):
        triangles = grid_triangles(5, 6, step)
        assert (signed_areas(xy, triangles) > 0).all()
        assert np.isfinite(rasterise(xy, np.ones(30), triangles, SIZE).depth_HW).all()


def test_what_is_beside_the_screen_or_has_no_area_covers_nothing():
    xy = np.array([[-9.0, 2.0], [-3.0, 2.0], [-5.0, 8.0], [2.0, 2.0], [8.0, 8.0], [5.0, 5.0]])
    raster = rasterise(xy, np.ones(6), np.array([[0, 1, 2], [3, 4, 5]]), SIZE)
    assert len(raster.pixel_P) == 0 and np.isinf(raster.depth_HW).all()
