"""Take the pictures in docs/images from a running instance that `./scripts/seed` has filled."""

from __future__ import annotations

import base64
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import requests
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
#: In bytes, of one file.
_MOST = 120_000


class Picture(NamedTuple):
    """A page of the console in a window of this size, in CSS pixels."""

    name: str
    address: str
    width: int
    height: int
    colours: str = "light"
    #: Device pixels of a CSS pixel.
    scale: int = 1


PICTURES = (
    Picture("board", "/sites/{site}", 1200, 760),
    Picture("services", "/services", 1200, 560, "dark"),
    Picture("item", "/items/{item}", 360, 740, scale=2),
)


def main(arguments: list[str]) -> int:
    """Take them all; 1 with one line if they cannot be taken."""
    url = (arguments or ["http://localhost:8000"])[0].rstrip("/")
    program = shutil.which("chromium")
    if program is None:
        print("screenshots: Debian's chromium is not installed", file=sys.stderr)
        return 1
    try:
        ids = _ids(url)
    except (requests.RequestException, LookupError) as exc:
        print(
            f"screenshots: {url} has nothing to show ({exc!r}): run ./scripts/run and ./scripts/seed", file=sys.stderr
        )
        return 1
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        with playwright.chromium.launch(executable_path=program, args=arguments) as browser:
            for picture in PICTURES:
                taken = _take(browser, f"{url}/console#{picture.address.format_map(ids)}", picture)
                if len(taken) > _MOST:
                    print(f"screenshots: {picture.name} takes {len(taken)} bytes", file=sys.stderr)
                    return 1
                (FOLDER / f"{picture.name}.webp").write_bytes(taken)
    return 0


def _ids(url: str) -> dict[str, str]:
    def rows(path: str, name: str) -> Any:
        return requests.get(f"{url}{path}", timeout=30).json()["data"][name]

    site = next(one for one in rows("/sites", "sites") if one["key"] == "TOWER")["id"]
    return {
        "site": site,
        "item": rows(f"/work-items?site_id={site}&state=returned,ready,in_progress", "work_items")[0]["id"],
    }


def _take(browser: Browser, address: str, picture: Picture) -> bytes:
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        device_scale_factor=picture.scale,
        color_scheme="dark" if picture.colours == "dark" else "light",
    )
    page = context.new_page()
    page.goto(address, wait_until="networkidle")
    page.locator("[aria-busy=true]").first.wait_for(state="detached")
    # Playwright itself takes no WebP.
    shot = context.new_cdp_session(page).send("Page.captureScreenshot", {"format": "webp", "quality": 80})
    context.close()
    return base64.b64decode(shot["data"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
