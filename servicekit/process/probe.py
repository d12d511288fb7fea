"""Ask a process on this machine whether it is ready; containers have no curl for their health checks.

python -m servicekit.process.probe 8001
"""

from __future__ import annotations

import http.client
import ssl
import sys

_PATIENCE_SECONDS = 4
#: What `servicekit.wire.errors` calls plain HTTP at a port that speaks TLS.
_TLS_REQUIRED = '"tls_required"'


def problem_of(port: int, patience: float = _PATIENCE_SECONDS, *, host: str = "127.0.0.1") -> str | None:
    """Describe what keeps the process on this port of this machine from being ready, or None. Ignores proxies.

    `patience`: seconds for each step, from connecting to each part of the answer.
    """
    problem = _problem_of(http.client.HTTPConnection(host, port, timeout=patience))
    if problem is not None and _TLS_REQUIRED in problem:
        # Whose certificate it is does not matter here: nothing secret is sent.
        any_certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        any_certificate.check_hostname, any_certificate.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=patience, context=any_certificate)
        problem = _problem_of(connection)
    return problem


def _problem_of(connection: http.client.HTTPConnection) -> str | None:
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(2000).decode(errors="replace")
    except ConnectionRefusedError:
        # As for each process that has just begun; why one ends again, its log says.
        return "no answer: nothing listens there yet"
    except (OSError, http.client.HTTPException) as exc:
        return f"no answer: {exc}"
    finally:
        connection.close()
    return None if answer.status == http.client.OK else f"{answer.status} {body}"


if __name__ == "__main__":
    sys.exit(problem_of(int(sys.argv[1])))
