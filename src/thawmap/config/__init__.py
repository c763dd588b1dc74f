"""The contract with the user: one YAML, checked once, kept with every result.

Every setting has its default and its help text here and nowhere else. Unknown keys are refused with the file,
the line, the key and the nearest known key. Relative paths count from the YAML's folder.
"""

from thawmap.config.crossval import CrossvalSettings, FoldSettings
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
from thawmap.config.outputs import OutputSettings, PolygonSettings
from thawmap.config.reading import (
    json_schema,
    load,
    parse,
)
from thawmap.config.schema import (
    Config,
    EngineSettings,
    Fill,
    InferenceSettings,
    ModelSettings,
    SplitSettings,
)
from thawmap.config.training import (
    AugmentSettings,
    BceLoss,
    DropSettings,
    FocalLoss,
    GapSettings,
    LossTerm,
    OptimiserSettings,
    OverlapLoss,
    Phase,
    SamplerSettings,
    ScheduleTerm,
    TrainingSettings,
    TverskyLoss,
)
from thawmap.config.tune import Range, TuneSettings

__all__ = [
    "AugmentSettings",
    "Band",
    "BceLoss",
    "Config",
    "CrossvalSettings",
    "Delivery",
    "DropSettings",
    "ElevationSettings",
    "EngineSettings",
    "Fill",
    "FocalLoss",
    "FoldSettings",
    "GapSettings",
    "InferenceSettings",
    "LabelSettings",
    "LayerSettings",
    "LossTerm",
    "ModelSettings",
    "OptimiserSettings",
    "OutputSettings",
    "OverlapLoss",
    "Phase",
    "PlanetScopeScenes",
    "PolygonSettings",
    "Precomputed",
    "Range",
    "RasterScenes",
    "SamplerSettings",
    "SceneSettings",
    "ScheduleTerm",
    "Sentinel2Scenes",
    "SourceSettings",
    "SplitSettings",
    "TileSettings",
    "TrainingSettings",
    "TrendSettings",
    "TuneSettings",
    "TverskyLoss",
    "ValidMask",
    "json_schema",
    "load",
    "parse",
]
