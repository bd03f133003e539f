"""Tables for notebooks."""

from collections.abc import Mapping
from html import escape


def html_table(rows: Mapping[str, str], caption: str = "") -> str:
    """Return an HTML table of two columns."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{escape(key)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for key, value in rows.items()
    )
    return f"<table>{f'<caption>{escape(caption)}</caption>' * bool(caption)}{cells}</table>"
