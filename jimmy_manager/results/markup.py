"""The little HTML of diffs and of runs: every value is escaped where it is put in, unless it is ``Markup`` already."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from jimmy_manager.manager.plain_text import plain

_STYLE = """<style>
div.jimmy table{border-collapse:collapse;margin:.3em 0 .5em}
div.jimmy th,div.jimmy td{border-bottom:1px solid rgba(128,128,128,.25);padding:.2em 1.4em .2em 0;text-align:left;
 vertical-align:top;max-width:32em;overflow-wrap:anywhere}
div.jimmy .dim{opacity:.7}
div.jimmy img{display:inline-block;max-width:240px;margin:0 .5em .5em 0}
</style>"""


class Markup(str):
    """Finished HTML."""

    __slots__ = ()


def markup(value: object) -> Markup:
    r"""``value`` as HTML: escaped, on one line, control characters spelled out.

    >>> markup('<b>\x1b[2J'), markup(Markup('<b>'))
    ('&lt;b&gt;\\x1b[2J', '<b>')
    """
    return value if isinstance(value, Markup) else Markup(html.escape(plain(value)))


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """An element with ``content``; the attribute ``class`` is written ``class_``.

    >>> element('p', 'a < b', class_='dim')
    '<p class="dim">a &lt; b</p>'
    """
    given = "".join(f' {name.rstrip("_")}="{markup(value)}"' for name, value in attributes.items())
    return Markup(f"<{tag}{given}>{joined(content)}</{tag}>")


def joined(parts: Iterable[object]) -> Markup:
    """One piece of HTML of several."""
    return Markup("".join(map(markup, parts)))


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """A table with a line of headings."""
    top = element("thead", element("tr", *(element("th", name) for name in head)))
    lines = (element("tr", *(element("td", value) for value in row)) for row in rows)
    return element("table", top, element("tbody", *lines))


def image(png: bytes, title: str) -> Markup:
    """A picture that is part of the page."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    return Markup(f'<img src="{source}" alt="{markup(title)}" title="{markup(title)}">')


def page(*parts: object) -> str:
    """What a ``_repr_html_`` returns: ``parts`` below each other."""
    return f'{_STYLE}<div class="jimmy">{joined(parts)}</div>'
