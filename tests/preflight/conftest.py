"""What several tests of this folder share."""

import pytest

from vimvol.preflight import check


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs of any size be preceded by a sample."""
    monkeypatch.setattr(check, "WORTH", 1)
