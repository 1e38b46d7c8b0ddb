"""One lock a store: what is done to it is done whole, whichever threads and modes are at it."""

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

import torch

F = TypeVar("F", bound=Callable[..., Any])

_locks: "WeakValueDictionary[int, Any]" = WeakValueDictionary()
_held: list[Any] = []  # while the process forks


def lock() -> Any:
    """Return a new lock, which a thread that holds it may take again."""
    made = threading.RLock()
    _locks[id(made)] = made
    return made


def alone(method: F) -> F:
    """Let a method run while no other thread runs such a method of the same object."""

    @wraps(method)
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return cast(F, wait)


def outlasting(method: F) -> F:
    """Let tensors that a method makes be changed later, also those made in inference mode."""

    @wraps(method)
    def outside(*args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(False):
            return method(*args, **kwargs)

    return cast(F, outside)


# A process that forks while another thread changes a store would hand down half a change, and a
# lock that nobody is there to open: so it waits until all stores are whole.


def _close() -> None:
    _held.extend(made for reference in _locks.valuerefs() if (made := reference()) is not None)
    for made in _held:
        made.acquire()


def _open() -> None:
    for made in _held:
        made.release()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close, after_in_parent=_open, after_in_child=_open)
