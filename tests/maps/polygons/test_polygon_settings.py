"""Hysteresis, opening, holes, rules and simplification, in a stream, against whole arrays in scipy."""

from itertools import pairwise

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox
from pydantic import ValidationError
from pyproj import Proj
from rasterio.features import rasterize
from scipy import ndimage

from thawmap.config import OutputSettings, PolygonSettings
from thawmap.data.sources.base import Scene
from thawmap.errors import DataError
from thawmap.geo.metres import ground_pixel_m
from thawmap.maps import write
from thawmap.maps.job import MapJob, Provenance
from thawmap.maps.layout import REASON
from thawmap.maps.polygons import left_out, vectorise
from thawmap.maps.polygons.measure import measured
from thawmap.maps.polygons.threshold import Disc, masks
from thawmap.maps.polygons.vectorise import Vectoriser
from thawmap.maps.rows import Rows

law = settings(deadline=None, max_examples=60)
files_law = settings(deadline=None, max_examples=15)

THRESHOLD = 0.5
PIXEL_M2 = 100.0


def grid(shape, crs="EPSG:32608", step=10.0, origin=(500_000.0, 7_700_000.0)):
    return GeoBox(shape, Affine.translation(*origin) * Affine.scale(step, -step), crs)


def scene_on(geobox):
    return Scene(id="s1", sensor="test", geobox=geobox, files={}, region="Yukon")


def parts_of(probability, cuts=(), layers=None):
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(probability)}), len(probability)]
    for first, end in pairwise(edges):
        some = {name: values[first:end].astype(np.float32) for name, values in (layers or {}).items()}
        yield Rows(first_row=first, probability=probability[first:end], layers=some)


def found_in(probability, cuts=(), layers=None, geobox=None, **options):
    scene = scene_on(geobox or grid(probability.shape))
    polygons = PolygonSettings(threshold=THRESHOLD, **{"min_area_m2": 0} | options)
    vectoriser = Vectoriser(scene, polygons, bundle_id="b1")
    disc = Disc(polygons.opening_m, ground_pixel_m(scene.geobox))
    for rows, mask in masks(parts_of(probability, cuts, layers), THRESHOLD, disc):
        vectoriser.add(rows, mask)
    return vectoriser.finish()


def written(folder, probability, **options):
    """Mask, number of its pixels in objects, and polygons, when a scene is written with these settings."""
    polygons = PolygonSettings(threshold=THRESHOLD, **{"min_area_m2": 0} | options)
    scene, made_from = scene_on(grid(probability.shape)), Provenance(bundle="b1")
    job = MapJob(scene=scene, polygons=polygons, outputs=OutputSettings(), provenance=made_from)
    mapped = write._write_rasters(job, parts_of(probability, range(0, len(probability), 5)), folder)
    with rasterio.open(folder / "mask.tif") as file:
        return file.read(1), mapped.slump_pixels, mapped.objects.slumps


def burnt(frame, shape):
    """Each slump's pixels, numbered from 1."""
    pairs = [(polygon, number) for number, polygon in enumerate(frame.geometry, start=1)]
    if not pairs:
        return np.zeros(shape, np.int32)
    return rasterize(pairs, out_shape=shape, transform=grid(shape).transform, dtype="int32")


def disc_of(radius):
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return y**2 + x**2 <= radius**2


def seeded(mask, probability, seed):
    labels, _ = ndimage.label(mask)
    strong = np.unique(labels[mask & (probability > seed)])
    return np.isin(labels, strong[strong > 0])


def without_holes(mask, probability, largest):
    """The mask with the objects' holes of at most so many pixels filled, where nothing is missing or mapped in them."""
    filled = mask.copy()
    objects, count = ndimage.label(mask)
    for number in range(1, count + 1):
        around, _ = ndimage.label(np.pad(objects != number, 1, constant_values=True))
        around = around[1:-1, 1:-1]
        for hole in (around == at for at in range(2, around.max() + 1)):  # 1 is what lies outside
            if hole.sum() <= largest and not (mask[hole].any() or np.isnan(probability[hole]).any()):
                filled |= hole
    return filled


def slowly(probability, *, radius=0.0, seed=None, largest_hole=0):
    """Where objects are, from the whole array."""
    mask = probability > THRESHOLD
    if radius:
        mask = ndimage.binary_opening(mask, disc_of(radius))
    if seed is not None:
        mask = seeded(mask, probability, seed)
    return without_holes(mask, probability, largest_hole) if largest_hole else mask


@st.composite
def rasters(draw, largest=14):
    """Probabilities in hundredths with many objects, rings and corners; some pixels missing."""
    shape = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    values = draw(st.sampled_from([[0, 51, 60, 90], [0, 20, 50, 51, 60, 75, 90, 100, 255], [51, 60, 90, 90, 90, 0]]))
    codes = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from(values)))
    return np.where(codes == 255, np.nan, codes / 100)


cuts = st.lists(st.integers(1, 13), max_size=6)
seeds = st.sampled_from([None, 0.5, 0.6, 0.75, 1.0])
holes = st.sampled_from([0, 1, 2, 5, 200])
radii = st.sampled_from([0.0, 0.6, 1.0, 1.5, 2.0, 3.0])


def options_of(seed, hole, radius=0.0):
    """Settings that mean the same on pixels of 10 m, which are 10.004 m on the ground."""
    return {"seed": seed, "fill_holes_m2": (hole + 0.5) * PIXEL_M2 * (hole > 0), "opening_m": radius * 10.02}


RING = np.array([[6, 6, 6, 6, 6], [6, 0, 0, 0, 6], [6, 0, 9, 0, 6], [6, 0, 0, 0, 6], [6, 6, 6, 6, 6]]) / 10

WEAK_ISLAND = np.select([RING == 0.6, RING == 0.9], [0.9, 0.6])


@pytest.mark.slow
@law
@given(probability=rasters(), cuts=cuts, seed=seeds, hole=holes, radius=radii)
@example(probability=RING, cuts=[3], seed=None, hole=200, radius=0.0)
@example(probability=RING, cuts=[3], seed=0.7, hole=200, radius=0.0)
@example(probability=WEAK_ISLAND, cuts=[2], seed=0.7, hole=9, radius=0.0)
def test_objects_are_those_of_the_whole_array(probability, cuts, seed, hole, radius):
    frame = found_in(probability, cuts, **options_of(seed, hole, radius)).slumps
    expected = slowly(probability, radius=radius, seed=seed, largest_hole=hole)
    labels, count = ndimage.label(expected)
    found = burnt(frame, probability.shape)
    assert np.array_equal(found > 0, expected)
    assert len(frame) == count
    assert len(np.unique(np.stack([found.ravel(), labels.ravel()]), axis=1).T) == len(np.unique(labels))
    assert frame.is_valid.all()
    assert np.array_equal(frame.area, frame["pixels"] * PIXEL_M2)


@pytest.mark.slow
@law
@given(probability=rasters(), cuts=cuts, seed=seeds, hole=holes, radius=radii)
def test_the_cut_changes_nothing(probability, cuts, seed, hole, radius):
    options = options_of(seed, hole, radius)
    whole, parts = found_in(probability, **options), found_in(probability, cuts, **options)
    assert parts.slumps.equals(whole.slumps)
    assert parts.left_out.equals(whole.left_out)
    for name in ("erased", "filled"):
        one, other = ({polygon.normalize().wkt for polygon in getattr(result, name)} for result in (whole, parts))
        assert one == other


def rim_of(probability):
    """Where a pixel shares a side with a missing one or with what lies beyond the scene."""
    missing = np.pad(np.isnan(probability), 1, constant_values=True)
    return (missing[:-2] | missing[2:])[:, 1:-1] | (missing[:, :-2] | missing[:, 2:])[1:-1]


@pytest.mark.slow
@law
@given(
    probability=rasters(),
    cuts=cuts,
    seed=seeds,
    hole=holes,
    least=st.sampled_from(["auto", 0.0, 150.0, 350.0, 650.0]),
)
def test_what_is_left_out_is_small_or_a_sliver_and_nothing_is_lost(probability, cuts, seed, hole, least):
    """Every object is a slump or left out, with the reason that pixels tell; 4 px of 10 m are the least by default."""
    options = options_of(seed, hole)
    found = found_in(probability, cuts, **options, min_area_m2=least)
    every = found_in(probability, cuts, **options).slumps
    assert sorted([*found.slumps["slump_id"], *found.left_out["slump_id"]]) == sorted(every["slump_id"])
    rim, mask = rim_of(probability), probability > THRESHOLD
    numbers = burnt(every, probability.shape)
    for number, slump in enumerate(every.itertuples(), start=1):
        pixels = (numbers == number) & mask
        why = ""
        if slump.area_m2 < (200 if least == "auto" else least):
            why = f"below {200 if least == 'auto' else least:g} m2"
        elif least == "auto" and slump.pixels < 4:
            why = "below 4 pixels"
        elif least == "auto" and 3 * (pixels & rim).sum() >= pixels.sum():
            why = left_out.SLIVER
        reasons = found.left_out.loc[found.left_out["slump_id"] == slump.slump_id, REASON].tolist()
        assert reasons == ([why] if why else []), (slump.pixels, why, reasons)


@files_law
@given(probability=rasters(), seed=seeds, hole=holes, drop=st.booleans())
def test_the_mask_is_that_of_the_slumps_whatever_is_left_out(tmp_path_factory, probability, seed, hole, drop):
    least = 350.0 if drop else "auto"
    mask, positive, slumps = written(
        tmp_path_factory.mktemp("map"), probability, **options_of(seed, hole), min_area_m2=least
    )
    np.testing.assert_array_equal(mask == 1, burnt(slumps, probability.shape) > 0)
    np.testing.assert_array_equal(mask == 255, np.isnan(probability))
    assert positive == (mask == 1).sum()


@pytest.mark.slow
@law
@given(probability=rasters(), cuts=cuts, hole=holes)
def test_statistics_are_of_the_pixels_above_the_threshold(probability, cuts, hole):
    frame = found_in(probability, cuts, **options_of(None, hole)).slumps
    found = burnt(frame, probability.shape)
    for number, slump in enumerate(frame.itertuples(), start=1):
        inside = probability[(found == number) & (probability > THRESHOLD)]
        assert slump.probability_mean == pytest.approx(inside.mean())
        assert slump.probability_median == pytest.approx(np.median(inside))
        assert slump.probability_min == inside.min()


@files_law
@given(probability=rasters(), seed=seeds, hole=holes, radius=radii)
@example(probability=RING, seed=0.7, hole=200, radius=0.0)
@example(probability=np.where(RING == 0.9, 0.1, RING), seed=None, hole=9, radius=0.0)
def test_mask_and_polygons_agree(tmp_path_factory, probability, seed, hole, radius):
    options = options_of(seed, hole, radius)
    mask, positive, slumps = written(tmp_path_factory.mktemp("maps"), probability, **options)
    expected = slowly(probability, radius=radius, seed=seed, largest_hole=hole)
    assert np.array_equal(mask == 255, np.isnan(probability))
    assert np.array_equal(mask == 1, expected)
    assert positive == expected.sum()
    assert np.array_equal(burnt(slumps, probability.shape) > 0, expected)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), strip=st.integers(1, 400), pile=st.integers(1, 60))
def test_neither_strips_nor_piles_change_anything(seed, strip, pile):
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(40, 30)), 1.2)
    probability = np.where(
        ndimage.gaussian_filter(random.random((40, 30)), 2) > 0.57, np.nan, np.round(smooth + 0.5, 2)
    )
    probability = np.clip(probability, 0, 1)
    options = options_of(0.7, 5)
    whole = found_in(probability, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectorise, "_STRIP_PX", strip)
        patch.setattr(vectorise, "_PILE", pile)
        parts = found_in(probability, **options)
    assert parts.slumps.equals(whole.slumps)
    assert parts.left_out.equals(whole.left_out)
    assert shapely.area(parts.filled).sum() == shapely.area(whole.filled).sum()


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(data=st.data(), cuts=cuts, radius=st.floats(1, 35))
def test_opening_is_by_metres_on_pixels_of_any_shape(data, cuts, radius):
    mask = data.draw(hnp.arrays(np.bool_, (13, 12), elements=st.sampled_from([True] * 12 + [False])))
    size = data.draw(st.sampled_from([(10.0, 10.0), (10.0, 4.0), (3.0, 7.0)]))
    rows, cols = (int(radius / side) for side in size)
    y, x = np.mgrid[-rows : rows + 1, -cols : cols + 1]
    structure = (y * size[0]) ** 2 + (x * size[1]) ** 2 <= radius**2
    expected = ndimage.binary_opening(mask, structure)
    parts = list(masks(parts_of(mask.astype(float), cuts), THRESHOLD, Disc(radius, size)))
    assert np.array_equal(np.concatenate([opened for _, opened in parts]), expected)
    assert np.array_equal(np.concatenate([rows.probability for rows, _ in parts]), mask)
    assert [rows.first_row for rows, _ in parts] == list(np.cumsum([0, *(len(opened) for _, opened in parts[:-1])])), (
        "every row once, in order"
    )


def test_a_missing_pixel_is_never_filled():
    probability = np.full((5, 5), 0.9)
    probability[2, 2] = np.nan
    frame = found_in(probability, fill_holes_m2=1e6).slumps
    assert frame["pixels"].tolist() == [24]
    probability[2, 2] = 0.1
    assert found_in(probability, fill_holes_m2=1e6).slumps["pixels"].tolist() == [25]


@pytest.mark.parametrize("missing", [(1, 1), (1, 3), (2, 2), (3, 3)])
def test_what_is_missing_is_remembered_until_the_hole_around_it_closes(monkeypatch, missing):
    monkeypatch.setattr(vectorise, "_STRIP_PX", 1)
    monkeypatch.setattr(vectorise, "_PILE", 1)
    probability = np.pad(np.where(RING == 0.9, 0.1, RING), ((7, 0), (2, 2)))
    assert found_in(probability, fill_holes_m2=950).slumps["pixels"].tolist() == [25]
    probability[7 + missing[0], 2 + missing[1]] = np.nan
    assert found_in(probability, fill_holes_m2=950).slumps["pixels"].tolist() == [16]


layers_of = hnp.arrays(np.float32, (14, 14), elements=st.sampled_from([-0.5, -0.25, 0.0, 0.25, np.nan]))


@pytest.mark.slow
@law
@given(probability=rasters(), layer=layers_of, cuts=cuts, sign=st.sampled_from(["<", "<=", ">", ">="]))
def test_rules_leave_out_objects_by_the_mean_of_a_layer(probability, layer, cuts, sign):
    layer = layer[: probability.shape[0], : probability.shape[1]]
    frame = found_in(probability, cuts, {"ndvi": layer}, drop=[f"ndvi {sign} 0"]).slumps
    labels, count = ndimage.label(probability > THRESHOLD)
    compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[sign]
    kept = []
    for number in range(1, count + 1):
        values = layer[(labels == number) & np.isfinite(layer)]
        if not (values.size and compare(values.astype(float).mean(), 0)):
            kept.append(number)
    assert np.array_equal(burnt(frame, probability.shape) > 0, np.isin(labels, kept))


def test_several_rules_are_each_enough():
    probability = np.zeros((3, 9))
    probability[1, [1, 3, 5, 7]] = 0.9
    ndvi, slope = np.zeros((2, 3, 9))
    ndvi[1, 1], slope[1, 3], ndvi[1, 5], slope[1, 5] = -0.3, 50, -0.3, 50
    frame = found_in(probability, layers={"ndvi": ndvi, "slope": slope}, drop=["ndvi<-0.1", "slope  >=  5e1"]).slumps
    assert burnt(frame, (3, 9))[1].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]


def test_a_rule_over_a_layer_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"polygons.drop asks for 'ndwi'.*leave the rule out"):
        found_in(np.ones((3, 3)), layers={"ndvi": np.zeros((3, 3))}, drop=["ndwi > 0"])


@pytest.mark.parametrize(
    "text",
    [
        "ndvi",
        "ndvi < ",
        "ndvi = 0",
        "ndvi < x",
        "< 0",
        "ndvi < 0 or slope > 3",
        "a b < 1",
        "1 < ndvi",
        "ndvi < nan",
        "",
    ],
)
def test_what_is_no_rule_is_refused_by_its_key(text):
    with pytest.raises(ValidationError, match="is no rule; write LAYER") as refused:
        PolygonSettings(drop=[text])
    assert refused.value.errors()[0]["loc"] == ("drop", 0)


def test_rules_are_read_strictly():
    settings = PolygonSettings(drop=["ndvi<0", " slope >= -1.5e1 ", "ndvi > .5"])
    assert settings.rules == (("ndvi", "<", 0.0), ("slope", ">=", -15.0), ("ndvi", ">", 0.5))
    assert settings.layers == ("ndvi", "slope")
    assert settings.drop == ("ndvi < 0", "slope >= -1.5e1", "ndvi > .5")


def test_a_seed_below_the_threshold_is_refused():
    with pytest.raises(ValidationError, match=r"seed is 0.3, below the threshold of 0.5"):
        PolygonSettings(threshold=0.5, seed=0.3)


def blobs(seed, shape=(60, 50)):
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=shape), 2)
    return np.round(np.clip(0.5 + smooth, 0, 1), 2)


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), tolerance=st.sampled_from([0.5, 5.0, 12.0, 40.0]), cuts=cuts)
def test_simplified_outlines_are_valid_near_and_numbered_alike(seed, tolerance, cuts):
    probability = blobs(seed)
    whole = found_in(probability).slumps
    simple = found_in(probability, cuts, simplify_m=tolerance).slumps
    numbers = [name for name in whole.columns if name != "geometry"]
    assert simple[numbers].equals(whole[numbers])
    assert simple.is_valid.all()
    assert (simple.geom_type == "Polygon").all()
    corners = [shapely.get_num_coordinates(frame.geometry.to_numpy()) for frame in (whole, simple)]
    assert (corners[1] <= corners[0]).all()
    farthest = shapely.hausdorff_distance(simple.boundary.to_numpy(), whole.boundary.to_numpy(), densify=0.2)
    assert farthest.max(initial=0) <= tolerance * 1.5
    if tolerance == 0.5:
        assert shapely.equals(simple.geometry.to_numpy(), whole.geometry.to_numpy()).all()


def test_simplification_is_in_metres_where_the_crs_is_in_degrees():
    probability = np.pad(np.tri(20), 2)
    geobox = grid(probability.shape, "EPSG:4326", 0.001, (130.0, 70.0))
    height, width = ground_pixel_m(geobox)
    assert (height, width) == pytest.approx((111.5, 38.2), rel=0.01)
    for tolerance, fewer in ((width * 0.8, False), (width * 1.1, True)):
        frame = found_in(probability, geobox=geobox, simplify_m=tolerance).slumps
        assert (shapely.get_num_coordinates(frame.geometry.iloc[0]) < 20) == fewer


def test_a_hole_is_no_area_and_its_edge_is_perimeter():
    outline = shapely.box(10, 10, 60, 50, ccw=False).difference(shapely.box(20, 20, 30, 40))
    geobox = grid((100, 100))
    (area,), (perimeter,) = measured(np.array([outline], dtype=object), geobox)
    parts = np.array([shapely.box(10, 10, 60, 50), shapely.box(20, 20, 30, 40)], dtype=object)
    areas, perimeters = measured(parts, geobox)
    assert area == pytest.approx(areas[0] - areas[1], rel=1e-9)
    assert perimeter == pytest.approx(perimeters.sum(), rel=1e-9)


def test_the_area_of_one_small_pixel_is_exact():
    geobox = grid((3, 3), step=3.0, origin=(300_000.0, 7_700_000.0))
    (area,), _ = measured(np.array([shapely.box(1, 1, 2, 2)], dtype=object), geobox)
    projection = Proj("EPSG:32608")
    x, y = geobox.transform * (1.5, 1.5)
    scale = projection.get_factors(*projection(x, y, inverse=True)).areal_scale
    assert area == pytest.approx(9 / scale, rel=1e-6)


def test_areas_do_not_depend_on_the_size_of_the_batch():
    outlines = np.array([shapely.box(3, 4, 300, 20), shapely.box(5, 5, 9, 400), shapely.box(1, 2, 8, 9)], dtype=object)
    geobox = grid((500, 400), "EPSG:4326", 0.0005, (130.0, 72.0))
    together = np.stack(measured(outlines, geobox))
    alone = np.stack([np.concatenate(measured(outlines[[at]], geobox)) for at in range(3)], axis=1)
    assert np.array_equal(together, alone)


@pytest.mark.parametrize(
    ("least", "chosen_m2", "slumps", "reason"),
    [("auto", 0.0, 2, None), ("auto", 1500.0, 1, "below 1500 m2"), (100, 1500.0, 2, None), ("auto", 150.0, 2, None)],
)
def test_the_least_area_of_validation_counts_unless_one_is_given(least, chosen_m2, slumps, reason):
    probability = np.zeros((30, 30))
    probability[6:9, 6:10] = probability[15:20, 15:20] = 0.9  # 1200 and 2500 m2
    settings_ = PolygonSettings(threshold=THRESHOLD, min_area_m2=least)
    vectoriser = Vectoriser(scene_on(grid(probability.shape)), settings_, bundle_id="b1", least_m2=chosen_m2)
    for rows in parts_of(probability, (8, 17)):
        vectoriser.add(rows, rows.probability > THRESHOLD)
    objects = vectoriser.finish()
    assert len(objects.slumps) == slumps
    assert objects.left_out[REASON].tolist() == ([] if reason is None else [reason])
