"""A catalogue of many scenes on disk, against opening every file, as ratios that another machine has too.

python benchmarks/data_catalogue.py

Two comparisons. A few thousand real scenes (PlanetScope's layout: tiny rasters with mask and metadata, a hundred in an
order) are found and opened by their files, then by their catalogue. And an index of 100 000 rows, whose files are there
but empty, three of each scene: how long until all of them are found and compared with the disk, and listed. All in the
page cache; seconds of the processor are counted, of which other work takes none, the least of some runs.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import shapely
from affine import Affine

from thawmap.config import Config, PlanetScopeScenes
from thawmap.data.catalogue import index, places, stac
from thawmap.data.catalogue.folders import folders_below
from thawmap.data.catalogue.layout import INDEX, Entry, File
from thawmap.data.catalogue.write import write_catalogue
from thawmap.data.project import Project
from thawmap.data.sources import scenes as scene_files
from thawmap.pipeline.scenes import scenes

IN_ORDER = 100
ORDERS_OF_SITE = 20
TRANSFORM = Affine(3, 0, 570_000, 0, -3, 7_720_000)
LAYERS = ["blue", "green", "red", "nir"]


def names(count: int) -> Iterator[tuple[Path, str]]:
    """Folder and id of some scenes, a hundred in an order, twenty orders in a site."""
    for number in range(count):
        order = number // IN_ORDER
        folder = Path("scenes") / f"site{order // ORDERS_OF_SITE:03d}" / f"order{order:04d}" / "PSScene"
        day = f"2019{number % 12 + 1:02d}{number % 28 + 1:02d}"
        hour, minute, second = number // 3600 % 24, number // 60 % 60, number % 60
        yield folder, f"{day}_{hour:02d}{minute:02d}{second:02d}_{number % 100:02d}_{number // 100 % 65536:04x}"


def write_scenes(data: Path, count: int) -> None:
    """Write scenes of 16 px with mask and metadata."""
    rng, clear = np.random.default_rng(0), np.zeros((8, 16, 16), np.uint8)
    clear[0] = 1
    place = {"driver": "GTiff", "width": 16, "height": 16, "crs": "EPSG:32608", "transform": TRANSFORM}
    for folder, name in names(count):
        (data / folder).mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            data / folder / f"{name}_3B_AnalyticMS_SR_clip.tif", "w", count=4, dtype="uint16", **place
        ) as file:
            file.write(rng.integers(200, 4000, (4, 16, 16)).astype(np.uint16))
        with rasterio.open(data / folder / f"{name}_3B_udm2_clip.tif", "w", count=8, dtype="uint8", **place) as file:
            file.write(clear)
            file.descriptions = ("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "udm1")
        (data / folder / f"{name}_metadata.json").write_text(
            json.dumps({"id": name, "properties": {}}), encoding="utf-8"
        )


def write_empty(data: Path, count: int) -> None:
    """Write the index of scenes whose files are empty, and the files."""
    entries = []
    box = shapely.box(-133.2, 69.5, -133.1, 69.6)
    masks = tuple({"file": "udm2", "bands": [band], "usable": [0]} for band in (2, 3, 4, 5, 6))
    readings = {
        name: {"file": "image", "band": band, "scale": 1e-4, "offset": 0.0, "nodata": 0, "resampling": None}
        for band, name in enumerate(LAYERS, start=1)
    }
    for folder, name in names(count):
        (data / folder).mkdir(parents=True, exist_ok=True)
        files = []
        for key, ending in (
            ("image", "3B_AnalyticMS_SR_clip.tif"),
            ("udm2", "3B_udm2_clip.tif"),
            ("json", "metadata.json"),
        ):
            path = folder / f"{name}_{ending}"
            (data / path).touch()
            status = (data / path).stat()
            files.append(File(key=key, path=path.as_posix(), size=0, mtime_ns=status.st_mtime_ns, sha256="ab" * 32))
        entries.append(
            Entry(
                id=name, name=name, path=files[0].path, kind="planetscope", region=folder.parts[1], found=None,
                acquired=None,
                processing="surface reflectance", files=tuple(files), folders=(folder.as_posix(),), crs="EPSG:32608",
                shape=(3000, 3000), transform=tuple(TRANSFORM)[:6], outline=shapely.to_wkb(box), bbox=box.bounds,
                readings=readings, masks=masks, scene_notes=(), notes=(), usable=0.9,
            )
        )  # fmt: skip
    entries.sort(key=lambda entry: entry.id)
    about = index.About(
        kind="planetscope", settings=places.settings_fingerprint(settings(data)), roots=("scenes",),
        folders=folders_below(str(data), ["scenes"]),
    )  # fmt: skip
    (data / INDEX).write_bytes(index.index_bytes(entries, stac.item_paths(entries), about))


def settings(data: Path) -> PlanetScopeScenes:
    """How the scenes below a folder are read."""
    return PlanetScopeScenes(kind="planetscope", path=data / "scenes", region="{folder}")


def least(work: Callable[[], object], repeats: int) -> float:
    """The least time of the processor in some runs."""
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return min(taken)


def compare(data: Path, count: int, repeats: int) -> None:
    """Find and open real scenes by their files and by their catalogue."""
    write_scenes(data, count)
    project = Project(Config(scenes=settings(data), layers=LAYERS))

    def by_files() -> None:
        for candidate in scene_files.candidates(settings(data)):
            scene_files.open_scene(candidate, settings(data))

    def by_catalogue() -> None:
        opened = [project.open(candidate) for candidate in project.candidates()]
        assert len(opened) == count

    files = least(by_files, 1)
    first = least(lambda: write_catalogue(data, settings(data)), 1)
    again = least(lambda: write_catalogue(data, settings(data)), repeats)
    catalogue = least(by_catalogue, repeats)
    listed = least(lambda: scenes(project.config), repeats)
    look = least(lambda: scenes(project.config, look_at_all=True), 1)
    print(f"{count} scenes of 16 px found and opened by their files: {files:.1f} s")
    print(f"the same by their catalogue: {catalogue:.2f} s, {files / catalogue:.0f} times quicker")
    print(f"thawmap scenes: {listed:.2f} s, {look / listed:.0f} times quicker than with --look")
    print(f"the catalogue written: {first:.1f} s; again, with nothing new: {again:.2f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000, help="real scenes")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the large index")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        if arguments.scenes:
            compare(Path(name) / "real", arguments.scenes, arguments.repeats)
        data = Path(name) / "large"
        write_empty(data, arguments.rows)
        config = Config(scenes=settings(data), layers=LAYERS)
        found = least(lambda: Project(config).candidates(), arguments.repeats)
        listed = least(lambda: scenes(config), arguments.repeats)
        (data / "scenes" / "site000" / "new.tif").touch()
        changed = least(lambda: Project(config).candidates(), 1)
        size = (data / INDEX).stat().st_size
        print(f"{arguments.rows} scenes found in an index of {size / 1e6:.0f} MB, all files compared: {found:.1f} s")
        print(f"all of them listed by thawmap scenes: {listed:.1f} s; found with one file more: {changed:.1f} s")


if __name__ == "__main__":
    main()
