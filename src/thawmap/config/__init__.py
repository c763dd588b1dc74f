"""The contract with the user: one YAML, checked once, frozen, and travelling with every result.

Every setting has its default and its help text here and nowhere else. Unknown keys are refused with the file,
the line, the key and the nearest known key. Relative paths count from the YAML's folder.
"""

from thawmap.config.inputs import (
    Band,
    Delivery,
    ElevationSettings,
    LabelSettings,
    LayerSettings,
    PlanetScopeScenes,
    Precomputed,
    RasterScenes,
    SceneSettings,
    Sentinel2Scenes,
    SourceSettings,
    TileSettings,
    TrendSettings,
    ValidMask,
)
from thawmap.config.reading import (
    json_schema,
    load,
    parse,
)
from thawmap.config.schema import (
    AugmentSettings,
    Config,
    EngineSettings,
    InferenceSettings,
    ModelSettings,
    OptimiserSettings,
    OutputSettings,
    Phase,
    PolygonSettings,
    SplitSettings,
    TrainingSettings,
)

__all__ = [
    "AugmentSettings",
    "Band",
    "Config",
    "Delivery",
    "ElevationSettings",
    "EngineSettings",
    "InferenceSettings",
    "LabelSettings",
    "LayerSettings",
    "ModelSettings",
    "OptimiserSettings",
    "OutputSettings",
    "Phase",
    "PlanetScopeScenes",
    "PolygonSettings",
    "Precomputed",
    "RasterScenes",
    "SceneSettings",
    "Sentinel2Scenes",
    "SourceSettings",
    "SplitSettings",
    "TileSettings",
    "TrainingSettings",
    "TrendSettings",
    "ValidMask",
    "json_schema",
    "load",
    "parse",
]
