"""The one kind of failure that a caller is expected to meet.

Whatever can go wrong through input (a file, a shape, a name, a setting) raises `W2WError`. Its
message is one line that names what came, what was expected and the way out; the command line prints
that line and exits with 1. Any other exception that reaches a user is a bug.
"""


class W2WError(ValueError):
    """An expected failure, told in one line: what came, what was expected, the way out."""
