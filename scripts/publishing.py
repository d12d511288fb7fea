"""A producer: declare the queue plainly, publish one task, close."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pika
from dotenv import dotenv_values
from pika.exceptions import AMQPError

if len(sys.argv) == 1:
    print('usage: ./scripts/publish TASK, such as ./scripts/publish \'{"status": "New"}\'', file=sys.stderr)
    sys.exit(2)
ENV_FILE = Path(__file__).parents[1] / ".env"
URL = os.environ.get("RABBITMQ_URL") or dotenv_values(ENV_FILE).get("RABBITMQ_URL")
URL = URL or "amqp://guest:guest@127.0.0.1:8011/%2F"
try:
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.queue_declare(queue="task_queue")
        channel.basic_publish(exchange="", routing_key="task_queue", body=" ".join(sys.argv[1:]))
except (AMQPError, OSError, ValueError, IndexError) as exc:
    place = urlsplit(URL).netloc.rpartition("@")[2] or "the address in RABBITMQ_URL"
    sys.exit(
        f"publish: no RabbitMQ can be used at {place} ({type(exc).__name__}); start one with "
        "./scripts/run --rabbitmq, or name one: RABBITMQ_URL=amqp://USER:PASSWORD@HOST:PORT/VHOST "
        "(amqp://guest:guest@127.0.0.1:PORT/%2F is that of an instance; ./scripts/run status shows its port)"
    )
print("published 1 message; its task appears in /tasks, or in /tasks/rejected")
