"""Pieces of a web page that is one file: no script, no font, no image from elsewhere.

Every function gives HTML whose texts are escaped; `page` puts pieces together. It reads on a
telephone as on a desk: columns wrap, wide tables and sheets scroll by themselves.
"""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

_STYLE = """
:root { color-scheme: light; --ink: #1c2024; --soft: #5f6b76; --line: #dde2e7; --tint: #f5f7f9;
  --accent: #0b6bcb; --good: #17703c; --bad: #a33a1d }
* { box-sizing: border-box }
body { margin: 0; background: #fff; color: var(--ink);
  font: 17px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
header, main, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px }
header { padding-top: 40px }
h1 { font-size: clamp(1.7rem, 5vw, 2.5rem); line-height: 1.15; margin: 0 0 .4em;
  letter-spacing: -.02em; text-wrap: balance }
h2 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 .5em; letter-spacing: -.01em }
h3 { font-size: 1.05rem; margin: 1.6em 0 .4em }
p, ul, ol { max-width: 46em; margin: 0 0 1em }
.lead { font-size: 1.15rem; color: var(--soft) }
section { padding: 34px 0 18px; border-top: 1px solid var(--line); margin-top: 22px }
figure { margin: 0 }
figcaption, caption, .note { color: var(--soft); font-size: .875rem; line-height: 1.4 }
img { display: block; max-width: 100%; height: auto; border-radius: 6px }
.cells { display: grid; gap: 12px; margin: 0 0 1.2em;
  grid-template-columns: repeat(auto-fill, minmax(var(--cell, 120px), 1fr)) }
.cells img { width: 100%; background: var(--tint) }
.cells figcaption { padding-top: 4px }
.row { display: grid; gap: 8px; margin: 0 0 16px; max-width: calc(var(--columns) * 176px);
  grid-template-columns: repeat(var(--columns), minmax(0, 1fr)) }
.row img { width: 100% }
.row figcaption { padding-top: 2px; overflow-wrap: anywhere }
.pairs { display: grid; gap: 0 28px; margin: 0 0 1.2em;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)) }
.scroll { overflow-x: auto; margin: 0 0 1.2em }
.scroll img { max-width: none; width: 100%; min-width: var(--least, 0) }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums }
caption { text-align: left; padding: 0 0 6px; caption-side: top }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line);
  vertical-align: top }
th { font-weight: 600; white-space: nowrap }
thead th { color: var(--soft); font-weight: 500; font-size: .875rem }
td small { color: var(--soft); white-space: nowrap }
.facts { display: grid; gap: 14px 28px; margin: 1.4em 0;
  grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)) }
.facts div { border-left: 3px solid var(--accent); padding-left: 12px }
.facts dt { color: var(--soft); font-size: .875rem; line-height: 1.3 }
.facts dd { margin: 0; font-size: 1.35rem; font-weight: 600; line-height: 1.3 }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 14px; overflow-x: auto; font-size: .875rem; line-height: 1.5 }
pre, code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
p code { font-size: .9em }
.holds::before { content: "\\2713\\00a0"; color: var(--good); font-weight: 700 }
.fails::before { content: "\\2717\\00a0"; color: var(--bad); font-weight: 700 }
ul.checks { list-style: none; padding: 0 }
nav ul { columns: 2 260px; padding-left: 1.1em }
a { color: var(--accent) }
footer { color: var(--soft); font-size: .875rem; padding-top: 26px; padding-bottom: 60px;
  border-top: 1px solid var(--line); margin-top: 30px }
@media (max-width: 560px) {
  body { font-size: 16px }
  header { padding-top: 26px }
  .row { --columns: var(--few, 4) !important }
  .cells { --cell: 92px; gap: 8px }
}
@media print { section { break-inside: avoid } }
"""


def page(title: str, lead: str, parts: Sequence[str], footer: str) -> str:
    """Return a whole page: a heading, one sentence that says what it is, the parts, small print."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n</header>\n'
        f"<main>\n{''.join(parts)}</main>\n<footer>\n{footer}</footer>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str, anchor: str = "") -> str:
    """Return a part of the page with a heading of its own; `anchor` can be linked to."""
    name = f' id="{escape(anchor)}"' if anchor else ""
    return f"<section{name}>\n<h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def heading(text: str) -> str:
    """Return a heading inside a section."""
    return f"<h3>{escape(text)}</h3>\n"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; `kind` is "" or "note" for small print."""
    return f"<p{_class(kind)}>{escape(text)}</p>\n"


def contents(links: Mapping[str, str]) -> str:
    """Return a table of contents: anchor → text."""
    items = "".join(
        f'<li><a href="#{escape(name)}">{escape(text)}</a></li>\n' for name, text in links.items()
    )
    return f'<nav aria-label="Contents"><ul>\n{items}</ul></nav>\n'


def checks(statements: Mapping[str, bool]) -> str:
    """Return statements, each marked as holding or not, in words for screen readers."""
    items = "".join(
        f'<li class="{"holds" if holds else "fails"}">{escape(text)}'
        f" <small>({'holds' if holds else 'does not hold'} here)</small></li>\n"
        for text, holds in statements.items()
    )
    return f'<ul class="checks">\n{items}</ul>\n'


def facts(values: Mapping[str, Any]) -> str:
    """Return figures to be seen at once: what each is, and its value."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{cell(value)}</dd></div>\n"
        for name, value in values.items()
    )
    return f'<dl class="facts">\n{items}</dl>\n'


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> str:
    """Return a table whose first column names the rows."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{cell(row[0])}</th>'
        + "".join(f"<td>{cell(value)}</td>" for value in row[1:])
        + "</tr>\n"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption or "Table")}">'
        f"<table>\n{title}<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def cell(value: Any) -> str:
    """Return a value as people read it; a mapping with mean, low and high is a mean in an interval.

    Example:
        >>> cell(0.12345), cell(99648), cell(None), cell("<b>")
        ('0.123', '99,648', '–', '&lt;b&gt;')
        >>> cell({"mean": 0.64, "low": 0.63, "high": 0.65})
        '0.640 <small>0.630 to 0.650</small>'
    """
    if isinstance(value, Mapping):
        low, high = number(value["low"]), number(value["high"])
        return f"{number(value['mean'])} <small>{low} to {high}</small>"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(number(value) if isinstance(value, int | float) or value is None else str(value))


def number(value: int | float | None) -> str:
    """Return a number in few letters: three decimals below 10, none above 100, a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return (
        f"{value:.3f}"
        if abs(value) < 10
        else f"{value:.1f}"
        if abs(value) < 100
        else f"{value:,.0f}"
    )


def cells(images: Sequence[tuple["Image", str]], width: int = 120) -> str:
    """Return images with captions that fill the line and wrap, each at least `width` wide."""
    inner = "".join(_figure(image, caption) for image, caption in images)
    return f'<div class="cells" style="--cell: {width}px">\n{inner}</div>\n'


def row(images: Sequence[tuple["Image", str]], few: int = 4) -> str:
    """Return images side by side in columns of equal width; on a telephone in `few` columns."""
    inner = "".join(_figure(image, caption) for image, caption in images)
    return f'<div class="row" style="--columns: {len(images)}; --few: {few}">\n{inner}</div>\n'


def sheet(image: "Image", alt: str, caption: str = "", least: int = 0) -> str:
    """Return a wide image, which scrolls where the page is narrower than `least` pixels."""
    return (
        f'<figure><div class="scroll" role="region" tabindex="0" aria-label="{escape(alt)}" '
        f'style="--least: {least}px">{_img(image, alt)}</div>'
        + (f"<figcaption>{escape(caption)}</figcaption>" if caption else "")
        + "</figure>\n"
    )


def code(text: str) -> str:
    """Return commands to copy."""
    return f"<pre><code>{escape(text)}</code></pre>\n"


def escape(text: str) -> str:
    """Return a text as HTML shows it, quotes too."""
    return html.escape(text)


def _figure(image: "Image", caption: str) -> str:
    shown = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{_img(image, caption)}{shown}</figure>\n"


def _img(image: "Image", alt: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img src="data:image/png;base64,{data}" width="{image.width}" height="{image.height}"'
        f' alt="{escape(alt)}">'
    )


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
