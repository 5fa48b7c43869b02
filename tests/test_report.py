"""The page: everything in it, nothing from outside, untrusted text as text, and readable by eye, ear and printer."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from browser import Page, find_chromium
from reporting import MODEL, PAYLOADS, TRUTH, hostile_cache, plain_cache, reproduction, scratch

from analyses._claim import Claim
from analyses._words import percent, tidy, together
from reports.render import render_report
from reports.tables import cells

VOID = {"meta", "link", "br", "img", "input", "hr", "path", "use", "image"}


class Outline(HTMLParser):
    """Tags with attributes, and the text of chosen elements."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, dict[str, str], str]] = []
        self._open: list[list] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = {key: value or "" for key, value in attrs}
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self._open.append([tag, attributes, ""])

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag):
        while self._open:
            name, attributes, text = self._open.pop()
            self.texts.append((name, attributes, text))
            if self._open:
                self._open[-1][2] += text
            if name == tag:
                return

    def handle_data(self, data):
        if self._open:
            self._open[-1][2] += data

    def named(self, tag: str) -> list[str]:
        return [text for name, _, text in self.texts if name == tag]


def page_text() -> str:
    return (reproduction() / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def outline() -> Outline:
    return Outline(page_text())


# --- untrusted text, nothing from outside ---------------------------------------------------------


def test_every_payload_is_shown_as_the_text_it_is(outline):
    prompts = [text for tag, attributes, text in outline.texts if tag == "pre"]
    assert prompts
    shown = {payload for payload in PAYLOADS if any(prompt.startswith(payload) for prompt in prompts)}
    assert len(shown) >= 5, "18 inputs are shown and there are seven payloads"
    assert all(any(prompt.startswith(payload) for payload in PAYLOADS) for prompt in prompts)


def test_no_payload_becomes_markup(outline):
    assert MODEL.rsplit("/", 1)[-1] not in page_text()
    assert any("evil<script>" in text for text in outline.named("dd")), "the model's name is text"
    allowed = {"html", "head", "meta", "title", "link", "style", "body", "a", "div", "header", "p", "h1", "h2", "h3",
               "h4", "ul", "ol", "li", "code", "b", "nav", "details", "summary", "main", "section", "span", "article",
               "figure", "figcaption", "svg", "desc", "g", "defs", "path", "use", "text", "image", "clippath", "rect",
               "table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "pre",
               "footer", "tspan"}  # fmt: skip
    assert {tag for tag, _ in outline.tags} <= allowed
    assert not [a for _, a in outline.tags for key in a if key.startswith("on")]


def test_nothing_is_asked_of_anyone(outline):
    for tag, attributes in outline.tags:
        for key in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            if key in attributes:
                assert attributes[key].startswith(("#", "data:")), (tag, attributes[key])
    assert not re.search(r"@import|url\((?!#)", page_text())
    first = next(a for tag, a in outline.tags if tag == "meta" and "http-equiv" in a)
    policy = dict(part.split(" ", 1) for part in first["content"].split("; "))
    assert policy["default-src"] == "'none'"
    assert "script-src" not in policy
    assert policy["img-src"] == "data:"


# --- order and names ------------------------------------------------------------------------------


def test_headings_never_skip_a_level_and_there_is_one_title(outline):
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_ids_are_unique_and_every_link_and_label_has_its_end(outline):
    ids = [a["id"] for _, a in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for tag, a in outline.tags if tag == "a" and a["href"].startswith("#")}
    labels = {name for _, a in outline.tags for name in a.get("aria-labelledby", "").split()}
    assert targets | labels <= set(ids)
    assert {"summary", "variability", "spurious", "transfer", "datasets", "methods", "provenance"} <= targets


def test_every_figure_has_words_for_those_who_do_not_see_it(outline):
    figures = [a for tag, a in outline.tags if tag == "svg"]
    descriptions = [text for tag, a, text in outline.texts if tag == "desc"]
    assert len(figures) == len(descriptions) > 15
    assert all(a["role"] == "img" for a in figures)
    assert all(len(text) > 30 for text in descriptions)


def test_every_claims_figure_says_how_to_read_it_what_bars_are_n_and_method(outline):
    captions = [text for text in outline.named("figcaption") if "How to read it." in text]
    record = json.loads((reproduction() / "claims.json").read_text("utf-8"))
    assert len(captions) == sum(not finding["missing"] for finding in record["findings"])
    for text in captions:
        assert re.search(r"Bars:\s+\S.*n:\s+\S.*Method:\s+\S", text, re.DOTALL), text


def test_scrolling_boxes_can_be_reached_with_the_keyboard(outline):
    boxes = [a for tag, a in outline.tags if tag == "div" and a.get("class") in ("plot", "scroll")]
    assert boxes
    assert all(a.get("tabindex") == "0" and a.get("role") == "region" and a.get("aria-label") for a in boxes)
    assert next(a for tag, a in outline.tags if tag == "a") == {"class": "skip", "href": "#main"}


# --- content --------------------------------------------------------------------------------------


def test_the_three_numbers_are_those_of_the_claims(outline):
    record = json.loads((reproduction() / "claims.json").read_text("utf-8"))
    claims = {claim["key"]: claim for finding in record["findings"] for claim in finding["claims"]}
    shown = [text for tag, a, text in outline.texts if tag == "p" and a.get("class") == "number"]
    # Three datasets rank without an interval: the loss under the paper's shift, which has one, heads the card.
    keys = ("per_input.anti_share", "explained.mean", "gap.sys_pos->user_neg")
    three = [Claim.read(claims[key]) for key in keys]
    units = "", "", " nats per unit multiplier"
    assert shown == [f"{claim.shown[0]}{unit}" for claim, unit in zip(three, units)]
    limits = [text for tag, a, text in outline.texts if tag == "p" and a.get("class") == "interval"]
    for claim, text in zip(three, limits, strict=True):
        low, high = together([claim.estimate, claim.ci_low, claim.ci_high], claim.unit)[1:]
        assert text == f"95% interval {low} to {high}"


def test_each_dataset_has_a_folded_page_with_inputs_at_both_ends(outline):
    pages = [a for tag, a in outline.tags if tag == "details" and a.get("class") == "dataset"]
    assert len(pages) == len(TRUTH.datasets)
    assert all("open" not in a for a in pages)
    kinds = [a["class"] for tag, a in outline.tags if tag == "pre"]
    assert kinds.count("prompt neg") == kinds.count("prompt pos") == 3 * len(TRUTH.datasets)


def test_worst_inputs_are_those_with_the_least_slope(outline):
    from steerstats import open_cache

    study = open_cache(hostile_cache())
    lines = [text for tag, a, text in outline.texts if tag == "span" and text.startswith("steerability ")]
    shown = [float(re.search(r"steerability (\S+)", text)[1].replace("−", "-")) for text in lines]
    order = [text for tag, a, text in outline.texts if tag == "h3" and text in TRUTH.datasets]
    for k, name in enumerate(order):
        slopes = sorted(study.slopes(name).at("base->base"))
        assert shown[6 * k : 6 * k + 3] == pytest.approx(slopes[:3], abs=6e-4)
        assert shown[6 * k + 3 : 6 * k + 6] == pytest.approx(slopes[::-1][:3], abs=6e-4)


def test_what_a_cache_lacks_is_said_where_it_would_stand(tmp_path):
    page = render_report([plain_cache()], tmp_path, jobs=1).read_text("utf-8")
    assert "(no text in this cache)" in page
    assert "built without random or shuffled vectors" in page


def test_several_caches_stand_side_by_side(tmp_path):
    page = render_report([hostile_cache(), plain_cache()], tmp_path, jobs=2)
    outline = Outline(page.read_text("utf-8"))
    ids = [a["id"] for _, a in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {"hostile-and-plain-comparison", "hostile-and-plain-cross_model", "plain-id_vs_ood"} <= set(ids)
    numbers = [text for tag, a, text in outline.texts if tag == "p" and a.get("class") == "number"]
    assert len(numbers) == 6
    assert (tmp_path / "results" / "hostile-and-plain" / "comparison.csv").is_file()


def test_the_page_stays_small():
    svg = sum(len(part) for part in re.findall(r"<svg.*?</svg>", page_text(), re.DOTALL))
    pages = len(re.search(r'<section id="datasets".*?<section id="claims"', page_text(), re.DOTALL)[0])
    assert svg < 1_200_000
    assert 40 * pages / len(TRUTH.datasets) < 2_500_000, "forty dataset pages leave room for the figures in 5 MB"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.173, "17%"),
        (0.004, "0.4%"),
        (0.0, "0%"),
        (0.996, "99.6%"),
        (1.0, "100%"),
        (-0.2, "−20%"),
        (np.nan, "not known"),
    ],
)
def test_shares_are_shown_in_per_cent(value, shown):
    assert percent(value) == shown


def test_methods_are_shown_with_signs():
    assert tidy("base->base, n >= 2") == "base → base, n ≥ 2"


def test_long_tables_are_cut_and_say_so_and_constants_move_to_the_caption():
    frame = pd.DataFrame({"dataset": [f"d{k}" for k in range(9)], "x": range(9), "level": 0.95})
    view = cells(frame, "Numbers", most=4)
    assert [column["name"] for column in view["columns"]] == ["dataset", "x"]
    assert len(view["rows"]) == 4
    assert (
        view["caption"]
        == "Numbers (in every row: level 0.950). The first 4 of 9 rows; the files beside this page have all."
    )


# --- in a browser ---------------------------------------------------------------------------------

WIDER = """[...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.plot, .scroll, .skip, .prompt'))
    .map(e => e.tagName + '.' + e.className).slice(0, 5)"""


@pytest.fixture(scope="module")
def browser():
    if find_chromium() is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with Page() as page:
        yield page


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_runs_nothing_and_asks_for_nothing(browser, width, dark):
    browser.open(reproduction() / "report.html", width=width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(WIDER) == []
    assert browser.evaluate("document.title").startswith("Does steering evil<script>document")
    assert browser.evaluate("document.scripts.length") == 0
    asked = [url for url in browser.requests if not url.startswith("data:")]
    assert asked == [(reproduction() / "report.html").resolve().as_uri()]
    refused = [text for text in browser.console if "Content Security Policy" in text or "Refused" in text]
    assert refused == [], "the page keeps its own policy"
    ground, ink = (browser.evaluate(f"getComputedStyle(document.body).{key}") for key in ("backgroundColor", "color"))
    assert ground == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert ink == ("rgb(232, 234, 237)" if dark else "rgb(28, 33, 39)")
    letters = "parseFloat(getComputedStyle(document.querySelector('article svg text')).fontSize)"
    scale = "document.querySelector('article svg').getScreenCTM().a"
    assert browser.evaluate(letters) * browser.evaluate(scale) > 7, "labels in figures can be read"
    assert browser.evaluate("document.querySelector('#summary .number').getBoundingClientRect().height") > 20


@pytest.mark.browser
def test_a_script_that_slipped_in_would_not_run(browser, tmp_path):
    spoiled = page_text().replace(
        "</main>", "<script>document.title='pwned'</script><img src=http://example.invalid/x></main>"
    )
    (tmp_path / "spoiled.html").write_text(spoiled, encoding="utf-8")
    browser.open(tmp_path / "spoiled.html")
    assert browser.evaluate("document.title") != "pwned"
    assert any("Content Security Policy" in text for text in browser.console)


@pytest.mark.browser
def test_the_page_prints_with_its_folds_open(browser):
    browser.open(reproduction() / "report.html")
    shown = "document.querySelector('details.dataset figure').checkVisibility()"
    assert not browser.evaluate(shown), "folded on the screen"
    browser.send("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.evaluate(shown), "open on paper"
    assert browser.evaluate("getComputedStyle(document.querySelector('.contents')).display") == "none"
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    told = "[...document.querySelectorAll('article')].every(a => a.querySelector('.paper').checkVisibility())"
    assert browser.evaluate(told), "where the table is, which paper is too narrow for"
    pdf = browser.print_pdf(scratch() / "page.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 5
    browser.send("Emulation.setEmulatedMedia", media="", features=[])


@pytest.mark.browser
def test_no_figure_is_wider_than_paper(browser):
    # The browser would shrink the whole page, and the letters in figures with it.
    browser.open(reproduction() / "report.html", width=680)  # what A4 has between the margins
    browser.send("Emulation.setEmulatedMedia", media="print", features=[])
    wide = "[...document.querySelectorAll('article svg')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert browser.evaluate(f"{wide}.length") == 0
    browser.send("Emulation.setEmulatedMedia", media="", features=[])


HINTED = """[...document.querySelectorAll('article .plot')].map(e =>
    [e.previousElementSibling.getBoundingClientRect().height > 9, e.scrollWidth > e.clientWidth])"""


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scrolled"), [(390, {True}), (600, {True, False}), (1280, {False})])
def test_figures_that_are_wider_than_their_place_and_no_others_are_said_to_scroll(browser, width, scrolled):
    browser.open(reproduction() / "report.html", width=width)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = browser.evaluate(HINTED)
    assert [told for told, _ in found] == [scrolls for _, scrolls in found]
    assert {told for told, _ in found} >= scrolled


@pytest.mark.browser
@pytest.mark.parametrize(("width", "phone"), [(390, True), (1280, False)])
def test_a_wide_page_lists_the_findings(browser, width, phone):
    browser.open(reproduction() / "report.html", width=width)
    titles = browser.evaluate("[...document.querySelectorAll('.contents ol ol a')].map(a => a.textContent)")
    shown = "[...document.querySelectorAll('article > h3 > span:first-child')].map(e => e.textContent)"
    assert titles == browser.evaluate(shown)
    seen = "[...document.querySelectorAll('.contents ol ol a')].filter(a => a.checkVisibility()).length"
    assert browser.evaluate(seen) == (0 if phone else len(titles))


@pytest.mark.browser
def test_the_interval_of_a_claim_is_seen_on_a_phone(browser):
    browser.open(reproduction() / "report.html", width=390)
    inside = """[...document.querySelectorAll('#claims thead th:nth-child(3)')].map(cell =>
        cell.getBoundingClientRect().right <= cell.closest('.scroll').getBoundingClientRect().right + 1)"""
    assert browser.evaluate(inside) == [True]


@pytest.mark.browser
def test_the_tab_key_reaches_the_skip_link_first_and_then_the_contents(browser):
    browser.open(reproduction() / "report.html")
    found = []
    for _ in range(3):
        for kind in ("rawKeyDown", "keyUp"):
            browser.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        found.append(browser.evaluate("document.activeElement.textContent"))
    assert found == ["Skip to the results", "Contents", "Summary"]
