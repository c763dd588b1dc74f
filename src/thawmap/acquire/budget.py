"""The quota: a hard cap, from which areas take dates in turn."""

from collections.abc import Sequence

from thawmap.acquire.dates import FoundDate


def share_out(dates: Sequence[FoundDate], indices: Sequence[int], quota_km2: float | None) -> dict[int, str]:
    """Return the reasons of dates for which no quota is left, by index.

    Areas take turns by name, one date each, its clearest first. A date that costs more than what is left is left out,
    and its area takes the next one that fits.

    Args:
        dates: Dates that may be taken.
        indices: The index of each.
        quota_km2: Most square kilometres; None: no limit.
    """
    if quota_km2 is None:
        return {}
    waiting: dict[str, list[int]] = {}
    for place in sorted(range(len(dates)), key=lambda place: _rank(dates[place])):
        waiting.setdefault(dates[place].area.name, []).append(place)
    left, reasons = quota_km2, {}
    while waiting:
        for name in sorted(waiting):
            while waiting[name]:
                place = waiting[name].pop(0)
                option = dates[place].option
                km2 = 0.0 if option is None else option.km2
                if km2 == 0 or km2 <= left:
                    left -= km2
                    break
                reasons[indices[place]] = f"left out: quota ({km2:.2f} km2, {left:.2f} left of {quota_km2:g})"
            if not waiting[name]:
                del waiting[name]
    return reasons


def _rank(found: FoundDate) -> tuple[float, str]:
    """Return what sorts the dates of an area: the clearest first, then the earliest."""
    return -round(found.value, 9), f"{found.day} {found.name}"
