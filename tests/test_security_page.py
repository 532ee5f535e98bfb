"""SECURITY.md: every promise names tests, and they exist."""

import re

from pcamlib.core.files import project_root


def test_every_promise_names_tests_that_exist():
    text = (project_root() / "SECURITY.md").read_text(encoding="utf-8")
    promises = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(promises) >= 10
    for line in promises:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", line)
        assert named, line
        for file, function in named:
            assert f"def {function or 'test_'}" in (project_root() / file).read_text(encoding="utf-8"), (file, function)
