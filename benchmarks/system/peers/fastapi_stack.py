"""The FastAPI stack: uvicorn, FastAPI, the asynchronous SQLAlchemy ORM on asyncpg, httpx; pydantic in and out.

`uvicorn --factory fastapi_stack:users`, and so on for orders, tasks and the gateway.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

import httpx
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
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
from pydantic import BaseModel, ConfigDict, field_serializer
from sqlalchemy import Select, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

T = TypeVar("T")


class Envelope(BaseModel, Generic[T]):
    success: bool = True
    data: T


class Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class UserOut(Out):
    id: uuid.UUID
    email: str
    name: str
    roles: list[str]
    created_at: datetime
    updated_at: datetime


class ItemOut(Out):
    product: str
    quantity: int
    price: Decimal

    @field_serializer("price")
    def _two_decimals(self, price: Decimal) -> str:
        return f"{price:.2f}"


class OrderOut(Out):
    id: uuid.UUID
    user_id: uuid.UUID
    items: list[ItemOut]
    status: str
    total_amount: Decimal
    cancel_reason: str | None
    created_at: datetime
    updated_at: datetime


class ProgressOut(Out):
    percent: int
    message: str | None


class TaskOut(Out):
    id: uuid.UUID
    task_type: str
    title: str | None
    user_id: uuid.UUID | None
    status: str
    payload: Any
    priority: int
    attempts: int
    max_attempts: int
    timeout: float | None
    execute_at: datetime
    progress: ProgressOut
    result: Any
    error: str | None
    errors: list[Any]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration: float | None
    unique_key: str | None
    callback_url: str | None
    callback_task_id: uuid.UUID | None


class Page(BaseModel):
    total: int
    limit: int
    offset: int
    next: str | None


class UserPage(Page):
    users: list[UserOut]


class OrderPage(Page):
    orders: list[OrderOut]
    total_amount: Decimal


class TaskPage(Page):
    tasks: list[TaskOut]


Limit = Annotated[int, Query(ge=1, le=100)]
Offset = Annotated[int, Query(ge=0)]


def users() -> FastAPI:
    app, sessions = _service("USERS_DATABASE_URL")
    session_of_request = Annotated[AsyncSession, Depends(sessions)]

    @app.get("/users")
    async def list_users(
        session: session_of_request, limit: Limit = 50, offset: Offset = 0, q: str | None = None
    ) -> Envelope[UserPage]:
        found = select(User)
        if q:
            found = found.where(or_(User.name.icontains(q, autoescape=True), User.email.icontains(q, autoescape=True)))
        rows, page = await _page(session, found, User, limit, offset)
        return Envelope(data=UserPage(users=[UserOut.model_validate(row) for row in rows], **page))

    @app.post("/users", status_code=201)
    async def create_user(body: UserCreate, session: session_of_request) -> Envelope[UserOut]:
        user = body.made()
        session.add(user)
        await session.commit()
        return Envelope(data=UserOut.model_validate(user))

    @app.get("/users/{id}")
    async def get_user(id: uuid.UUID, session: session_of_request) -> Envelope[UserOut]:
        return Envelope(data=UserOut.model_validate(_required(await session.get(User, id))))

    @app.put("/users/{id}")
    async def update_user(id: uuid.UUID, body: UserUpdate, session: session_of_request) -> Envelope[UserOut]:
        user = _required(await session.get(User, id, with_for_update=True))
        body.apply(user)
        await session.commit()
        return Envelope(data=UserOut.model_validate(user))

    return app


def orders() -> FastAPI:
    app, sessions = _service("ORDERS_DATABASE_URL")
    session_of_request = Annotated[AsyncSession, Depends(sessions)]
    http = httpx.AsyncClient(base_url=os.environ["USERS_URL"], timeout=5, trust_env=False)

    @app.get("/orders")
    async def list_orders(
        session: session_of_request,
        limit: Limit = 50,
        offset: Offset = 0,
        user_id: uuid.UUID | None = None,
        status: str | None = None,
        product: str | None = None,
    ) -> Envelope[OrderPage]:
        found = select(Order)
        if user_id:
            found = found.where(Order.user_id == user_id)
        if status:
            found = found.where(Order.status == status)
        if product:
            found = found.where(Order.products_key.contains(product.casefold(), autoescape=True))
        rows, page = await _page(session, found, Order, limit, offset)
        total = await session.scalar(select(func.sum(found.subquery().c.total_amount)))
        shown = [OrderOut.model_validate(row) for row in rows]
        return Envelope(data=OrderPage(orders=shown, total_amount=total or Decimal("0.00"), **page))

    @app.post("/orders", status_code=201)
    async def create_order(body: OrderCreate, session: session_of_request) -> Envelope[OrderOut]:
        answer = await http.get(f"/users/{body.user_id}")
        if answer.status_code == 404:
            raise HTTPException(422, "unknown user")
        answer.raise_for_status()
        order = body.made()
        session.add(order)
        await session.commit()
        return Envelope(data=OrderOut.model_validate(order))

    @app.get("/orders/{id}")
    async def get_order(id: uuid.UUID, session: session_of_request) -> Envelope[OrderOut]:
        return Envelope(data=OrderOut.model_validate(_required(await session.get(Order, id))))

    @app.put("/orders/{id}")
    async def update_order(id: uuid.UUID, body: OrderUpdate, session: session_of_request) -> Envelope[OrderOut]:
        order = _required(await session.get(Order, id, with_for_update=True))
        body.apply(order)
        await session.commit()
        return Envelope(data=OrderOut.model_validate(order))

    return app


def tasks() -> FastAPI:
    app, sessions = _service("TASKS_DATABASE_URL")
    session_of_request = Annotated[AsyncSession, Depends(sessions)]

    @app.get("/tasks")
    async def list_tasks(
        session: session_of_request, limit: Limit = 50, offset: Offset = 0, status: str | None = None
    ) -> Envelope[TaskPage]:
        found = select(Task)
        if status:
            found = found.where(Task.state.in_(STATES.get(status, [status])))
        rows, page = await _page(session, found, Task, limit, offset)
        return Envelope(data=TaskPage(tasks=[TaskOut.model_validate(row) for row in rows], **page))

    @app.post("/tasks", status_code=201)
    async def create_task(body: TaskCreate, session: session_of_request) -> Envelope[TaskOut]:
        task = body.made()
        session.add(task)
        await session.commit()
        return Envelope(data=TaskOut.model_validate(task))

    @app.get("/tasks/{id}")
    async def get_task(id: uuid.UUID, session: session_of_request) -> Envelope[TaskOut]:
        return Envelope(data=TaskOut.model_validate(_required(await session.get(Task, id))))

    return app


def gateway() -> FastAPI:
    clients = {
        name: httpx.AsyncClient(base_url=os.environ[f"{name.upper()}_URL"], timeout=5, trust_env=False)
        for name in ("users", "orders", "tasks")
    }
    app = FastAPI()

    @app.exception_handler(httpx.HTTPError)
    async def is_away(request: Request, error: httpx.HTTPError) -> Response:
        return Response('{"success":false,"error":{"code":"unavailable"}}', 502, media_type="application/json")

    @app.get("/users/{id}/details")
    async def details(id: uuid.UUID) -> Any:
        user, found = await asyncio.gather(
            clients["users"].get(f"/users/{id}"), clients["orders"].get(f"/orders?user_id={id}&limit=50&offset=0")
        )
        if user.status_code == 404:
            raise HTTPException(404)
        page = found.json()["data"]
        data = {"user": user.json()["data"], "orders": page["orders"], "orders_total": page["total"], "partial": False}
        return {"success": True, "data": data}

    async def forward(name: str, request: Request) -> Response:
        passed = {"X-Request-ID": request.headers.get("X-Request-ID", uuid.uuid4().hex)}
        if "content-type" in request.headers:
            passed["Content-Type"] = request.headers["content-type"]
        answer = await clients[name].request(
            request.method,
            request.url.path,
            params=request.query_params,
            content=await request.body(),
            headers=passed,
        )
        return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])

    app.add_api_route("/{name}", forward, methods=["GET", "POST"])
    app.add_api_route("/{name}/{rest:path}", forward, methods=["GET", "PUT"])
    return app


def _service(url: str) -> tuple[FastAPI, Any]:
    engine = create_async_engine(os.environ[url], pool_size=8)
    maker = async_sessionmaker(engine, expire_on_commit=False)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.exception_handler(IntegrityError)
    async def conflict(request: Request, error: IntegrityError) -> Response:
        return Response('{"success":false,"error":{"code":"conflict"}}', 409, media_type="application/json")

    async def sessions() -> AsyncIterator[AsyncSession]:
        async with maker() as session:
            yield session

    return app, sessions


async def _page(
    session: AsyncSession, found: Select[Any], model: Any, limit: int, offset: int
) -> tuple[Any, dict[str, Any]]:
    order = (model.id.desc(),) if model is Task else (model.created_at.desc(), model.id.desc())
    rows = (await session.scalars(found.order_by(*order).limit(limit + 1).offset(offset))).all()
    more = rows[limit - 1] if len(rows) > limit else None
    total = await session.scalar(select(func.count()).select_from(found.subquery()))
    next = None if more is None else str(more.id) if model is Task else place(more)
    return rows[:limit], {"total": total, "limit": limit, "offset": offset, "next": next}


def _required(row: Any) -> Any:
    if row is None:
        raise HTTPException(404)
    return row
