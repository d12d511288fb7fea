"""(pure) Which days a country works, and which time zones there are. No I/O but the data of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, lru_cache, partial
from zoneinfo import available_timezones

from service_sites.domain.deadlines import is_weekday


@dataclass(frozen=True, slots=True)
class CountryYear:
    """One year of a country, moved days included."""

    worked: frozenset[date]
    #: The names of holidays, in the country's language.
    names: Mapping[date, str]


def is_country(code: str) -> bool:
    """Whether the holidays of a country are known, by its code of ISO 3166-1 alpha-2."""
    return code in _countries()


def is_time_zone(name: str) -> bool:
    """Whether there is a time zone of this name in the IANA database."""
    return name in _zones()


def national(country: str | None) -> Callable[[date], bool]:
    """What tells whether a day is worked in a country; without one, Monday to Friday are."""
    return is_weekday if country is None else partial(_works, country)


@lru_cache(maxsize=64)
def country_year(country: str, year: int) -> CountryYear:
    """A year of a country that `is_country` knows."""
    # Not above: it takes 20 MB and a sixth of a second, which a service whose sites have no country need not spend.
    from holidays import country_holidays

    # Of this year alone, and read at once: what the package makes when a day is asked for is not for threads.
    # Unless it is told a language, it takes that of the process.
    days = country_holidays(country, years=year, language=country_holidays(country).default_language)
    first = date(year, 1, 1)
    last = date(year, 12, 31)
    all_days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return CountryYear(
        worked=frozenset(day for day in all_days if days.is_working_day(day)),
        names={day: name for day in all_days if (name := days.get(day)) is not None},
    )


def holiday(country: str | None, day: date) -> str | None:
    """The name of a country's holiday, if the day is one."""
    return None if country is None else country_year(country, day.year).names.get(day)


def _works(country: str, day: date) -> bool:
    return day in country_year(country, day.year).worked


@cache
def _countries() -> frozenset[str]:
    from holidays import list_supported_countries

    return frozenset(list_supported_countries(include_aliases=False))


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
