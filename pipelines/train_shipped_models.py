"""Train the two networks that come with the package, and put their weights where they are shipped from.

Needs ``pip install '.[train]'`` and the two annotated volumes that ``configs/train/*.yaml`` name, in one folder.
Two trainings for each network, an hour or two on a core in all; interrupted, it goes on where it was.

    python pipelines/train_shipped_models.py ../shared/data
"""

import shutil
import sys
from pathlib import Path

from vimvol.cli import run_script
from vimvol.config import TrainConfig, load_config
from vimvol.train.fit import fit

REPOSITORY = Path(__file__).resolve().parents[1]
LARGEST = 10_000_000


def main(folder: Path) -> None:
    """Train on the volumes in a folder."""
    for name in ("vimunet_nano_start", "vimunet_nano", "unet_nano_start", "unet_nano"):
        config = load_config(TrainConfig, str(REPOSITORY / "configs" / "train" / f"{name}.yaml"), {"root": str(folder)})
        print(f"{config.model}: {config.steps} steps, into {config.out}")
        weights = fit(config)
        if name.endswith("_start"):  # only the next one begins with them
            continue
        if weights.stat().st_size > LARGEST:
            sys.exit(f"{weights} has {weights.stat().st_size} bytes, too many to ship (at most {LARGEST})")
        target = REPOSITORY / "vimvol" / "models" / "weights" / weights.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(weights, target)
        print(f"{config.model}: {target}")


if __name__ == "__main__":
    run_script(main, __doc__)
