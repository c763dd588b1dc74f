"""Scenes of the fake Planet: their files, searched and clipped as the service does it."""

import io
import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.mask
from pyproj import Transformer
from rasterio.io import MemoryFile
from rasterio.warp import transform_geom
from shapely import segmentize, transform
from shapely.geometry import shape

ASSETS = [
    "ortho_analytic_4b", "ortho_analytic_4b_sr", "ortho_analytic_4b_xml", "ortho_analytic_8b", "ortho_analytic_8b_sr",
    "ortho_analytic_8b_xml", "ortho_udm2", "ortho_visual",
]  # fmt: skip
_TO_METRES = Transformer.from_crs("EPSG:4326", "EPSG:6931", always_xy=True)
_COMPARED = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}


@dataclass
class Scene:
    """A scene: its item, and the files of it; without files some bytes are made up."""

    item: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)
    size: int = 20_000


def scenes_in(folder: Path) -> dict[str, Scene]:
    """Return the scenes below a folder by id: each metadata JSON with the files beside it whose names begin alike."""
    scenes = {}
    for path in sorted(folder.rglob("*_metadata.json")):
        item = json.loads(path.read_text())
        item["properties"] = {
            "ground_control": True, "quality_category": "standard", "publishing_stage": "finalized",
            "strip_id": item["id"].rpartition("_")[0], "updated": item["properties"]["acquired"], **item["properties"],
        }  # fmt: skip
        item |= {"assets": ASSETS, "_permissions": [f"assets.{name}:download" for name in ASSETS]}
        files = {file.name: file for file in sorted(path.parent.iterdir()) if file.name.startswith(item["id"])}
        scenes[item["id"]] = Scene(item=item, files=files)
    return scenes


def square_kilometres(geometry: Mapping[str, Any], aoi: Mapping[str, Any] | None) -> float:
    """Return what the service charges for an item, all of it or what an area shows of it."""
    outline = shape(geometry) if aoi is None else shape(geometry).intersection(shape(aoi))
    metres = transform(segmentize(outline, 0.02), lambda points: np.column_stack(_TO_METRES.transform(*points.T)))
    return float(metres.area / 1e6)


def matches(item: dict[str, Any], wanted: dict[str, Any]) -> bool:  # noqa: PLR0911 - a kind of filter each
    """Return whether an item passes a filter of the Data API."""
    kind, config = wanted["type"], wanted["config"]
    if kind in {"AndFilter", "OrFilter"}:
        return (all if kind == "AndFilter" else any)(matches(item, part) for part in config)
    if kind == "NotFilter":
        return not matches(item, config)
    if kind == "GeometryFilter":
        return bool(shape(item["geometry"]).intersects(shape(config)))
    if kind == "AssetFilter":
        return bool(set(config) & set(item["assets"]))
    if kind == "PermissionFilter":
        return set(config) <= {"assets:download", *item["_permissions"]}
    value = item["properties"].get(wanted["field_name"])
    if value is None:
        return False
    if kind == "DateRangeFilter":
        time = datetime.fromisoformat(value)
        return all(_COMPARED[way](time, datetime.fromisoformat(bound)) for way, bound in config.items())
    if kind == "RangeFilter":
        return all(_COMPARED[way](value, bound) for way, bound in config.items())
    if kind in {"StringInFilter", "NumberInFilter"}:
        return (str(value).lower() if isinstance(value, bool) else value) in config
    msg = f"no such filter: {kind}"
    raise ValueError(msg)


def clipped(scene: Scene, stems: tuple[str, str], aoi: dict[str, Any] | None) -> dict[str, bytes]:
    """Return the files that an order delivers of a scene, by name: two images, their XML and the metadata."""
    id_ = scene.item["id"]
    ending = "" if aoi is None else "_clip"
    files: dict[str, bytes] = {}
    properties = dict(scene.item["properties"])
    for stem in stems:
        path = next((scene.files[name] for name in (f"{id_}_{stem}{end}.tif" for end in ("", "_clip"))
                     if name in scene.files), None)  # fmt: skip
        if path is None:
            files[f"{id_}_{stem}{ending}.tif"] = (f"{id_} {stem} " * scene.size)[: scene.size].encode()
        else:
            content, values = _cut(path, aoi)
            files[f"{id_}_{stem}{ending}.tif"] = content
            if "udm2" in stem:
                imaged = np.count_nonzero(values[7] & 1 == 0)
                properties["clear_percent"] = round(100 * int(values[0].sum()) / max(imaged, 1))
    feature = {key: scene.item[key] for key in ("geometry", "id", "type") if key in scene.item}
    files[f"{id_}_metadata.json"] = json.dumps({**feature, "properties": properties}).encode()
    if not scene.files:
        files[f"{id_}_3B_AnalyticMS_metadata.xml"] = f"<scene>{id_}</scene>".encode()
    return files


def _cut(path: Path, aoi: dict[str, Any] | None) -> tuple[bytes, Any]:
    """Return a GeoTIFF cut to an area as bytes, 0 outside, and its values."""
    with rasterio.open(path) as source:
        profile = source.profile
        if aoi is None:
            return path.read_bytes(), source.read()
        area = transform_geom("EPSG:4326", source.crs, aoi)
        values, place = rasterio.mask.mask(source, [area], crop=True, nodata=0)
        if "udm2" in path.name:  # outside of the area nothing was seen
            outside = rasterio.features.geometry_mask([area], values.shape[1:], place)
            values[7][outside] = 1
        profile.update(height=values.shape[1], width=values.shape[2], transform=place)
        names = source.descriptions
    with MemoryFile() as memory:
        with memory.open(**profile) as target:
            target.write(values)
            target.descriptions = names
        return io.BytesIO(memory.read()).getvalue(), values
