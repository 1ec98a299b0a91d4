"""`functools.cached_property` without the lock that it has before Python 3.12.

One lock for all instances: threads would wait for each other's models, and a process that is forked while another thread holds
it would wait forever. Two threads may compute a value at once; it is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class cached_property(Generic[Value]):
    """Computed when it is first read, then an attribute of the instance (of a frozen dataclass, too)."""

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> cached_property[Value]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Value: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Value | cached_property[Value]:
        if instance is None:
            return self
        value = instance.__dict__[self.name] = self.function(instance)
        return value
