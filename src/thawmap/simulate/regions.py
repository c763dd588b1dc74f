"""Simulated regions: patterns of relief, slumps and colours, and their ground.

Regions follow the patterns of the six study regions of Nitze et al. 2021 (doi 10.3390/rs13214294; section
2.1, slump sizes and numbers of Table 2) in spectra, relief, and the size and place of slumps; they are not those
places.
"""

from dataclasses import dataclass

from thawmap.simulate.noise import Plane

Spectrum = tuple[float, float, float, float]
"""Reflectances in blue, green, red and nir."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relief:
    """The shape of a region's ground.

    Attributes:
        hills_m: Standard deviation of the hills' height, in metres.
        wavelength_m: Longest distance from hill to hill, in metres.
        gully_m: Depth of the valleys that drain the hills, in metres.
        sea: True if a sea lies on one side.
        river_m: Width of a river in metres; 0 where there is none.
        lakes: Share of the ground under lakes, 0..1.
        bank_m: Typical height of the banks at the water, in metres.
        bank_width_m: Distance over which the banks rise, in metres.
        heading: Direction of the shore of the sea, or of the river, in degrees clockwise from north.
    """

    hills_m: float
    wavelength_m: float
    gully_m: float
    sea: bool = False
    river_m: float = 0.0
    lakes: float = 0.0
    bank_m: float
    bank_width_m: float
    heading: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlumpTraits:
    """The slumps of a region: their sizes and numbers, and the ground that they take.

    Attributes:
        area_m2: Median area in square metres of those that are proposed; the ground takes more of some sizes.
        per_km2: Proposals on a square kilometre; a slump begins where the ground suits it.
        elongation: Length (downslope) over width.
        at_shore: True if they open to the water; else they lie on any slope.
        crowded: Share of the country that has any, 0..1.
        old: Share that has stabilised long ago, 0..1.
    """

    area_m2: float
    per_km2: float
    elongation: float
    at_shore: bool
    crowded: float
    old: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A kind of Arctic ground: its relief, its slumps and its colours.

    Attributes:
        name: The pattern that it follows.
        epsg: Its UTM zone.
        lon: Longitude of its first site, in degrees.
        lat: Latitude of its first site, in degrees.
        relief: The shape of its ground.
        slumps: Its slumps.
        dense: Spectrum of its densest vegetation.
        sparse: Spectrum of its thinnest vegetation.
        soil: Spectrum of its bare ground.
        cover: Mean density of its vegetation, 0..1.
        rugged: Share of ground that is bare without a slump, 0..1.
        silty: Share of its water that is bright with silt, 0..1.
    """

    name: str
    epsg: int
    lon: float
    lat: float
    relief: Relief
    slumps: SlumpTraits
    dense: Spectrum
    sparse: Spectrum
    soil: Spectrum
    cover: float
    rugged: float
    silty: float

    def country(self, seed: int) -> "Country":
        """Return the region's endless ground for a seed: the region and its random fields."""
        return Country(self, Plane((seed, REGIONS.index(self))))


@dataclass(frozen=True, slots=True)
class Country:
    """The endless ground of a region.

    Attributes:
        region: Its relief, slumps and colours.
        plane: Its random fields.
    """

    region: Region
    plane: Plane


REGIONS = (
    Region(  # Banks Island: lakes and valleys in a moraine with buried ice, sparse tundra, some of the largest slumps
        name="moraine", epsg=32611, lon=-118.6, lat=72.7,
        relief=Relief(
            hills_m=1.4, wavelength_m=420, gully_m=1.2, lakes=0.13, bank_m=4.5, bank_width_m=85,
        ),
        slumps=SlumpTraits(area_m2=21000, per_km2=60, elongation=1.5, at_shore=False, crowded=0.25, old=0.3),
        dense=(0.035, 0.060, 0.050, 0.265), sparse=(0.060, 0.084, 0.094, 0.205),
        soil=(0.078, 0.098, 0.113, 0.165), cover=0.42, rugged=0.05, silty=0.25,
    ),
    Region(  # Tuktoyaktuk Peninsula: a plain of lakes with small slumps at their shores, shrubs
        name="lake_plain", epsg=32608, lon=-134.1, lat=69.3,
        relief=Relief(
            hills_m=0.7, wavelength_m=300, gully_m=0.4, lakes=0.30, bank_m=3.5, bank_width_m=60,
        ),
        slumps=SlumpTraits(area_m2=2500, per_km2=380, elongation=1.0, at_shore=True, crowded=0.15, old=0.3),
        dense=(0.025, 0.050, 0.035, 0.320), sparse=(0.041, 0.066, 0.060, 0.240),
        soil=(0.062, 0.081, 0.090, 0.160), cover=0.62, rugged=0.02, silty=0.35,
    ),
    Region(  # Herschel Island: hills with many small valleys, slumps on slopes near the sea, shrubs
        name="island", epsg=32607, lon=-139.6, lat=69.5,
        relief=Relief(
            hills_m=3.5, wavelength_m=700, gully_m=3, sea=True, lakes=0.01, bank_m=10, bank_width_m=120, heading=130,
        ),
        slumps=SlumpTraits(area_m2=5200, per_km2=15, elongation=1.2, at_shore=False, crowded=0.22, old=0.3),
        dense=(0.028, 0.056, 0.036, 0.345), sparse=(0.045, 0.070, 0.065, 0.250),
        soil=(0.070, 0.086, 0.093, 0.170), cover=0.60, rugged=0.04, silty=0.8,
    ),
    Region(  # Kolguev Island: steep bluffs above the sea with large slumps
        name="coast", epsg=32639, lon=49.3, lat=69.1,
        relief=Relief(
            hills_m=1.5, wavelength_m=500, gully_m=1.8, sea=True, lakes=0.01, bank_m=12, bank_width_m=100, heading=-35,
        ),
        slumps=SlumpTraits(area_m2=12500, per_km2=250, elongation=1.0, at_shore=True, crowded=0.4, old=0.3),
        dense=(0.030, 0.055, 0.043, 0.275), sparse=(0.050, 0.072, 0.075, 0.195),
        soil=(0.072, 0.088, 0.098, 0.160), cover=0.50, rugged=0.04, silty=0.5,
    ),
    Region(  # Horton Delta: high bare cliffs above the sea, deep valleys, slumps at the cliffs' tops
        name="cliffs", epsg=32609, lon=-126.7, lat=69.7,
        relief=Relief(
            hills_m=2.8, wavelength_m=800, gully_m=4.5, sea=True, bank_m=20, bank_width_m=140, heading=20,
        ),
        slumps=SlumpTraits(area_m2=5600, per_km2=1100, elongation=0.9, at_shore=True, crowded=0.7, old=0.3),
        dense=(0.029, 0.052, 0.042, 0.265), sparse=(0.058, 0.078, 0.091, 0.195),
        soil=(0.098, 0.122, 0.142, 0.190), cover=0.53, rugged=0.05, silty=0.7,
    ),
    Region(  # Lena River: terraces at a river with bars, lakes behind, boreal forest, many overgrown slumps
        name="river_terrace", epsg=32651, lon=124.7, lat=69.0,
        relief=Relief(
            hills_m=1.8, wavelength_m=600, gully_m=1.5, river_m=200, lakes=0.06, bank_m=9, bank_width_m=120, heading=15,
        ),
        slumps=SlumpTraits(area_m2=13800, per_km2=300, elongation=1.5, at_shore=True, crowded=0.1, old=0.5),
        dense=(0.020, 0.033, 0.024, 0.185), sparse=(0.031, 0.047, 0.041, 0.205),
        soil=(0.062, 0.077, 0.083, 0.155), cover=0.68, rugged=0.03, silty=0.6,
    ),
)  # fmt: skip
"""In the order in which `Simulation.regions` takes them."""
