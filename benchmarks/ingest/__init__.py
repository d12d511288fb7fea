"""Messages from RabbitMQ, measured."""
