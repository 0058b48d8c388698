# runtime/python/attnrt/errors.py: the exceptions of the package
"""The exceptions that attnrt raises. Each is also an attribute of the package: attnrt.Error."""

from __future__ import annotations


class Error(Exception):
    """Something failed. Its text is one line: where, what was found, what was expected.

    status is "unsupported", "out of memory", "invalid argument", "internal error", "device lost"
    or "not found".
    """

    status: str = "internal error"


class UnsupportedError(Error):
    """No backend that the policy allows supports this problem; the text has each one's reasons."""

    status = "unsupported"


class InvalidArgumentError(Error, ValueError):
    """The caller's fault: tensors that disagree, an unknown word, a policy with an error."""

    status = "invalid argument"


class OutOfMemoryError(Error, MemoryError):
    """Memory of the host or of the device ran out."""

    status = "out of memory"


class NotFoundError(Error):
    """No plugin has the name that was asked for."""

    status = "not found"


_CLASSES: dict[str, type[Error]] = {
    kind.status: kind
    for kind in (UnsupportedError, InvalidArgumentError, OutOfMemoryError, NotFoundError)
}


def error_of(status: str, message: str) -> Error:
    """Makes the exception for a status of the C library; the extension module raises it."""
    error = _CLASSES.get(status, Error)(message)
    error.status = status
    return error
