"""The queues that tasks come from, and the one for copies of bad messages.

`task_queue` is declared exactly as a plain client declares it, because with any difference the second declaration would
fail. Everything else, above all a limit, is set by policy: deploy/rabbitmq/set-policy. Producers that need guarantees
use `tasks.ingest`.
"""

from __future__ import annotations

from servicekit.events.broker import BrokerLink, Queue

PLAIN = Queue("task_queue")
DEAD_EXCHANGE = "tasks.dlx"
#: Copies for people and programs to look at. The table of rejected messages has them all, so the oldest copies may be
#: dropped.
DEAD = Queue("tasks.dead", durable=True, arguments={"x-max-length": 100_000, "x-overflow": "drop-head"})
SURE = Queue(
    "tasks.ingest",
    durable=True,
    arguments={
        "x-queue-type": "quorum",
        # Before RabbitMQ 4.0 there is no default limit.
        "x-delivery-limit": 50,
        "x-dead-letter-exchange": DEAD_EXCHANGE,
        "x-dead-letter-strategy": "at-least-once",
        # At-least-once dead-lettering requires it; producers get a nack.
        "x-overflow": "reject-publish",
        "x-max-length": 1_000_000,
    },
)


def declare(link: BrokerLink, *, plain: bool = True) -> tuple[str, ...]:
    """Declare everything, on every new link: a plain queue does not survive a restart of the broker.

    Returns the names of the queues to consume; `plain=False` takes `task_queue` only if it exists. Raises BrokerAway,
    and QueueRefused with the queue's name first.
    """
    link.ensure_exchange(DEAD_EXCHANGE, "fanout")
    link.ensure(DEAD)
    link.bind(DEAD.name, DEAD_EXCHANGE)
    link.ensure(SURE)
    if not plain and not link.exists(PLAIN.name):
        return (SURE.name,)
    # Last: where a plain queue is not permitted (RabbitMQ 4.3), asking for it costs the connection.
    link.ensure(PLAIN)
    return (PLAIN.name, SURE.name)
