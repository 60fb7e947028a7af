import json
from pathlib import Path

import numpy as np
import pytest

from vimvol.errors import InputError
from vimvol.train.coco import CocoImage, draw_instances, read_coco

FIRST = (9, 5, 5, 5, 5, 6, 6, 7, 7, 7, 8, 9, 11, 12, 14)
LAST = (13, 15, 16, 17, 18, 19, 21, 21, 21, 20, 19, 18, 17, 16, 16)
"""Columns of rows 2 to 16 of an outline that pycocotools fills."""


def write(path: Path, annotations: object, images: object = None) -> str:
    if images is None:
        images = [{"id": 7, "file_name": "a.tif", "height": 20, "width": 30, "license": 1}]
    # LIVECell's files begin with such entries, and hold keys that nobody reads.
    data = {"info": {"year": 2021, "x": [1, {"y": "]}"}]}, "images": images, "categories": [{"id": 1, "name": "cell"}]}
    path.write_text(json.dumps(data | {"annotations": annotations}))
    return str(path)


def cell(shape: object, area: float = 10.0, image: int = 7, **more: object) -> dict[str, object]:
    return {"id": 1, "image_id": image, "category_id": 1, "iscrowd": 0, "area": area, "segmentation": shape, **more}


def drawn(path: Path, annotations: object, min_size: int = 0) -> np.ndarray:
    return draw_instances(read_coco(write(path / "a.json", annotations))[0], min_size)


def test_a_rectangle_covers_its_pixels(tmp_path):
    labels = drawn(tmp_path, [cell([[3, 2, 9, 2, 9, 7, 3, 7]])])
    expected = np.zeros((20, 30), int)
    expected[2:7, 3:9] = 1
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.int32


def test_an_outline_with_fractions_is_filled_as_pycocotools_does(tmp_path):
    """The mask is that of pycocotools 2.0.11."""
    labels = drawn(tmp_path, [cell([[4.26, 3.5, 12.31, 1.7, 21.5, 9.3, 14.9, 17.24, 7.5, 12.48]])])
    first, last = zip(*[(int(row.argmax()), int(30 - row[::-1].argmax())) for row in labels[2:17] > 0], strict=True)
    assert (first, last, int(labels.sum())) == (FIRST, LAST, 151)
    assert not labels[:2].any()
    assert not labels[17:].any()


def test_annotations_may_be_numbered_and_out_of_order(tmp_path):
    images = [{"id": i, "file_name": f"{i}.tif", "height": 20, "width": 30} for i in (3, 1)]
    shapes = {"9": cell([[0, 0, 5, 0, 5, 5, 0, 5]], image=1), "2": cell([[0, 0, 2, 0, 2, 2, 0, 2]], image=3)}
    found = read_coco(write(tmp_path / "a.json", shapes, images))
    assert [image.name for image in found] == ["3.tif", "1.tif"]
    assert [(draw_instances(image) > 0).sum() for image in found] == [4, 25]


def test_run_lengths_go_down_the_columns(tmp_path):
    counts = [20 + 3, 4, 20 * 30 - 27]
    labels = drawn(tmp_path, [cell({"counts": counts, "size": [20, 30]}, iscrowd=1)])
    expected = np.zeros((20, 30), int)
    expected[3:7, 1] = 1
    np.testing.assert_array_equal(labels, expected)


def test_compressed_run_lengths(tmp_path):
    """Text that pycocotools 2.0.11 makes of a mask with several runs."""
    mask = np.zeros((20, 30), bool)
    mask[2:9, 4:8] = mask[12:19, 20:29] = mask[15, 3] = True
    labels = drawn(tmp_path, [cell({"counts": "[2166700000j70VH0000000000000008", "size": [20, 30]})])
    np.testing.assert_array_equal(labels > 0, mask)


def test_where_instances_overlap_the_larger_wins_and_slivers_go(tmp_path):
    small, large = [[0, 0, 6, 0, 6, 6, 0, 6]], [[2, 0, 12, 0, 12, 10, 2, 10]]
    labels = drawn(tmp_path, [cell(large, 100), cell(small, 36)])
    assert (labels[0:6, 0:2] == 1).all()
    assert (labels[0:10, 2:12] == 2).all()
    assert set(np.unique(drawn(tmp_path, [cell(large, 100), cell(small, 36)], min_size=13))) == {0, 1}


def test_an_instance_may_have_several_parts_and_an_image_none(tmp_path):
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [10, 10, 12, 10, 12, 12, 10, 12]]
    labels = drawn(tmp_path, [cell(parts)])
    assert labels[0, 0] == labels[11, 11] == 1
    assert not drawn(tmp_path, []).any()


def test_outlines_may_leave_the_image(tmp_path):
    labels = drawn(tmp_path, [cell([[25, 15, 40, 15, 40, 30, 25, 30]])])
    assert (labels > 0).sum() == 25
    assert (labels[15:, 25:] == 1).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no COCO JSON"),
        ("", "no COCO JSON"),
        ('{"images": [{"id": 1', "no COCO JSON"),
        ('{"images": [{"id": 1, "file_name": "a"}]}', "lack 'height'"),
        ('{"images": [], "annotations": []}', "name no images"),
    ],
)
def test_what_is_no_coco_file_is_told_in_one_line(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_coco(str(path))
    assert "\n" not in str(error.value)
    assert "a.json" in str(error.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no\.json cannot be read"):
        read_coco(str(tmp_path / "no.json"))


def test_runs_of_another_image_are_told(tmp_path):
    path = write(tmp_path / "a.json", [cell({"counts": [5, 5], "size": [2, 5]})])
    with pytest.raises(InputError, match=r"a\.tif has 10 pixels in runs, not 20 x 30"):
        draw_instances(read_coco(path)[0])


def test_an_image_is_what_the_file_says(tmp_path):
    found = read_coco(write(tmp_path / "a.json", []))
    assert found == [CocoImage("a.tif", (20, 30), ())]
