"""`w2w studio`: the web page."""

from typing import Any

import click
from click import option

from ._options import base_options, space_option
from ._output import verb


@verb("studio")
@space_option
@base_options
@option("--host", default="127.0.0.1", help="Address to listen on; the default is private.")
@option("--port", default=7860, type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@option(
    "--auth",
    metavar="USER:PASSWORD",
    envvar="W2W_STUDIO_AUTH",
    help="What visitors must enter; also read from W2W_STUDIO_AUTH.",
)
def command(space: str, base: Any, host: str, port: int, auth: str | None) -> dict[str, Any]:
    """Open a web page on which people sample, edit and take home models.

    Serves until interrupted. Needs the extra studio.

    \b
    Example: w2w studio --port 8000
    """
    from importlib.util import find_spec

    from ..errors import ResourceError
    from ..space import WeightSpace
    from ..studio import serve

    user, colon, password = (auth or "").partition(":")
    if auth and not (user and colon and password):
        raise click.UsageError("--auth: expected USER:PASSWORD")
    if find_spec("gradio") is None:
        raise ResourceError("the studio needs Gradio; pip install 'weights2weights[studio]'")
    login = (user, password) if auth else None
    opened = WeightSpace.from_pretrained(space)
    serve(base(), opened, space_name=space, host=host, port=port, auth=login)
    return {}
