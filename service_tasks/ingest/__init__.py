"""Tasks from RabbitMQ."""
