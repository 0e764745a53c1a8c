"What the tests of the book share: the pages, a server for them, Chromium."
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Error, sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ROOT/"_build"/"docs"
PAGES = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html") if "_static" not in path.parts)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run"]
NO_BROWSER = """No browser is found. On Debian or Ubuntu:  sudo apt-get install chromium
Elsewhere, once:  .venv/bin/playwright install chromium"""


class Quiet(SimpleHTTPRequestHandler):
    "A server that keeps its log to itself."
    def log_message(self, *args): pass


@pytest.fixture(scope="session")
def address():
    "Where the book is served."
    if not PAGES: pytest.exit("There is no book in _build/docs: run `make docs` first.", 1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    "The system's Chromium, or Playwright's own."
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    with sync_playwright() as playwright:
        try: browser = playwright.chromium.launch(executable_path=next(found, None), args=FLAGS)
        except Error as error: pytest.exit(f"{NO_BROWSER}\n\n{error}", 1)
        yield browser
        browser.close()


def visit(page, url: str) -> None:
    "Opens a page and waits until its formulas are set."
    page.goto(url, wait_until="load")
    page.evaluate("window.MathJax?.startup?.promise.then(() => {})")
    page.wait_for_timeout(100)
