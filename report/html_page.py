# SPDX-License-Identifier: LGPL-2.1-or-later
"""Elements of a page. Text is escaped unless it has been made here: what comes from a log can't be taken for an element.

What is written is well-formed XML as well, so that any parser can check it.
"""

import re
from html import escape

# These have no content, and no end tag.
VOID = {"meta", "br", "wbr", "hr", "link"}


class Element(str):
    """Finished HTML."""


def text(value: object) -> Element:
    return value if isinstance(value, Element) else Element(escape(str(value), quote=True))


def join(*parts: object) -> Element:
    """One after the other; None is nothing, and lists are taken apart."""
    out = []
    for part in parts:
        if isinstance(part, (list, tuple)):
            out.append(join(*part))
        elif part is not None:
            out.append(text(part))
    return Element("".join(out))


def element(tag: str, /, *content: object, **attributes: object) -> Element:
    """`class_` is the attribute class; an attribute that is None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Element(f"<{tag}{written}/>")
    return Element(f"<{tag}{written}>{join(*content)}</{tag}>")


def name(identifier: str) -> Element:
    """A long name that may be broken where it has an underscore, or a colon."""
    return Element(re.sub(r"(_|::)", r"\1<wbr/>", escape(identifier)))


def table(head: list[object], rows: list[list[object]], class_: str | None = None) -> Element:
    """Cells that are pairs have a class of their own: (class, content). Wide ones are scrolled by themselves."""

    def cell(kind: str, content: object) -> Element:
        if isinstance(content, tuple):
            return element(kind, content[1], class_=content[0])
        return element(kind, content)

    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", *[cell("th", title) for title in head])),
            element("tbody", *[element("tr", *[cell("td", content) for content in row]) for row in rows]),
            class_=class_,
        ),
        class_="scroll",
        tabindex="0",
    )
