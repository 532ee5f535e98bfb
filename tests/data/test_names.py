"""Which spellings are one name, and which names are refused."""

import pytest

from pcamlib.core.errors import StudyError
from pcamlib.data.names import check_name, name_key, split_name, unify


@pytest.mark.parametrize(
    "spellings",
    [
        ["tumour", "Tumour", "TUMOUR", " tumour ", "ｔｕｍｏｕｒ"],
        ["m\u00e9tastase", "me\u0301tastase", "M\u00c9TASTASE"],
        ["not  tumour", "not\u00a0tumour", "Not Tumour"],
        ["7", "7.0", "07", "007", "+7", "7e+00", "7."],
        ["0", "-0", "0.0", "00"],
        ["100000", "1e+05", "100000.0"],
        ["-1", "-1.0"],
    ],
)
def test_spellings_of_one_name_share_a_key(spellings):
    assert len({name_key(text) for text in spellings}) == 1


def test_different_names_keep_different_keys():
    names = [
        "7",
        "70",
        "0.7",
        "-7",
        "7a",
        "1e10",
        "10000000000",
        "1_0",
        "10",
        "nan",
        "inf",
        "tumour",
        "tumor",
        "a b",
        "ab",
    ]
    names += ["123456789012345678901234567890", "123456789012345678901234567891", "9e+999", "8e+999"]
    assert len({name_key(text) for text in names}) == len(names)


def test_the_most_frequent_spelling_stands_for_all():
    names, merged = unify(["A", "a", "a", "b"])
    assert names == ["a", "a", "a", "b"] and merged == {"a": {"A": 1, "a": 2}}


@pytest.mark.parametrize(
    "name", ["a\nb", "a\rb", "a\tb", "\x1b[31m", "a\u200bb", "\u202eabc", "a\u2028b", "\x00", "\ufeffa"]
)
def test_characters_that_cannot_be_seen_are_refused_by_name(name):
    with pytest.raises(StudyError, match=r"label .* contains .*\(U\+[0-9A-F]{4}\), which cannot be seen"):
        check_name(name, "label")


def test_odd_but_visible_names_are_taken():
    for name in ("métastase", "腫瘍", "опухоль", "it's 100% a,b=c & d [x]", "<script>", "a|b", "a\u00a0b"):
        check_name(name, "label")


def test_names_of_splits():
    assert [split_name(n) for n in ("Training", "VAL", "dev", "evaluation", "Testing", "test ")] == [
        "train", "valid", "valid", "test", "test", "test",
    ]  # fmt: skip
    assert split_name("docs") is None and split_name("tumour") is None
