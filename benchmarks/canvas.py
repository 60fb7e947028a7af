"""Compare tiles predicted on their own grid of patches with the same tiles padded to the canvas of 1024 pixels.

    python benchmarks/canvas.py --data vnc_stack1_z00-14.h5 --sections 12 13 14

The reference pads every image to 1024 x 1024, for which its position embedding is laid out; here a tile has a grid of
its own, to which the embedding is interpolated. Prints a table in Markdown, by tile size: how far the boundaries of the
two are apart, what each is worth against the truth, and processor seconds. A third network says how much of that comes
from the embedding: a tile on its own grid, but with the corner of the embedding that the padded tile has. An embedding
of a smaller canvas is first interpolated to 1024.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vimvol.models import build_model, load_checkpoint
from vimvol.models.checkpoint import LoadedModel
from vimvol.train.targets import boundary_target, grow_instances

CANVAS = 1024
GROWN = 32
"""Voxels that instances grow into what is no instance, before their boundaries are taken."""


def main() -> None:
    """Measure and print."""
    arguments = parse()
    torch.set_num_threads(1)
    loaded = load_checkpoint(arguments.weights)
    with h5py.File(arguments.data) as file:
        raw, labels = (np.asarray(file[name]) for name in ("volumes/raw", "volumes/labels/neuron_ids"))
    standard = ((raw - raw.mean()) / raw.std()).astype(np.float32)
    print("| tile | difference | across .5 | by the embedding | precision, own grid | padded | own grid s | padded s |")
    print("|---|---|---|---|---|---|---|---|")
    padded = network(loaded, CANVAS, pad_to_canvas=True)
    with torch.inference_mode():
        padded(torch.zeros(1, 1, 64, 64))  # what only the first call takes
    for size in arguments.sizes:
        own, corner = network(loaded, CANVAS), network(loaded, size)
        maps: list[list[NDArray[np.float32]]] = [[], [], []]
        seconds, truths = np.zeros(3), []
        for section, y, x in tiles(arguments.sections, size, raw.shape[-1], arguments.tiles):
            box = (section, slice(y, y + size), slice(x, x + size))
            truths.append([t[0] for t in boundary_target(grow_instances(labels[box], GROWN))])
            for number, model in enumerate((own, padded, corner)):
                begin = time.process_time()
                with torch.inference_mode():
                    logits = model(torch.from_numpy(standard[box])[None, None])
                seconds[number] += time.process_time() - begin
                maps[number].append(logits[0, arguments.channel].sigmoid().numpy())
        grid, canvas, cropped = (np.stack(m) for m in maps)
        target, weight = (np.stack(part) for part in zip(*truths, strict=True))
        apart = np.abs(grid - canvas).mean()
        cells = [f"{size}", f"{apart:.4f}", f"{((grid > 0.5) != (canvas > 0.5)).mean():.2%}"]
        cells += [f"{np.abs(grid - cropped).mean():.4f}"]
        cells += [f"{average_precision(m[weight > 0], target[weight > 0]):.3f}" for m in (grid, canvas)]
        cells += [f"{s / len(truths):.2f}" for s in seconds[:2]]
        print("| " + " | ".join(cells) + " |", flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CREMI layout: volumes/raw, volumes/labels/neuron_ids")
    parser.add_argument("--sections", type=int, nargs="+", default=[0], help="indices along z")
    parser.add_argument("--weights", default="vimunet-nano", help="a ViM-UNet: a name of `vimvol models` or a file")
    parser.add_argument("--channel", type=int, default=0, help="of the prediction, that is compared")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 384, 512, 768, 1024], help="pixels along an axis")
    parser.add_argument("--tiles", type=int, default=4, help="the most of a section")
    return parser.parse_args()


def network(loaded: LoadedModel, canvas: int, **options: Any) -> nn.Module:  # noqa: ANN401
    """Return the network with the embedding of the first pixels of a canvas of 1024, padding nothing if not asked."""
    spec, state = loaded.spec, loaded.model.state_dict()
    encoder: Any = loaded.model.get_submodule("encoder")
    side, count = CANVAS // 16, canvas // 16
    with torch.inference_mode():
        rows = encoder._positions((side, side))
    token = encoder._class_index((side, side)) if encoder.options.class_token != "none" else None
    first = torch.arange(side * side).reshape(side, side)[:count, :count].flatten()
    if token is not None:  # it keeps its row, and moves the patches behind it by one
        patches = torch.cat([rows[:, :token], rows[:, token + 1 :]], dim=1)[:, first]
        at = count * count // 2 if encoder.options.class_token == "middle" else 0
        rows = torch.cat([patches[:, :at], rows[:, token : token + 1], patches[:, at:]], dim=1)
    else:
        rows = rows[:, first]
    chosen = {**spec.options, "canvas": canvas, "pad_to_canvas": False, **options}
    model = build_model(spec.architecture, in_channels=spec.in_channels, out_channels=spec.out_channels, **chosen)
    model.load_state_dict({**state, "encoder.pos_embed": rows.clone()})
    return model.eval()


def tiles(sections: list[int], size: int, width: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield section and first row and column of tiles that do not overlap."""
    starts = [(y, x) for y in range(0, width - size + 1, size) for x in range(0, width - size + 1, size)]
    step = max(1, len(starts) // most)
    for section in sections:
        for y, x in starts[::step][:most]:
            yield section, y, x


def average_precision(found: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """Return the area under precision by recall of pixels."""
    hit = true[np.argsort(-found, kind="stable")] > 0
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return float(precision[hit].mean())


if __name__ == "__main__":
    main()
