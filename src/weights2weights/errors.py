"""Expected failures, each told in one line: what came, what was expected, the way out.

The command line prints that line and exits with 1. Any other exception that reaches a user is a
bug.
"""


class W2WError(Exception):
    """An expected failure; catch this one to catch them all."""


class InputError(W2WError, ValueError):
    """An argument, a file or a combination of them that cannot be used: the caller can fix it."""


class ResourceError(W2WError, RuntimeError):
    """The machine's failure, not the caller's: a full disk, no network, too little memory."""
