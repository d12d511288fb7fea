"""Gunicorn's door to the users service."""

from service_users.app import create_app
from service_users.settings import UsersSettings
from servicekit.observing import logs
from servicekit.process.settings import loaded_or_exit

settings = loaded_or_exit(UsersSettings, "service_users")
logs.configure("service_users", fmt=settings.log_format, level=settings.log_level)
app = create_app(settings)
