"""Times and identifiers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from servicekit.process.clock import rfc3339, utc_now
from servicekit.process.ids import new_id


def test_the_present_is_aware_and_in_utc():
    assert utc_now().utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (datetime(2026, 11, 21, 7, 5, 9, tzinfo=UTC), "2026-11-21T07:05:09Z"),
        (datetime(2026, 11, 21, 7, 5, 9, 1, tzinfo=UTC), "2026-11-21T07:05:09.000001Z"),
        (datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2025-12-31T19:30:00Z"),
    ],
)
def test_a_moment_is_written_in_utc_with_z(moment, written):
    assert rfc3339(moment) == written


def test_a_moment_without_a_zone_has_no_form():
    with pytest.raises(ValueError, match="without a zone"):
        rfc3339(datetime(2026, 1, 1))


def test_ids_are_version_seven_and_later_ones_sort_after_earlier_ones():
    ids = [new_id() for _ in range(1000)]
    assert {one.version for one in ids} == {7}
    assert sorted(ids) == ids
    assert len(set(ids)) == 1000
