"""A few SVG elements: path, circle, ellipse, box and group."""

from .palette import RGB, Number

Paint = RGB | str


def path(*steps: str | Number, **style: Paint | Number) -> str:
    """Draw a path of commands and coordinates: `path("M", 0, 1, "L", 2, 3, fill=SKIN)`."""
    data = " ".join([step if isinstance(step, str) else f"{step:.1f}" for step in steps])
    return f'<path d="{data}"{_style(style)}/>'


def circle(x: Number, y: Number, radius: Number, **style: Paint | Number) -> str:
    """Draw a circle."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"{_style(style)}/>'


def ellipse(x: Number, y: Number, width: Number, height: Number, **style: Paint | Number) -> str:
    """Draw an ellipse given its semi-axes."""
    return f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{width:.1f}" ry="{height:.1f}"{_style(style)}/>'


def box(x: Number, y: Number, width: Number, height: Number, **style: Paint | Number) -> str:
    """Draw a rectangle given its upper left corner and size."""
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size}{_style(style)}/>'


def group(*marks: str, **style: Paint | Number) -> str:
    """Draw several marks with one style or transform."""
    return f"<g{_style(style)}>{''.join(marks)}</g>"


def _style(style: dict[str, Paint | Number]) -> str:
    text = ""
    for name, value in style.items():
        if isinstance(value, tuple):
            value = f"#{round(value[0]):02x}{round(value[1]):02x}{round(value[2]):02x}"
        elif isinstance(value, float):
            value = f"{value:.2f}"
        text += f' {name.replace("_", "-")}="{value}"'
    return text
