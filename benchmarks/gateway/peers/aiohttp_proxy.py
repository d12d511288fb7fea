"""aiohttp as a bare proxy on uvloop: no circuit, no log line, no limits. `python aiohttp_proxy.py PORT`."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict

ADDRESSES = {"users": os.environ["USERS_URL"], "orders": os.environ["ORDERS_URL"]}
NOT_PASSED = {"host", "connection", "content-length", "transfer-encoding", "keep-alive"}
SESSION = web.AppKey("session", aiohttp.ClientSession)


async def pass_on(request: web.Request) -> web.Response:
    passed = CIMultiDict((key, value) for key, value in request.headers.items() if key.lower() not in NOT_PASSED)
    body = await request.read() if request.can_read_body else None
    url = ADDRESSES[request.match_info["name"]] + request.raw_path
    async with request.app[SESSION].request(request.method, url, headers=passed, data=body) as answer:
        fields = CIMultiDict((key, value) for key, value in answer.headers.items() if key.lower() not in NOT_PASSED)
        return web.Response(status=answer.status, headers=fields, body=await answer.read())


async def _session(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        app[SESSION] = session
        yield


def main() -> None:
    uvloop.install()
    app = web.Application()
    app.cleanup_ctx.append(_session)
    app.router.add_route("*", "/{name:users|orders}/{rest:.*}", pass_on)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, backlog=2048)


if __name__ == "__main__":
    main()
