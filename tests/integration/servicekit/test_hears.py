"""The table of services says which events each service acts on, and it is so."""

from __future__ import annotations

from uuid import uuid4

from scripts.reference.code import named
from service_orders.app import create_app as create_orders
from service_orders.settings import OrdersSettings
from service_sites.app import create_app as create_sites
from service_sites.settings import SitesSettings
from service_tasks.app import create_app as create_tasks
from service_tasks.settings import TasksSettings
from service_users.app import create_app as create_users
from service_users.settings import UsersSettings
from servicekit.events.cloudevents import SubjectId
from servicekit.process.services import services
from tests.support.events import TOKEN, send, user_deleted

MODELS = {type: model for catalogue in named("CATALOGUE") for type, model in catalogue.items()}


def test_each_service_acts_on_what_it_hears_and_on_nothing_else(
    users_database, orders_database, tasks_database, sites_database
):
    users = UsersSettings(users_database_url=users_database.url, internal_token=TOKEN)
    orders = OrdersSettings(orders_database_url=orders_database.url, internal_token=TOKEN)
    tasks = TasksSettings(tasks_database_url=tasks_database.url, internal_token=TOKEN)
    sites = SitesSettings(sites_database_url=sites_database.url, internal_token=TOKEN)
    apps = {
        "users": create_users(users),
        "orders": create_orders(orders),
        "tasks": create_tasks(tasks),
        "sites": create_sites(sites),
    }

    for name, app in apps.items():
        client = app.test_client()
        answers = {}
        for type in MODELS:
            user_id = uuid4()
            data = {"name": "Ada", "roles": ["user"], "user_id": str(user_id), "present": True}
            event = user_deleted(user_id, type=type, data={"id": str(user_id), **data})
            answers[type] = send(client, event).json["data"]
        assert tuple(type for type in MODELS if answers[type]["processed"]) == services()[name].hears, name


def test_whoever_acts_on_an_event_finds_the_id_of_its_subject_in_what_the_sender_writes():
    for type, model in MODELS.items():
        assert set(SubjectId.model_fields) <= set(model.model_fields), type
