"""Fills the templates: one HTML text that loads nothing, and that says so to the browser."""

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from components.reporting.table import interval, percent

# What a browser may do with the page: show its own pictures, run its own one script. No address at
# all is open, so whatever finds its way into a name on the page can load and send nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{}'"


def render(template: str, **values: Any) -> str:
    """The template as one file: style, script and data inside. `gallery`: see `gallery_data`."""
    environment = Environment(
        loader=PackageLoader("components.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent,
        interval=interval,
        image=_image,
        number=_number,
        points=_points,
        cell=_cell,
        png=_png,
        budget=_budget,
        data=_data,
    )
    script = _template("gallery.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=Markup(_template("page.css")),
        script=Markup(script),
        policy=_POLICY.format(digest),
        **values,
    )


def _template(name: str) -> str:
    return (files("components.reporting") / "templates" / name).read_text(encoding="utf-8")


def _data(value: Any) -> Markup:
    """JSON for a script element: nothing in it ends the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _image(svg: str) -> str:
    """A data address of an SVG: every plot keeps its own names, apart from the page's."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _png(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _budget(eps: dict[str, float]) -> str:
    """The form `8/255, 5 cm`, of Linf or L2 budgets alike."""
    words = {"rgb": lambda e: f"{255 * e:.3g}/255", "skeleton": lambda e: f"{100 * e:.3g} cm"}
    return ", ".join(words[name](value) for name, value in eps.items())


def _number(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "–" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}"


def _cell(text: str) -> str:
    """A value of a CSV file, short: `0.0441237` becomes `0.0441`."""
    try:
        return text if text.isdigit() else f"{float(text):.4g}"
    except ValueError:
        return text
