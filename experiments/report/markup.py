"""HTML put together so that text is escaped unless it was made here."""

from collections.abc import Iterable, Sequence
from html import escape

VOID_ELEMENTS = frozenset({"col", "img", "link", "meta", "source"})

Content = str | None | Iterable["Content"]


class Markup(str):
    """HTML already; every other string is text and gets escaped."""


def element(name: str, /, *children: Content, **attributes: object) -> Markup:
    """Build one HTML element.

    Args:
      name: the element's name.
      *children: text, `Markup`, or iterables of them; None adds nothing.
      **attributes: their values, escaped; `class_` is written class, `aria_label` aria-label, and
        None leaves the attribute out.

    >>> element("p", "a < b ", element("b", "so"), class_="note")
    '<p class="note">a &lt; b <b>so</b></p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID_ELEMENTS:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(content: Content) -> Markup:
    """`content` in order, as one piece of HTML."""
    if content is None:
        return Markup("")
    if isinstance(content, str):
        return content if isinstance(content, Markup) else Markup(escape(content))
    return Markup("".join(join(part) for part in content))


def row_header(*children: Content, **attributes: object) -> Markup:
    """The cell that names a table's row."""
    return element("th", element("span", *children), scope="row", **attributes)


def column_header(*children: Content, **attributes: object) -> Markup:
    """The cell that names a table's column."""
    return element("th", element("span", *children), scope="col", **attributes)


def group_header(*children: Content, **attributes: object) -> Markup:
    """The cell that names several columns."""
    return element("th", *children, scope="colgroup", **attributes)


def details(summary: str, *children: Content) -> Markup:
    """What is there for those who ask: closed until its summary is clicked."""
    return element("details", element("summary", summary), *children)


def table(
    caption: str, head: Sequence[Sequence[Markup]], rows: Sequence[Markup], class_: str = "numbers"
) -> Markup:
    """A table in a box of its own, which scrolls where the page is too narrow for it.

    Args:
      caption: what the table shows; also the name of its box.
      head: the header rows, each a list of cells.
      rows: the `tr` elements below.
      class_: "numbers" (right-aligned figures) or "words".
    """
    content = element(
        "table",
        element("caption", caption),
        element("thead", [element("tr", cells) for cells in head]),
        element("tbody", rows),
        class_=class_,
    )
    # tabindex, so that the keyboard can scroll it too.
    return element("div", content, class_="scroll", role="region", aria_label=caption, tabindex=0)
