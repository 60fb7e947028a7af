from pathlib import Path

import pytest

from vimvol.engine.cluster import open_cluster
from vimvol.engine.performance import check_report, performance_report
from vimvol.engine.pool import SerialPool
from vimvol.errors import InputError


def test_a_page_tells_what_workers_did_without_a_network_also_where_that_failed(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    path = tmp_path / "report.html"
    check_report(str(path))

    def computing() -> None:
        with open_cluster("local", 1) as pool, performance_report(pool, str(path)):
            pool.submit(sum, [1, 2])
            assert pool.next_done()[1] == 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        computing()
    text = path.read_text()
    assert "Bokeh" in text
    assert "<script src=" not in text.replace(' type="text/javascript"', "")
    assert "sum" in text


def test_without_worker_processes_or_a_folder_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.workers = 0"), performance_report(SerialPool(), str(tmp_path / "a")):
        pass
    with pytest.raises(InputError, match="folder that is there"):
        check_report(str(tmp_path / "no" / "report.html"))
    assert not list(tmp_path.iterdir())
