"""Fill a running system with believable data over HTTP.

A second run finds what the first has made, users by their address and the others by their `Idempotency-Key`, and adds
what is missing: after an interruption, or once the services have forgotten the keys.
"""

from __future__ import annotations

import argparse
import getpass
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout
from scripts.instance.listening import Listening
from scripts.instance.lock import running_port
from scripts.instance.ports import GATEWAY_PORT
from scripts.seeding_logins import Logins

T = TypeVar("T")

USERS, ORDERS, TASKS = 30, 200, 300
_AT_ONCE = 4
_TIMEOUT = 10
_LOGIN = "/auth/login"
#: What a key or a change answers that an earlier run has used or made; 404 if the record is gone since.
_MADE_BEFORE = (404, 409)

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
        import requests  # here, because the help does without any package

        self._unreachable = requests.RequestException
        self._url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=_AT_ONCE))
        self._login: dict[str, str] | None = None
        self._token, self._renew_at = "", 0.0
        self._lock = threading.Lock()

    @property
    def asks_for_login(self) -> bool:
        """Whether it takes nothing from somebody who has not logged in."""
        refused, _ = self.call("GET", "/users?limit=1", also=[401])
        return refused

    def log_in(self, email: str, password: str) -> None:
        """Be this person from now on."""
        self._login = {"email": email, "password": password}

    def _authorization(self) -> dict[str, str]:
        with self._lock:
            if self._login is not None and time.monotonic() > self._renew_at:
                _, tokens = self.call("POST", _LOGIN, self._login)
                if "access_token" not in tokens:
                    raise SeedingError("they log in with a second factor; name an administrator without one")
                self._token = tokens["access_token"]
                self._renew_at = time.monotonic() + tokens["expires_in"] / 2
            return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def call(
        self, method: str, path: str, body: Any = None, *, also: Sequence[int] = (), key: str | None = None
    ) -> tuple[bool, Any]:
        """Return whether an earlier run made it, and the data; `also` lists error statuses that say so too."""
        headers = {} if key is None else {"Idempotency-Key": key}
        headers |= {} if path == _LOGIN else self._authorization()
        try:
            answer = self._session.request(method, self._url + path, json=body, headers=headers, timeout=_TIMEOUT)
            envelope = answer.json()
        except self._unreachable as exc:
            raise SeedingError(f"no usable answer from {self._url}: is the system running? (./scripts/run)") from exc
        if answer.status_code in also:
            return True, None
        if not answer.ok:
            raise SeedingError(f"{method} {path} answered {answer.status_code}: {envelope['error']['message']}")
        return "Idempotency-Replayed" in answer.headers, envelope["data"]

    def user(self, email: str, name: str, roles: Sequence[str]) -> tuple[bool, str]:
        """Whether an earlier run made this user, and the id."""
        before, user = self.call("POST", "/users", {"email": email, "name": name, "roles": roles}, also=[409])
        if before:
            _, page = self.call("GET", f"/users?email={email}")
            (user,) = page["users"]
        return before, str(user["id"])


def create_users(gateway: GatewayClient) -> list[str]:
    """Create the users, or find existing ones; return their ids."""

    def one(person: tuple[str, str, list[str]]) -> tuple[bool, str]:
        name, mailbox, roles = person
        return gateway.user(f"{mailbox}@example.com", name, roles)

    return _all(one, PEOPLE[:USERS], "users")


def create_orders(gateway: GatewayClient, user_ids: Sequence[str], seed: int) -> None:
    """Create orders in every status."""
    chance = random.Random(seed)

    def plans() -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        for number in range(ORDERS):
            items = []
            for product, least, most, cheap, dear in chance.sample(PRODUCTS, chance.randint(1, 4)):
                price = chance.randint(cheap, dear) / 100
                items.append({"product": product, "quantity": chance.randint(least, most), "price": price})
            steps = chance.choice([[], [], ["in_progress"], ["in_progress", "completed"], ["cancelled"]])
            yield f"seed-{seed}-{number}", {"user_id": chance.choice(user_ids), "items": items}, steps

    def one(plan: tuple[str, dict[str, Any], list[str]]) -> tuple[bool, None]:
        key, body, steps = plan
        before, order = gateway.call("POST", "/orders", body, key=key, also=_MADE_BEFORE)
        for status in steps if order else ():
            gateway.call("PUT", f"/orders/{order['id']}", {"status": status}, also=_MADE_BEFORE)
        return before, None

    _all(one, list(plans()), "orders")


def create_tasks(gateway: GatewayClient, user_ids: Sequence[str], seed: int) -> None:
    """Create tasks: most run at once, some later, a few fail first or for good, a few are cancelled."""
    chance = random.Random(seed)
    now = datetime.now(UTC)

    def plans() -> Iterator[tuple[str, dict[str, Any], bool]]:
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
            yield f"seed-{seed}-{number}", body, kind == 9 and number % 20 == 9

    def one(plan: tuple[str, dict[str, Any], bool]) -> tuple[bool, None]:
        key, body, cancel = plan
        before, task = gateway.call("POST", "/tasks", body, key=key, also=_MADE_BEFORE)
        if cancel and task:
            gateway.call("DELETE", f"/tasks/{task['id']}", also=_MADE_BEFORE)
        return before, None

    _all(one, list(plans()), "tasks")


def create_sites(layout: Layout, user_ids: Sequence[str], seed: int) -> None:
    """Make two sites and six months of work on them."""
    from uuid import UUID

    from scripts.instance.credentials import Credentials
    from scripts.instance.databases import database_server
    from scripts.instance.programs import database_urls
    from scripts.seeding_sites import fill
    from service_sites.users_client import Person

    people = [Person(UUID(one), name) for one, (name, _, _) in zip(user_ids, PEOPLE, strict=False)]
    with database_server(layout, "./scripts/seed") as server:
        url = database_urls(server, Credentials(layout.secrets))["sites"]
        made, there = fill(url, people, seed)
    print(f"work items {made}/{made}{f', {there} of them already there' if there else ''}", flush=True)


def _all(one: Callable[[Any], tuple[bool, T]], plans: Sequence[Any], what: str) -> list[T]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        done, there = [], 0
        for before, result in pool.map(one, plans):
            done.append(result)
            there += before
            if sys.stdout.isatty():
                print(f"\r{what} {len(done)}/{len(plans)}", end="", flush=True)
    told = f", {there} of them already there" if there else ""
    print(f"{chr(13) if sys.stdout.isatty() else ''}{what} {len(done)}/{len(plans)}{told}", flush=True)
    return done


def _asked_password() -> str:
    """From the terminal; without one, a line of the input."""
    return getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the system; 0 when done, 1 with one clear line otherwise."""
    parser = argparse.ArgumentParser(
        prog="./scripts/seed",
        description=f"Fill a running system with {USERS} users, {ORDERS} orders and {TASKS} tasks, and an instance on "
        "this machine with two sites and six months of work on them too. Where people log in, somebody of each role "
        "can, also on a site, with a password that it shows on a terminal or writes to secrets/seeded in the data "
        "folder.",
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--url",
        help="the gateway, wherever it runs (that of the instance on this machine, or else "
        f"http://localhost:{GATEWAY_PORT})",
    )
    target.add_argument("--data", metavar="DIR", help="the instance's data folder (.data in the checkout)")
    parser.add_argument(
        "--login", metavar="EMAIL", help="an administrator, where people log in elsewhere; their password is asked for"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="the same number again adds nothing, another adds other data (%(default)s)"
    )
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        layout = Layout.of(options.data)
        port = None if options.url else running_port(layout)
        if port is None and options.data is not None:
            raise SeedingError(
                f"the instance in {layout.data} does not run; start it with ./scripts/run{layout.option}"
            )
        url = options.url or Listening.of(layout).url(port or GATEWAY_PORT)
        gateway = GatewayClient(url)
        logins: Logins | None = None
        if gateway.asks_for_login:
            if options.login:
                gateway.log_in(options.login, _asked_password())
            elif port is None:
                raise SeedingError("people log in there; name an administrator: --login EMAIL")
            else:
                logins = Logins(gateway, layout)
        user_ids = create_users(gateway)
        if logins is not None:
            logins.give_to_people_of_a_site(user_ids)
            logins.show()
            user_ids += logins.owners
        create_orders(gateway, user_ids, options.seed)
        create_tasks(gateway, user_ids, options.seed)
        if port is None:
            print("no sites: only an instance of ./scripts/run gets them")
        else:
            create_sites(layout, user_ids, options.seed)
    except (SeedingError, InstanceError) as exc:
        print(f"seed: {exc}", file=sys.stderr)
        return 1
    print(f"done in {time.monotonic() - began:.1f} s; look at {url}/console")
    return 0


if __name__ == "__main__":
    sys.exit(main())
