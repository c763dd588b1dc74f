"""Thinning of dates: against all sets of them."""

from datetime import date, timedelta
from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from thawmap.acquire.thinning import Spacing, thin

JUNE = date(2019, 6, 20)

SPACINGS = st.builds(
    Spacing,
    gap_days=st.integers(0, 9),
    most=st.sampled_from([None, 1, 2, 3]),
    per_month=st.sampled_from([None, 1, 2]),
)


def brute(days, values, spacing):
    """Best of all sets that obey: value, then evenness, then the earliest."""
    best = None
    for size in range(1, len(days) + 1):
        for kept in combinations(range(len(days)), size):
            chosen = [days[place] for place in kept]
            gaps = [(b - a).days for a, b in pairwise(chosen)]
            months = [(day.year, day.month) for day in chosen]
            if any(gap < spacing.gap_days for gap in gaps) or size > (spacing.most or 99):
                continue
            if any(months.count(month) > (spacing.per_month or 99) for month in months):
                continue
            ends = [(chosen[0] - days[0]).days, (days[-1] - chosen[-1]).days]
            key = (-sum(values[place] for place in kept), sum(gap**2 for gap in (*gaps, *ends)), kept)
            best = key if best is None or key < best else best
    return () if best is None else best[-1]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0, 90, 95, 100])), max_size=9),
    SPACINGS,
)
def test_thinned_dates_are_the_best_of_all_sets(dates, spacing):
    days, values = [JUNE + timedelta(days=day) for day, _ in sorted(dates)], [value for _, value in sorted(dates)]
    assert thin(days, values, spacing) == brute(days, values, spacing)


def test_two_good_dates_are_kept_rather_than_the_best_between_them():
    days = [JUNE + timedelta(days=day) for day in (0, 4, 8)]
    assert thin(days, [90, 100, 90], Spacing(gap_days=5)) == (0, 2)


def test_dates_of_one_worth_are_spread_evenly_over_the_season():
    days = [JUNE + timedelta(days=day) for day in range(101)]
    assert thin(days, [95] * 101, Spacing(gap_days=5, most=3)) == (25, 50, 75)
