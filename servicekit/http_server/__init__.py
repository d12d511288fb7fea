"""The HTTP server under gunicorn.

`event_loop_worker` serves an `Application`, or any ASGI application, on one event loop per process: our own connections
around gunicorn's strict parser, deadlines for heads and bodies, refusals in the envelope. `wsgi` runs WSGI applications
on its threads.
"""
