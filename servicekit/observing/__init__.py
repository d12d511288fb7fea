"""A process's reports about itself: log lines, metrics, request ids, shortages.

Two classes reimplement a library for speed, because they run in every request: `logs.RequestLog` writes the line that
structlog would, `metrics.Tally` counts as prometheus_client does. Tests hold them to the originals.
"""
