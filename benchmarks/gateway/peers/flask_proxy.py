"""The usual gateway: Flask, a pooled requests session, and pybreaker with its defaults around each call."""

from __future__ import annotations

import logging
import os
from typing import Any

import pybreaker
import requests
from flask import Flask, Response, g, jsonify, request

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
log = logging.getLogger("gateway")
log.setLevel(logging.INFO)
app = Flask(__name__)
session = requests.Session()
session.trust_env = False
session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=10, pool_maxsize=100))
ADDRESSES = {"users": os.environ["USERS_URL"], "orders": os.environ["ORDERS_URL"]}
BREAKERS = {name: pybreaker.CircuitBreaker(fail_max=5, reset_timeout=30, name=name) for name in ADDRESSES}
NOT_PASSED = {"host", "connection", "content-length", "transfer-encoding", "keep-alive", "content-encoding"}


def _ask(name: str, path: str) -> requests.Response:
    passed = {key: value for key, value in request.headers if key.lower() not in NOT_PASSED}
    answer = session.request(
        request.method,
        f"{ADDRESSES[name]}{path}",
        headers=passed,
        data=request.get_data(),
        params=request.args.to_dict(),
        timeout=5,
    )
    if answer.status_code >= 500:
        answer.raise_for_status()
    return answer


@app.before_request
def _begin() -> None:
    g.request_id = request.headers.get("X-Request-ID", os.urandom(16).hex())


@app.after_request
def _end(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    log.info("%s %s %s %s", request.method, request.path, response.status_code, g.request_id)
    return response


@app.route("/<any(users, orders):name>/<path:rest>", methods=["GET", "POST", "PUT", "DELETE"])
def proxy(name: str, rest: str) -> Any:
    try:
        answer = BREAKERS[name].call(_ask, name, f"/{name}/{rest}")
    except pybreaker.CircuitBreakerError:
        return jsonify(success=False, error={"code": "circuit_open", "message": "open"}), 503
    except requests.RequestException:
        return jsonify(success=False, error={"code": "unavailable", "message": "unavailable"}), 502
    fields = [(key, value) for key, value in answer.headers.items() if key.lower() not in NOT_PASSED]
    return Response(answer.content, answer.status_code, fields)
