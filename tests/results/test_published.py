"""Published runs: what lies in git can be read, is complete, and is found in the right order."""

from made_up import write_run

from pcamlib.results import compact, frame, load
from pcamlib.results.published import published_folder, published_runs


def test_published_runs_carry_their_provenance_and_no_path_of_a_machine():
    runs = published_runs()
    assert runs and not runs[0].provenance["phantom"]
    for run in runs:
        ran = run.results[run.results["status"] == "ok"]
        complete = [*frame.PROVENANCE, "subset_size", "study_seed", "class_0", "class_1", "file"]
        assert ran[complete].notna().all().all() and ran["value"].notna().all()
        assert not run.results["file"].str.startswith("/").any()
        assert frame.extractors(run.results)
        for device, found in run.intervals.items():
            assert found["provenance"] == frame.merged_provenance(frame.by_device(run.results, device))


def test_the_largest_run_of_several_subsets_comes_first(tmp_path):
    for name, subsets, size in (("small", 2, 500), ("large", 3, 400), ("single", 1, 2000)):
        df = load(write_run(tmp_path / "runs" / name, subsets))
        compact.write(df.assign(subset_size=size).astype(frame.COLUMNS), tmp_path / f"{name}.csv")
    runs = published_runs(tmp_path)
    assert [run.name for run in runs] == ["large", "small", "single"], "one subset has no verdicts"
    assert runs[0].intervals == {} and published_runs(tmp_path / "runs") == []


def test_the_folder_is_that_of_the_book():
    assert any(published_folder().glob("*.csv"))
