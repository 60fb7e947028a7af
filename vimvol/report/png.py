"""Writing a figure as a PNG, into a folder or an object store."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from vimvol.address import absolute
from vimvol.io.objects import open_objects


def write_png(figure: Figure, path: str | os.PathLike[str], dpi: int = 120) -> None:
    """Write a picture in one step: it appears when it is complete, and replaces one that is there.

    Parameters
    ----------
    figure
        With a canvas.
    path
        Path or URL.
    dpi
        Pixels an inch.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    data = BytesIO()
    # Of what matplotlib and Pillow write by default, only the version of the former would differ between installations.
    figure.savefig(data, format="png", dpi=dpi, metadata={"Software": "vimvol"}, pil_kwargs={"compress_level": 4})
    folder, _, name = absolute(str(Path(path)) if isinstance(path, os.PathLike) else path).rpartition("/")
    open_objects(folder).put(name, data.getvalue())
