"""Every query that serves people takes the rows that they may reach."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
#: Queries of people and of nobody; those of workers and of their leader are of nobody alone.
REPOSITORIES = [
    path
    for pattern in (
        "service_*/repository.py",
        "service_*/persistence/*_store.py",
        "service_sites/persistence/*.py",
        "servicekit/events/rows.py",
    )
    for path in sorted(CHECKOUT.glob(pattern))
    # A row's writer asks nothing itself.
    if path.name not in ("engine_store.py", "maintenance_store.py", "item_rows.py", "__init__.py")
]
#: What a function needs to ask a database.
DATABASE = {"database", "_database", "session", "source", "_statements"}
#: Those without a reach, with why.
WITHOUT_REACH = {
    "service_orders/repository.py": {"follows the deletion of a user": "cancel_open"},
    "service_sites/persistence/members.py": {
        "follows the accounts of users": "forget mark rename sites_of",
        "of a site that is changed": "enabled",
        "where the use case knows the caller's role": "add has_another_manager held remove search update_held",
    },
    "service_sites/persistence/places.py": {
        "where the use case knows the caller's role": "add_location count_locations exceptions forget_day is_used"
        " levels_of location locations path_up remove_location set_day update_location",
    },
    "service_sites/persistence/sites.py": {
        "opened by administrators alone": "add",
        "the use case then asks what the caller is there": "begin hold update_held",
        "any statement": "run",
        "of nobody": "knows_time_zone",
    },
    "service_users/repository.py": {
        "an address is taken, whosever it is": "require_free",
        "for services, by a token of their own": "people",
        "follows the people of sites": "join_site leave_site",
    },
    "service_sites/persistence/comments.py": {
        "of an item that was found or locked": "add link links lock page reword unlink unwatch watch watchers",
        "follows what became of a user": "forget_watcher",
    },
    "service_sites/persistence/history.py": {"of an item that was found": "page page_for_contractor"},
    "service_sites/persistence/items.py": {
        "changes a site, or an item that was locked": "add remove write",
        "follows those who leave": "assigned",
    },
    "service_sites/persistence/operations.py": {
        "of a step that was just taken": "remember",
        "compares who asked before": "find_answer",
    },
    "service_tasks/persistence/message_store.py": {
        "only for callers who reach all": "accept forget get search",
        "the broker's": "store",
    },
    "service_tasks/persistence/schedule_store.py": {
        "makes what the use case has given its owner": "add",
        "follows what became of a user": "pause_of_users pause_of_disabled",
        "the scheduler's own": "fire",
    },
    "service_tasks/persistence/task_store.py": {
        "makes what the use case has given its owner": "add",
        "makes what an event wants, of nobody": "add_within",
        "about types and workers": "announce control controls forget_control has_seen live_types",
    },
    "service_tasks/persistence/watch_store.py": {"each watch has a reach": "changed"},
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def functions(path: Path) -> Iterator[Function]:
    """The public functions of a module, and the public methods of its classes."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    methods = (node for one in body if isinstance(one, ast.ClassDef) for node in one.body)
    for node in (*body, *methods):
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node


def names_in(node: ast.AST) -> set[str]:
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return names | {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}


@pytest.mark.parametrize("path", REPOSITORIES, ids=name_of)
def test_a_query_takes_the_reach_of_its_caller_and_uses_it_unless_it_is_listed_with_why_not(path: Path) -> None:
    asking = [one for one in functions(path) if names_in(one) & DATABASE]
    assert asking
    without = {name for names in WITHOUT_REACH.get(name_of(path), {}).values() for name in names.split()}
    assert without <= {one.name for one in asking}
    for function in asking:
        if function.name not in without:
            at = f"{name_of(path)}:{function.lineno}: {function.name}"
            defaults = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
            reach = {one.arg: default for one, default in defaults if one.arg == "reach"}
            assert reach == {"reach": None}, f"{at} takes no reach, or has a default for it"
            assert any("reach" in names_in(statement) for statement in function.body), f"{at} passes over its reach"
