"""`python -m weights2weights` is the command `w2w`."""

from .cli import main

main(prog_name="w2w")
