"""Thinning: the dates of a season that are worth most together, exactly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

_State = tuple[int, int]
_Score = tuple[int, int, tuple[int, ...]]  # minus the value, the unevenness, the dates: the smallest is the best


@dataclass(frozen=True, slots=True, kw_only=True)
class Spacing:
    """Limits of the dates of one season.

    Attributes:
        gap_days: Least days between two of them.
        most: Most dates; None: no limit.
        per_month: Most dates in a calendar month; None: no limit.
    """

    gap_days: int
    most: int | None = None
    per_month: int | None = None


def thin(days: Sequence[date], values: Sequence[int], spacing: Spacing) -> tuple[int, ...]:
    """Return the positions of the dates of a season that are kept, ascending.

    Of all that obey the limits: those with the largest sum of values; of these, those spread most evenly from the
    first day to the last, by the sum of the squares of days between neighbours and to both ends; of these, the
    earliest.

    By dynamic programming over the last date that is kept, in whole numbers, so it is exact.

    Args:
        days: Days, ascending.
        values: What each date is worth, not negative.
        spacing: The limits.
    """
    best: list[dict[_State, _Score]] = []
    complete: list[_Score] = [(0, 0, ())]
    for last, (day, value) in enumerate(zip(days, values, strict=True)):
        scores: dict[_State, _Score] = {}
        for state, (worth, uneven, dates), gap in _earlier(best, days, last, spacing):
            score = (worth - value, uneven + gap * gap, (*dates, last))
            if state not in scores or score < scores[state]:
                scores[state] = score
        best.append(scores)
        to_end = (days[-1] - day).days ** 2
        complete += [(worth, uneven + to_end, dates) for worth, uneven, dates in scores.values()]
    return min(complete[1:], default=complete[0])[2]


def _earlier(
    best: Sequence[dict[_State, _Score]], days: Sequence[date], last: int, spacing: Spacing
) -> Iterator[tuple[_State, _Score, int]]:
    """Yield what may come before a date: the state with it, the score, the days between.

    A state counts the dates, and those in the month of the last one, as far as there is a limit.
    """
    day = days[last]
    counts, counts_month = int(spacing.most is not None), int(spacing.per_month is not None)
    yield (counts, counts_month), (0, 0, ()), (day - days[0]).days
    for before, scores in enumerate(best):
        gap = (day - days[before]).days
        if gap < spacing.gap_days:
            return
        same_month = (day.year, day.month) == (days[before].year, days[before].month)
        for (dates, in_month), score in scores.items():
            state = (dates + counts, counts_month * (1 + in_month * same_month))
            if state[0] <= (spacing.most or 0) and state[1] <= (spacing.per_month or 0):
                yield state, score, gap
