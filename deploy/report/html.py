"""HTML in small pieces: everything that comes from a file is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["data_uri", "element", "escape", "number", "percent", "points", "section", "table"]


def element(tag: str, content: str, **attributes: object) -> str:
    """`<tag attributes>content</tag>`; content is HTML already. `cls` is the class."""
    names = {"cls": "class"}
    text = "".join(f' {names.get(k, k)}="{escape(str(v))}"' for k, v in attributes.items())
    return f"<{tag}{text}>{content}</{tag}>"


def section(title: str, *parts: str) -> str:
    """A section with its heading; nothing if there is nothing in it."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), note: str = ""
) -> str:
    """A table of HTML cells; columns in `numbers` are aligned to the right."""

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = (' class="n"' if i in numbers else "" for i in range(len(cells)))
        both = zip(kinds, cells, strict=True)
        return "<tr>" + "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in both) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    if not body:
        return ""
    heading = line("th", [escape(text) for text in head])
    under = f'<p class="note">{note}</p>' if note else ""
    whole = f"<table><thead>{heading}</thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{whole}</div>{under}'


def number(value: float, digits: int = 3) -> str:
    """`value` with as many significant digits, never in powers of ten."""
    if value == 0 or abs(value) >= 10**digits:
        return f"{value:,.0f}"
    text = f"{value:#.{digits}g}"
    return f"{value:.{digits}f}" if "e" in text else text.rstrip(".")


def percent(rate: float) -> str:
    """A rate in percent."""
    return f"{100 * rate:.0f} %"


def points(difference: float) -> str:
    """A difference of rates in percentage points, with its sign."""
    return f"{100 * difference:+.0f}".replace("-", "\N{MINUS SIGN}")


def data_uri(content: bytes, kind: str) -> str:
    """The content as an address of its own."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
