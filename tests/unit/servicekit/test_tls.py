"""A certificate and its key in files that somebody else replaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from servicekit.http_server.tls import BadTlsFile, read_context
from tests.support.certificates import Authority


@pytest.mark.parametrize("gone", ["certificate", "key"])
def test_a_file_that_is_gone_between_two_readings_is_a_bad_one(
    gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = dict(zip(("certificate", "key"), Authority().write_pair(tmp_path, "localhost"), strict=True))
    files[gone].unlink()
    monkeypatch.setattr(Path, "read_bytes", lambda self: b"")
    with pytest.raises(BadTlsFile) as refused:
        read_context(**files)
    assert refused.value.file == files[gone]
