"""Figures inside a page: SVG made safe to inline, named for screen readers, and coloured by the page's theme."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from zlib import crc32

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
# A path without stroke or fill, and a turn by nothing; then four or more marks in a row with one style.
_NOTHING = re.compile(r'<path d="[^"]*" style="fill: none"/>| transform="rotate\(-?0 [^)]*\)"')
_ALIKE = re.compile(r'<use [^>]*?( style="([^"]*)")/>(?:<use [^>]*?\1/>){3,}')
# Lines in a row with one opaque style and one clip: one path draws them all.
_LINES = re.compile(
    r'<path d="[^"]*"((?: clip-path="[^"]*")? style="fill: none; stroke(?:(?!opacity)[^"])*")/>(?:<path d="[^"]*"\1/>)+'
)
_DRAWN = re.compile(r' d="([^"]*)"')
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
        point), type is the page's, and the prologue, comments, metadata, ids that nothing refers to, groups that say
        nothing and paths that draw nothing are gone. Marks in a row that look alike say so once. Text between tags is
        left as it is.

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
    names = _short_names(dict.fromkeys([*_HREF.findall(body), *_URL.findall(body)]), prefix)
    body = _TAG.sub(lambda tag: _restyle(tag.group(), names), body)
    body = _thinned(re.sub(r">\s+<", "><", body))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="{view.group(1)}" role="img" aria-labelledby="{prefix}-title {prefix}-desc" '
        f'style="--natural: {natural_width(svg):.0f}px">'
        f'<title id="{prefix}-title">{escape(title)}</title>'
        f'<desc id="{prefix}-desc">{escape(description)}</desc>{body.strip()}'
    )


def natural_width(svg: str) -> float:
    """Width of a figure in CSS pixels, as drawn."""
    return float(_VIEW.search(_ROOT.search(svg).group()).group(1).split()[2]) * 4 / 3


def theme_variables(dark: bool) -> str:
    """The palette as CSS custom properties, `--blue: #174f96; ...`."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in PALETTE.items())


def _short_names(ids: Iterable[str], prefix: str) -> dict[str, str]:
    """Names that are short (a figure repeats them a thousand times) and no other figure's."""
    own = prefix if len(prefix) < 10 else f"f{crc32(prefix.encode()):08x}"
    return {name: f"{own}-{k:x}" for k, name in enumerate(ids)}


def _thinned(body: str) -> str:
    """The same drawing in fewer words."""
    body, kept, open_ = _NOTHING.sub("", body), [], []
    for part in re.split(r"(</?g\b[^>]*>)", body):
        if part == "<g>" or part.startswith("<g "):
            open_.append(part != "<g>")
            part = part if open_[-1] else ""
        elif part == "</g>":
            # What closes the figure itself closes no group of ours.
            part = part if not open_ or open_.pop() else ""
        kept.append(part)
    body = _ALIKE.sub(lambda run: f'<g style="{run[2]}">{run[0].replace(run[1], "")}</g>', "".join(kept))
    return _LINES.sub(lambda run: f'<path d="{"".join(_DRAWN.findall(run[0]))}"{run[1]}/>', body)


def _restyle(tag: str, names: Mapping[str, str]) -> str:
    tag = _ID.sub(lambda m: f' id="{names[m[1]]}"' if m[1] in names else "", tag)
    tag = _HREF.sub(lambda m: f'href="#{names[m[1]]}"', tag)
    tag = tag.replace("xlink:href", "href")
    tag = _URL.sub(lambda m: f"url(#{names[m[1]]})", tag)
    tag = _FAMILY.sub("", tag)
    if "base64," not in tag:
        tag = _BLANKS.sub(" ", _NUMBER.sub(lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), tag))
    for name, (paper, _) in PALETTE.items():
        tag = tag.replace(paper, f"var(--{name})")
    # matplotlib writes plain black where no colour was chosen; on a dark page that has to be the ink
    return tag.replace(": #000000", ": var(--ink)")
