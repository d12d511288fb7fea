"""The queues that tasks come from, and where copies of bad messages go.

`task_queue` is declared exactly as a plain client declares it, because any difference makes the declaration of whoever
comes second fail. What it should have besides, a limit above all, is a matter of policy: deploy/rabbitmq/set-policy.
Producers who want guarantees use `tasks.ingest`.
"""

from __future__ import annotations

from servicekit.events.broker import Link, Queue

PLAIN = Queue("task_queue")
DEAD_EXCHANGE = "tasks.dlx"
#: Copies for people and programs to look at; the table of rejected messages is the truth, so the oldest copy may be
#: dropped.
DEAD = Queue("tasks.dead", durable=True, arguments={"x-max-length": 100_000, "x-overflow": "drop-head"})
SURE = Queue(
    "tasks.ingest",
    durable=True,
    arguments={
        "x-queue-type": "quorum",
        # Before RabbitMQ 4.0 there is no limit unless one is named.
        "x-delivery-limit": 50,
        "x-dead-letter-exchange": DEAD_EXCHANGE,
        "x-dead-letter-strategy": "at-least-once",
        # At-least-once dead-lettering requires it; the producer gets a negative confirmation.
        "x-overflow": "reject-publish",
        "x-max-length": 1_000_000,
    },
)


def declare(link: Link, *, plain: bool = True) -> tuple[str, ...]:
    """Declare everything, on every new link: a plain queue is gone once its broker was restarted.

    Returns the names of the queues to consume; `plain=False` takes `task_queue` only if it exists. Raises BrokerAway,
    and QueueRefused with the queue's name in front.
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
