"""What a message suggests, and where no folder can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headstart.errors import HeadstartError, nearest
from headstart.folders import make_folder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_nearest_name_is_that_of_its_case_first() -> None:
    assert nearest("DE", ["de", "en"]) == "did you mean 'de'?"
    assert nearest("Alarms", ["alarm", "Alarm"]) == "did you mean 'Alarm'?"
    assert nearest("zz", ["de", "en"]) == "choose from de, en"


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(HeadstartError, match="no folder can be made there"):
        make_folder(tmp_path / "file")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
