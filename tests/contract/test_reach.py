"""Every query that serves people takes the rows that they may reach, and every handler passes its own action's."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from servicekit.identity.roles import Action, Extent

CHECKOUT = Path(__file__).resolve().parents[2]
#: Where the queries of services are.
REPOSITORIES = [*sorted(CHECKOUT.glob("service_*/repository.py")), CHECKOUT / "servicekit/events/rows.py"]
#: What a function needs to ask a database.
DATABASE = {"database", "_database", "session", "_statements"}
#: Those that serve no person, and those of which everybody may know all.
OF_NOBODY = {
    "service_orders/repository.py": {"cancel_open"},  # an event: the user was deleted
    "service_users/repository.py": {"require_free"},  # an address is taken, whosever it is
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
def test_every_query_for_people_takes_their_reach_and_uses_it(path: Path) -> None:
    asking = [one for one in functions(path) if names_in(one) & DATABASE]
    assert asking
    exempt = OF_NOBODY.get(name_of(path), set())
    assert exempt <= {one.name for one in asking}, "an exemption is left that nothing needs"
    for function in asking:
        if function.name not in exempt:
            at = f"{name_of(path)}:{function.lineno}: {function.name}"
            defaults = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
            reach = {one.arg: default for one, default in defaults if one.arg == "reach"}
            assert reach == {"reach": None}, f"{at} takes no reach, or has a default for it"
            assert any("reach" in names_in(statement) for statement in function.body), f"{at} passes over its reach"


def handlers(path: Path) -> Iterator[tuple[Function, str]]:
    """The handlers of a module of routes, with the name of the action that their decorator names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            for call in node.decorator_list:
                if isinstance(call, ast.Call):
                    for keyword in call.keywords:
                        if keyword.arg == "action" and isinstance(keyword.value, ast.Attribute):
                            yield node, keyword.value.attr


def test_every_handler_passes_the_reach_of_its_own_action() -> None:
    seen = 0
    for path in sorted(CHECKOUT.glob("service_*/routes.py")):
        for handler, action in handlers(path):
            if Extent.OWN not in Action[action].extents.values():
                continue
            seen += 1
            asked = {
                argument.attr
                for call in ast.walk(handler)
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "reach"
                for argument in call.args
                if isinstance(argument, ast.Attribute)
            }
            assert asked == {action}, f"{name_of(path)}: {handler.name} is {action} and passes {asked}"
    assert seen > 5
