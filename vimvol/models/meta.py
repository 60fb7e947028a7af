"""Networks without memory for their weights: shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

FILLS = {"normal_", "uniform_", "div_"}
"""What draws initial weights and scales them."""


@contextmanager
def without_values() -> Iterator[None]:
    """Let networks built inside have weights of shapes alone, on the meta device."""
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Leave out what draws values: the meta device has none, and to ask it for them loads PyTorch's compiler.

    That would take every process, the workers among them, more than a second and 100 MB.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the function returns
        """Call the function, or return the tensor that it would fill."""
        given = kwargs or {}
        if getattr(func, "__name__", "") in FILLS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
