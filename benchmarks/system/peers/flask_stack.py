"""The usual Flask stack: gunicorn gthread, Flask, the SQLAlchemy ORM, requests and pybreaker.

`gunicorn "flask_stack:users()"`, and so on for orders, tasks and the gateway.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pybreaker
import requests
from flask import Flask, Response, abort, jsonify, request
from models import (
    STATES,
    Order,
    OrderCreate,
    OrderUpdate,
    Task,
    TaskCreate,
    User,
    UserCreate,
    UserUpdate,
    place,
)
from pydantic import ValidationError
from sqlalchemy import Select, create_engine, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker
from werkzeug.exceptions import HTTPException

#: As many connections as gunicorn has threads.
_THREADS = 8


def users() -> Flask:
    app, sessions = _service("USERS_DATABASE_URL")

    @app.get("/users")
    def list_users() -> Response:
        found = select(User)
        if q := request.args.get("q"):
            found = found.where(or_(User.name.icontains(q, autoescape=True), User.email.icontains(q, autoescape=True)))
        with sessions() as session:
            return _page(session, found, User, "users", _user)

    @app.post("/users")
    def create_user() -> tuple[Response, int]:
        user = UserCreate.model_validate(request.get_json()).made()
        with sessions() as session:
            session.add(user)
            session.commit()
            return _answer(_user(user)), 201

    @app.get("/users/<uuid:id>")
    def get_user(id: uuid.UUID) -> Response:
        with sessions() as session:
            return _answer(_user(session.get(User, id) or abort(404)))

    @app.put("/users/<uuid:id>")
    def update_user(id: uuid.UUID) -> Response:
        change = UserUpdate.model_validate(request.get_json())
        with sessions() as session:
            user = session.get(User, id, with_for_update=True) or abort(404)
            change.apply(user)
            session.commit()
            return _answer(_user(user))

    return app


def orders() -> Flask:
    app, sessions = _service("ORDERS_DATABASE_URL")
    http, breaker, users_url = _http(), pybreaker.CircuitBreaker(fail_max=5, reset_timeout=30), os.environ["USERS_URL"]

    def ask_for_user(id: uuid.UUID) -> bool:
        answer = http.get(f"{users_url}/users/{id}", timeout=5)
        if answer.status_code >= 500:
            answer.raise_for_status()
        return bool(answer.status_code == 200)

    @app.get("/orders")
    def list_orders() -> Response:
        found = select(Order)
        if user_id := request.args.get("user_id", type=uuid.UUID):
            found = found.where(Order.user_id == user_id)
        if status := request.args.get("status"):
            found = found.where(Order.status == status)
        if product := request.args.get("product"):
            found = found.where(Order.products_key.contains(product.casefold(), autoescape=True))
        with sessions() as session:
            return _page(session, found, Order, "orders", _order, sums=True)

    @app.post("/orders")
    def create_order() -> tuple[Response, int]:
        wanted = OrderCreate.model_validate(request.get_json())
        if not breaker.call(ask_for_user, wanted.user_id):
            abort(422)
        order = wanted.made()
        with sessions() as session:
            session.add(order)
            session.commit()
            return _answer(_order(order)), 201

    @app.get("/orders/<uuid:id>")
    def get_order(id: uuid.UUID) -> Response:
        with sessions() as session:
            return _answer(_order(session.get(Order, id) or abort(404)))

    @app.put("/orders/<uuid:id>")
    def update_order(id: uuid.UUID) -> Response:
        change = OrderUpdate.model_validate(request.get_json())
        with sessions() as session:
            order = session.get(Order, id, with_for_update=True) or abort(404)
            change.apply(order)
            session.commit()
            return _answer(_order(order))

    return app


def tasks() -> Flask:
    app, sessions = _service("TASKS_DATABASE_URL")

    @app.get("/tasks")
    def list_tasks() -> Response:
        found = select(Task)
        if status := request.args.get("status"):
            found = found.where(Task.state.in_(STATES.get(status, [status])))
        with sessions() as session:
            return _page(session, found, Task, "tasks", _task)

    @app.post("/tasks")
    def create_task() -> tuple[Response, int]:
        task = TaskCreate.model_validate(request.get_json()).made()
        with sessions() as session:
            session.add(task)
            session.commit()
            return _answer(_task(task)), 201

    @app.get("/tasks/<uuid:id>")
    def get_task(id: uuid.UUID) -> Response:
        with sessions() as session:
            return _answer(_task(session.get(Task, id) or abort(404)))

    return app


def gateway() -> Flask:
    app, http = _app(), _http()
    urls = {name: os.environ[f"{name.upper()}_URL"] for name in ("users", "orders", "tasks")}
    breakers = {name: pybreaker.CircuitBreaker(fail_max=5, reset_timeout=30, name=name) for name in urls}
    pool = ThreadPoolExecutor(64)

    def ask(name: str, method: str, target: str, **more: Any) -> requests.Response:
        answer = http.request(method, urls[name] + target, timeout=5, **more)
        if answer.status_code >= 500:
            answer.raise_for_status()
        return answer

    @app.route("/<any(users, orders, tasks):name>", methods=["GET", "POST"])
    @app.route("/<any(users, orders, tasks):name>/<uuid:id>", methods=["GET", "PUT"])
    def forward(name: str, id: uuid.UUID | None = None) -> Response:
        passed = {"X-Request-ID": request.headers.get("X-Request-ID", uuid.uuid4().hex)}
        if request.content_type:
            passed["Content-Type"] = request.content_type
        target = request.full_path.rstrip("?")
        answer = breakers[name].call(ask, name, request.method, target, data=request.get_data(), headers=passed)
        return Response(answer.content, answer.status_code, content_type=answer.headers["Content-Type"])

    @app.get("/users/<uuid:id>/details")
    def details(id: uuid.UUID) -> Response:
        later = pool.submit(breakers["orders"].call, ask, "orders", "GET", f"/orders?user_id={id}&limit=50&offset=0")
        user = breakers["users"].call(ask, "users", "GET", f"/users/{id}")
        if user.status_code == 404:
            abort(404)
        found = later.result().json()["data"]
        return _answer(
            {
                "user": user.json()["data"],
                "orders": found["orders"],
                "orders_total": found["total"],
                "partial": False,
            }
        )

    @app.errorhandler(pybreaker.CircuitBreakerError)
    def is_open(error: Exception) -> tuple[Response, int]:
        return _failure("circuit_open"), 503

    @app.errorhandler(requests.RequestException)
    def is_away(error: Exception) -> tuple[Response, int]:
        return _failure("unavailable"), 502

    return app


def _app() -> Flask:
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> tuple[Response, int]:
        return _failure(error.name.lower().replace(" ", "_")), error.code or 500

    return app


def _service(url: str) -> tuple[Flask, sessionmaker[Session]]:
    engine = create_engine(os.environ[url], pool_size=_THREADS)
    app = _app()

    @app.errorhandler(ValidationError)
    def invalid(error: ValidationError) -> tuple[Response, int]:
        return jsonify(success=False, error={"code": "invalid", "details": error.errors(include_url=False)}), 422

    @app.errorhandler(IntegrityError)
    def conflict(error: IntegrityError) -> tuple[Response, int]:
        return _failure("conflict"), 409

    # The answer is made from the object after its commit.
    return app, sessionmaker(engine, expire_on_commit=False)


def _http() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=100))
    return session


def _page(
    session: Session,
    found: Select[Any],
    model: Any,
    name: str,
    shown: Callable[[Any], dict[str, Any]],
    *,
    sums: bool = False,
) -> Response:
    limit, offset = request.args.get("limit", 50, type=int), request.args.get("offset", 0, type=int)
    order = (model.id.desc(),) if model is Task else (model.created_at.desc(), model.id.desc())
    rows = session.scalars(found.order_by(*order).limit(limit + 1).offset(offset)).all()
    more = rows[limit - 1] if len(rows) > limit else None
    data: dict[str, Any] = {name: [shown(row) for row in rows[:limit]]}
    data["total"] = session.scalar(select(func.count()).select_from(found.subquery()))
    if sums:
        total = session.scalar(select(func.sum(found.subquery().c.total_amount)))
        data["total_amount"] = str(total or "0.00")
    next = None if more is None else str(more.id) if model is Task else place(more)
    return _answer({**data, "limit": limit, "offset": offset, "next": next})


def _answer(data: Any) -> Response:
    return jsonify(success=True, data=data)


def _failure(code: str) -> Response:
    return jsonify(success=False, error={"code": code, "message": code})


def _time(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _user(user: User) -> dict[str, Any]:
    return {
        "id": str(user.id),
        "email": user.email,
        "name": user.name,
        "roles": user.roles,
        "created_at": _time(user.created_at),
        "updated_at": _time(user.updated_at),
    }


def _order(order: Order) -> dict[str, Any]:
    return {
        "id": str(order.id),
        "user_id": str(order.user_id),
        "items": [{**item, "price": f"{item['price']:.2f}"} for item in order.items],
        "status": order.status,
        "total_amount": str(order.total_amount),
        "cancel_reason": order.cancel_reason,
        "created_at": _time(order.created_at),
        "updated_at": _time(order.updated_at),
    }


def _task(task: Task) -> dict[str, Any]:
    return {
        "id": str(task.id),
        "task_type": task.task_type,
        "title": task.title,
        "user_id": None if task.user_id is None else str(task.user_id),
        "status": task.status,
        "payload": task.payload,
        "priority": task.priority,
        "attempts": task.attempts,
        "max_attempts": task.max_attempts,
        "timeout": task.timeout,
        "execute_at": _time(task.execute_at),
        "progress": task.progress,
        "result": task.result,
        "error": task.error,
        "errors": task.errors,
        "created_at": _time(task.created_at),
        "updated_at": _time(task.updated_at),
        "started_at": _time(task.started_at),
        "completed_at": _time(task.completed_at),
        "duration": task.duration,
        "unique_key": task.unique_key,
        "callback_url": task.callback_url,
        "callback_task_id": task.callback_task_id and str(task.callback_task_id),
    }
