"""The predictor that lives in a worker: from intensities to boundary probabilities, tile by tile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from vimvol.geometry import Block, Index
from vimvol.infer.device import is_out_of_memory, may_be_out_of_memory
from vimvol.infer.orientations import ORIENTATIONS, Orientation
from vimvol.infer.standardization import Standardization
from vimvol.infer.tiles import Tiling, cut_mirrored
from vimvol.models.memory import kept_memory

T = TypeVar("T")


@dataclass(slots=True)
class Fallbacks:
    """What it took to predict a block beyond what was configured.

    Attributes
    ----------
    halved
        Times that the batch was halved because memory ran out. The bytes may differ by this from a run that had the
        memory: kernels chosen for another batch may round otherwise.
    float32
        Tiles that were computed in float32, since bfloat16 gave values that are not finite.
    not_finite
        Voxels whose intensity is not finite, which count as missing.
    """

    halved: int = 0
    float32: int = 0
    not_finite: int = 0

    def nonzero(self) -> dict[str, int]:
        """Return the counts that are not 0, by name."""
        counts = {"halved": self.halved, "float32_tiles": self.float32, "not_finite": self.not_finite}
        return {name: count for name, count in counts.items() if count}


class Predictor:
    """A network on its device.

    It heals what can be healed: a batch that does not fit the memory is halved for the rest of the block, and a tile
    that is not finite in bfloat16 is computed in float32.

    Parameters
    ----------
    model
        Network (B, 1, Y, X) -> logits (B, C, Y, X).
    device
        Where it runs.
    precision
        ``float32`` or ``bfloat16`` (autocast; the scan and the sum of residuals stay in float32).
    batch
        Tiles a forward pass. Every pass has exactly this many, the last one filled up: the kernels that a library
        chooses depend on the size of the batch, and with them the last bits of the result.
    augment
        Key of `ORIENTATIONS`: what a tile is shown in, one forward pass each. Their 8-bit probabilities are averaged,
        whose sum is exact in any order.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        precision: str = "float32",
        batch: int = 4,
        augment: str = "none",
    ) -> None:
        self._model = model.to(device).eval()
        self._device = device
        self._bfloat16 = precision == "bfloat16"
        self._batch = batch
        self._orientations = ORIENTATIONS[augment]
        # Two calls of a process cut and paste tiles at the same time, but a GPU holds what one forward pass needs.
        self._alone = contextlib.nullcontext() if device.type == "cpu" else Lock()

    def predict_block(
        self,
        raw: npt.NDArray[Any],
        origin: Block,
        block: Block,
        tiling: Tiling,
        standardization: Standardization,
        channels: int,
        fallbacks: Fallbacks | None = None,
        wanted: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Predict the boundaries of a block.

        Parameters
        ----------
        raw
            (z, y, x) intensities of ``origin``.
        origin
            The box of the volume that ``raw`` holds: at least `region_for` of the block.
        block
            The box to predict.
        tiling
            Tiles of the volume.
        standardization
            From intensities to network input.
        channels
            Output channels of the network.
        fallbacks
            Counts what it took.
        wanted
            (z, y, x) of the block: voxels that matter; tiles without any are not computed, and all others are 0. None:
            all matter.

        Raises
        ------
        MemoryError
            If not even one tile fits the memory.
        FloatingPointError
            If the network returns values that are not finite in float32.

        Returns
        -------
        numpy.ndarray
            (c, z, y, x) probabilities of the block, 0..255 for 0..1.
        """
        result = np.zeros((channels, *block.shape), np.uint8)
        call = _Call(fallbacks or Fallbacks(), self._batch, tiling.shown)
        tiles = (
            index for index in tiling.grid.overlapping(block) if wanted is None or _any(wanted, block, tiling, index)
        )
        with kept_memory() if self._device.type == "cpu" else contextlib.nullcontext():
            for indices in _batched(tiles, self._batch):
                inputs = np.zeros((self._batch, 1, *tiling.window), np.float32)
                for i, index in enumerate(indices):
                    window = tiling.window_of(index)
                    seen = window.intersect(origin)
                    part = standardization.apply(raw[seen.within(origin).slices], seen)
                    inputs[i, 0] = cut_mirrored(part[0], seen, window)
                outputs = self._forward(inputs, len(indices), call)
                for i, index in enumerate(indices):
                    _paste(result, block, outputs[i], tiling, index)
        if wanted is not None:
            result *= wanted
        return result

    def _forward(self, inputs: npt.NDArray[np.float32], used: int, call: _Call) -> npt.NDArray[np.uint8]:
        """Return probabilities (B, C, Y, X), 0..255, of a batch of which the first ``used`` tiles are wanted."""
        parts: list[torch.Tensor] = []
        while (begin := sum(len(part) for part in parts)) < used:
            part = torch.from_numpy(inputs[begin : begin + call.batch])
            try:
                with self._alone:
                    parts.append(self._probabilities(part, min(used - begin, len(part)), call.shown, call.fallbacks))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) and not (call.batch > 1 and may_be_out_of_memory(error)):
                    raise
                call.batch //= 2
                call.fallbacks.halved += 1
            else:
                continue
            # Not in the handler, where the error holds on to what was allocated.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            if not call.batch:
                y, x = inputs.shape[-2:]
                raise MemoryError(
                    f"a single tile of {y} x {x} voxels does not fit the memory of {self._device}; give a smaller "
                    "predict.tile, or fewer workers"
                )
        scaled: npt.NDArray[np.uint8] = torch.cat(parts).numpy()
        return scaled

    @torch.inference_mode()
    def _probabilities(
        self, tiles: torch.Tensor, used: int, shown: Sequence[int] | None, fallbacks: Fallbacks
    ) -> torch.Tensor:
        """Return probabilities (B, C, Y, X) uint8, 0..255, in main memory, of tiles that may be shown resampled."""
        batch = _resampled(tiles.to(self._device), shown)
        maps = (self._oriented(batch, used, orientation, fallbacks) for orientation in self._orientations)
        mean = sum(maps, torch.zeros(())) / len(self._orientations)
        return _resampled(mean, tiles.shape[-2:]).round().to(torch.uint8).cpu()

    def _oriented(self, tiles: torch.Tensor, used: int, orientation: Orientation, fallbacks: Fallbacks) -> torch.Tensor:
        """Return probabilities (B, C, Y, X) float32, whole numbers 0..255, of tiles shown in an orientation."""
        batch = orientation.show(tiles)
        logits = self._logits(batch, bfloat16=self._bfloat16)
        finite = torch.isfinite(logits[:used]).flatten(1).all(1)
        if not bool(finite.all()) and self._bfloat16:
            exact = self._logits(batch, bfloat16=False)
            logits[:used][~finite] = exact[:used][~finite]
            fallbacks.float32 += int((~finite).sum())
            finite = torch.isfinite(logits[:used]).flatten(1).all(1)
        if not bool(finite.all()):
            raise FloatingPointError("the network returned values that are not finite, in float32, too")
        return orientation.undo((torch.sigmoid(logits) * 255).round())

    def _logits(self, batch: torch.Tensor, *, bfloat16: bool) -> torch.Tensor:
        with _exact(self._device), torch.autocast(self._device.type, torch.bfloat16, enabled=bfloat16):
            logits: torch.Tensor = self._model(batch).float()
        return logits


@dataclass(slots=True)
class _Call:
    """What one call of `Predictor.predict_block` carries from batch to batch; two may run in one process."""

    fallbacks: Fallbacks
    batch: int
    shown: Index | None


def _exact(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Let float32 be float32, and the same input give the same bytes: cuDNN convolves in TF32 unless told otherwise."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def _resampled(images: torch.Tensor, shape: Sequence[int] | None) -> torch.Tensor:
    """Return images (B, C, Y, X) float32 stretched to a shape (y, x), linearly, averaged where voxels get wider."""
    if shape is None or tuple(shape) == tuple(images.shape[-2:]):
        return images
    return functional.interpolate(images, tuple(shape), mode="bilinear", antialias=True)


def _paste(
    result: npt.NDArray[np.uint8], block: Block, output: npt.NDArray[np.uint8], tiling: Tiling, index: Sequence[int]
) -> None:
    """Write the part of a tile's output (c, y, x) that lies in the block."""
    target = tiling.grid.block(index).intersect(block)
    source = target.within(tiling.window_of(index)).slices[1:]
    result[(slice(None), *target.within(block).slices)] = output[(slice(None), *source)][:, None]


def _any(wanted: npt.NDArray[np.bool_], block: Block, tiling: Tiling, index: Sequence[int]) -> bool:
    """Tell whether a tile holds a voxel of the block that is wanted."""
    return bool(wanted[tiling.grid.block(index).intersect(block).within(block).slices].any())


def _batched(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while chunk := list(islice(items, size)):
        yield chunk
