"""Basics of every process: settings, lifecycle, ids, time, gunicorn."""
