"""The SQL of lists."""

from __future__ import annotations

import pytest
from sqlalchemy import func

from service_sites.domain.people import SiteRole
from service_sites.persistence import item_lists, item_rows
from service_sites.tables import WorkItem
from servicekit.web.lists import Filters, RowWriter, SortedList


def statement(writer: RowWriter, sort: str) -> tuple[str, dict[str, object]]:
    listed = SortedList(WorkItem, writer, item_lists.SORTING, sort, Filters(), continued=False, counted=True)
    return listed._plain.text, listed._plain.parameters({})


@pytest.mark.parametrize("roles", [None, {*SiteRole}, {SiteRole.CUSTOMER}])
def test_a_row_whose_sql_was_kept_is_written_as_if_it_were_new(roles: set[SiteRole] | None) -> None:
    new = item_rows.writer.__wrapped__
    kept = new(roles)
    assert "user_id" in statement(kept, "due_on")[1]
    assert statement(kept, "-priority") == statement(new(roles), "-priority")


def test_a_constant_that_would_be_a_parameter_of_one_statement_alone_is_refused() -> None:
    with pytest.raises(TypeError, match="constant"):
        statement(RowWriter(lambda page: func.concat(page.c.title, "of no other statement")), "due_on")
