"""Whether what a training is given is there, told before anything is loaded that would read it.

Loads the standard library and the configuration alone.
"""

from __future__ import annotations

from pathlib import Path

from vimvol.address import check_there, is_file
from vimvol.config import TrainConfig
from vimvol.errors import InputError
from vimvol.train.published import explain_missing


def under_root(root: str, url: str) -> str:
    """Put a relative path under the root; addresses and absolute paths stay."""
    return url if "://" in url or Path(url).is_absolute() else str(Path(root) / url)


def check_given(config: TrainConfig) -> None:
    """Make sure that data and first weights are there; what is behind a URL is not looked at.

    Raises
    ------
    InputError
        If something is not; the message begins with the key that names it.
    """
    named = {f"volumes.{n}.{key}": getattr(v, key) for n, v in enumerate(config.volumes) for key in ("raw", "labels")}
    for number, images in enumerate(config.images):
        parts = {"folder": images.folder, "train": images.train, "validate": images.validate_}
        named |= {f"images.{number}.{key}": path for key, path in parts.items() if path is not None}
    for key, path in named.items():
        try:
            explain_missing(under_root(config.root, path))
            check_there(under_root(config.root, path))
        except InputError as error:
            raise InputError(f"{key} = {path}: {error}") from None
    # without a folder or suffix it may be the name of weights that come with the package
    if config.init is not None and Path(config.init).stem != config.init and not is_file(config.init):
        raise InputError(
            f"init = {config.init} is no file, and the training starts from the weights in it; train them first, give "
            "other weights, or start from random ones with init=null"
        )
