"""groups_{split}.csv: one line a row, or one sentence."""

import numpy as np
import pytest

from pcamlib import data
from pcamlib.core.errors import StudyError


@pytest.fixture
def root(pcam, tmp_path):
    data.write(tmp_path, "test", *data.load(pcam, "test"))
    return tmp_path


def test_round_trip(root):
    assert data.groups(root, "test") is None and data.centres(root, "test") is None
    names = [f"slide {i // 8}, a" for i in range(32)]
    data.write_groups(root, "test", names)
    assert list(data.groups(root, "test")) == names and data.centres(root, "test") is None
    data.write_groups(root, "test", names, ["Utrecht"] * 32)
    assert set(data.centres(root, "test")) == {"Utrecht"} and data.groups(root, "test").dtype.kind == "U"


def test_two_spellings_are_one_group(root):
    data.write_groups(root, "test", ["7", "7.0"] * 16)
    assert np.unique(data.groups(root, "test")).size == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("group\n" + "a\n" * 31, "has 31 lines below its header, the test split has 32 patches: one line for each row"),
        ("slide\n" + "a\n" * 32, "has no column 'group'"),
        ("group,centre\n" + "a,b\n" * 31 + ",b\n", "a cell of column 'group' is empty"),
        ("group,centre\n" + "a,b\n" * 31 + "a\n", "line 33: it has another number of cells"),
        ("group\n" + "a\n" * 31 + '"a\nb"\n', "group 'a.nb' contains"),
        ("", "has no column 'group'"),
    ],
)
def test_what_does_not_fit_gets_one_sentence(root, text, message):
    data.groups_file(root, "test").write_text(text)
    with pytest.raises(StudyError, match=message) as caught:
        data.groups(root, "test")
    assert "groups_test.csv" in str(caught.value)
