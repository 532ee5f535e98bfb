"""The command `pcamlib`: help, and that every failure is one sentence and exit status 2."""

import os
import signal
import subprocess
import sys
import time

import click
import pytest

from pcamlib import cli
from pcamlib.core.files import project_root


def commands(group=cli.cli, path=()):
    """Every command and group of the command line, as its words."""
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


FAILURES = {
    ("data",): ([], "give a command"),
    ("data", "download"): (["file/below"], "file/below"),
    ("data", "verify"): (["nowhere"], "nowhere"),
    ("data", "convert"): (["nowhere", "out"], "nowhere"),
    ("data", "export"): (["nowhere", "out", "--as", "png"], "nowhere is not a folder"),
    ("phantom",): (["out", "--train", "0"], "train"),
    ("study",): (["--profile", "demoo"], "did you mean 'demo'"),
    ("book",): (["--subsets", "99", "--profile", "smoke"], "1 to 2"),
    ("run",): (["nowhere.md", "out.ipynb"], "nowhere.md does not exist"),
    ("train",): (["unett"], "did you mean 'unet'"),
    ("estimate",): (["--acceptance", "0"], "give a share above 0"),
    ("tune",): (["nowhere.yml", "--data", "phantom"], "nowhere.yml cannot be read"),
    ("publish",): (["nowhere", "1"], "nowhere"),
}


def test_the_commands_stand_in_the_order_of_their_use():
    assert list(commands()) == [
        ("data",), ("data", "download"), ("data", "verify"), ("data", "convert"), ("data", "export"), ("phantom",),
        ("study",), ("book",), ("run",), ("train",), ("estimate",), ("tune",), ("publish",),
    ]  # fmt: skip
    assert set(FAILURES) == set(commands())


@pytest.mark.parametrize("path", [(), *commands()], ids=" ".join)
def test_help_says_what_a_command_does_and_shows_an_example(path, capsys):
    assert cli.main([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(" ".join(["Usage: pcamlib", *path]))
    assert not path or "Example:" in text and f"pcamlib {' '.join(path)}" in text.partition("Example:")[2]
    assert "..." not in text.partition("Commands:")[2], "a summary is cut off"


@pytest.mark.parametrize("path", FAILURES, ids=" ".join)
def test_a_failure_is_one_sentence(path, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    arguments, message = FAILURES[path]
    assert cli.main([*path, *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("path", [(), *commands()], ids=" ".join)
def test_an_unknown_option_is_one_sentence(path, capsys):
    assert cli.main([*path, "--nope"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith("error: ")
        and "--nope" in line
        and line.endswith(f"See `{' '.join(['pcamlib', *path])} --help`.")
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["stuyd"], "Did you mean 'study'"),
        (["study", "--cores", "two"], "'two' is not a valid integer"),
        (["study", "--subsets", "5-3"], "'5-3' is neither a number of subsets, like 3, nor which, like 3-5"),
        (["publish", "a", "x"], "'x' is neither a number of subsets"),
        (["book", "--subsets", "1-2"], "--subsets 1-2 has no results over all subsets"),
        (["data", "export", "a", "b"], "Missing option '--as'"),
        (["data", "export", "a", "b", "--as", "pngs"], "did you mean 'png'? It is one of pcam, png, generator"),
        (["data", "convert", "a", "b", "--convert", "grey,gray"], "'gray' is unknown: did you mean 'grey'"),
        (["run", "a.md"], "Missing argument 'OUT'"),
    ],
)
def test_usage_errors_are_one_sentence(arguments, message, capsys):
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_a_file_that_the_system_refuses_is_one_sentence(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert cli.main(["phantom", str(tmp_path / "file" / "below")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "below" in line


def test_a_fault_of_the_program_shows_where_it_is(monkeypatch):
    monkeypatch.setattr("pcamlib.data.pcam.verify", lambda root: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["data", "verify", "x"])


def start(*arguments):
    command = [sys.executable, "-m", "pcamlib", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, cwd=project_root(), **pipes)


@pytest.mark.parametrize("arguments, code", [(["--help"], 0), (["study", "--nope"], 2)])
def test_help_and_usage_errors_import_nothing_heavy(arguments, code):
    script = f"import sys; from pcamlib import cli; assert cli.main({arguments}) == {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=project_root())
    assert done.returncode == 0, done.stderr
    assert not {"torch", "numpy", "diffusers", "papermill", "snakemake"} & set(done.stdout.split())


def test_ctrl_c_is_one_line(tmp_path):
    process = start("phantom", tmp_path / "large", "--train", 100_000)
    while not (tmp_path / "large" / "phantom.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said == "stopped: the same command goes on from here\n"
