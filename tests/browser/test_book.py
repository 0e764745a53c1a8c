"The web book as a person meets it, in Chromium: each page in both themes and on a phone, search, the way through the lessons."
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe

from conftest import PAGES, ROOT, visit

LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 740}
LESSONS = [page for page in PAGES if page.startswith("lessons/") and page != "lessons/index.html"]
STOPS = "a[href], button, input, select, textarea, summary, [tabindex]"
# What a person sees and could act on; `tabindex=-1` says that something else leads there.
REACHABLE = f"""() => {{
    const shown = e => e.checkVisibility({{visibilityProperty: true}}) && e.getClientRects().length;
    const all = [...document.querySelectorAll("{STOPS}")].filter(e => shown(e) && e.tabIndex >= 0 && !e.disabled);
    all.forEach(e => e.dataset.stop = "waits");
    document.addEventListener("focusin", event => delete event.target.dataset.stop);
    return all.length;
}}"""
LEFT = "() => [...document.querySelectorAll('[data-stop]')].map(e => e.outerHTML.slice(0, 120))"
CUT_OFF = """() => [...document.querySelectorAll("div.cell_input pre")]
    .filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText.slice(0, 200))"""
STUCK = """() => [...document.querySelectorAll("pre, div.math, mjx-container, div.cell_output, .pst-scrollable-table-container")]
    .filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0 && !e.querySelector("a, [tabindex='0']"))
    .map(e => e.outerHTML.slice(0, 120))"""
WIDE = """() => [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.outerHTML.slice(0, 120))"""
PICTURES = """() => [...document.querySelectorAll("article img")]
    .filter(e => !e.naturalWidth || e.alt.length < 10 || /\\.png$/.test(e.alt)).map(e => e.outerHTML)"""


@pytest.fixture(scope="module", params=PAGES)
def page(request, browser, address):
    "A page, opened on a laptop in light; `page.trouble` is what the console and the network said."
    context = browser.new_context(viewport=LAPTOP, color_scheme="light")
    page = context.new_page()
    page.trouble = []
    page.on("console", lambda message: message.type in ("error", "warning") and page.trouble.append(message.text))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("request", lambda sent: sent.url.startswith((address, "data:")) or page.trouble.append(sent.url))
    page.on("response", lambda got: got.ok or page.trouble.append(f"{got.status} {got.url}"))
    visit(page, address + request.param)
    page.path = request.param
    yield page
    context.close()


@pytest.fixture
def laptop(page):
    "The page on a laptop, in light."
    page.set_viewport_size(LAPTOP)
    page.emulate_media(color_scheme="light")
    return page


def test_loads_in_silence(laptop): assert laptop.trouble == []


def test_mathematics_is_set(laptop):
    formulas = laptop.locator("article .math")
    assert formulas.locator("mjx-container").count() == formulas.count()
    assert laptop.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert "\\tag" not in laptop.locator("main").first.inner_text().replace("\\tag{NN.k}", "")


def test_no_directive_shows(laptop):
    assert "#|" not in "".join(laptop.locator("div.cell_input pre").all_inner_texts())


def test_pictures_say_what_they_show(laptop): assert laptop.evaluate(PICTURES) == []


def test_no_code_is_cut_off(laptop): assert laptop.evaluate(CUT_OFF) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible(laptop, theme):
    laptop.emulate_media(color_scheme=theme)
    laptop.wait_for_function(f"document.documentElement.dataset.theme == '{theme}'")
    laptop.wait_for_timeout(300)  # colours fade
    found = Axe().run(laptop).response["violations"]
    serious = [(each["id"], node["html"][:200]) for each in found if each["impact"] in ("serious", "critical")
               for node in each["nodes"]]
    assert serious == []


def test_keyboard_reaches_everything(laptop):
    laptop.evaluate("document.activeElement.blur()")
    for _ in range(laptop.evaluate(REACHABLE)*2):  # Chromium stops at what scrolls, too
        laptop.keyboard.press("Tab")
        if not laptop.evaluate(LEFT): break
    assert laptop.evaluate(LEFT) == []
    assert laptop.evaluate(STUCK) == []


def test_a_phone_does_not_scroll_sideways(page):
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], page.evaluate(WIDE)[:5]
    assert page.evaluate(STUCK) == []


# The way through the book.

@pytest.fixture
def reader(browser, address):
    "A fresh window on the landing page."
    context = browser.new_context(viewport=LAPTOP, color_scheme="light")
    page = context.new_page()
    visit(page, address)
    yield page
    context.close()


def test_search_finds(reader):
    reader.keyboard.press("Control+k")
    reader.keyboard.type("log-sum-exp")
    reader.keyboard.press("Enter")
    results = reader.locator("#search-results li a")
    results.first.wait_for()
    assert any("05_cross_entropy" in link.get_attribute("href") for link in results.all())


def test_the_first_digit_is_seen_at_once(reader):
    picture = reader.locator("article img").first.bounding_box()
    assert picture["y"] + picture["height"] < LAPTOP["height"]
    start = reader.get_by_role("link", name="Read the first lesson")
    assert start.bounding_box()["y"] < LAPTOP["height"]
    start.click()
    assert reader.locator("h1").inner_text().startswith("00 Setup")


def test_next_leads_through_all_lessons(reader, address):
    reader.goto(address + LESSONS[0])
    seen = [urlsplit(reader.url).path[1:]]
    for _ in LESSONS[1:]:
        reader.locator("a.right-next").click()
        seen.append(urlsplit(reader.url).path[1:])
    assert seen == LESSONS
    reader.locator("a.left-prev").click()
    assert urlsplit(reader.url).path[1:] == LESSONS[-2]


def test_the_theme_is_chosen(reader):
    def ground(): return reader.evaluate("getComputedStyle(document.body).backgroundColor")
    light = ground()
    reader.locator("button.theme-switch-button").first.click()
    reader.get_by_text("Dark", exact=True).first.click()
    reader.wait_for_timeout(500)
    assert reader.evaluate("document.documentElement.dataset.theme") == "dark" and ground() != light


def test_a_name_leads_to_its_cell_and_back(reader, address):
    reader.goto(address + "api/fdl.functional.html")
    reader.locator("dl:has(dt[id='fdl.functional.linear']) a", has_text="02 Matrix").first.click()
    mark = reader.locator(".builds", has_text="linear").first
    assert mark.is_visible() and mark.bounding_box()["y"] < LAPTOP["height"]
    assert mark.locator("a[href*='torch.nn.functional.linear']").count() == 1
    mark.locator("a", has_text="fdl.functional.linear").first.click()
    assert reader.url.endswith("api/fdl.functional.html#fdl.functional.linear")


def test_a_word_leads_to_the_glossary(reader, address):
    reader.goto(address + "lessons/02_matmul.html")
    reader.locator("article a", has_text="neuron").first.click()
    assert reader.url.endswith("glossary.html#term-neuron")


def test_a_lesson_is_downloaded(reader, address):
    reader.goto(address + "lessons/02_matmul.html")
    with reader.expect_download() as download: reader.get_by_text("Download this notebook").click()
    assert download.value.path().read_bytes() == (ROOT/"nbs"/"02_matmul.ipynb").read_bytes()


@pytest.mark.parametrize("path", ["index.html", "lessons/02_matmul.html", "api/fdl.functional.html"])
def test_screenshots(reader, address, path):
    "Pictures of three pages, at three widths, in both themes: kept in _build/screenshots for a person to look at."
    visit(reader, address + path)
    for width in (390, 820, 1280):
        for theme in ("light", "dark"):
            reader.set_viewport_size({"width": width, "height": 900})
            reader.emulate_media(color_scheme=theme)
            reader.wait_for_timeout(300)
            name = f"{path.removesuffix('.html').replace('/', '-')}-{width}-{theme}.png"
            reader.screenshot(path=ROOT/"_build"/"screenshots"/name)
