"""Figures inside a page: SVG made safe to inline, named for screen readers, and coloured by the page's theme."""

from __future__ import annotations

import re
from html import escape

from steerstats.figures.theme import PALETTE

_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_NOISE = re.compile(r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_ROOT = re.compile(r"<svg[^>]*>", re.DOTALL)
_VIEW = re.compile(r'viewBox="([\d. -]+)"')
_TAG = re.compile(r"<[^>]+>")
_ID = re.compile(r' id="([^"]+)"')
_HREF = re.compile(r'href="#([^"]+)"')
_URL = re.compile(r"url\(#([^)]+)\)")
_FAMILY = re.compile(r"\s*font-family:[^;\"]*;?")
_NUMBER = re.compile(r"(?<![#\w.])-?\d+\.\d{3,}")
_BLANKS = re.compile(r"\s+")


def inline_svg(svg: str, prefix: str, title: str, description: str) -> str:
    """One figure as an inline `<svg>` element.

    Parameters
    ----------
    svg : str
        Source as matplotlib wrote it.
    prefix : str
        Goes before every id, so that two figures on a page cannot share one.
    title, description : str
        Short name and long alternative text; escaped here.

    Returns
    -------
    str
        Markup. Palette colours are CSS variables (`--blue`), coordinates have two decimals (a hundredth of a
        point), type is the page's, and the prologue, comments, metadata and ids that nothing refers to are gone.
        Text between tags is left as it is.

    Raises
    ------
    ValueError
        If `svg` holds no `<svg>` element.
    """
    body = _NOISE.sub("", _HEAD.sub("", svg))
    root = _ROOT.search(body)
    view = _VIEW.search(root.group()) if root else None
    if root is None or view is None:
        raise ValueError(f"figure {prefix!r} holds no <svg> element with a viewBox")
    body = body[root.end() :]
    wanted = set(_HREF.findall(body)) | set(_URL.findall(body))
    body = _TAG.sub(lambda tag: _restyle(tag.group(), prefix, wanted), body)
    body = re.sub(r">\s+<", "><", body)
    width = float(view.group(1).split()[2]) * 4 / 3  # points to CSS pixels
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{view.group(1)}" role="img" aria-labelledby="{prefix}-title {prefix}-desc" '
        f'style="--natural: {width:.0f}px">'
        f'<title id="{prefix}-title">{escape(title)}</title>'
        f'<desc id="{prefix}-desc">{escape(description)}</desc>{body.strip()}'
    )


def theme_variables(dark: bool) -> str:
    """The palette as CSS custom properties, `--blue: #174f96; ...`."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in PALETTE.items())


def _restyle(tag: str, prefix: str, wanted: set[str]) -> str:
    tag = _ID.sub(lambda m: f' id="{prefix}-{m[1]}"' if m[1] in wanted else "", tag)
    tag = _HREF.sub(lambda m: f'href="#{prefix}-{m[1]}"', tag)
    tag = _URL.sub(lambda m: f"url(#{prefix}-{m[1]})", tag)
    tag = _FAMILY.sub("", tag)
    if "base64," not in tag:
        tag = _BLANKS.sub(" ", _NUMBER.sub(lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), tag))
    for name, (paper, _) in PALETTE.items():
        tag = tag.replace(paper, f"var(--{name})")
    # matplotlib writes plain black where no colour was chosen; on a dark page that has to be the ink
    return tag.replace(": #000000", ": var(--ink)")
