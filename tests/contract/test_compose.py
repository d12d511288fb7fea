"""What docker-compose.yml and the Dockerfiles promise, as far as it can be seen without an engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from api_gateway.route_table import ROUTES
from api_gateway.settings import GatewaySettings
from scripts.instance.postgres import LOG_SETTINGS
from scripts.instance.settings import connections_needed
from service_tasks.engine.registry import load_registry
from service_tasks.settings import (
    BUILT_IN_MODULES,
    EventsSettings,
    IngestSettings,
    WorkerSettings,
)
from servicekit.events.relay_settings import relay_settings
from servicekit.process.check import known_variables, misspelt_in_file, wrong_settings
from servicekit.process.services import Service
from servicekit.process.services import services as table
from servicekit.process.settings import ServiceSettings, settings_of

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = [row.package for row in table().values()]

SETTINGS: Mapping[str, type[ServiceSettings]] = {
    "api_gateway": GatewaySettings,
    **{row.package: settings_of(row) for row in table().values()},
    "task_events": EventsSettings,
    "task_worker": WorkerSettings,
    "task_ingest": IngestSettings,
    "relay": relay_settings(),
}
# Which folder's Dockerfile makes the image of a service that has none of its own.
IMAGE_OF = {
    "task_events": "service_tasks",
    "task_worker": "service_tasks",
    "task_ingest": "service_tasks",
    "relay": "service_users",
}
#: The built-in task types' own settings, read by the workers that run them.
TYPE_SETTINGS = [kind.settings_model for kind in load_registry(BUILT_IN_MODULES) if kind.settings_model]
OFFICIAL_IMAGES = {"postgres": "postgres:17", "rabbitmq": "rabbitmq:4-management"}
OBSERVERS = {"prometheus": "prom/prometheus:v3", "grafana": "grafana/grafana:12"}
DOCKERFILES = [*(f"{package}/Dockerfile" for package in ("api_gateway", *PACKAGES)), "deploy/migrate/Dockerfile"]
_VARIABLE = re.compile(r"\$\{([A-Z_]+):-([^}]*)\}")


def resolved(value: object) -> str:
    """Fill in the defaults of `${NAME:-default}`, as in a shell that sets nothing."""
    return _VARIABLE.sub(lambda match: match[2], str(value))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def variables_of(name: str) -> set[str]:
    """The fields of everything that a service reads from its environment."""
    of_types = [field for settings in TYPE_SETTINGS for field in settings.model_fields]
    return {*SETTINGS[name].model_fields, *(of_types if name == "task_worker" else ())}


def seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d+)s", duration)
    assert match, duration
    return int(match[1])


def test_the_services_carry_the_names_people_know(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {*SETTINGS, *OFFICIAL_IMAGES, *OBSERVERS, "migrate", "task_check"}


def test_only_the_gateway_postgresql_and_observers_are_published_and_only_on_loopback(
    services: dict[str, dict[str, Any]],
) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {
        "api_gateway": ["127.0.0.1:${GATEWAY_PORT:-8000}:8000"],
        "postgres": ["127.0.0.1:${POSTGRES_PORT:-5432}:5432"],
        "prometheus": ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"],
        "grafana": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"],
    }
    assert not [name for name, service in services.items() if "network_mode" in service]


def test_the_gateway_cannot_reach_the_database(services: dict[str, dict[str, Any]]) -> None:
    assert not set(services["api_gateway"]["networks"]) & set(services["postgres"]["networks"])


@pytest.mark.parametrize("name", [*SETTINGS, *OFFICIAL_IMAGES, *OBSERVERS])
def test_every_lasting_service_is_watched_restarted_and_bounded(services: dict[str, dict[str, Any]], name: str) -> None:
    service = services[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["logging"]["options"]["max-size"]
    assert seconds(service["stop_grace_period"]) > 0


def test_what_runs_once_is_bounded_and_not_restarted(services: dict[str, dict[str, Any]]) -> None:
    for name in ("migrate", "task_check"):
        assert services[name]["restart"] == "no"
        assert services[name]["mem_limit"]


def test_every_container_has_given_up_its_privileges(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        if name not in OFFICIAL_IMAGES:
            assert service["read_only"] is True, name
            assert "cap_add" not in service, name


def test_things_start_in_order(services: dict[str, dict[str, Any]]) -> None:
    waits = {name: service.get("depends_on", {}) for name, service in services.items()}
    assert waits["migrate"] == {
        "postgres": {"condition": "service_healthy"},
        "task_check": {"condition": "service_completed_successfully"},
    }
    assert waits["task_check"] == {}
    for name in (
        *PACKAGES,
        "task_events",
        "task_worker",
        "relay",
    ):
        assert waits[name] == {"migrate": {"condition": "service_completed_successfully"}}
    assert waits["task_ingest"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "rabbitmq": {"condition": "service_healthy"},
    }
    assert waits["api_gateway"] == {name: {"condition": "service_healthy"} for name in (*PACKAGES, "task_events")}


def test_postgresql_is_asked_over_tcp_because_it_answers_on_its_socket_before_the_databases_are_made(
    services: dict[str, dict[str, Any]],
) -> None:
    command = services["postgres"]["healthcheck"]["test"][-1].split()
    assert command[0] == "pg_isready"
    assert command[command.index("-h") + 1] == "127.0.0.1"


def test_postgresql_is_healthy_once_its_roles_are_those_of_today_and_makes_them_once(
    services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    for name, code in (("pg_isready", "exit 0"), ("psql", f'echo "$@" >> {tmp_path}/given; exit $FAILS')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)
    *_, script = services["postgres"]["healthcheck"]["test"]
    command = ["sh", "-c", script.replace("/tmp/", f"{tmp_path}/")]
    statuses = [
        subprocess.run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin", "FAILS": fails}, timeout=10).returncode
        for fails in "300"
    ]
    assert statuses == [3, 0, 0]
    (file,) = {line.split()[-1] for line in (tmp_path / "given").read_text().splitlines()}
    assert len((tmp_path / "given").read_text().splitlines()) == 2
    assert f"./deploy/postgres/databases.sql:{file}:ro,z" in services["postgres"]["volumes"]


def test_a_worker_may_use_its_whole_grace_time(services: dict[str, dict[str, Any]]) -> None:
    worker = services["task_worker"]
    grace = int(worker["environment"]["WORKER_GRACE_SECONDS"])
    assert seconds(worker["stop_grace_period"]) > grace


def test_a_worker_runs_in_the_image_of_the_task_service(services: dict[str, dict[str, Any]]) -> None:
    worker = services["task_worker"]
    assert worker["image"] == services["service_tasks"]["image"]
    assert worker["command"] == ["python", "-m", "service_tasks.cli", "worker"]
    assert worker["pull_policy"] == "never"


def test_before_the_start_a_worker_of_the_same_image_and_settings_says_what_is_wrong(
    services: dict[str, dict[str, Any]],
) -> None:
    worker, check = services["task_worker"], services["task_check"]
    assert check["command"] == [*worker["command"], "--check"]
    for same in ("image", "pull_policy", "volumes"):
        assert check[same] == worker[same]
    # And what PostgreSQL calculates with.
    assert check["environment"] == {**worker["environment"], "SERVICE_PROCESSES": None, "SERVICE_THREADS": None}


def test_before_anything_changes_the_settings_of_all_are_read_and_a_wrong_one_is_named(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    migrate = services["migrate"]
    shell, option, script, _, *modules = migrate["command"]
    assert (shell, option, script.partition(' "$$@" && exec ')[0]) == ("sh", "-c", "python -m servicekit.process.check")
    for reader, settings in SETTINGS.items():
        # The relay's has the addresses besides.
        assert {*modules, *(f"{package}.settings" for package in PACKAGES)} & {
            kind.__module__ for kind in settings.__mro__[:2]
        }, reader
        assert set(services[reader]["environment"]) <= set(migrate["environment"]), reader
    # As in the container, where there is nothing else.
    monkeypatch.chdir(tmp_path)
    for variable in {*os.environ}:
        monkeypatch.delenv(variable)
    for variable, value in migrate["environment"].items():
        if value is not None:
            monkeypatch.setenv(variable, resolved(value))
    assert list(wrong_settings(modules)) == []
    monkeypatch.setenv("ADMIN_TOKEN", "short")
    monkeypatch.setenv("EVENTS_WATCHERS", "many")
    events, gateway = wrong_settings(modules)
    assert gateway.startswith("gateway cannot start: ADMIN_TOKEN: has less than 16 characters")
    assert events.startswith("events cannot start: EVENTS_WATCHERS: ")
    # In a file that only the gateway's container has.
    monkeypatch.setenv("GATEWAY_TLS_CERT_FILE", "/certificate.pem")
    assert list(wrong_settings(modules)) == [events]


def test_a_misspelt_name_in_the_env_file_is_told_and_none_that_is_in_the_container_anyway(
    services: dict[str, dict[str, Any]],
) -> None:
    assert services["migrate"]["env_file"] == [{"path": ".env", "required": False}]
    of_the_image = [
        one.split("=")[0]
        for kind, words in instructions("deploy/migrate/Dockerfile")
        if kind == "ENV"
        for one in words.split()
    ]
    names = [*services["migrate"]["environment"], *of_the_image, "HOSTNAME", "PYTHON_VERSION", "PYTHON_SHA256", "HOME"]
    told = misspelt_in_file([*names, "WORKER_CONCURENCY"], known_variables(CHECKOUT))
    assert list(told) == ["WORKER_CONCURENCY in .env is read by nobody; did you mean WORKER_CONCURRENCY?"]


def test_whoever_reads_task_modules_finds_task_types_of_your_own_where_python_looks(
    services: dict[str, dict[str, Any]],
) -> None:
    readers = {name for name, service in services.items() if "TASK_MODULES" in service.get("environment", {})}
    assert readers == {
        name for name, service in services.items() if "./own_tasks:/app/own_tasks:ro,z" in service.get("volumes", ())
    } | {"migrate"}
    assert (CHECKOUT / "own_tasks").is_dir()
    assert ("WORKDIR", "/app") in instructions("service_tasks/Dockerfile")


def test_event_streams_are_served_from_the_image_of_the_task_service(services: dict[str, dict[str, Any]]) -> None:
    events = services["task_events"]
    assert events["image"] == services["service_tasks"]["image"]
    assert events["pull_policy"] == "never"
    command = events["command"]
    assert command == ["gunicorn", "-c", "service_tasks/streams/gunicorn.conf.py", "service_tasks.streams.asgi:app"]
    assert (CHECKOUT / command[2]).is_file()


def test_ingestion_runs_in_the_image_of_the_task_service_and_shows_its_page_there(
    services: dict[str, dict[str, Any]],
) -> None:
    ingest = services["task_ingest"]
    assert ingest["image"] == services["service_tasks"]["image"]
    assert ingest["command"] == ["python", "-m", "service_tasks.cli", "ingest"]
    assert ingest["pull_policy"] == "never"
    dockerfile = (CHECKOUT / "service_tasks/Dockerfile").read_text(encoding="utf-8")
    assert f"INGEST_BIND=0.0.0.0:{ingest['healthcheck']['test'][-1]}\n" in dockerfile
    database = services["service_tasks"]["environment"]["TASKS_DATABASE_URL"]
    assert ingest["environment"]["TASKS_DATABASE_URL"] == database


def test_all_who_use_rabbitmq_find_it_under_the_password_that_it_is_given(services: dict[str, dict[str, Any]]) -> None:
    urls = {
        name: service["environment"]["RABBITMQ_URL"]
        for name, service in services.items()
        if "RABBITMQ_URL" in service.get("environment", {})
    }
    assert set(urls) == {"task_ingest", "relay", "migrate"}
    broker = services["rabbitmq"]["environment"]
    user, password = broker["RABBITMQ_DEFAULT_USER"], broker["RABBITMQ_DEFAULT_PASS"]
    assert set(urls.values()) == {f"amqp://{user}:{password}@rabbitmq:5672/%2F"}


def test_the_relay_runs_in_an_image_of_a_service_and_knows_every_service(services: dict[str, dict[str, Any]]) -> None:
    relay = services["relay"]
    assert relay["image"] == services[IMAGE_OF["relay"]]["image"]
    assert relay["command"] == ["python", "-m", "servicekit.events", "relay"]
    assert relay["pull_policy"] == "never"
    for service in table().values():
        dockerfile = (CHECKOUT / service.package / "Dockerfile").read_text(encoding="utf-8")
        assert f"RELAY_BIND=0.0.0.0:{relay['healthcheck']['test'][-1]}\n" in dockerfile
        database = service.variable("DATABASE_URL")
        assert relay["environment"][database] == services[service.package]["environment"][database]
        assert relay["environment"][service.variable("URL")] == f"http://{service.package}:{service.port}"


def test_those_who_send_and_take_events_share_a_token_that_says_what_it_is_for(
    services: dict[str, dict[str, Any]],
) -> None:
    knowing = {name for name, service in services.items() if "INTERNAL_TOKEN" in service.get("environment", {})}
    assert knowing == {"relay", "migrate", *(service.package for service in table().values())}
    assert {resolved(services[name]["environment"]["INTERNAL_TOKEN"]) for name in knowing} == {
        "development-only-internal"
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_every_variable_of_a_service_is_one_of_its_settings_and_its_value_is_accepted(
    services: dict[str, dict[str, Any]], name: str
) -> None:
    settings = SETTINGS[name]
    environment = services[name]["environment"]
    assert {variable.lower() for variable in environment} <= variables_of(name)
    given = {key.lower(): resolved(value) for key, value in environment.items() if value is not None}
    settings.model_validate(given)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_can_be_set_from_outside_unless_the_containers_fix_it(
    services: dict[str, dict[str, Any]], name: str
) -> None:
    fixed_by_the_image = {field for field in SETTINGS[name].model_fields if field.endswith("_bind")}
    assert variables_of(name) - fixed_by_the_image == {variable.lower() for variable in services[name]["environment"]}


def test_addresses_name_services_and_the_ports_their_images_listen_on(services: dict[str, dict[str, Any]]) -> None:
    for name in SETTINGS:
        for variable, value in services[name]["environment"].items():
            if variable in {"EVENTS_URL", *(row.variable("URL") for row in table().values())}:
                match = re.fullmatch(r"http://(\w+):(\d+)", value)
                assert match, value
                folder = CHECKOUT / IMAGE_OF.get(match[1], match[1])
                dockerfile = (folder / "Dockerfile").read_text(encoding="utf-8")
                assert f"_BIND=0.0.0.0:{match[2]}\n" in dockerfile
                assert f"EXPOSE {match[2]}\n" in dockerfile
                assert services[match[1]]["environment"]["ALLOWED_HOSTS"] == match[1]
                assert services[match[1]]["healthcheck"]["test"][-1] == match[2]
                assert set(services[match[1]]["networks"]) & set(services[name]["networks"])


def test_services_migrations_and_postgresql_agree_on_the_passwords(services: dict[str, dict[str, Any]]) -> None:
    for database, row in table().items():
        variable = row.variable("DATABASE_URL")
        password = services["postgres"]["environment"][row.variable("DATABASE_PASSWORD")]
        url = services[row.package]["environment"][variable]
        assert url == f"postgresql+psycopg2://{database}:{password}@postgres:5432/{database}"
        password = services["postgres"]["environment"][row.variable("OWNER_DATABASE_PASSWORD")]
        url = f"postgresql+psycopg2://{row.owner}:{password}@postgres:5432/{database}"
        assert services["migrate"]["environment"][row.variable("OWNER_DATABASE_URL")] == url
        knowing = [name for name, service in services.items() if password in str(service.get("environment"))]
        assert knowing == ["postgres", "migrate"]
    for name in ("task_events", "task_worker"):
        same = services["service_tasks"]["environment"]["TASKS_DATABASE_URL"]
        assert services[name]["environment"]["TASKS_DATABASE_URL"] == same


def test_every_default_password_says_what_it_is_for(services: dict[str, dict[str, Any]]) -> None:
    defaults = dict(_VARIABLE.findall((CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8")))
    passwords = {name: value for name, value in defaults.items() if "PASSWORD" in name}
    assert len(passwords) == len(set(passwords.values())) == 2 * len(table()) + 3
    assert all(value.startswith("development-only-") for value in passwords.values())


def test_data_lies_in_named_volumes_and_the_rest_is_mounted_to_be_read(compose: dict[str, Any]) -> None:
    for name in OFFICIAL_IMAGES:
        volumes = [volume.split(":") for volume in compose["services"][name]["volumes"]]
        named = [volume for volume in volumes if not volume[0].startswith("./")]
        assert [volume[0] for volume in named] == [f"{name}_data"]
        assert f"{name}_data" in compose["volumes"]
        for volume in volumes:
            if volume not in named:
                assert (CHECKOUT / volume[0]).is_file()
                assert "ro" in volume[2].split(",")


def test_official_images_are_pinned_to_their_major_version(services: dict[str, dict[str, Any]]) -> None:
    assert {name: services[name]["image"] for name in OFFICIAL_IMAGES} == OFFICIAL_IMAGES


def test_observers_start_only_when_asked_for_and_are_pinned(services: dict[str, dict[str, Any]]) -> None:
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert profiles == {name: ["observability"] for name in OBSERVERS}
    for name, image in OBSERVERS.items():
        assert services[name]["image"].startswith(f"{image}.")


def test_prometheus_asks_every_process_for_its_metrics_and_has_the_alarms(services: dict[str, dict[str, Any]]) -> None:
    folder, mount = CHECKOUT / "deploy/prometheus", "./deploy/prometheus:/etc/prometheus:ro,z"
    assert mount in services["prometheus"]["volumes"]
    config = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    assert all((folder / file).is_file() for file in config["rule_files"])
    asked = {name: one["port"] for one in config["scrape_configs"][0]["dns_sd_configs"] for name in one["names"]}
    for name in SETTINGS:
        last = services[name]["healthcheck"]["test"][-1]
        assert str(asked.pop(name)) == (last if last.isdigit() else "8014"), name
        assert set(services[name]["networks"]) & set(services["prometheus"]["networks"])
    assert not asked
    assert "ENV WORKER_BIND=0.0.0.0:8014\n" in (CHECKOUT / "service_tasks/Dockerfile").read_text(encoding="utf-8")


def test_grafana_finds_prometheus_and_the_dashboards(services: dict[str, dict[str, Any]]) -> None:
    mounts = [volume.split(":")[:2] for volume in services["grafana"]["volumes"]]
    files = {inside: yaml.safe_load((CHECKOUT / here).read_text()) for here, inside in mounts if here.endswith(".yml")}
    (source,) = files["/etc/grafana/provisioning/datasources/siteworks.yml"]["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert set(services["grafana"]["networks"]) & set(services["prometheus"]["networks"])
    (provider,) = files["/etc/grafana/provisioning/dashboards/siteworks.yml"]["providers"]
    folder = dict((inside, here) for here, inside in mounts)[provider["options"]["path"]]
    assert len(list((CHECKOUT / folder).glob("*.json"))) == 2


@pytest.mark.parametrize(
    "chosen", [{}, {"SERVICE_PROCESSES": "4"}, {"SERVICE_PROCESSES": "8", "SERVICE_THREADS": "16"}]
)
def test_postgresql_logs_no_values_here_either_and_accepts_all_connections(
    services: dict[str, dict[str, Any]], chosen: dict[str, str], tmp_path: Path
) -> None:
    # The image's own script, which starts the server.
    script = tmp_path / "docker-entrypoint.sh"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    script.chmod(0o755)
    command = [
        _VARIABLE.sub(lambda match: chosen.get(match[1], match[2]), part).replace("$$", "$")
        for part in services["postgres"]["command"]
    ]
    done = subprocess.run(
        command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True, timeout=10
    )
    program, *options = done.stdout.splitlines()
    told = dict(option.removeprefix("--").split("=") for option in options)
    assert program == "postgres"
    assert LOG_SETTINGS.items() <= told.items()
    settings = {name.lower(): value for name, value in chosen.items()}
    of_services = {
        row.name: settings_of(row).model_validate(
            {row.variable("DATABASE_URL").lower(): "postgresql://a/a", **settings}
        )
        for row in table().values()
    }
    processes = {"worker": 16, "events": 1, "ingest": 1, "relay": 1}
    assert int(told["max_connections"]) >= connections_needed(processes, of_services)


def test_the_broker_lets_a_plain_client_declare_its_queue() -> None:
    lines = (CHECKOUT / "deploy/rabbitmq/rabbitmq.conf").read_text(encoding="utf-8").splitlines()
    assert "deprecated_features.permit.transient_nonexcl_queues = true" in lines


@pytest.mark.parametrize("row", table().values(), ids=list(table()))
def test_a_row_of_the_table_of_services_stands_wherever_it_has_to(
    services: dict[str, dict[str, Any]], row: Service
) -> None:
    # Its settings.
    fields = settings_of(row).model_fields
    assert {f"{row.name}_database_url", f"{row.name}_bind"} <= set(fields)
    assert fields[f"{row.name}_bind"].default == f"127.0.0.1:{row.port}"
    # Its container, and who has to know its address.
    assert services[row.package]["healthcheck"]["test"][-1] == str(row.port)
    assert f"ENV {row.variable('BIND')}=0.0.0.0:{row.port}\n" in (CHECKOUT / row.package / "Dockerfile").read_text()
    assert services["api_gateway"]["environment"][row.variable("URL")] == f"http://{row.package}:{row.port}"
    # Its database.
    script = (CHECKOUT / "deploy/postgres/databases.sql").read_text(encoding="utf-8")
    for role in (row.name, row.owner):
        assert f"\\getenv {role}_password {role.upper()}_DATABASE_PASSWORD\n" in script
        assert re.search(rf"^    '{role}', :'{role}_password',?$", script, re.M)
    assert f"\\connect {row.name} \\\\ :divide_rights\n" in script
    # A path that leads to it.
    assert row.name in {route.upstream for route in ROUTES}
    # Its types and its import arrows.
    tools = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert row.package in tools["mypy"]["packages"]
    assert row.package in tools["importlinter"]["root_packages"]
    assert row.package in tools["importlinter"]["contracts"][0]["layers"][0].split(" | ")


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (CHECKOUT / dockerfile).read_text(encoding="utf-8"))
    for line in text.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, " ".join(rest.split())


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
class TestEveryDockerfile:
    def test_copies_the_table_the_kit_and_its_own_package_and_nothing_else(self, dockerfile: str) -> None:
        copied = [rest for word, rest in instructions(dockerfile) if word in {"COPY", "ADD"}]
        package = dockerfile.partition("/")[0]
        own = ["services.toml ./", "servicekit servicekit", f"{package} {package}"]
        if package == "api_gateway":
            own.append("console console")
        # The migrations are those of every package; .dockerignore says what else there is.
        assert copied == (own if package != "deploy" else [". ."])

    def test_starts_from_the_slim_image_with_what_is_installed_in_all_of_them(self, dockerfile: str) -> None:
        assert [rest for word, rest in instructions(dockerfile) if word == "FROM"] == ["python:3.12-slim"]
        first = next(rest for word, rest in instructions(dockerfile) if word == "RUN")
        shared, own, command = re.fullmatch(
            r"--mount=source=(\S+),target=/image --mount=source=(\S+),target=/requirements.txt (.+)", first
        ).groups()
        assert (shared, command) == ("deploy/image", "sh /image/install")
        assert (CHECKOUT / own).is_file()

    def test_ends_as_a_user_without_rights(self, dockerfile: str) -> None:
        written = list(instructions(dockerfile))
        assert [rest for word, rest in written if word == "USER"] == ["10001:10001"]
        after = written[[word for word, _ in written].index("USER") :]
        assert not [rest for word, rest in after if word in {"RUN", "COPY", "ADD"}]

    def test_runs_its_command_without_a_shell_so_that_signals_arrive(self, dockerfile: str) -> None:
        commands = [rest for word, rest in instructions(dockerfile) if word == "CMD"]
        assert len(commands) == 1
        for part in json.loads(commands[0]):
            if part.endswith(".conf.py"):
                assert (CHECKOUT / part).is_file()

    def test_sets_no_variable_that_nobody_reads(self, dockerfile: str) -> None:
        known = {"PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
        for word, rest in instructions(dockerfile):
            if word == "ENV":
                for variable in (pair.partition("=")[0] for pair in rest.split()):
                    # The relay runs in each of them.
                    images = (dockerfile.partition("/")[0], IMAGE_OF["relay"])
                    readers = [name for name in SETTINGS if IMAGE_OF.get(name, name) in images]
                    assert variable in known or any(variable.lower() in SETTINGS[name].model_fields for name in readers)


def test_what_every_image_installs_are_wheels_by_their_hashes_and_no_installer_is_left() -> None:
    script = (CHECKOUT / "deploy/image/install").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [" ".join(line.split()) for line in script.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "set -eu"
    assert lines[1] == "python -m venv --without-pip /venv"
    assert "--require-hashes --only-binary=:all: -r /requirements.txt" in lines[2]
    assert lines[3].startswith("pip uninstall --yes")
    assert "--uid 10001 --gid 10001" in lines[5]


def test_the_build_sees_no_secret_and_no_data() -> None:
    rules = [
        line
        for line in (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert let_in == {
        "deploy/image", "requirements/*.txt", "services.toml", ".env.example", "servicekit", "api_gateway", "console",
        "service_*",
    }  # fmt: skip


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command, though no engine")
def test_compose_itself_accepts_the_file_without_any_variable_set(services: dict[str, dict[str, Any]]) -> None:
    version = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=60)
    if version.returncode != 0:
        pytest.skip("this docker has no compose")
    done = subprocess.run(
        ["docker", "compose", "--env-file", "/dev/null", "--profile", "*", "config", "--format", "json"],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=60, env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert set(json.loads(done.stdout)["services"]) == set(services)
