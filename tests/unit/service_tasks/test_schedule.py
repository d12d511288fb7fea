"""When schedules run: cron in time zones, intervals, dates, and what becomes of missed runs."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta, tzinfo
from time import process_time
from uuid import uuid4
from zoneinfo import available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service_tasks.domain.cron import BadTiming
from service_tasks.domain.schedule import (
    MAX_RUNS_AT_ONCE,
    DueSchedule,
    Missed,
    Timing,
    check_timing,
    next_runs,
    plan_of,
    read_timezone,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text + ("+00:00" if len(text) > 10 else "T00:00+00:00"))


def cron(expression: str, timezone: str = "UTC", **more) -> Timing:
    return Timing(expression, timezone, None, None, NOW, **more)


def every(seconds: int, **more) -> Timing:
    return Timing(None, None, seconds, None, **{"anchor": NOW, **more})


def on(moment: datetime, **more) -> Timing:
    return Timing(None, None, None, moment, NOW, **more)


def runs(timing: Timing, after: datetime, count: int) -> list[str]:
    """The next runs as short texts in UTC."""
    found = next_runs(timing, timing.following(after), count)
    return [run.astimezone(UTC).strftime("%m-%d %H:%M") for run in found]


# Cron


@pytest.mark.parametrize(
    ("expression", "expected"),
    [  # 1 January 2026 is a Thursday
        ("* * * * *", ["01-01 00:01", "01-01 00:02"]),
        ("*/20 * * * *", ["01-01 00:20", "01-01 00:40", "01-01 01:00"]),
        ("5-15/5 3 * * *", ["01-01 03:05", "01-01 03:10", "01-01 03:15", "01-02 03:05"]),
        ("0 9,17 * * *", ["01-01 09:00", "01-01 17:00"]),
        ("30 7 * * MON-FRI", ["01-01 07:30", "01-02 07:30", "01-05 07:30"]),
        ("0 0 * * 0", ["01-04 00:00", "01-11 00:00"]),
        ("0 0 * * 7", ["01-04 00:00", "01-11 00:00"]),
        ("0 0 * * sun", ["01-04 00:00", "01-11 00:00"]),
        ("0 0 * * 6-7", ["01-03 00:00", "01-04 00:00"]),
        # At the end of a span, Sunday is the day after Saturday.
        ("0 0 * * SAT-SUN", ["01-03 00:00", "01-04 00:00"]),
        ("0 0 * * MON-SUN", ["01-02 00:00", "01-03 00:00", "01-04 00:00", "01-05 00:00"]),
        ("0 0 * * SUN-MON", ["01-04 00:00", "01-05 00:00"]),
        ("0 0 1 JAN,jul *", ["07-01 00:00", "01-01 00:00"]),
        ("0 0 31 * *", ["01-31 00:00", "03-31 00:00", "05-31 00:00"]),
        ("0 0 L * *", ["01-31 00:00", "02-28 00:00"]),
        ("0 0 * * FRI#2", ["01-09 00:00", "02-13 00:00"]),
        ("0 0 * * 5L", ["01-30 00:00", "02-27 00:00"]),
        # Both days are named: either will do.
        ("0 0 13 * FRI", ["01-02 00:00", "01-09 00:00", "01-13 00:00", "01-16 00:00"]),
        ("@hourly", ["01-01 01:00", "01-01 02:00"]),
        ("@daily", ["01-02 00:00"]),
        ("@weekly", ["01-04 00:00"]),
        ("@Monthly", ["02-01 00:00"]),
        ("@yearly", ["01-01 00:00"]),
    ],
)
def test_cron_runs_when_its_five_fields_say(expression, expected):
    assert runs(cron(expression), NOW, len(expected)) == expected


def test_a_leap_day_comes_every_fourth_year_and_not_in_2100():
    found = next_runs(cron("0 0 29 2 *"), cron("0 0 29 2 *").following(at("2091-01-01")), 3)

    assert [run.year for run in found] == [2092, 2096, 2104]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 FEB,APR,6,9,11 *", "never comes"),
        ("0 0 */20 * 1L", "never comes"),  # the 1st or 21st is never the last Monday of its month
        ("60 * * * *", "the minute '60' is not one"),
        ("* 24 * * *", "the hour '24' is not one"),
        ("* * 0 * *", "the day-of-month '0' is not one"),
        ("* * 32 * *", "the day-of-month '32' is not one"),
        ("* * * 13 *", "the month '13' is not one"),
        ("* * * FOO *", "the month 'FOO' is not one"),
        ("* * * * 8", "the day-of-week '8' is not one"),
        ("* * * * FRI-MON", "the day-of-week 'FRI-MON' is not one"),
        ("* * * * 6-0", "the day-of-week '6-0' is not one"),
        ("50-10 * * * *", "the minute '50-10' is not one"),
        ("*/0 * * * *", "the minute '*/0' is not one"),
        ("MON * * * *", "the minute 'MON' cannot be read"),
        ("١ * * * *", "the minute '١' cannot be read"),
        ("* * * * fr\u0131", "the day-of-week 'fr\u0131' cannot be read"),
        ("* * * * MON#6", "the day-of-week 'MON#6' cannot be read"),
        ("* * * * MON#1/2", "the day-of-week 'MON#1/2' cannot be read"),
        ("1- * * * *", "the minute '1-' cannot be read"),
        (",1 * * * *", "the minute ',1' cannot be read"),
        ("-1 * * * *", "the minute '-1' cannot be read"),
        ("* * * *", "must have the five fields"),
        ("0 * * * * *", "must have the five fields"),
        ("@reboot", "must have the five fields"),
        ("", "must have the five fields"),
    ],
)
def test_a_cron_that_makes_no_sense_is_refused_with_the_reason(expression, message):
    with pytest.raises(BadTiming) as caught:
        check_timing(cron(expression, "Europe/Berlin"), NOW)

    assert caught.value.field == "cron"
    assert message in caught.value.message


@pytest.mark.parametrize("name", ["Europe/Atlantis", "europe/berlin", "+02:00", "../../etc/passwd", "", "localtime"])
def test_a_time_zone_that_is_not_in_the_iana_database_is_refused(name):
    with pytest.raises(BadTiming) as caught:
        read_timezone(name)

    assert caught.value.field == "timezone"


# Europe/Berlin 2026: 29 March 02:00 +1 → 03:00 +2 (01:00 UTC); 25 October 03:00 +2 → 02:00 +1 (01:00 UTC).


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # 02:30 is missing: at the first moment after it, 03:00 +2 = 01:00 UTC.
        ("30 2 * * *", "2026-03-28T00:00", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        # Two missing times of a day are one run, and one that meets a run of its own as well.
        ("0,30 2 * * *", "2026-03-29T00:00", ["03-29 01:00", "03-30 00:00"]),
        ("0 2,3 * * *", "2026-03-29T00:00", ["03-29 01:00", "03-30 00:00"]),
        # An expression that begins with a star keeps its pace in elapsed time.
        ("*/30 * * * *", "2026-03-29T00:00", ["03-29 00:30", "03-29 01:00", "03-29 01:30"]),
        ("0 */1 * * *", "2026-03-28T23:30", ["03-29 00:00", "03-29 01:00", "03-29 02:00"]),
        # 02:30 comes twice: once, the first time, 02:30 +2 = 00:30 UTC.
        ("30 2 * * *", "2026-10-24T12:00", ["10-25 00:30", "10-26 01:30"]),
        ("30 2 * * *", "2026-10-25T00:30", ["10-26 01:30"]),
        # From within the second 02:xx the first is past.
        ("30 2 * * *", "2026-10-25T01:10", ["10-26 01:30"]),
        ("*/30 * * * *", "2026-10-24T23:30", ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30"]),
        ("0 12 * * *", "2026-10-24T00:00", ["10-24 10:00", "10-25 11:00"]),
    ],
)
def test_cron_keeps_its_rule_when_an_hour_is_missing_or_doubled(expression, after, expected):
    assert runs(cron(expression, "Europe/Berlin"), at(after), len(expected)) == expected


def test_a_gap_of_half_an_hour_and_a_missing_midnight_are_run_after():
    # Lord Howe: 4 October 2026 02:00 +10:30 → 02:30 +11 = 3 October 15:30 UTC.
    assert runs(cron("15 2 * * *", "Australia/Lord_Howe"), at("2026-10-03T00:00"), 1) == ["10-03 15:30"]
    # Cairo: 24 April 2026 00:00 +2 → 01:00 +3 = 23 April 22:00 UTC.
    assert runs(cron("0 0 * * *", "Africa/Cairo"), at("2026-04-23T12:00"), 2) == ["04-23 22:00", "04-24 21:00"]


def changes_of(zone: tzinfo) -> set[tuple[timedelta, timedelta, datetime]]:
    """How the clocks of a zone are set from 2026 to 2035: the offsets before and after, and the first minute after."""
    found = set()
    week = 7 * 24 * 60  # in minutes; no clock is set twice within one
    after = at("2026-01-01").astimezone(zone).utcoffset()
    for number in range(10 * 52):
        begin = at("2026-01-01") + number * timedelta(minutes=week)
        before, after = after, (begin + timedelta(minutes=week)).astimezone(zone).utcoffset()
        if after != before:
            count = bisect_left(
                range(week),
                True,
                key=lambda minute: (begin + timedelta(minutes=minute)).astimezone(zone).utcoffset() == after,
            )
            found.add((before, after, begin + timedelta(minutes=count)))
    return found


def fits(expression: str, local: datetime) -> bool:
    """Numbers, ranges, steps, in the plainest words."""
    values = (local.minute, local.hour, local.day, local.month, local.isoweekday() % 7)

    def one(item: str, value: int, first: int) -> bool:
        span, _, step = item.partition("/")
        low, _, high = span.partition("-")
        low, high = (first, 99) if low == "*" else (int(low), int(high or low))
        return low <= value <= high and (value - low) % int(step or 1) == 0

    return all(
        any(one(item, value, first) for item in field.split(","))
        for field, value, first in zip(expression.split(), values, (0, 0, 1, 1, 0), strict=True)
    )


def told_minute_by_minute(expression: str, zone: tzinfo, begin: datetime, end: datetime) -> list[datetime]:
    """The runs that somebody finds who looks at the clock on the wall every minute."""
    every_pass = expression.startswith("*") or expression.split()[1].startswith("*")
    found = []
    minute = begin - timedelta(hours=2)
    latest = minute.astimezone(zone).replace(tzinfo=None)
    while minute <= end:
        shown = minute.astimezone(zone).replace(tzinfo=None)
        if every_pass:
            runs_now = fits(expression, shown)
        else:
            # Times that the clock has not shown yet: one as a rule, more after a gap, none while it repeats itself.
            new = (shown - latest) // timedelta(minutes=1)
            runs_now = any(fits(expression, latest + timedelta(minutes=one)) for one in range(1, new + 1))
        latest = max(latest, shown)
        if runs_now and minute > begin:
            found.append(minute)
        minute += timedelta(minutes=1)
    return found


EXPRESSIONS = [
    "*/15 3 * * *",
    "*/7 * * * *",
    "0 */2 * * *",
    "0 * * * *",
    "30 2 * * *",
    "0,50 0-4 * * *",
    "5 0,2,3,23 * * 0,6",
]


def test_at_every_change_of_every_clock_runs_are_those_that_the_clock_on_the_wall_tells():
    # Many zones change alike; each way to change is looked at once, in the first zone that has it.
    seen = set()
    for name in sorted(available_timezones() - {"localtime", "Factory"}):
        zone = read_timezone(name)
        for before, after, moment in changes_of(zone):
            local = moment.astimezone(zone)
            if (before, after, local.time()) in seen:
                continue
            seen.add((before, after, local.time()))
            begin, end = moment - timedelta(hours=4), moment + timedelta(hours=5)
            for expression in EXPRESSIONS:
                timing, found = cron(expression, name), []
                run = timing.following(begin)
                while run is not None and run <= end:
                    found.append(run)
                    run = timing.following(run)
                assert found == told_minute_by_minute(expression, zone, begin, end), (expression, name, moment)
                # From anywhere in between, from within a minute as well, the same.
                for hours in range(-3, 4):
                    after_that = moment + timedelta(hours=hours, minutes=13, seconds=1)
                    later = [one for one in found if one > after_that]
                    assert timing.following(after_that) == later[0] if later else timing.following(after_that) > end
    assert len(seen) > 40


@given(
    expression=st.sampled_from(EXPRESSIONS),
    zone=st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"})),
    minutes=st.integers(0, 10 * 366 * 24 * 60),
)
@settings(max_examples=50)
def test_the_next_run_is_the_first_that_the_clock_on_the_wall_tells(expression, zone, minutes):
    after = NOW + timedelta(minutes=minutes)

    run = cron(expression, zone).following(after)

    assert told_minute_by_minute(expression, read_timezone(zone), after, run) == [run]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # Chatham, 4 April 2027: 03:45 +13:45 → 02:45 +12:45 = 3 April 14:00 UTC. 03:00 to 03:44 comes twice.
        (
            "*/15 3 * * *",
            "Pacific/Chatham",
            "2027-04-03T13:46",
            ["04-03 14:15", "04-03 14:30", "04-03 14:45", "04-03 15:00"],
        ),
        # Lord Howe, 4 April 2027: 02:00 +11 → 01:30 +10:30 = 3 April 15:00 UTC. 02:00 comes once, at 15:30.
        ("*/30 2 * * *", "Australia/Lord_Howe", "2027-04-03T12:00", ["04-03 15:30", "04-03 16:00"]),
    ],
)
def test_a_clock_set_back_by_or_at_a_part_of_an_hour_holds_nothing_up(expression, zone, after, expected):
    assert runs(cron(expression, zone), at(after), len(expected)) == expected


@pytest.mark.parametrize("expression", ["0 0 */20 * 1L", "* * 29 2 */7", "0 0 31 1-11/2 5#5", "59 23 LW 2 SUN"])
@pytest.mark.parametrize("zone", ["Pacific/Chatham", "Africa/Casablanca"])
def test_a_search_that_finds_little_or_nothing_ends_soon(expression, zone):
    timing = cron(expression, zone)
    begin = process_time()

    timing.following(NOW)

    assert process_time() - begin < 1.0


# Intervals, dates, bounds


def test_an_interval_counts_from_its_anchor_and_does_not_drift():
    assert runs(every(600), NOW, 2) == ["01-01 00:10", "01-01 00:20"]
    assert runs(every(600), NOW + timedelta(seconds=601), 1) == ["01-01 00:20"]
    # 400 days are 34,560,000 s = 7 × 4,937,142 + 6.
    assert every(7).following(NOW + timedelta(days=400)) == NOW + timedelta(seconds=34_560_001)


def test_an_interval_with_a_beginning_runs_at_that_moment_first():
    begin = NOW + timedelta(hours=5)

    assert runs(every(3600, starts_at=begin), NOW, 2) == ["01-01 05:00", "01-01 06:00"]
    assert runs(every(3600, starts_at=NOW - timedelta(minutes=10)), NOW, 1) == ["01-01 00:50"]


def test_cron_begins_and_ends_with_its_dates_both_included():
    bounded = cron("0 0 * * *", starts_at=at("2026-03-01"), ends_at=at("2026-03-03"))

    assert runs(bounded, NOW, 5) == ["03-01 00:00", "03-02 00:00", "03-03 00:00"]


def test_a_date_runs_once():
    assert runs(on(at("2026-05-01T10:00")), NOW, 5) == ["05-01 10:00"]
    assert on(at("2026-05-01T10:00")).following(at("2026-05-01T10:00")) is None


@pytest.mark.parametrize(
    ("timing", "field"),
    [
        (Timing(None, None, None, None, NOW), "cron"),
        (Timing("* * * * *", "UTC", 60, None, NOW), "every"),
        (Timing(None, None, 60, at("2027-01-01"), NOW), "at"),
        (on(NOW), "at"),
        (on(at("2027-01-01"), ends_at=at("2028-01-01")), "ends_at"),
        (on(at("2027-01-01"), starts_at=at("2026-01-01")), "starts_at"),
        (Timing(None, "UTC", 60, None, NOW), "timezone"),
        (cron("* * * * *", "Mars/Olympus"), "timezone"),
        (every(60, starts_at=at("2026-03-01"), ends_at=at("2026-02-01")), "ends_at"),
        (every(60, ends_at=at("2025-03-01")), "ends_at"),
        (cron("0 0 1 12 *", ends_at=at("2026-11-30")), "ends_at"),
        (cron("0 0 30 2 *", ends_at=at("2026-11-30")), "cron"),
    ],
)
def test_times_that_make_no_sense_name_their_field(timing, field):
    with pytest.raises(BadTiming) as caught:
        check_timing(timing, NOW)

    assert caught.value.field == field


# The last run of a span


@given(
    timing=st.sampled_from(
        [cron("*/7 3-5 * * *", "Europe/Berlin"), cron("30 2 * * SUN", "Europe/Berlin"), every(3700)]
    ),
    begin=st.integers(0, 400 * 24 * 60),
    length=st.integers(0, 10 * 24 * 60),
)
@settings(max_examples=150)
def test_the_last_run_of_a_span_is_the_one_that_walking_finds(timing, begin, length):
    first = NOW + timedelta(minutes=begin)
    last = first + timedelta(minutes=length)
    walked = None
    run = timing.following(first - timedelta(microseconds=1))
    while run is not None and run <= last:
        walked, run = run, timing.following(run)

    assert timing.latest(first, last) == walked


# Missed runs


def due(timing: Timing, missed: Missed, due_at: datetime, now: datetime):
    return plan_of(DueSchedule(uuid4(), "a schedule", timing, missed, due_at, now))


HOURLY = cron("0 * * * *")
ON_TIME = [Missed.SKIP, Missed.RUN_ONCE, Missed.RUN_ALL]


@pytest.mark.parametrize("missed", ON_TIME)
@pytest.mark.parametrize("late", [0.0, 0.02, 60.0])
def test_a_run_that_is_on_time_is_made_whatever_the_policy(missed, late):
    plan = due(HOURLY, missed, at("2026-01-01T05:00"), at("2026-01-01T05:00") + timedelta(seconds=late))

    assert plan.runs == (at("2026-01-01T05:00"),)
    assert plan.next_run_at == at("2026-01-01T06:00")


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        (Missed.SKIP, []),
        (Missed.RUN_ONCE, ["08:00"]),
        (Missed.RUN_ALL, ["05:00", "06:00", "07:00", "08:00"]),
    ],
)
def test_missed_runs_are_skipped_made_up_for_once_or_all_made_up_for(missed, expected):
    plan = due(HOURLY, missed, at("2026-01-01T05:00"), at("2026-01-01T08:10"))

    assert [run.strftime("%H:%M") for run in plan.runs] == expected
    assert plan.next_run_at == at("2026-01-01T09:00")


def test_one_that_is_due_now_runs_although_earlier_ones_are_skipped():
    plan = due(HOURLY, Missed.SKIP, at("2026-01-01T05:00"), at("2026-01-01T08:00") + timedelta(seconds=1))

    assert plan.runs == (at("2026-01-01T08:00"),)


@pytest.mark.parametrize("timing", [cron("* * * * *", "Europe/Berlin"), every(60)])
def test_after_a_year_of_silence_no_more_than_the_newest_hundred_run(timing):
    now = NOW + timedelta(days=365, seconds=30)

    plan = due(timing, Missed.RUN_ALL, NOW + timedelta(minutes=1), now)

    newest = NOW + timedelta(days=365)
    assert plan.runs == tuple(newest - timedelta(minutes=ago) for ago in reversed(range(MAX_RUNS_AT_ONCE)))
    assert plan.next_run_at == newest + timedelta(minutes=1)


def test_a_date_that_was_missed_runs_late_unless_it_is_to_be_skipped():
    when, now = at("2026-01-01T05:00"), at("2026-01-02T05:00")

    assert due(on(when), Missed.RUN_ONCE, when, now).runs == (when,)
    assert due(on(when), Missed.RUN_ALL, when, now).runs == (when,)
    assert due(on(when), Missed.SKIP, when, now).runs == ()
    assert due(on(when), Missed.SKIP, when, now).next_run_at is None


def test_a_schedule_whose_time_zone_has_gone_stops_and_says_why():
    plan = due(cron("* * * * *", "Europe/Atlantis"), Missed.RUN_ALL, NOW, NOW)

    assert (plan.runs, plan.next_run_at) == ((), None)
    assert "timezone" in plan.problem
