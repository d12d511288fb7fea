"""The role table, with the operations of each action."""

from __future__ import annotations

from collections.abc import Iterator

from api_gateway.control import make_control
from scripts.reference.code import table
from scripts.reference.endpoints import anchor, application
from service_tasks.streams.routes import stream_routes
from servicekit.identity.roles import Action, Role
from servicekit.observing.metrics import Metrics
from servicekit.process.services import services
from servicekit.web.routes import Endpoint


def operations() -> Iterator[Endpoint]:
    """Every operation of every service and of the gateway, without each PATCH, which is a PUT once more."""
    gateway = make_control(
        circuits={}, routes=(), metrics=Metrics("api_gateway"), fetch_documents=dict, admin_token=None
    )
    apps = [*map(application, services()), gateway]
    for endpoint in (*(one for app in apps for one in app.endpoints), *stream_routes().endpoints):
        if endpoint.method != "PATCH":
            yield endpoint


def _scopes(action: Action) -> str:
    return " or ".join(f"`{scope}`" for scope in sorted(action.scopes)) or "any"


def page() -> str:
    """docs/reference/roles.md."""
    linked: dict[Action, list[str]] = {action: [] for action in Action}
    for one in operations():
        if one.action is not None:
            linked[one.action].append(f"[`{one.method} {one.path}`](endpoints.md#{anchor(one.method, one.path)})")
    rights = [(one.meaning, *(one.extents[role] for role in Role), _scopes(one)) for one in Action]
    return (
        "\n\n".join(
            (
                "# Roles",
                "What each role may do: to **all** rows, to its **own**, or **none**. Whoever has several roles is "
                "judged by the last of these columns; other words in a user's `roles` grant nothing. A row that a "
                "caller may not see does not exist for them (404); what they may do to no row at all is refused "
                "(403, without a login 401). Where no login is asked for, everybody is an administrator. An API key "
                "can do what its owner can, if it has one of the scopes. `./scripts/docs` writes this page from the "
                "role table.",
                table(("action", *Role, "scope of an API key"), rights),
                "## Operations",
                table(
                    ("action", "operations"),
                    [(action.meaning, ", ".join(found)) for action, found in linked.items() if found],
                ),
            )
        )
        + "\n"
    )
