"""One list of config fields for two models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def inherit_fields(base: type, **defaults: Any) -> Callable[[Callable], Callable]:
    """Gives an ``__init__`` with ``**fields`` the explicit fields of ``base.__init__`` in their place.

    diffusers reads a model's config fields from the signature of its ``__init__``; this spares a second copy of the
    list.

    Args:
        base: the class whose fields are inherited.
        **defaults: other default values for some of them.
    """

    def decorate(init: Callable) -> Callable:
        inherited = [p for name, p in inspect.signature(base).parameters.items() if name != "self"]
        inherited = [p.replace(default=defaults.get(p.name, p.default)) for p in inherited]
        itself, *own = [
            p
            for p in inspect.signature(init).parameters.values()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]

        def with_defaults(self: Any, *args: Any, **fields: Any) -> None:
            init(self, *args, **{**defaults, **fields})

        with_defaults.__doc__ = init.__doc__
        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own + inherited]
        with_defaults.__signature__ = inspect.Signature([itself, *keyword_only])  # type: ignore[attr-defined]
        return with_defaults

    return decorate
