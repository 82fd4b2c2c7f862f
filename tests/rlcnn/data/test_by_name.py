"""What labelled images are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from envs.errors import UserError
from rlcnn.data.names import check_data_name


def test_a_folder_is_answered_with_how_to_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_pictures").mkdir()
    for name in ("my_pictures", str(tmp_path / "my_pictures")):
        with pytest.raises(UserError, match=f'give it as --data "folder:{name}"'):
            check_data_name(name)
    with pytest.raises(UserError, match="is unknown: expected one of"):
        check_data_name("no_pictures")
