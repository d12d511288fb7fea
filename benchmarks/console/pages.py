"""Opens pages of the console in Chromium and says how long each took to be there once the API had answered.

Run by a Python that has Playwright: `python pages.py` reads {"url", "rounds", "pages": [[name, address, acts as]]} as
JSON from standard input and writes a line of JSON for each visit: {"page", "painted", "busy", "answers"}. `painted` is
how long after the last answer the last change was on screen, `busy` what the main thread of the page worked in all,
both in ms.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

from playwright.sync_api import Browser, sync_playwright

#: A page is there when for so long, in ms, nothing was asked and nothing changed.
_QUIET = 700
_PATIENCE = 60_000
_SCRIPT = """
if (sessionStorage.getItem("act-as") === null && ACT_AS) sessionStorage.setItem("act-as", ACT_AS);
const ask = fetch;
const seen = window.seen = { underWay: 0, asked: 0, answers: 0, answered: 0, painted: 0 };
window.fetch = async (...given) => {
  seen.underWay += 1;
  seen.asked = performance.now();
  try { return await ask(...given); } finally { seen.underWay -= 1; }
};
new PerformanceObserver((list) => {
  for (const { responseEnd } of list.getEntries().filter((entry) => entry.initiatorType === "fetch")) {
    seen.answers += 1;
    seen.answered = Math.max(seen.answered, responseEnd);
  }
}).observe({ type: "resource", buffered: true });
// The task after the one that draws the next frame.
const painted = () => requestAnimationFrame(() => setTimeout(() => { seen.painted = performance.now(); }));
const all = { subtree: true, childList: true, attributes: true, characterData: true };
new MutationObserver(painted).observe(document, all);
"""
_IS_THERE = f"""() => seen.underWay === 0 && seen.answers > 0 && !document.querySelector("[aria-busy=true]")
  && performance.now() - Math.max(seen.asked, seen.answered, seen.painted) > {_QUIET}"""


def _visit(browser: Browser, url: str, address: str, acts_as: str | None) -> dict[str, Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    context.add_init_script(_SCRIPT.replace("ACT_AS", json.dumps(acts_as)))
    page = context.new_page()
    metrics = context.new_cdp_session(page)
    metrics.send("Performance.enable")
    page.goto(f"{url}/console#{address}")
    page.wait_for_function(_IS_THERE, timeout=_PATIENCE)
    busy = {one["name"]: one["value"] for one in metrics.send("Performance.getMetrics")["metrics"]}["TaskDuration"]
    seen = page.evaluate("seen")
    problems = page.locator(".problem").all_inner_texts()
    if problems:
        raise RuntimeError(f"{address}: {problems}")
    context.close()
    return {"painted": max(seen["painted"] - seen["answered"], 0), "busy": busy * 1000, "answers": seen["answers"]}


def main() -> None:
    wanted = json.load(sys.stdin)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        # The first of each is not counted: its rows are read from the disk.
        for turn in range(wanted["rounds"] + 1):
            for name, address, acts_as in wanted["pages"]:
                visited = _visit(browser, wanted["url"], address, acts_as)
                if turn > 0:
                    print(json.dumps({"page": name, **visited}), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
