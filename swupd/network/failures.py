"""What the errors of requests mean, below the layers that wrap them. This module belongs to `network.transport`."""

from __future__ import annotations


def is_rejection(error: BaseException) -> bool:
    """Whether we did not accept the server's certificate, rather than the connection having failed."""
    return "certificate verify failed" in str(error).lower() or "doesn't match" in str(error)


def wants_certificate(error: BaseException) -> bool:
    """Whether the server ended it because we have no certificate that it knows."""
    text = str(error).lower().replace("_", " ")
    return "alert certificate required" in text or "alert bad certificate" in text or "alert unknown ca" in text


def is_closed(error: BaseException) -> bool:
    """Whether the other end closed the connection without an answer."""
    cause = error.args[0] if error.args else None
    parts = cause.args if isinstance(cause, BaseException) else ()
    return any(isinstance(part, ConnectionResetError | BrokenPipeError) for part in parts)


def is_unreachable(error: BaseException) -> bool:
    """Whether no connection could be made, to the server or the proxy: name unknown, refused, no route."""
    from urllib3.exceptions import NewConnectionError, ProxyError

    cause = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(cause, ProxyError):
        cause = cause.original_error
    return isinstance(cause, NewConnectionError)


def reason(error: BaseException | None) -> str:
    """The innermost sentence of an error that others were wrapped around."""
    while error is not None:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in error.args if isinstance(part, BaseException)), None)
        if inner is None and isinstance(error.__cause__, OSError):
            inner = error.__cause__
        if inner is None:
            break
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
