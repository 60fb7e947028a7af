"""Train the two networks that come with the package, and put their weights where they are shipped from.

Needs ``pip install '.[train]'`` and the two annotated volumes that ``configs/train/*.yaml`` name, in one folder.
Three trainings for each network, three to four hours on a core in all; interrupted, it goes on
where it was.

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
TRAININGS = {
    "vimunet-nano": ("vimunet_nano_start", "vimunet_nano", "vimunet_nano_synthetic"),
    "unet-nano": ("unet_nano_start", "unet_nano", "unet_nano_synthetic"),
}
"""By network: configurations, one after the other, each of which goes on from the weights of the one before."""


def main(folder: Path) -> None:
    """Train on the volumes in a folder."""
    for model, names in TRAININGS.items():
        for name in names:
            path = REPOSITORY / "configs" / "train" / f"{name}.yaml"
            config = load_config(TrainConfig, str(path), {"root": str(folder)})
            print(f"{model}: {config.steps} steps, into {config.out}")
            weights = fit(config)
        if weights.stat().st_size > LARGEST:
            sys.exit(f"{weights} has {weights.stat().st_size} bytes, too many to ship (at most {LARGEST})")
        target = REPOSITORY / "vimvol" / "models" / "weights" / weights.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(weights, target)
        print(f"{model}: {target}")


if __name__ == "__main__":
    run_script(main, __doc__)
