"""Cron expressions (POSIX crontab, with names, steps, `L` and `#`) and their moments in a time zone.

The fields are compared with local time. Where that skips or repeats minutes, the rules are those of Debian's cron: an
expression whose minute or hour begins with `*` runs at every minute whose local time matches, so never in a gap and in
both passes of a repeated part. Any other expression names times of day, each of which runs once: a skipped one at the
first moment after the gap, a repeated one the first time.

A search looks at each local hour of the matching days, for 50 years at most, so it ends whatever the time zone does.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache

MAX_CRON_CHARACTERS = 200
#: 29 February on a given day of the week recurs only after 40 years when 2100 lies between.
YEARS_SEARCHED = 50

_SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = {
    "minute": range(60),
    "hour": range(24),
    "day-of-month": range(1, 32),
    "month": range(1, 13),
    "day-of-week": range(8),
}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_NAMES = {
    "month": {name: number for number, name in enumerate(_MONTHS, start=1)},
    "day-of-week": {name: number for number, name in enumerate(_WEEKDAYS)},
}
_LAST_DAY, _LAST_WEEKDAY = "L", "LW"
_SUNDAY_AT_THE_END = 7
_VALUE = r"[0-9]{1,2}|[A-Z]{3}"
_ITEM = re.compile(rf"(?:\*|(?P<first>{_VALUE})(?:-(?P<last>{_VALUE}))?)(?:/(?P<step>[0-9]{{1,2}}))?")
_NTH = re.compile(r"(?P<day>[0-7]|[A-Z]{3})#(?P<nth>[1-5])|(?P<last>[0-7])L")
#: No time zone has ever changed its clock by more than a day.
_LARGEST_CHANGE = timedelta(hours=26)
_LAST_YEAR = 9998
_SECOND = timedelta(seconds=1)


class BadTiming(ValueError):
    """The times of a schedule are invalid; `field` names the field at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression. `hours`, `minutes` and `months` are sorted; Sunday is 0."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    #: Days of the month, and `L` and `LW`.
    days: frozenset[int | str]
    #: Days of the week, and pairs of one with its number in the month; -1 is the last.
    weekdays: frozenset[int | tuple[int, int]]
    #: Whether a day must match both of these, or either.
    both_days: bool
    #: Whether a repeated minute counts twice.
    every_pass: bool

    def following(self, zone: tzinfo, after: datetime) -> datetime | None:
        """The first run later than `after`, in UTC; None if there is none in 50 years."""
        after = after.astimezone(UTC)
        local = after.astimezone(zone)
        start = local.replace(tzinfo=None)
        if local.utcoffset() != (after + _LARGEST_CHANGE).astimezone(zone).utcoffset():
            # The clock changes within the next hours, perhaps back to an hour before this one.
            start -= _LARGEST_CHANGE
        found: datetime | None = None
        for hour in self._local_hours(start):
            # A repeated time may come after a later local time.
            if found is not None and _earliest(hour, zone) >= found:
                break
            run = next((moment for moment in self._moments(hour, zone) if moment > after), None)
            if run is not None and (found is None or run < found):
                found = run
        return found

    def _local_hours(self, start: datetime) -> Iterator[datetime]:
        begin = start.replace(minute=0, second=0, microsecond=0)
        for day in self._local_days(begin.date()):
            for hour in self.hours:
                moment = datetime.combine(day, time(hour))
                if moment >= begin:
                    yield moment

    def _local_days(self, begin: date) -> Iterator[date]:
        for year in range(begin.year, min(begin.year + YEARS_SEARCHED, _LAST_YEAR) + 1):
            for month in self.months:
                first_weekday, last = calendar.monthrange(year, month)
                for number in range(1, last + 1):
                    day = date(year, month, number)
                    if day >= begin and self._fits(number, (first_weekday + number) % 7, last):
                        yield day

    def _fits(self, day: int, weekday: int, last: int) -> bool:
        """Whether it runs on this day of a month with `last` days."""
        of_month = (
            day in self.days
            or (day == last and _LAST_DAY in self.days)
            or (_LAST_WEEKDAY in self.days and day == _last_weekday(weekday, day, last))
        )
        of_week = (
            weekday in self.weekdays
            or (weekday, (day + 6) // 7) in self.weekdays
            or (day + 7 > last and (weekday, -1) in self.weekdays)
        )
        return (of_month and of_week) if self.both_days else (of_month or of_week)

    def _moments(self, hour: datetime, zone: tzinfo) -> Iterator[datetime]:
        """The runs in one local hour, in UTC and in order."""
        first, last = hour.replace(tzinfo=zone), hour.replace(minute=59, tzinfo=zone)
        offset = first.utcoffset()
        if offset is not None and all(
            moment.utcoffset() == offset for moment in (last, first.replace(fold=1), last.replace(fold=1))
        ):
            begin = (hour - offset).replace(tzinfo=UTC)
            yield from (begin + timedelta(minutes=minute) for minute in self.minutes)
        else:
            yield from sorted({run for minute in self.minutes for run in self._around_a_change(hour, minute, zone)})

    def _around_a_change(self, hour: datetime, minute: int, zone: tzinfo) -> tuple[datetime, ...]:
        local = hour.replace(minute=minute, tzinfo=zone)
        first, second = (local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
        if first.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
            # PEP 495: for a skipped time, fold=1 is before the gap and fold=0 after it.
            return () if self.every_pass else (_end_of_gap(second, first, zone),)
        return (first, second) if self.every_pass else (first,)


def _earliest(hour: datetime, zone: tzinfo) -> datetime:
    """A lower bound of the moments in this local hour."""
    return min(hour.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))


def _end_of_gap(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The moment when the clock is set forward, between two moments less than a day apart."""
    offset = after.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + (after - before) // (2 * _SECOND) * _SECOND
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after


def _last_weekday(weekday: int, day: int, last: int) -> int:
    """The last day of a month from Monday to Friday, given the day of the week of one of its days."""
    of_last = (weekday + last - day) % 7
    return last - {6: 1, 0: 2}.get(of_last, 0)


@lru_cache(maxsize=1024)
def read_cron(expression: str) -> Cron:
    """Parse five fields, or a word such as `@daily`. Raises `BadTiming`, which names the field at fault."""
    texts = _SHORTHANDS.get(expression.strip().lower(), expression).split()
    if len(texts) != len(_FIELDS) or len(expression) > MAX_CRON_CHARACTERS:
        raise BadTiming(
            "cron", f"must have the five fields {', '.join(_FIELDS)}, or be one of {', '.join(_SHORTHANDS)}"
        )
    minute, hour, day, month, weekday = texts
    return Cron(
        minutes=_numbers("minute", minute),
        hours=_numbers("hour", hour),
        months=_numbers("month", month),
        days=frozenset(_days(day)),
        weekdays=frozenset(_weekdays(weekday)),
        both_days=day.startswith("*") or weekday.startswith("*"),
        every_pass=minute.startswith("*") or hour.startswith("*"),
    )


def _days(text: str) -> Iterator[int | str]:
    for item in text.upper().split(","):
        if item in (_LAST_DAY, _LAST_WEEKDAY):
            yield item
        else:
            yield from _values("day-of-month", text, item)


def _weekdays(text: str) -> Iterator[int | tuple[int, int]]:
    for item in text.upper().split(","):
        if nth := _NTH.fullmatch(item):
            day = _value("day-of-week", text, nth["day"] or nth["last"]) % 7
            yield (day, int(nth["nth"] or -1))
        else:
            yield from (value % 7 for value in _values("day-of-week", text, item))


def _numbers(field: str, text: str) -> tuple[int, ...]:
    return tuple(sorted({value for item in text.upper().split(",") for value in _values(field, text, item)}))


def _values(field: str, text: str, item: str) -> range:
    found = _ITEM.fullmatch(item)
    # Some non-ASCII letters become ASCII in upper case.
    if found is None or not text.isascii():
        raise _unreadable(field, text)
    step = int(found["step"] or 1)
    first, last = _FIELDS[field][0], _FIELDS[field][-1]
    if found["first"] is not None:
        first = _value(field, text, found["first"])
        if found["last"] is not None:
            last = _value(field, text, found["last"])
            if found["last"] == "SUN" and first > last:
                last = _SUNDAY_AT_THE_END
        elif found["step"] is None:
            last = first
    if step == 0 or first > last:
        raise _not_one(field, text)
    return range(first, last + 1, step)


def _value(field: str, text: str, part: str) -> int:
    if part.isdigit():
        value = int(part)
    elif (names := _NAMES.get(field)) is None:
        raise _unreadable(field, text)
    else:
        value = names.get(part, -1)
    if value not in _FIELDS[field]:
        raise _not_one(field, text)
    return value


def _unreadable(field: str, text: str) -> BadTiming:
    return BadTiming("cron", f"the {field} {text!r} cannot be read")


def _not_one(field: str, text: str) -> BadTiming:
    return BadTiming("cron", f"the {field} {text!r} is not one")
