"""Options that several verbs share, so that one thing has one name and one default everywhere."""

import click

base_option = click.option(
    "--base",
    default="people",
    show_default=True,
    metavar="BASE",
    help="Base model: an embedded world, a diffusers folder or a hub id.",
)
