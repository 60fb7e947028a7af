"""What a weights file says about itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from vimvol.errors import CheckpointError

FORMAT = 1
"""Version of the description; a reader refuses a newer one."""


@dataclass(frozen=True)
class ModelSpec:
    """Description of a network and its weights.

    Attributes
    ----------
    architecture
        Key of `vimvol.models.registry.MODELS`.
    options
        Keyword arguments that replace the entry's; numbers, texts, booleans, tuples of them.
    in_channels, out_channels
        Channels of the image, and of the prediction.
    classes
        What each channel of the prediction is, one name each.
    normalize
        What the network expects: ``standardize``, intensities of mean 0 and standard deviation 1; ``none``,
        intensities divided by the maximum of their dtype.
    voxel_sizes
        Of the volumes seen in training, nm, (z, y, x) each.
    card
        Notes for whoever uses the weights: data, licence, commit, scores.

    Raises
    ------
    CheckpointError
        If there is not one class a channel of the prediction.
    """

    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict)
    in_channels: int = 1
    out_channels: int = 1
    classes: tuple[str, ...] = ("boundary",)
    normalize: Literal["standardize", "none"] = "standardize"
    voxel_sizes: tuple[tuple[float, float, float], ...] = ()
    card: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.classes) != self.out_channels:
            raise CheckpointError(
                f"classes {', '.join(self.classes)} do not fit {self.out_channels} channels of prediction; "
                "name one class a channel"
            )
        if self.normalize not in ("standardize", "none"):
            raise CheckpointError(f"normalize={self.normalize!r} is not known; use 'standardize' or 'none'")

    def to_json(self) -> str:
        """Return the description as one line of JSON."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str = "the file") -> ModelSpec:
        """Read the description back; the inverse of `to_json`. ``where`` names the file in errors.

        Raises
        ------
        CheckpointError
            If it is no such description or of a newer version.
        """
        try:
            data = _tuples(json.loads(text))
            version = data.pop("format")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CheckpointError(f"{where} has a description that cannot be read; export the weights again") from None
        if version != FORMAT:
            raise CheckpointError(
                f"description of the weights has version {version}, newer than {FORMAT}; update vimvol"
            )
        try:
            return cls(**cast("dict[str, Any]", data))
        except TypeError as error:
            raise CheckpointError(f"{where} has a description that does not fit ({error}); export it again") from None


def _tuples(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Turn the lists that JSON knows into tuples."""
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return value
