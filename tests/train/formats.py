"""Small files of exactly the formats that configurations in `configs/train` read."""

import json
from pathlib import Path

import h5py
import numpy as np
import tifffile
from scipy import ndimage

from vimvol.config import TrainConfig


def write_data(config: TrainConfig, root: Path) -> None:
    """Write every file that a configuration names below a folder."""
    for number, volume in enumerate(config.volumes):
        ends = [span[1] for span in (volume.train, volume.validate_, volume.test) if span is not None]
        path, raw_name = volume.raw.split(":")
        assert volume.labels.startswith(f"{path}:")
        write_cremi(root / path, raw_name, volume.labels.split(":")[1], (max(ends), 40, 48), number)
    for images in config.images:
        write_livecell(root / images.folder, [root / p for p in (images.train, images.validate_, images.test) if p])


def write_cremi(path: Path, raw_name: str, labels_name: str, shape: tuple[int, int, int], seed: int) -> None:
    """HDF5 as of the CREMI challenge: uint8 and uint64, with resolution in nm."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, 6, (1, shape[1] // 8, shape[2] // 8)) + 1
    labels = np.broadcast_to(np.kron(columns, np.ones((1, 8, 8), int)), shape).astype(np.uint64) + 2**33
    raw = np.where(ndimage.morphological_gradient(labels, (1, 3, 3)) > 0, 60, 190) + rng.normal(0, 12, shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in ((raw_name, raw.clip(0, 255).astype(np.uint8)), (labels_name, labels)):
            dataset = file.create_dataset(name, data=array, compression="gzip", chunks=True)
            dataset.attrs["resolution"] = np.array([40.0, 4.0, 4.0])


def write_livecell(folder: Path, annotations: list[Path]) -> None:
    """LIVECell: grey TIFF images in folders of their part, and COCO JSON with polygons; crowds as run lengths."""
    rng = np.random.default_rng(0)
    for path in annotations:
        part = "livecell_test_images" if "test" in path.name else "livecell_train_val_images"
        (folder / part).mkdir(parents=True, exist_ok=True)
        images, cells = [], []
        for number in range(2):
            name = f"A172_Phase_{path.stem}_1_00d0{number}h00m_1.tif"
            image = rng.normal(128, 3, (52, 70))
            for y, x in ((14, 16), (30, 24), (26, 52)):
                angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
                corners = np.round(np.stack([x + 9.3 * np.cos(angles), y + 7.1 * np.sin(angles)], axis=1), 2)
                image[y - 5 : y + 5, x - 7 : x + 7] += 30
                cells.append(cell(len(cells), number, [corners.ravel().tolist()], 207.4))
            counts = [52 * 60 + 4, 12, 40, 12, 52 * 8 + 36]
            cells.append(cell(len(cells), number, {"size": [52, 70], "counts": counts}, 24.0) | {"iscrowd": 1})
            tifffile.imwrite(folder / part / name, image.clip(0, 255).astype(np.uint8))
            images.append({"id": number, "width": 70, "height": 52, "file_name": name, "url": f"https://x/{name}"})
        data = {"categories": [{"supercategory": "cell", "id": 1, "name": "cell"}], "images": images}
        path.write_text(json.dumps({"info": {"version": "1.0"}, **data, "annotations": cells}))


def cell(number: int, image: int, shape: object, area: float) -> dict[str, object]:
    common = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0}
    return {"segmentation": shape, "area": area, "bbox": [1, 2, 3, 4], **common}
