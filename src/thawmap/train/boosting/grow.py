"""Trees grown on pixels by LightGBM, and taken over as arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

from thawmap.config import TreeSettings
from thawmap.model.backends.devices import threads
from thawmap.model.forest import Tree
from thawmap.train.boosting.samples import Samples

_Node = dict[str, Any]


def grow_trees(
    samples: Samples, logits: npt.NDArray[np.float32], settings: TreeSettings, *, number: int, rate: float, seed: int
) -> list[Tree]:
    """Grow trees, each on what is left of the pixels' errors by those before.

    Args:
        samples: The pixels.
        logits: What is said of them so far, (n,).
        settings: Leaves, bins, and pixels of a leaf.
        number: Number of trees.
        rate: Share of each tree's answer that counts.
        seed: Seed of everything random.
    """
    import lightgbm  # noqa: PLC0415 - an optional library

    parameters = {
        "objective": "binary",
        "num_leaves": settings.leaves,
        "learning_rate": rate,
        "min_data_in_leaf": settings.least_pixels,
        "max_bin": settings.bins,
        "boost_from_average": False,
        "use_missing": False,
        "feature_pre_filter": False,
        "seed": seed % 2**31,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": threads(),
        "verbosity": -1,
    }
    pixels = lightgbm.Dataset(
        samples.codes.astype(np.float32),
        samples.target.astype(np.float32),
        weight=samples.weight,
        init_score=logits.astype(np.float64),
        params=parameters,
        free_raw_data=True,
    )
    booster = lightgbm.train(parameters, pixels, num_boost_round=number)
    return [_as_tree(tree["tree_structure"]) for tree in booster.dump_model()["tree_info"]]


def _as_tree(root: _Node) -> Tree:
    """Return a tree of LightGBM's as arrays.

    Its thresholds lie between whole numbers; the whole number below says the same.
    """
    rows: list[list[int]] = []
    values: list[float] = []

    def visit(node: _Node) -> int:
        if "leaf_value" in node:
            values.append(node["leaf_value"])
            return -len(values)
        row = [int(node["split_feature"]), int(np.floor(node["threshold"])), 0, 0]
        number = len(rows)
        rows.append(row)
        row[2:] = visit(node["left_child"]), visit(node["right_child"])
        return number

    visit(root)
    columns = np.array(rows, np.int32).reshape(-1, 4).T
    return Tree(
        layer=columns[0],
        threshold=columns[1].astype(np.int16),
        left=columns[2],
        right=columns[3],
        value=np.array(values, np.float32),
    )
