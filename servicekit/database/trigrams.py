"""Part of a text found through an index: its trigrams, as a `tsvector` under GIN, so that no extension is needed.

An index on `trigrams(column)` narrows a search down to the rows that may match; LIKE decides. Of a text's last two
characters there are shorter ones, so that a part of one or two characters is a prefix of what the index holds. A very
long text would take longer to index than to store: it has the one word `long`, and every search looks through those.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import DDL, MetaData, event

# The window passes over a text once; substr() would count characters from its beginning for each. The cost keeps the
# planner from computing this for many rows, where the index has it.
_FUNCTION = """
CREATE FUNCTION trigrams({names}) RETURNS tsvector LANGUAGE sql IMMUTABLE STRICT COST 10000 AS $$
    SELECT CASE WHEN length({text}) > 4000 THEN 'long'::tsvector ELSE (
        SELECT array_to_tsvector(array_agg(part)) FROM (
            SELECT c || lead(c, 1, '') OVER following || lead(c, 2, '') OVER following AS part
              FROM unnest(string_to_array({text}, NULL)) WITH ORDINALITY AS characters (c, at)
            WINDOW following AS (ORDER BY at)) parts) END
$$
"""


_MANY_TERMS = 12


def define_trigrams(metadata: MetaData, *names: str) -> None:
    """Add the function `trigrams`, of so many texts, to a service's tables; its migrations create the same."""
    arguments = ", ".join(f"{name} text" for name in names)
    function = _FUNCTION.format(names=arguments, text=r" || E'\n' || ".join(names))
    event.listen(metadata, "before_create", DDL(function))  # type: ignore[no-untyped-call]


def sought(part: str) -> dict[str, Any]:
    """What to ask the index for a part, which is not empty: `trigrams`, the `tsquery` that every text with this part
    satisfies, and `terms`, a list of some that it is made of, to tell how rare it is."""
    terms = [f"{_quoted(part)}:*"]
    if len(part) >= 3:
        terms = list(dict.fromkeys(_quoted(part[at : at + 3]) for at in range(len(part) - 2)))
    some = terms[:: -(-len(terms) // _MANY_TERMS)]
    return {"trigrams": f"({' & '.join(terms)}) | long", "terms": [f"{term} | long" for term in some]}


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
