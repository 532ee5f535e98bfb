"""What the system refuses is not called damaged; what is damaged is."""

import errno
import os
import resource

import pytest
import torch
from safetensors.torch import load_file, save_file

from pcamlib.core.errors import StudyError, loading_weights, system_advice


@pytest.mark.parametrize(
    "number, todo",
    [
        (errno.EAGAIN, "HDF5_USE_FILE_LOCKING=FALSE"),
        (errno.EWOULDBLOCK, "wait until it ends"),
        (errno.EACCES, "ask its owner for the permission"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ESTALE, "remount"),
        (errno.EIO, "have the disk checked"),
    ],
)
def test_the_system_s_refusals_each_say_what_to_do(number, todo):
    words = os.strerror(number)
    for error in (OSError(number, words), RuntimeError(f"unable to open file (errno = {number}, error message)")):
        assert words in system_advice(error) and todo in system_advice(error)


def test_an_error_of_the_content_is_not_the_system_s():
    assert system_advice(OSError("truncated file: eof = 5000")) is None
    assert system_advice(FileNotFoundError(errno.ENOENT, "No such file or directory")) is None
    assert system_advice(ValueError("errno = 22")) is None


def test_weights_that_cannot_be_opened_are_not_called_damaged(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(StudyError) as refused, loading_weights(path, "remove it"):
            load_file(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "ulimit -n" in str(refused.value) and "damaged" not in str(refused.value)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StudyError, match="is damaged .*: remove it"), loading_weights(path, "remove it"):
        load_file(path)
