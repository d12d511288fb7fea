"""Fill a running system with believable data over HTTP.

Existing users, known by their address, are reused: a second run adds only orders and tasks.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

USERS, ORDERS, TASKS = 30, 200, 300
_AT_ONCE = 4
_TIMEOUT = 10

# (name, the part of the address before the @, roles)
PEOPLE: Sequence[tuple[str, str, list[str]]] = [
    ("Белов Ярослав", "yaroslav.belov", ["user", "manager"]),
    ("Кузнецова Мария", "maria.kuznetsova", ["user", "engineer"]),
    ("Шевченко Олена", "olena.shevchenko", ["user", "engineer"]),
    ("Іваненко Тарас", "taras.ivanenko", ["user"]),
    ("Ngô Thị Thanh Hằng", "hang.ngo", ["user", "engineer"]),
    ("渡辺 直美", "naomi.watanabe", ["user", "manager"]),
    ("佐藤 健", "takeru.sato", ["user"]),
    ("王小明", "xiaoming.wang", ["user", "engineer"]),
    ("李娜", "na.li", ["user"]),
    ("김민준", "minjun.kim", ["user", "engineer"]),
    ("이서연", "seoyeon.lee", ["user"]),
    ("محمد الأحمد", "mohammed.alahmad", ["user", "manager"]),
    ("فاطمة الزهراء", "fatima.alzahra", ["user", "engineer"]),
    ("נועה כהן", "noa.cohen", ["user"]),
    ("प्रिया शर्मा", "priya.sharma", ["user", "engineer"]),
    ("अर्जुन पटेल", "arjun.patel", ["user"]),
    ("สมชาย ใจดี", "somchai.jaidee", ["user"]),
    ("Γιώργος Παπαδόπουλος", "giorgos.papadopoulos", ["user", "engineer"]),
    ("გიორგი ბერიძე", "giorgi.beridze", ["user"]),
    ("Անի Պետրոսյան", "ani.petrosyan", ["user"]),
    ("Zoë O'Hara-Müller", "zoe.ohara", ["user", "executive"]),
    ("Łukasz Żółkiewski", "lukasz.zolkiewski", ["user", "engineer"]),
    ("Þórdís Jónsdóttir", "thordis.jonsdottir", ["user"]),
    ("Ayşe Yıldırım", "ayse.yildirim", ["user", "engineer"]),
    ("Nguyễn Văn An", "an.nguyen", ["user"]),
    ("José María Núñez", "jose.nunez", ["user", "customer"]),
    ("Aoife Ní Bhriain", "aoife.nibhriain", ["user"]),
    ("Chukwuemeka Okafor", "emeka.okafor", ["user", "engineer"]),
    ("Wanjikũ Kamau", "wanjiku.kamau", ["user", "customer"]),
    ("ᐊᓐᓂ ᐱᑕ", "annie.pita", ["user"]),
]

# (product, lowest and highest quantity, lowest and highest price in cents)
PRODUCTS: Sequence[tuple[str, int, int, int, int]] = [
    ("Бетон М300, м³", 2, 40, 480_000, 620_000),
    ("Арматура A500C Ø12, т", 1, 12, 5_400_000, 6_900_000),
    ("Чокопай", 5, 60, 5_200, 5_200),
    ("Brick, facing, pallet", 1, 30, 21_500, 38_900),
    ("Gipskartonplatte 12,5 mm", 10, 400, 690, 1_150),
    ("足場 レンタル (日)", 5, 120, 98_000, 240_000),
    ("Rebar tie wire, 25 kg", 1, 25, 3_995, 5_250),
    ("Mineral wool, 100 mm, m²", 20, 900, 745, 1_390),
    ("電線 VVF 2.0 mm (100 m)", 1, 40, 7_480, 9_900),
    ("Window, triple glazed", 1, 48, 32_900, 89_900),
    ("Crane hire, hour", 1, 60, 14_500, 22_000),
    ("Safety helmet", 5, 80, 1_249, 2_999),
]

SITES = ("Tower A", "Мост, опора 3", "Depot Süd", "駅前ビル", "Harbour hall", "Школа № 12")
JOBS = (
    "Import the bill of quantities",
    "Render progress photos",
    "Сводный отчёт за неделю",
    "Check deliveries",
    "朝礼の記録",
)


class SeedingError(Exception):
    """The system could not be filled; the text says why."""


class GatewayClient:
    """Calls the gateway; an unexpected answer raises SeedingError."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=_AT_ONCE))

    def call(self, method: str, path: str, body: Any = None, *, also: Sequence[int] = ()) -> tuple[int, Any]:
        """Return the status and the data; `also` lists error statuses that are accepted."""
        try:
            answer = self._session.request(method, self._url + path, json=body, timeout=_TIMEOUT)
            envelope = answer.json()
        except requests.RequestException as exc:
            raise SeedingError(f"no usable answer from {self._url}: is the system running? (./scripts/run)") from exc
        if answer.status_code in also:
            return answer.status_code, None
        if not answer.ok:
            raise SeedingError(f"{method} {path} answered {answer.status_code}: {envelope['error']['message']}")
        return answer.status_code, envelope["data"]


def create_users(gateway: GatewayClient) -> list[str]:
    """Create the users, or find existing ones; return their ids."""

    def one(person: tuple[str, str, list[str]]) -> str:
        name, mailbox, roles = person
        email = f"{mailbox}@example.com"
        status, user = gateway.call("POST", "/users", {"email": email, "name": name, "roles": roles}, also=[409])
        if status == 409:
            _, page = gateway.call("GET", f"/users?email={email}")
            (user,) = page["users"]
        return str(user["id"])

    return _all(one, PEOPLE[:USERS], "users")


def create_orders(gateway: GatewayClient, user_ids: Sequence[str], chance: random.Random) -> None:
    """Create orders in every status."""

    def plans() -> Iterator[tuple[dict[str, Any], list[str]]]:
        for _ in range(ORDERS):
            items = []
            for product, least, most, cheap, dear in chance.sample(PRODUCTS, chance.randint(1, 4)):
                price = chance.randint(cheap, dear) / 100
                items.append({"product": product, "quantity": chance.randint(least, most), "price": price})
            steps = chance.choice([[], [], ["in_progress"], ["in_progress", "completed"], ["cancelled"]])
            yield {"user_id": chance.choice(user_ids), "items": items}, steps

    def one(plan: tuple[dict[str, Any], list[str]]) -> str:
        body, steps = plan
        _, order = gateway.call("POST", "/orders", body)
        for status in steps:
            gateway.call("PUT", f"/orders/{order['id']}", {"status": status})
        return str(order["id"])

    _all(one, list(plans()), "orders")


def create_tasks(gateway: GatewayClient, user_ids: Sequence[str], chance: random.Random) -> None:
    """Create tasks: most run at once, some later, a few fail first or for good, a few are cancelled."""
    now = datetime.now(UTC)

    def plans() -> Iterator[tuple[dict[str, Any], bool]]:
        for number in range(TASKS):
            body: dict[str, Any] = {
                "title": f"{chance.choice(JOBS)}: {chance.choice(SITES)}",
                "user_id": chance.choice(user_ids),
                "priority": chance.choice([20, 50, 50, 50, 80]),
            }
            kind = number % 10
            if kind < 5:
                body |= {"task_type": "io", "payload": {"seconds": chance.randint(0, 8)}}
            elif kind < 7:
                body |= {"task_type": "noop", "payload": {"site": chance.choice(SITES)}}
            elif kind == 7:
                body |= {"task_type": "io", "payload": {"seconds": 1, "failures": chance.randint(1, 4)}}
            else:
                later = now + timedelta(minutes=chance.randint(5, 7 * 24 * 60))
                body |= {"task_type": "io", "payload": {"seconds": 30}, "execute_at": later.isoformat()}
            yield body, kind == 9 and number % 20 == 9

    def one(plan: tuple[dict[str, Any], bool]) -> str:
        body, cancel = plan
        _, task = gateway.call("POST", "/tasks", body)
        if cancel:
            gateway.call("DELETE", f"/tasks/{task['id']}")
        return str(task["id"])

    _all(one, list(plans()), "tasks")


def _all(one: Callable[[Any], str], plans: Sequence[Any], what: str) -> list[str]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        done = []
        for result in pool.map(one, plans):
            done.append(result)
            if sys.stdout.isatty():
                print(f"\r{what} {len(done)}/{len(plans)}", end="", flush=True)
    print(f"{chr(13) if sys.stdout.isatty() else ''}{what} {len(done)}/{len(plans)}", flush=True)
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the system; 0 when done, 1 with one clear line otherwise."""
    parser = argparse.ArgumentParser(
        prog="./scripts/seed",
        description=f"Fill a running system with {USERS} users, {ORDERS} orders and {TASKS} tasks.",
    )
    parser.add_argument("--url", default="http://localhost:8000", help="the gateway (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another number gives other data (default: %(default)s)")
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)
    began = time.monotonic()
    gateway = GatewayClient(options.url)
    try:
        user_ids = create_users(gateway)
        create_orders(gateway, user_ids, chance)
        create_tasks(gateway, user_ids, chance)
    except SeedingError as exc:
        print(f"seed: {exc}", file=sys.stderr)
        return 1
    print(f"done in {time.monotonic() - began:.1f} s; look at {options.url}/users, /orders and /tasks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
