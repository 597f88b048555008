"""HTML for notebooks: without scripts or outside resources, legible on light and on dark pages.

Only ``Markup`` is taken as it is. Any other value is escaped where it is put in, so that what a store holds cannot
become part of a page by being forgotten.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from jimmy_manager.plain_text import plain

LONGEST = 200
"""Characters of one value that are shown."""
MOST_FIELDS = 200
"""Fields of one mapping that are shown."""
_OPEN_UP_TO = 12

# Colours are those of the page, lines and shades translucent: so one style serves every theme. `div.jimmy td`
# outranks the rules that notebooks have for every `td`.
_STYLE = """<style>
div.jimmy{line-height:1.45}
div.jimmy table{border-collapse:collapse;border:0;margin:.3em 0 .5em;color:inherit}
div.jimmy th,div.jimmy td{border:0;border-bottom:1px solid rgba(128,128,128,.25);padding:.2em 1.4em .2em 0;
 text-align:left;vertical-align:top;color:inherit;max-width:32em;overflow-wrap:break-word}
div.jimmy tr{background:none!important}
div.jimmy th{font-weight:600;vertical-align:bottom}
div.jimmy tr:last-child>td{border-bottom:0}
div.jimmy td.num,div.jimmy th.num{text-align:right;font-variant-numeric:tabular-nums}
div.jimmy .dim{opacity:.7}
div.jimmy .dot{display:inline-block;width:.6em;height:.6em;border-radius:50%;margin-right:.4em;background:#888}
div.jimmy .mark{margin-right:1.4em;white-space:nowrap}
div.jimmy code{background:none;color:inherit;padding:0;font-family:ui-monospace,monospace}
div.jimmy summary{cursor:pointer}
div.jimmy img{display:inline-block;max-width:240px;margin:0 .5em .3em 0;border-radius:3px}
</style>"""


class Markup(str):
    """Finished HTML."""

    __slots__ = ()


def markup(value: object) -> Markup:
    r"""``value`` as HTML: escaped, on one line, control characters spelled out, unless it is ``Markup`` already.

    >>> markup('<b>\x1b[2J'), markup(Markup('<b>'))
    ('&lt;b&gt;\\x1b[2J', '<b>')
    """
    return value if isinstance(value, Markup) else Markup(html.escape(plain(value)))


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """An element with ``content``; an attribute of a Python word's name, such as ``class``, is written ``class_``.

    >>> element('p', 'a < b', class_='dim')
    '<p class="dim">a &lt; b</p>'
    """
    given = "".join(f' {name.rstrip("_")}="{html.escape(plain(value))}"' for name, value in attributes.items())
    return Markup(f"<{tag}{given}>{joined(content)}</{tag}>")


def joined(parts: Iterable[object]) -> Markup:
    """One piece of HTML of several."""
    return Markup("".join(map(markup, parts)))


def page(*parts: object) -> str:
    """What a ``_repr_html_`` returns: ``parts`` below each other, with the style of all of them."""
    return f'{_STYLE}<div class="jimmy">{joined(parts)}</div>'


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """A table; numbers stand to the right, as do the headings of columns that hold nothing else."""
    lines = list(rows)
    numeric = [any(map(_is_number, column)) and all(v is None or _is_number(v) for v in column)
               for column in zip(*lines, strict=True)]  # fmt: skip
    kinds = ["num" if is_numeric else "" for is_numeric in numeric] or [""] * len(head)
    titles = [_cell("th", name, kind) for name, kind in zip(head, kinds, strict=True)]
    body = joined(
        element("tr", *(_cell("td", shown(value), kind) for value, kind in zip(line, kinds, strict=True)))
        for line in lines
    )
    top = element("thead", element("tr", *titles)) if head else ""
    return element("table", top, element("tbody", body))


def fields(mapping: Mapping[str, Any]) -> Markup:
    """A mapping as a table of names and values, what is nested folded away where it is long."""
    rows = [
        element("tr", element("td", name), element("td", _value(value)))
        for name, value in islice(mapping.items(), MOST_FIELDS)
    ]
    if (more := len(mapping) - MOST_FIELDS) > 0:
        rows.append(element("tr", element("td", f"and {more} more", class_="dim", colspan=2)))
    return element("table", element("tbody", *rows))


def fold(summary: object, *content: object, is_open: bool = False) -> Markup:
    """``content`` that unfolds with a click on ``summary``."""
    opened = {"open": ""} if is_open else {}
    return element("details", element("summary", summary), *content, **opened)


def image(png: bytes, title: str) -> Markup:
    """A picture that is part of the page."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    return Markup(f'<img src="{source}" alt="{markup(title)}" title="{markup(title)}">')


def shown(value: object) -> object:
    """A result as a cell: four digits of a float, nothing for None.

    >>> shown(0.123456), shown(None), shown(True), shown('cnn')
    ('0.1235', '', 'True', 'cnn')
    """
    if value is None or isinstance(value, Markup):
        return value or ""
    return f"{value:.4g}" if isinstance(value, float) else clipped(str(value))


def clipped(text: str) -> str:
    """``text`` in at most ``LONGEST`` characters, an ellipsis for what is left out."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _cell(tag: str, value: object, kind: str) -> Markup:
    return element(tag, value, class_=kind) if kind else element(tag, value)


def _value(value: Any) -> Markup:
    if not (isinstance(value, Mapping) and value):
        return element("code", clipped(repr(value)))
    count = f"{len(value)} fields" if len(value) != 1 else "1 field"
    return fold(element("span", count, class_="dim"), fields(value), is_open=len(value) <= _OPEN_UP_TO)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
