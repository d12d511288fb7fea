"""How gunicorn runs the users service."""

from service_users.settings import UsersSettings
from servicekit.database import engine as database  # noqa: F401 - libraries read before the fork: a dead worker is soon replaced
from servicekit.observing import logs
from servicekit.process.gunicorn_defaults import *  # noqa: F403 - gunicorn reads a module's names
from servicekit.process.settings import load_or_exit
from servicekit.web import app as web  # noqa: F401 - libraries read before the fork: a dead worker is soon replaced

_settings = load_or_exit(UsersSettings, "service_users")
logs.configure("service_users", fmt=_settings.log_format, level=_settings.log_level)

wsgi_app = "service_users.wsgi:app"
proc_name = "service_users"
bind = _settings.users_bind
worker_class = "servicekit.http_server.gunicorn_worker.ServiceWorker"
threads = _settings.users_threads
