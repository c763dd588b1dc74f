"""Records of what results were made from: stamps that change with a file, fingerprints that never change."""

import os

from thawmap.provenance import fingerprint, stamp, stamps


def test_a_stamp_changes_with_the_file(tmp_path):
    path = tmp_path / "labels.shp"
    path.write_bytes(b"123")
    before = stamp(path)
    assert before == {"name": "labels.shp", "size": 3, "mtime_ns": path.stat().st_mtime_ns}
    os.utime(path, ns=(0, 1))
    assert stamp(path) != before


def test_stamps_are_of_all_files_of_a_stem(tmp_path):
    for name in ("labels[1].shp", "labels[1].dbf", "labels1.prj"):
        (tmp_path / name).touch()
    (tmp_path / "labels[1].d").mkdir()
    assert [one["name"] for one in stamps(tmp_path / "labels[1].shp")] == ["labels[1].dbf", "labels[1].shp"]
    assert stamps(tmp_path / "none.tif") == []


def test_a_fingerprint_is_that_of_earlier_versions():
    """Tile stores and maps keep it: another one would have all of them made again."""
    record = {"size": 256, "layers": ["red", "ndvi"], "scene": {"region": None, "acquired": "2021-07-04"}, "é": 0.1}
    known = "a4e86ae4fde8ca5dfd1f319a697fe5ddf890c14741d4490e3c3567cb09e7e820"
    assert fingerprint(record) == known
    assert fingerprint(dict(reversed(record.items()))) == known
