"""The error tree: one root, drawn as it is."""

import inspect

import pytest

from thawmap import errors

TREE = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]


def test_everything_that_can_go_wrong_has_one_root():
    assert all(issubclass(cls, errors.ThawmapError) for cls in TREE)


def test_the_drawing_at_the_top_is_the_tree():
    drawn = [line.strip(" |+-").split()[0] for line in errors.__doc__.splitlines() if "Error  " in line]
    assert sorted(drawn) == sorted(cls.__name__ for cls in TREE)


def test_labels_are_data():
    with pytest.raises(errors.DataError, match="no polygons"):
        raise errors.LabelError("no polygons")
