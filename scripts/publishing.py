"""A producer: declare the queue plainly, publish one task, close."""

import os
import sys

import pika

URL = os.environ.get("RABBITMQ_URL") or "amqp://guest:guest@127.0.0.1:8011/%2F"
with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    channel.queue_declare(queue="task_queue")
    channel.basic_publish(exchange="", routing_key="task_queue", body=" ".join(sys.argv[1:]) or '{"status": "New"}')
