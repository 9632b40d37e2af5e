"""Text files with a row a line: what the file system says of them is one sentence, whenever it says it."""

import errno
import io
import os

import pytest

from leyden.errors import DataError
from leyden.rows import lines, open

TEXT = {"a.csv": "a,b\n1,2\n3,4\n", "a.svm": "1 1:2 2:3\n1 2:4\n"}


class Failing(io.BytesIO):
    """A file whose bytes cannot be read."""

    def read(self, *_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    readline = read


@pytest.fixture(params=TEXT)
def path(request, tmp_path):
    path = tmp_path / request.param
    path.write_text(TEXT[request.param])
    return path


def test_a_file_that_may_not_be_opened(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match=r"a\.\w+: the file cannot be read \(Permission denied\)\. Check its"):
        open(path)


def test_a_file_that_fails_while_it_is_scanned_or_read(path, monkeypatch):
    rows = open(path)
    monkeypatch.setattr(lines, "open_binary", lambda path: Failing())
    for read in (lambda: open(path), lambda: rows.read(0, 2)):
        with pytest.raises(DataError, match=r"a\.\w+: the file cannot be read \(Input/output error\)\. Check .* disk"):
            read()


def test_a_file_that_is_gone(path):
    rows = open(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.\w+: there is no such file\. Check the path"):
        rows.read(0, 2)
