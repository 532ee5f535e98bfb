"""How the study starts Snakemake: without the user's own settings, and with a reason whenever it stops."""

import os
import subprocess
import sys

import pytest

from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root, read_json
from pcamlib.workflow import study as workflow


def run(tmp_path):
    options = {"profile": "smoke", "data_root": "phantom", "subsets": 1, "cores": 1}
    return workflow.run_study(runs_dir=str(tmp_path / "runs"), **options)


@pytest.fixture
def calls(monkeypatch):
    """Calls of Snakemake, which does nothing and succeeds."""
    made = []

    def snakemake(command, environment, **options):
        made.append((command, environment))
        return 0, []

    monkeypatch.setattr(workflow, "snakemake", snakemake)
    return made


def test_the_cost_is_said_before_anything_runs(calls, tmp_path, capsys):
    with pytest.raises(StudyError):
        run(tmp_path)
    said = capsys.readouterr().err
    assert said.startswith(
        "study: 1 of 2 subsets of profile smoke (tests; the whole graph of one subset in under 3 minutes"
    )
    assert "`make estimate` times it on this machine" in said


def test_names_that_snakemake_would_read_as_a_variable(calls, tmp_path):
    with pytest.raises(StudyError, match="has a < or >, .* rename the folder"):
        run(tmp_path / "a<b>")
    assert not calls


def test_success_without_the_notebooks_is_not_believed(calls, tmp_path):
    with pytest.raises(
        StudyError, match="ended without an error, but 2 of its notebooks are missing .*01_dataset.ipynb"
    ):
        run(tmp_path)


def test_settings_of_the_users_own_snakemake_do_not_arrive(calls, tmp_path, monkeypatch):
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "slurm")
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", "/x")
    monkeypatch.setenv("XDG_CACHE_HOME", "/the/users")
    with pytest.raises(StudyError):
        run(tmp_path)
    ((command, environment),) = calls
    assert not [key for key in environment if key.startswith("SNAKEMAKE")]
    text = " ".join(command)
    assert " --profile none " in text and " --workflow-profile none" in text
    assert environment["XDG_CACHE_HOME"] == f"{tmp_path}/runs/phantom-smoke/.snakemake/cache"
    assert read_json(tmp_path / "runs" / "phantom-smoke" / "snakemake.json")["cache_home"] == "/the/users"


def test_starting_a_study_trains_nothing(calls, tmp_path, open_tiny):
    """A generator that waits for no notebook is no folder of images: only those are looked at beforehand."""
    s = open_tiny(generators=["unet_pool"], pool={"autoencoder_epochs": 1, "epochs": 1})
    options = {"profile": str(tmp_path / "tiny.yml"), "data_root": str(s.data_root), "subsets": 1, "cores": 1}
    with pytest.raises(StudyError, match="notebooks are missing"):
        workflow.run_study(runs_dir=str(tmp_path / "runs"), **options)
    assert calls and not (s.root / "pool").exists()


SAYS = "import sys; print('Building DAG', file=sys.stderr); print(sys.argv[1], file=sys.stderr); sys.exit(1)"


@pytest.mark.parametrize(
    "line, shown, why",
    [
        ("error: 01 failed: too few.", "error: 01 failed: too few.\n", "the first 'error:' line above says why"),
        ("OSError: read-only", "Building DAG\nOSError: read-only\n", "Snakemake's last lines above say why"),
    ],
)
def test_a_reason_is_always_shown(tmp_path, monkeypatch, capsys, line, shown, why):
    snakemake, command = workflow.snakemake, [sys.executable, "-c", SAYS, line]
    monkeypatch.setattr(
        workflow, "snakemake", lambda _, environment, **options: snakemake(command, environment, **options)
    )
    with pytest.raises(StudyError, match=why):
        run(tmp_path)
    assert capsys.readouterr().err.partition("on this machine\n")[2] == shown


COUNTS = r"""
import sys, time
time.sleep(0.2)
for done in (1, 4, 5):
    print(f"{done} of 5 steps ({20 * done}%) done", file=sys.stderr)
print("Job stats", file=sys.stderr)
"""


def test_a_line_says_how_much_of_the_study_is_left(capsys):
    status, said = workflow.snakemake([sys.executable, "-c", COUNTS], dict(os.environ), patience=0)
    assert (status, said) == (0, ["Job stats"])
    assert capsys.readouterr().err == "study: 1 of 4 notebooks done, about 1 min left\n"


@pytest.mark.parametrize("name", ["DATA", "PROFILE"])
def test_make_does_not_expand_a_dollar_sign(name, tmp_path):
    outer = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}

    def make(*arguments, **environment):
        command = ["make", "-n", "study", *arguments]
        return subprocess.run(command, cwd=project_root(), env=outer | environment, capture_output=True, text=True)

    for value in ("da$ta", "da$$ta", "$(shell touch x)"):
        done = make(f"{name}={value}")
        assert done.returncode == 2 and f"error: {name} has a dollar sign" in done.stderr
    shown = ["make", "--eval", f'x: ; @echo "$${name}"', "x"]
    value = f"da$ta$(shell touch {tmp_path}/PWNED)"
    done = subprocess.run(shown, cwd=project_root(), env=outer | {name: value}, capture_output=True, text=True)
    assert done.stdout == value + "\n"
    make(**{name: value})
    assert not (tmp_path / "PWNED").exists()
