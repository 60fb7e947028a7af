"""A neuroglancer in the browser, with what a run has made; its server also serves the files, on one port.

OME-Zarr on this machine is read by the browser itself, level by level. What it cannot read - HDF5, TIFF, and object
stores, which would have to be public - is read by this process and handed on. Needs the package neuroglancer.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vimvol.address import is_url
from vimvol.errors import InputError, MissingExtraError, install_text
from vimvol.geometry import Block
from vimvol.io import Volume

GREY = "#uicontrol invlerp normalized\nvoid main() { emitGrayscale(normalized()); }\n"
RED = "#uicontrol invlerp normalized\nvoid main() { emitRGBA(vec4(1.0, 0.3, 0.1, normalized())); }\n"


@dataclass(frozen=True)
class Layer:
    """One layer of the viewer.

    Attributes
    ----------
    name
        Its name, unlike that of any other.
    kind
        Intensities, boundaries or a segmentation.
    volume
        The array, at full resolution.
    image
        Group of the OME-Zarr image that it is the first level of; none: it is read by this process.
    span
        Intensities that are shown black and white; none: those of the dtype.
    visible
        Whether it is shown at first.
    """

    name: str
    kind: Literal["raw", "boundaries", "labels"]
    volume: Volume
    image: str | None = None
    span: tuple[float, float] | None = None
    visible: bool = True


class Viewing:
    """A viewer that is served until it is closed; a context manager.

    Parameters
    ----------
    layers
        What is shown, the lowest first; the first sets place and scale.
    folder
        Path or URL of the output; the browser may read its files where it is on this machine.
    port
        Of this machine, on the loopback interface; 0: any that is free.
    flat
        Whether slices are shown alone, for instances that do not go on from one to the next.

    Raises
    ------
    MissingExtraError
        If neuroglancer is not installed.
    InputError
        If the port is taken.
    """

    def __init__(self, layers: Sequence[Layer], folder: str, *, port: int = 0, flat: bool = False) -> None:
        try:
            import neuroglancer
        except ImportError:
            raise MissingExtraError(f"the viewer needs neuroglancer, not installed; {install_text('view')}") from None
        neuroglancer.stop()  # one server a process, and its port may be another
        neuroglancer.set_server_bind_address("127.0.0.1", port)
        try:
            self._viewer = neuroglancer.Viewer()
        except OSError as error:
            raise InputError(f"port {port} cannot be served ({error.strerror}); give another --port") from None
        self.url = str(self._viewer)
        self.port = int(self.url.split("/")[2].rsplit(":", 1)[1])
        self._files = self._serve(folder) if not is_url(folder) else ""
        self._folder = folder
        first = layers[0].volume
        with self._viewer.txn() as state:
            state.dimensions = _space("xyz", first)
            state.display_dimensions = list("xyz")
            corner = [o / v for o, v in zip(first.offset, first.voxel_size, strict=True)]
            state.position = [c + s // 2 for c, s in zip(corner, first.shape, strict=True)][::-1]
            state.cross_section_scale = max(1.0, max(first.shape[1:]) / 1000)
            state.layout = "xy" if flat or min(first.shape) == 1 else "4panel"
            for layer in layers:
                state.layers.append(name=layer.name, layer=self._layer(layer), visible=layer.visible)

    def __enter__(self) -> Viewing:
        return self

    def __exit__(self, *reason: object) -> None:
        import neuroglancer

        neuroglancer.stop()

    def _layer(self, layer: Layer) -> Any:  # noqa: ANN401 - neuroglancer has no types
        import neuroglancer

        source = self._source(layer)
        if layer.kind == "labels":
            return neuroglancer.SegmentationLayer(source=source)
        shown = neuroglancer.ImageLayer(source=source, shader=GREY if layer.kind == "raw" else RED)
        low, high = layer.span or _whole(layer.volume.dtype)
        shown.shader_controls = {"normalized": {"range": [low, high]}}
        return shown

    def _source(self, layer: Layer) -> Any:  # noqa: ANN401 - neuroglancer has no types
        import neuroglancer

        if self._files and layer.image is not None:
            inside = layer.image.removeprefix(self._folder).strip("/")
            return f"{self._files}/{inside}/|zarr:" if inside else f"{self._files}/|zarr:"
        volume = layer.volume
        space = _space("zyx", volume)
        local = neuroglancer.LocalVolume(
            _Read(volume),
            dimensions=space,
            volume_type="segmentation" if layer.kind == "labels" else "image",
            # a slice of thick sections is no mean of several
            downsampling="2d",
        )
        # a voxel of OME-Zarr has its centre at the place that is named, here its corner
        shift = [o / v - 0.5 for o, v in zip(volume.offset, volume.voxel_size, strict=True)]
        matrix = np.concatenate([np.eye(3), np.array(shift)[:, None]], axis=1)
        transform = neuroglancer.CoordinateSpaceTransform(output_dimensions=space, matrix=matrix)
        return neuroglancer.LayerDataSource(url=local, transform=transform)

    def _serve(self, folder: str) -> str:
        """Let the server of the viewer serve a folder under a name that nobody can guess; return its URL."""
        from neuroglancer import server

        running = server.global_server
        secret = secrets.token_urlsafe(16)
        running.app.add_handlers(r".*$", [(rf"/files/{secret}/(.*)", _files_handler(), {"path": folder})])
        return f"{running.server_url}/files/{secret}"


class _Read:
    """A volume as an array (z, y, x) that is read where it is indexed."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self.shape, self.dtype, self.ndim = volume.shape, np.dtype(volume.dtype), 3

    def __getitem__(self, selection: tuple[slice, ...]) -> npt.NDArray[Any]:
        ranges = [part.indices(extent) for part, extent in zip(selection, self.shape, strict=True)]
        return self._volume.read(Block(tuple(int(r[0]) for r in ranges), tuple(int(r[1]) for r in ranges)))


def _space(axes: str, volume: Volume) -> Any:  # noqa: ANN401 - neuroglancer has no types
    """Return the axes of a volume: in nm, or without a unit as OME-Zarr that tells none, or both would lie apart."""
    import neuroglancer

    scales = [volume.voxel_size["zyx".index(axis)] for axis in axes]
    return neuroglancer.CoordinateSpace(names=list(axes), units="nm" if volume.voxel_size_known else "", scales=scales)


def _files_handler() -> type:
    """Return the handler of requests for files: whole or parts of them, as sharded arrays are read."""
    from tornado.web import HTTPError, StaticFileHandler

    class Files(StaticFileHandler):
        """Answers 404 where nothing is, by which the browser tells what there is."""

        def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - tornado's signature
            self.set_header("Cache-Control", "no-cache")

        def compute_etag(self) -> str:
            # tornado's own is made once of all that is in a file, and stays when a run writes it anew
            found = Path(self.absolute_path or "").stat()
            return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'

        def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
            if not Path(absolute_path).is_file():
                raise HTTPError(404)
            return super().validate_absolute_path(root, absolute_path)

    return Files


def _whole(dtype: str) -> tuple[float, float]:
    """Return the least and the largest number of a dtype; 0 and 1 of floats."""
    if np.dtype(dtype).kind not in "ui":
        return 0.0, 1.0
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
