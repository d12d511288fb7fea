"""(pure) Deadlines: days at the site, counted in working days."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

_DAY = timedelta(days=1)


def is_weekday(day: date) -> bool:
    """Whether a day is one of Monday to Friday: a calendar without holidays."""
    return day.weekday() < 5


@dataclass(frozen=True, slots=True)
class WorkingDays:
    """The days on which a site works."""

    #: Whether a day is worked in the whole country; it knows moved days too, such as a Saturday that is worked.
    national: Callable[[date], bool] = is_weekday
    #: The site's own days off and days of work, which outweigh the country's.
    exceptions: Mapping[date, bool] = field(default_factory=dict)

    def works(self, day: date) -> bool:
        """Whether the site works on a day."""
        own = self.exceptions.get(day)
        return self.national(day) if own is None else own

    def after(self, day: date, count: int) -> date:
        """The `count`-th working day after a day, not counting that day; for 0 the day, or the next that works."""
        if count == 0:
            while not self.works(day):
                day += _DAY
        while count > 0:
            day += _DAY
            count -= self.works(day)
        return day


def default_due_on(
    severity: str | None, rules: Mapping[str, int | None], today: date, calendar: WorkingDays
) -> date | None:
    """When an item is due that is submitted today, unless somebody says; `rules` has working days by severity."""
    days = None if severity is None else rules.get(severity)
    return None if days is None else calendar.after(today, days)
