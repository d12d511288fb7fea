"""Deadlines in working days."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_sites.domain.deadlines import WorkingDays, default_due_on, is_weekday

SATURDAY, MONDAY, UNITY_DAY = date(2025, 11, 1), date(2025, 11, 3), date(2025, 11, 4)
#: Russia's first days of November 2025: the Saturday is worked in exchange for the Monday before a holiday.
RUSSIA = WorkingDays(lambda day: day == SATURDAY or (is_weekday(day) and day not in (MONDAY, UNITY_DAY)))


@pytest.mark.parametrize(
    ("calendar", "day", "count", "due"),
    [
        (WorkingDays(), date(2025, 10, 31), 1, MONDAY),  # Friday → Monday
        (WorkingDays(), date(2025, 10, 31), 10, date(2025, 11, 14)),  # two weeks
        (RUSSIA, date(2025, 10, 31), 1, SATURDAY),
        (RUSSIA, date(2025, 10, 31), 2, date(2025, 11, 5)),  # 1, then 5: 2 to 4 are off
        (RUSSIA, date(2025, 10, 31), 10, date(2025, 11, 17)),  # 1, 5 to 7, 10 to 14, 17
        (RUSSIA, SATURDAY, 0, SATURDAY),
        (RUSSIA, MONDAY, 0, date(2025, 11, 5)),
        (WorkingDays(RUSSIA.national, {MONDAY: True, SATURDAY: False}), date(2025, 10, 31), 1, MONDAY),
        (WorkingDays(RUSSIA.national, {MONDAY: True, SATURDAY: False}), date(2025, 10, 31), 2, date(2025, 11, 5)),
    ],
)
def test_working_days_are_counted_over_holidays_moved_days_and_the_sites_own(calendar, day, count, due):
    assert calendar.after(day, count) == due


@given(st.dates(date(2020, 1, 1), date(2030, 1, 1)), st.integers(1, 60), st.sets(st.integers(0, 90)))
def test_the_day_after_so_many_works_and_so_many_lie_between(day, count, off):
    calendar = WorkingDays(exceptions={day + timedelta(days=number): False for number in off})
    due = calendar.after(day, count)
    days = [day + timedelta(days=number) for number in range(1, (due - day).days + 1)]
    assert calendar.works(due)
    assert sum(map(calendar.works, days)) == count


@pytest.mark.parametrize(("severity", "due"), [("critical", 1), ("significant", 10), ("minor", None), (None, None)])
def test_an_item_is_due_by_its_severity_unless_somebody_says(severity, due):
    rules = {"critical": 1, "significant": 10, "minor": None}
    expected = None if due is None else WorkingDays().after(MONDAY, due)
    assert default_due_on(severity, rules, MONDAY, WorkingDays()) == expected
    assert default_due_on(severity, {}, MONDAY, WorkingDays()) is None
