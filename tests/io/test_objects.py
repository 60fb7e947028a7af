import threading
from pathlib import Path

import pytest

from vimvol.errors import StorageError
from vimvol.io.objects import FolderObjects, StoreObjects, open_objects


@pytest.fixture(params=["folder", "store"])
def objects(request, tmp_path: Path):
    """Objects of a folder, and of a store that fsspec opens by URL."""
    found = open_objects(str(tmp_path / "a") if request.param == "folder" else f"memory://{tmp_path.name}")
    assert isinstance(found, FolderObjects if request.param == "folder" else StoreObjects)
    return found


def test_objects_are_written_listed_read_and_removed(objects) -> None:
    assert objects.names("") == []
    assert objects.get("x/1") is None
    objects.put("x/1", b"one")
    objects.put("x/2", b"two")
    objects.put("x/2", b"second")
    objects.put("y/z/3", b"")
    assert objects.names("x") == ["1", "2"]
    assert objects.names("") == ["x", "y"]
    assert (objects.get("x/2"), objects.get("y/z/3")) == (b"second", b"")
    objects.remove("x/1")
    objects.remove("y")
    objects.remove("never")
    assert (objects.names("x"), objects.get("y/z/3"), objects.names("y")) == (["2"], None, [])


def test_an_object_is_created_once(objects) -> None:
    assert objects.create("lock", b"a")
    assert not objects.create("lock", b"b")
    assert objects.get("lock") == b"a"


def test_of_many_that_create_one_succeeds(tmp_path: Path) -> None:
    objects = open_objects(str(tmp_path))
    won = []
    threads = [
        threading.Thread(target=lambda i=i: won.append(i) if objects.create("lock", b"%d" % i) else None)
        for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert objects.get("lock") == b"%d" % won[0]


def test_a_failed_write_leaves_the_old_object_and_no_draft(tmp_path: Path, monkeypatch) -> None:
    objects = open_objects(str(tmp_path))
    objects.put("x", b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match="No space left"):
        objects.put("x", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert objects.get("x") == b"old"
