"""Past one machine: what the study asks of SLURM, a whole study through a real one, several GPUs."""

import errno
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import slurm_cluster
import yaml
from conftest import settings
from safetensors import SafetensorError, safe_open

from pcamlib.core import files
from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root, read_json
from pcamlib.workflow import notebook
from pcamlib.workflow import study as workflow

SHIPPED = project_root() / "cluster" / "slurm"
pytest.importorskip("snakemake_executor_plugin_slurm")


def executor(folder, **changes):
    """A copy of the shipped folder as a user would make it, with changes."""
    content = yaml.safe_load((SHIPPED / "config.yaml").read_text())
    content["slurm-init-seconds-before-status-checks"] = 1
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(content | changes))
    return folder


def study(tmp_path, executor, **changes):
    options = {"profile": "smoke", "data_root": "phantom", "subsets": 1, "cores": 2, "runs_dir": str(tmp_path / "runs")}
    return workflow.run_study(**options | {"executor": str(executor)} | changes)


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """sbatch that notes how it was called and makes the job's output, squeue that finds every job completed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {
        "sbatch": (
            """
            import json, os, re, sys
            jobs = os.path.join(os.path.dirname(__file__), "jobs.jsonl")
            count = sum(1 for _ in open(jobs)) if os.path.exists(jobs) else 0
            with open(jobs, "a") as f:
                f.write(json.dumps({"args": sys.argv[1:], "environment": dict(os.environ)}) + "\\n")
            target = re.search(r"--target-jobs '?([a-z_]+):(\\S*?)'? ", sys.argv[-1])
            given = dict(re.findall(r"(\\w+)=(\\w+)", target[2]))
            stem = {"dataset": "01_dataset", "autoencoder": "02_autoencoder", "diffusion": "03_diffusion_{backbone}",
                    "histogan": "04_histogan", "selection": "05_selection_{generator}", "quality": "06_quality",
                    "classification_real": "07_classification_real", "results": "08_results-1",
                    "classification": "07_classification_{generator}"}[target[1]].format(**given)
            out = os.path.join("subset-" + given["k"] if given else "", "notebooks", stem + ".ipynb")
            os.makedirs(os.path.dirname(out), exist_ok=True)
            open(out, "w").close()
            print(count + 1)
            """
        ),
        "squeue": (
            """
            import os, sys
            jobs = os.path.join(os.path.dirname(__file__), "jobs.jsonl")
            left = os.environ.get("LEFT", "")
            if "--me" in sys.argv:
                print(left)
            elif os.path.exists(jobs):
                for i, _ in enumerate(open(jobs), 1):
                    print(f"{i}|COMPLETED")
            """
        ),
        "scontrol": (
            """
            print("MinJobAge               = 300 sec")
            """
        ),
        "sinfo": "",
        "sacct": "raise SystemExit('Slurm accounting storage is disabled')",
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "jobs.jsonl"


def test_what_sbatch_is_asked_for(tmp_path, fake_slurm):
    study(tmp_path, executor(tmp_path / "mine"))
    jobs = [json.loads(line) for line in fake_slurm.read_text().splitlines()]
    asked = {}
    for job in jobs:
        comment = job["args"][job["args"].index("--comment") + 1]
        asked[comment.split("_wildcards")[0].removeprefix("rule_")] = " ".join(job["args"][:-1])
        assert files.OWNER not in job["environment"], "on another node that process number is nobody's"
        assert notebook.GPUS not in job["environment"]
        assert job["environment"]["OMP_NUM_THREADS"] == "1"
    assert len(jobs) == 14 and len(asked) == 9
    for stage, arguments in asked.items():
        assert "-p gpu" in arguments and "--cpus-per-task=1" in arguments
        assert ("--gpus=1" in arguments) == (stage not in ("dataset", "results")), arguments
        assert f"--mem {32000 if stage == 'quality' else 16000} " in arguments
        assert f"-t {60 if stage in ('dataset', 'results') else 1440} " in arguments
        assert re.search(r"--job-name pcamlib-[0-9a-f]{16}_", arguments)


HOSTILE = ["x$(touch PWNED)y", "x`touch PWNED`y", 'x"; touch PWNED; "y', "x'y", "x\\y", "x\ny", "$HOME"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_a_shell_would_run_are_refused(tmp_path, pcam, fake_slurm, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pcam, tmp_path / name)
    mine = executor(tmp_path / "mine")
    (tmp_path / "link").symlink_to(tmp_path / name)
    for changes in ({"data_root": str(tmp_path / name)}, {"runs_dir": str(tmp_path / name)}, {"data_root": "link"}):
        changes = {key: str(tmp_path / value) for key, value in changes.items()}
        with pytest.raises(
            StudyError, match="which shells on a cluster would interpret|has a brace or a line break|cannot be seen"
        ):
            study(tmp_path, mine, profile=str(tiny(tmp_path)), **changes)
    with pytest.raises(StudyError, match="which shells on a cluster would interpret"):
        study(tmp_path, mine, profile=str(tmp_path / name / "mine.yml"))
    assert not fake_slurm.exists() and not list(tmp_path.rglob("PWNED"))


def tiny(tmp_path):
    path = tmp_path / "tiny.yml"
    path.write_text(yaml.safe_dump(settings(**{"subsets.size": 32, "quality.judge.size": 32})))
    return path


def test_other_odd_names_reach_the_job_as_they_are(tmp_path, pcam, fake_slurm, monkeypatch):
    """sbatch is called through a shell, and its job script is read by another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/proc/nohome")  # no cache can be made there
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "nobodys")
    place = tmp_path / "a b;touch PWNED &(c)#d*~|e[f]"
    shutil.copytree(pcam, place / "data 100% ü,=")
    mine, runs = executor(tmp_path / "mine"), place / "runs"
    run, _ = study(
        tmp_path, mine, profile=str(tiny(tmp_path)), data_root=str(place / "data 100% ü,="), runs_dir=str(runs)
    )
    assert run == runs / "data 100% ü,=-smoke"
    for line in fake_slurm.read_text().splitlines():
        arguments = json.loads(line)["args"]
        (script,) = (text for text in arguments if text.startswith("--wrap="))
        assert arguments[arguments.index("-D") + 1] == str(run)
        assert str(run / "snakemake.json") in shlex.split(script.removeprefix("--wrap="))
    assert read_json(run / "snakemake.json")["data"] == str(place / "data 100% ü,=")
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("slum", None, "executor 'slum' is unknown: it is local, slurm, or a folder"),
        ("mine", "jobs: 3", "is not the YAML of a Snakemake profile with a line 'executor: NAME'"),
        ("mine", "{", "is not the YAML of a Snakemake profile"),
        ("mine", "executor: condor", "pip install snakemake-executor-plugin-condor"),
    ],
)
def test_an_executor_that_is_not_there(tmp_path, name, content, message):
    if content:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(content)
        name = str(tmp_path / name)
    with pytest.raises(StudyError, match=message):
        workflow.executor_folder(name)


def test_where_there_is_no_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudyError, match="sbatch is not on the PATH"):
        workflow.executor_folder("slurm")


def test_jobs_of_an_earlier_run_are_not_met(tmp_path, fake_slurm, monkeypatch):
    name = f"pcamlib-{files.digest(str(tmp_path / 'runs' / 'phantom-smoke'))}_1234"
    monkeypatch.setenv("LEFT", f"7 {name}\n8 other\n12 {name}")
    with pytest.raises(StudyError, match="wait for them, or `scancel 7 12`"):
        study(tmp_path, "slurm")
    assert not fake_slurm.exists()


def test_what_failed_jobs_said(tmp_path):
    logs = tmp_path / ".snakemake" / "slurm_logs" / "rule_quality" / "0"
    logs.mkdir(parents=True)
    (logs / "1.log").write_text("error: of last week\n")
    os.utime(logs / "1.log", (1e9, 1e9))
    for job in (2, 3):  # a retry says the same
        (logs / f"{job}.log").write_text("rule quality:\nerror: 06_quality.md failed: too few.\nShutting down\n")
    assert workflow.complaints(tmp_path, since=1e9 + 1) == ["error: 06_quality.md failed: too few."]


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StudyError, match="file system without locks .*: put runs_dir on one"), files.lock(tmp_path):
        pass


def test_no_two_notebooks_on_one_gpu(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with notebook.one_gpu():
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv(notebook.GPUS, f"{tmp_path}:2,5")
    waited = []
    with notebook.one_gpu():
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"
        with notebook.one_gpu() as _:
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
            monkeypatch.setattr(time, "sleep", lambda s: waited.append(s) or (len(waited) > 3 and 1 / 0))
            with pytest.raises(ZeroDivisionError), notebook.one_gpu():
                pass
        with notebook.one_gpu():
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "5", "free again"


def test_several_gpus_are_shared_out(tmp_path, monkeypatch):
    calls = []

    def snakemake(command, environment, **options):
        calls.append((command, environment))
        for path in workflow.targets(tmp_path / "runs" / "phantom-smoke", range(1), []):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return 0, []

    monkeypatch.setattr(workflow, "snakemake", snakemake)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    for n in (0, 1, 2):
        monkeypatch.setattr(workflow.torch.cuda, "device_count", lambda n=n: n)
        study(tmp_path, "local")
    none, one, two = [(" ".join(command), environment.get(notebook.GPUS)) for command, environment in calls]
    assert "gpu=" not in none[0] and "--resources gpu=1" in one[0] and "--resources gpu=2" in two[0]
    assert none[1] is one[1] is None and two[1] == f"{tmp_path}/runs/phantom-smoke/.gpus:2,5"


def numbers(value):
    """The numbers of a result, without times and the commit, which may change between two runs."""
    if isinstance(value, dict):
        return {key: numbers(v) for key, v in value.items() if key not in ("seconds", "created", "version")}
    return [numbers(v) for v in value] if isinstance(value, list) else value


def step(checkpoint):
    """How far a stage's checkpoint is; -1 without one."""
    try:
        with safe_open(checkpoint, framework="pt") as f:
            return json.loads(f.metadata()["state"])["step"]
    except (FileNotFoundError, SafetensorError):
        return -1


needs_slurm = pytest.mark.skipif(
    bool(slurm_cluster.missing()), reason=f"not installed: {', '.join(slurm_cluster.missing())}"
)


def start(environment, log, profile, *options):
    """The study as a shell would start it: in a process group of its own, which Ctrl-C reaches whole."""
    command = [
        sys.executable,
        "-m",
        "pcamlib",
        "study",
        "--profile",
        profile,
        "--subsets",
        "1",
        *options,
    ]
    with open(log, "w") as f:
        return subprocess.Popen(command, env=environment, stdout=f, stderr=subprocess.STDOUT, start_new_session=True)


def queue(environment):
    """SLURM's live jobs: number -> comment, which names the rule."""
    asked = ["squeue", "--noheader", "--format=%i %k"]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


def until(holds, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None and time.monotonic() < deadline, "it did not come that far"
        time.sleep(0.05)


@pytest.mark.torture
@needs_slurm
def test_a_study_through_slurm_with_a_killed_job_equals_the_local_one(tmp_path):
    """Every job through sbatch, the autoencoder's killed in mid-training; then all numbers against a run without
    SLURM."""
    profile = tmp_path / "killed.yml"
    changes = {"name": "killed", "subsets.size": 32, "quality.judge.size": 32, "autoencoder.epochs": 20}
    profile.write_text(yaml.safe_dump(settings(**changes)))
    mine = executor(tmp_path / "mine", retries=1)
    checkpoint = tmp_path / "slurm" / "phantom-killed" / "subset-0" / "autoencoder" / "checkpoint.safetensors"
    log = tmp_path / "study.log"
    with slurm_cluster.cluster() as environment:
        environment["PCAMLIB_CHECKPOINT_SECONDS"] = "0"  # after every step
        study = start(environment, log, profile, "--runs-dir", tmp_path / "slurm", "--executor", mine)
        until(lambda: step(checkpoint) >= 5, study)
        (job,) = [number for number, comment in queue(environment).items() if comment.startswith("rule_autoencoder")]
        subprocess.run(["scancel", "--signal=KILL", "--full", job], env=environment, check=True)
        until(lambda: job not in queue(environment), study)
        killed = step(checkpoint)
        assert killed < 80, "the job must be killed in mid-training"
        seen = []
        while study.poll() is None:
            seen.append(step(checkpoint))
            time.sleep(0.05)
    assert study.returncode == 0, log.read_text()
    assert min(seen) >= killed and max(seen) == 80, "the retried job must go on where the killed one was"
    assert log.read_text().count("Trying to restart") == 1
    assert len(set(re.findall(r"SLURM jobid (\d+)", log.read_text()))) == 15

    local = start(None, log, profile, "--runs-dir", tmp_path / "local", "--cores", "2")
    assert local.wait() == 0, log.read_text()
    files = sorted(p.relative_to(tmp_path / "local") for p in (tmp_path / "local").rglob("results/*.json"))
    assert len(files) >= 10
    for name in files:
        assert numbers(read_json(tmp_path / "slurm" / name)) == numbers(read_json(tmp_path / "local" / name)), name


@pytest.mark.torture
@needs_slurm
def test_ctrl_c_cancels_the_jobs_and_a_killed_study_leaves_them_named(tmp_path):
    log, options = tmp_path / "study.log", ("smoke", "--runs-dir", tmp_path / "runs", "--executor", "slurm")
    with slurm_cluster.cluster() as environment:
        study = start(environment, log, *options)
        until(lambda: len(queue(environment)) == 4, study)
        os.killpg(study.pid, signal.SIGINT)
        assert study.wait(120) == 130 and "the same command goes on" in log.read_text()
        deadline = time.monotonic() + 20
        while queue(environment):
            assert time.monotonic() < deadline, "jobs must be cancelled with the study"
            time.sleep(0.2)
        study = start(environment, log, *options)
        until(lambda: len(queue(environment)) == 4, study)
        study.kill()
        study.wait()
        left = sorted(queue(environment), key=int)
        again = start(environment, log, *options)
        assert again.wait() == 2 and f"`scancel {' '.join(left)}`" in log.read_text()
