"""As much of curl as the README uses, for machines without it: -s -f -N -X -H -d; status on standard error."""

from __future__ import annotations

import argparse
import http.client
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

FAILED = 22  # what curl -f exits with


def main(arguments: Sequence[str] | None = None) -> int:
    """Send one request; use no proxy, follow no redirect."""
    parser = argparse.ArgumentParser(prog="curl")
    parser.add_argument("url")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-f", action="store_true")
    parser.add_argument("-N", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="fields", action="append", default=[])
    parser.add_argument("-d", dest="data")
    options = parser.parse_args(arguments)
    parts = urlsplit(options.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=30)
    connection.request(
        options.method or ("GET" if options.data is None else "POST"),
        parts.path + (f"?{parts.query}" if parts.query else ""),
        body=None if options.data is None else options.data.encode(),
        headers=dict(tuple(part.strip() for part in field.split(":", 1)) for field in options.fields),
    )
    answer = connection.getresponse()
    body = answer.read()
    print(answer.status, file=sys.stderr)
    if options.f and answer.status >= 400:
        return FAILED
    sys.stdout.buffer.write(body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
