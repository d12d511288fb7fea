"""Gunicorn's door to the orders service."""

from service_orders.app import create_app
from service_orders.settings import OrdersSettings
from servicekit.observing import logs
from servicekit.process.settings import loaded_or_exit

settings = loaded_or_exit(OrdersSettings, "service_orders")
logs.configure("service_orders", fmt=settings.log_format, level=settings.log_level)
app = create_app(settings)
