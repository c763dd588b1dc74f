"""What all tests share: reproducible hypothesis runs, and markers for needs that a machine may not have."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

# Shared machines stall now and then: no deadlines. CI sees the same examples every time; people see new ones, or few.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.register_profile("fast", settings.get_profile("ci"), max_examples=10)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def real_data() -> Path:
    """The folder of real scenes, which may be missing."""
    return Path(os.environ.get("THAWMAP_REAL_DATA", ROOT.parent / "shared" / "data"))


def _missing(marker: str) -> str | None:
    """Why tests with this marker cannot run here; None if they can."""
    if marker == "realdata" and not real_data().is_dir():
        return f"no real scenes in {real_data()}; name their folder in THAWMAP_REAL_DATA"
    if marker == "browser" and not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        return "no chromium on PATH"
    if marker == "gpu":
        import torch  # noqa: PLC0415 - two seconds that only this marker needs

        return None if torch.cuda.is_available() else "no CUDA device"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot do."""
    for marker in ("gpu", "browser", "realdata"):
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = _missing(marker) if marked else None
        for item in marked if reason else ():
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def real_scenes() -> Path:
    """The folder of real scenes; for tests marked realdata."""
    return real_data()
