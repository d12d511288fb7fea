"""What the documentation names exists, and what exists is named there."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Iterator
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from api_gateway import control, route_table
from api_gateway import errors as gateway_errors
from api_gateway.settings import GatewaySettings
from scripts.instance import cli, ports, programs
from service_orders import domain as orders_domain
from service_orders import errors as orders_errors
from service_orders import events as orders_events
from service_orders import schemas as orders
from service_orders.routes import order_routes
from service_orders.settings import OrdersRelaySettings, OrdersSettings
from service_tasks import errors as tasks_errors
from service_tasks.domain.schedule import ScheduleStatus
from service_tasks.domain.task import Status, status_from_word
from service_tasks.engine.registry import load_registry
from service_tasks.persistence import task_outbox
from service_tasks.routes.bulk import bulk_routes
from service_tasks.routes.messages import message_routes
from service_tasks.routes.schedules import schedule_routes
from service_tasks.routes.stats import stats_routes
from service_tasks.routes.tasks import task_routes
from service_tasks.schemas import bulk, messages, schedules, stats, tasks
from service_tasks.settings import (
    BUILT_IN_MODULES,
    EventsSettings,
    IngestSettings,
    TasksRelaySettings,
    TasksSettings,
    WorkerSettings,
)
from service_tasks.streams.routes import stream_routes
from service_users import errors as users_errors
from service_users import events as users_events
from service_users import schemas as users
from service_users.routes import user_routes
from service_users.settings import UsersRelaySettings, UsersSettings
from servicekit.database import engine as database
from servicekit.database import migrations
from servicekit.events.cloudevents import PATH
from servicekit.process.settings import ServiceSettings, Settings
from servicekit.web import health
from servicekit.wire.errors import AppError
from tests.support.markdown import CHECKOUT, Block, Document, documents

DOCUMENTS = documents()
README = Document(CHECKOUT / "README.md")
HTTP_API = Document(CHECKOUT / "docs" / "http_api.md")
EVENTS = Document(CHECKOUT / "docs" / "events.md")
OPERATIONS = Document(CHECKOUT / "docs" / "operations.md")
COMPOSE = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8"))

SETTINGS: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "users": UsersSettings,
    "orders": OrdersSettings,
    "tasks": TasksSettings,
    "events": EventsSettings,
    "worker": WorkerSettings,
    "users-relay": UsersRelaySettings,
    "orders-relay": OrdersRelaySettings,
    "tasks-relay": TasksRelaySettings,
    # After the relays, which do without RabbitMQ.
    "ingest": IngestSettings,
}
#: The built-in task types' own settings. A worker reads them and does without: the type is left out.
TYPE_SETTINGS = [kind.settings_model for kind in load_registry(BUILT_IN_MODULES) if kind.settings_model]
#: What another program reads: the shell scripts, PostgreSQL's tools, OpenSSL.
OTHER_VARIABLES = {"PYTHON", "ADMIN_TOKEN", "SSL_CERT_FILE"}
#: Words in capitals that are no settings of ours, by document.
FOREIGN_WORDS = {"docs/coming_from.md"}
ERROR_MODULES = (gateway_errors, users_errors, orders_errors, tasks_errors, health, database)
#: Only their subclasses are ever raised, or a later version raises them.
NEVER_SEEN = {"conflict", "unavailable"}

by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)


# Links, paths and commands


@by_document
def test_every_link_leads_somewhere(document: Document) -> None:
    for line, target in document.links():
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (document.file.parent / path).resolve() if path else document.file
        assert file.exists(), f"{document.name}:{line}: {target}"
        if anchor:
            assert anchor in Document(file).anchors(), f"{document.name}:{line}: no heading #{anchor}"


_PATH = re.compile(
    r"(?:api_gateway|service_\w+|servicekit|scripts|tests|docs|deploy|requirements)/[\w./-]*|[\w-]+\.(?:md|toml|yml)"
)


@by_document
def test_every_path_in_code_type_exists(document: Document) -> None:
    if document.name == "docs/coming_from.md":
        return  # half of its paths belong to other programs
    for line, text in document.code():
        if _PATH.fullmatch(text):
            there = (CHECKOUT / text, document.file.parent / text)
            assert any(path.exists() for path in there), f"{document.name}:{line}: {text}"


def commands(document: Document) -> Iterator[tuple[str, list[str]]]:
    """Give every call of a script of ours, with its place, split into words."""
    texts = [(f"{document.name}:{line}", text) for line, text in document.code()]
    texts += [(block.place, line) for block in document.blocks if block.language == "sh" for line in _lines(block)]
    for place, text in texts:
        for found in re.finditer(r"(?:^|[\s(;])\./(scripts/\w+[^;|)]*)", text):
            yield place, shlex.split(found[1], comments=True)


def _lines(block: Block) -> list[str]:
    return block.text.replace("\\\n", " ").splitlines()


@by_document
def test_every_script_exists_and_can_be_run(document: Document) -> None:
    for place, words in commands(document):
        file = CHECKOUT / words[0]
        assert file.is_file(), f"{place}: {words[0]}"
        assert os.access(file, os.X_OK), f"{place}: {words[0]} cannot be executed"


@by_document
def test_every_call_of_run_is_understood(document: Document, capsys: pytest.CaptureFixture[str]) -> None:
    parser: argparse.ArgumentParser = cli.parser()
    for place, words in commands(document):
        if words[0] == "scripts/run":
            arguments = [word.strip(",.") for word in words[1:] if word not in {"…"}]
            try:
                parser.parse_intermixed_args(arguments)
            except SystemExit as exc:
                if exc.code:
                    pytest.fail(f"{place}: {' '.join(words)}: {capsys.readouterr().err}")


def test_every_script_is_listed() -> None:
    scripts = {file.name for file in (CHECKOUT / "scripts").iterdir() if file.is_file() and not file.suffix}
    listed = {row[0].strip("`") for row in Document(CHECKOUT / "scripts" / "README.md").rows("The commands")}

    assert scripts - {"README"} == listed


@by_document
def test_no_document_speaks_of_where_it_was_written(document: Document) -> None:
    for word in ("/tmp/", "issue #", "pull request", "TODO", "FIXME"):
        assert word not in document.text, f"{document.name}: {word}"


def test_every_decision_is_listed_under_its_title() -> None:
    folder = CHECKOUT / "docs" / "decisions"
    listed = re.findall(r"^- \[(\d{4})\]\((\S+)\) (.+)$", (folder / "README.md").read_text(encoding="utf-8"), re.M)
    there = []
    for file in sorted(folder.glob("[0-9]*.md")):
        title = file.read_text(encoding="utf-8").splitlines()[0]
        there.append((file.name[:4], file.name, re.sub(r"^# (\d+\. )?", "", title)))

    assert listed == there
    assert len({number for number, _, _ in there}) == len(there)


# Settings


def declared() -> dict[str, tuple[FieldInfo, set[str]]]:
    """Give each variable with its field and the processes that read it."""
    found: dict[str, tuple[FieldInfo, set[str]]] = {}
    read: list[tuple[str, type[Settings]]] = [*SETTINGS.items(), *(("worker", settings) for settings in TYPE_SETTINGS)]
    for process, settings in read:
        for name, field in settings.model_fields.items():
            found.setdefault(name.upper(), (field, set()))[1].add(process)
    for variable, (_, readers) in found.items():
        if variable.lower() in migrations.SERVICES.values() or variable.lower() in ServiceSettings.model_fields:
            readers.add("migrate")
    return found


def is_required(name: str) -> bool:
    """Whether the process does not start without it."""
    of_a_type = any(name.lower() in settings.model_fields for settings in TYPE_SETTINGS)
    return declared()[name][0].is_required() and not of_a_type


def compose_variables() -> dict[str, str]:
    """Give the variables that only docker-compose.yml reads, with their defaults; COMPOSE_… are compose's own."""
    text = (CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8")
    found = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text))
    return {
        name: default for name, default in found.items() if name not in declared() and not name.startswith("COMPOSE_")
    }


def explained() -> dict[str, tuple[str, set[str]]]:
    """Give each variable of .env.example with the default written there and its readers."""
    found: dict[str, tuple[str, set[str]]] = {}
    readers: set[str] = set()
    for line in (CHECKOUT / ".env.example").read_text(encoding="utf-8").splitlines():
        if line.startswith("# Read by: "):
            readers = set(line.removeprefix("# Read by: ").split(", "))
        elif re.match(r"#[A-Z]", line):
            name, _, default = line[1:].partition("=")
            assert name not in found, f"{name} is there twice"
            found[name] = (default, readers)
            readers = set()
    return found


def test_env_example_lists_every_setting_with_its_readers() -> None:
    assert {name: readers for name, (_, readers) in explained().items()} == {
        **{name: readers for name, (_, readers) in declared().items()},
        **{name: {"docker compose"} for name in compose_variables()},
    }


def test_env_example_tells_the_defaults() -> None:
    for name, (field, _) in declared().items():
        written = explained()[name][0]
        if is_required(name):
            assert "PASSWORD" in written, name
        else:
            assert written == ("" if field.get_default() in (None, PydanticUndefined) else str(field.default)), name
    for name, default in compose_variables().items():
        assert explained()[name][0] == default, name


def test_env_example_as_it_stands_sets_nothing() -> None:
    lines = (CHECKOUT / ".env.example").read_text(encoding="utf-8").splitlines()

    assert all(not line or line.startswith("#") for line in lines)


def test_the_readme_has_the_same_settings_as_env_example() -> None:
    written = {}
    for name, default, readers in README.rows("Settings"):
        plain = {"empty": "", "unset": ""}.get(default, default.strip("`"))
        written[name.strip("`")] = (plain, set(readers.split(", ")))
    everybody = {*SETTINGS, "migrate"}
    expected = {}
    for name, (default, readers) in explained().items():
        if name not in declared():
            continue
        expected[name] = (
            "required" if is_required(name) else default,
            {"every process"} if readers == everybody else readers,
        )

    assert written == expected


@by_document
def test_every_variable_named_is_read_by_somebody(document: Document) -> None:
    if document.name in FOREIGN_WORDS:
        return
    known = {
        *declared(),
        *OTHER_VARIABLES,
        *re.findall(r"\$\{([A-Z_]+)", (CHECKOUT / "docker-compose.yml").read_text()),
    }
    for line, text in document.code():
        for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text):
            in_code = word in {"TRANSITIONS", "BUILT_IN_MODULES"}
            assert word in known or in_code or "SKIP LOCKED" in text or word in {"NEW_FOLDER", "REQUEST_ID"}, (
                f"{document.name}:{line}: {word}"
            )


# The HTTP API

TASK_DOORS = (task_routes, schedule_routes, message_routes, stats_routes, bulk_routes)


def routes_of_the_services() -> dict[str, set[tuple[str, str]]]:
    """Give what each service declares, as (method, path)."""
    nobody: object = None
    groups = {
        "users": (user_routes(nobody),),  # type: ignore[arg-type]  # declared, never called
        "orders": (order_routes(nobody),),  # type: ignore[arg-type]
        "tasks": tuple(door(nobody) for door in TASK_DOORS),  # type: ignore[operator]
        "events": (stream_routes(),),
    }
    return {name: {(e.method, e.path) for group in some for e in group.endpoints} for name, some in groups.items()}


def documented_endpoints(document: Document, *headings: str) -> list[tuple[str, str]]:
    """Give the first cells of the tables that name endpoints."""
    found = []
    for heading in headings:
        for row in document.rows(heading):
            match = re.fullmatch(r"`([A-Z]+) (/\S*)`", row[0])
            if match:
                found.append((match[1], match[2]))
    return found


def real_endpoints() -> set[tuple[str, str]]:
    """Give what the gateway answers."""
    rows = (*route_table.ROUTES, *route_table.PAGES)
    return {(method, row.template) for row in rows for method in row.methods} - {
        ("GET", "/swagger/"),
        ("GET", "/swagger/{file}"),
    }


def test_the_gateway_leads_to_everything_the_services_declare() -> None:
    forwarded: dict[str, set[tuple[str, str]]] = {}
    for row in route_table.ROUTES:
        if row.handler == "forward":
            forwarded.setdefault(row.upstream, set()).update((method, row.template) for method in row.methods)

    assert forwarded == routes_of_the_services()


def test_the_readme_lists_every_endpoint_once() -> None:
    listed = documented_endpoints(README, "Endpoints")

    assert set(listed) == real_endpoints()
    assert len(listed) == len(set(listed))


def test_the_api_document_lists_every_endpoint() -> None:
    listed = documented_endpoints(HTTP_API, "Users", "Orders", "Tasks", "Schedules", "The gateway's own pages")

    assert set(listed) == real_endpoints()


def test_the_statuses_in_the_api_document_are_those_of_the_declarations() -> None:
    nobody: object = None
    doors = (user_routes, order_routes, *TASK_DOORS)
    groups = [stream_routes(), *(door(nobody) for door in doors)]  # type: ignore[operator]
    declared_errors = {(e.method, e.path): e for group in groups for e in group.endpoints}
    for heading in ("Users", "Orders", "Tasks", "Schedules"):
        for cell, answers in (row[:2] for row in HTTP_API.rows(heading) if row[0].startswith("`") and " /" in row[0]):
            method, path = cell.strip("`").split(" ")
            endpoint = declared_errors.get((method, path))
            if endpoint is None:
                assert path == "/users/{id}/details"
                continue
            expected = {endpoint.status, *(gateway_errors.envelope.status_of(error) for error in endpoint.errors)}
            if endpoint.body or endpoint.query or endpoint.path_parameters:
                expected.add(400)
            if endpoint.no_content:
                expected.add(204)
            written = {int(number) for number in re.findall(r"\b[2-5]\d\d\b", answers)}
            assert written == expected, cell


@by_document
def test_every_request_named_has_an_endpoint(document: Document) -> None:
    for line, text in enumerate(document.prose, start=1):
        # In the tables of coming_from the first column belongs to another program.
        of_ours = text.split(" | ", 1)[-1] if document.name in FOREIGN_WORDS and text.startswith("| ") else text
        for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/[^\s`]*)`", of_ours):
            path = re.sub(r"^/api/v1(?=/)", "", path.partition("?")[0])
            is_batch = path == "/tasks/batch" and document.name in FOREIGN_WORDS
            is_internal = path == PATH  # the services' own door, which the gateway does not know
            assert (method, path) in real_endpoints() or is_batch or is_internal, (
                f"{document.name}:{line}: {method} {path}"
            )


def test_other_services_words_for_statuses_mean_what_coming_from_says() -> None:
    coming_from = Document(CHECKOUT / "docs" / "coming_from.md")
    checked = set()
    for heading in ("WorkMate", "AT API", "Task Manager with RabbitMQ", "Go Task API"):
        for row in coming_from.rows(heading):
            here = re.match(rf"`({'|'.join(Status)})`", row[1])
            there = re.match(r"`?([A-Za-z ]+?)`?(?: \(.*)?$", row[0])
            if here and there:
                assert status_from_word(there[1]) == here[1], f"{heading}: {row}"
                checked.add(there[1])

    assert checked >= {"New", "In Progress", "Completed", "Failed", "Running", "Pending", "done", "processing"}


FIELDS: dict[str, tuple[type[BaseModel] | None, type[BaseModel] | None, type[BaseModel]]] = {
    "Fields of a user": (users.UserCreate, users.UserUpdate, users.UserView),
    "Fields of an order": (orders.OrderCreate, orders.OrderUpdate, orders.OrderView),
    "Fields of a task": (tasks.TaskCreate, None, tasks.TaskView),
    "Fields of a schedule": (schedules.ScheduleCreate, schedules.ScheduleUpdate, schedules.ScheduleView),
}


@pytest.mark.parametrize("heading", FIELDS)
def test_the_fields_in_the_api_document_are_those_of_the_models(heading: str) -> None:
    create, update, view = FIELDS[heading]
    written = {row[0].strip("`"): row[1 : (4 if update else 3)] for row in HTTP_API.rows(heading)}
    expected = {}
    for name in {**create.model_fields, **(update.model_fields if update else {}), **view.model_fields}:
        field = create.model_fields.get(name)
        cells = ["–" if field is None else "required" if field.is_required() else "optional"]
        if update:
            cells.append("yes" if name in update.model_fields else "–")
        cells.append("yes" if name in view.model_fields else "–")
        expected[name] = cells

    assert written == expected


SHOWN: dict[str, type[BaseModel]] = {
    "Fields of an item": orders.Item,
    "Fields of a task type": tasks.TaskTypeView,
    "Fields of a rejected message": messages.RejectedMessageView,
    "How things stand": stats.TaskStatsView,
    "How a type stands": stats.TypeStatsView,
    "How a worker stands": stats.WorkerView,
    "Which of many tasks": bulk.RetryMany,
    "Details of a user": control.DetailsView,
    "Fields of an upstream's circuit": control.CircuitView,
}


@pytest.mark.parametrize("heading", SHOWN)
def test_the_parts_in_the_api_document_are_those_of_the_models(heading: str) -> None:
    assert {row[0].strip("`") for row in HTTP_API.rows(heading)} == set(SHOWN[heading].model_fields)


@pytest.mark.parametrize(
    ("heading", "query"),
    [
        ("Filters of users", users.UserQuery),
        ("Filters of orders", orders.OrderQuery),
        ("Filters of tasks", tasks.TaskQuery),
        ("Filters of schedules", schedules.ScheduleQuery),
    ],
)
def test_the_filters_in_the_api_document_are_those_of_the_models(heading: str, query: type[BaseModel]) -> None:
    written = {row[0].strip("`") for row in HTTP_API.rows(heading)}

    assert written | {"limit", "offset"} == set(query.model_fields)


def test_the_words_for_states_are_those_of_the_code() -> None:
    steps = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1])) for row in HTTP_API.rows("Steps of an order")}

    assert steps == {str(state): set(map(str, after)) for state, after in orders_domain.TRANSITIONS.items()}
    assert set(steps) == set(get_args(orders.StatusWord))
    assert [row[0].strip("`") for row in HTTP_API.rows("Statuses of a task")] == [status.value for status in Status]
    assert [row[0].strip("`") for row in HTTP_API.rows("Statuses of a schedule")] == [
        status.value for status in ScheduleStatus
    ]


def codes() -> dict[str, set[int]]:
    """Give every code an answer may carry, with its statuses."""
    found: dict[str, set[int]] = {}

    def walk(cls: type[AppError]) -> None:
        own = gateway_errors._OWN_STATUS.get(cls) or gateway_errors.envelope.status_of(cls)
        found.setdefault(cls.code, set()).add(own)
        for below in cls.__subclasses__():
            if below.__module__.partition(".")[0] in {"servicekit", "api_gateway", *_SERVICES}:
                walk(below)

    walk(AppError)
    for name in route_table.RouteTable().upstreams():
        error = gateway_errors.UpstreamUnavailable(name)
        found.setdefault(error.code, set()).add(gateway_errors.status_of(error))
    return {code: statuses for code, statuses in found.items() if code not in NEVER_SEEN}


_SERVICES = {"service_users", "service_orders", "service_tasks"}


def test_the_error_codes_in_the_api_document_are_those_of_the_code() -> None:
    written = {
        row[0].strip("`"): {int(number) for number in row[1].split(", ")} for row in HTTP_API.rows("Error codes")
    }

    assert written == codes()


def test_every_error_code_named_anywhere_is_a_code() -> None:
    known = {*codes(), "WorkerLost", "TimedOut", "destination_unavailable"}  # the last is a word of RFC 9209
    for document in DOCUMENTS:
        for line, text in document.code():
            if re.fullmatch(r"\w+_(?:unavailable|not_found|conflict|taken|too_large|exceeded|saturated)", text):
                assert text in known, f"{document.name}:{line}: {text}"


# Events


def test_the_catalogue_of_events_is_that_of_the_code() -> None:
    catalogue = {**users_events.CATALOGUE, **orders_events.CATALOGUE, **task_outbox.CATALOGUE}
    assert [row[0].strip("`") for row in EVENTS.rows("Catalogue")] == list(catalogue)

    written = {}
    parts = EVENTS.text.split("\n### ")[1:]
    for heading, _, rest in (part.partition("\n") for part in parts):
        schema = rest.split("```json\n")[1].partition("```")[0]
        written.update(dict.fromkeys(re.findall(r"`([^`]+)`", heading), json.loads(schema)))
    assert written == {type_: model.model_json_schema(mode="serialization") for type_, model in catalogue.items()}


def test_who_acts_on_an_event_can_read_what_its_sender_writes() -> None:
    sent = users_events.CATALOGUE["user.deleted"].model_fields
    for receiver in (orders_events.UserDeleted, task_outbox.UserDeleted):
        assert set(receiver.model_fields) <= set(sent)


# Operation


def test_the_ports_are_those_of_an_instance() -> None:
    instance = ports.Ports(8000)
    written = {
        row[2].strip("`"): int(row[0])
        for row in OPERATIONS.rows("An instance on this machine")
        if row[0].isdigit() and row[2]
    }

    assert written == {name: port for name, port in instance.by_name.items() if name in programs.SERVICES}


def test_the_compose_services_and_variables_are_those_of_the_file() -> None:
    text = "\n".join(OPERATIONS.prose)
    named = re.search(r"Services: (.+?)\.", text, re.S)
    assert named
    variables = {row[0].strip("`") for row in OPERATIONS.rows("Containers")}
    in_file = set(re.findall(r"\$\{([A-Z_]+):-", (CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8")))

    assert set(re.findall(r"`(\w+)`", named[1])) == set(COMPOSE["services"])
    assert variables == in_file - set(declared()) - {"COMPOSE_PROJECT_NAME"}


def test_every_container_named_exists() -> None:
    for document in DOCUMENTS:
        for block in document.blocks:
            for name in re.findall(r"docker compose .*\b((?:service|task|api)_\w+)", block.text):
                assert name in COMPOSE["services"], f"{block.place}: {name}"


def test_every_metric_named_is_made_by_somebody() -> None:
    made = "\n".join(
        file.read_text(encoding="utf-8")
        for folder in ("servicekit", "api_gateway", "service_tasks")
        for file in (CHECKOUT / folder).rglob("*.py")
    )
    for document in DOCUMENTS:
        for line, text in document.code():
            for name in re.findall(r"\bsiteworks_[a-z_]+\b", text):
                assert f'"{name}"' in made, f"{document.name}:{line}: {name}"


def test_every_log_event_named_is_written_by_somebody() -> None:
    packages = ("servicekit", "api_gateway", "service_users", "service_orders", "service_tasks")
    code = "\n".join(f.read_text(encoding="utf-8") for name in packages for f in (CHECKOUT / name).rglob("*.py"))
    for row in OPERATIONS.rows("Logs"):
        for event in re.findall(r"`(\w+)`", row[0]):
            assert re.search(rf'log\.\w+\(\s*"{event}"', code), event
