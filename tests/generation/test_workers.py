"""Workers that die, raise, run out of memory or cannot start; a folder that fills all the same."""

import json

import pytest
import stand_in

from augment.generation import fill_folder
from augment.generation.plan import Sample
from augment.generation.synthesis_folder import SynthesisFolder
from ctrlgenaug.errors import UserError
from ctrlgenaug.leases import Backlog
from ctrlgenaug.video import read_video


@pytest.fixture
def fill(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()

    def fill(
        clips, *, factory=stand_in.StandIn, devices=("cpu", "cpu"), batch_size=4, settings=None, **arguments
    ):
        samples = [Sample(clip, "CT-0", 66) for clip in clips]
        work = fill_folder.Work(
            factory,
            {"marks": str(marks), **arguments},
            devices,
            batch_size,
            settings={"conditions": [], **(settings or {})},
            lossless=True,
        )
        return fill_folder.fill_folder(samples, SynthesisFolder(tmp_path / "out"), work)

    fill.marks, fill.out = marks, tmp_path / "out"
    return fill


def files(folder):
    return {path.name for path in folder.glob("*.mp4")}


def test_misfortunes_are_retried_once_and_reported_after_that(fill, capfd):
    good = [f"good{i}" for i in range(6)]
    bad = ["always_dies", "always_raises", "no_prior"]
    outcome = fill([good[0], "dies_once", *good[1:4], *bad, "raises_once", *good[4:]])
    assert files(fill.out) == {f"{clip}_CT-0_66.mp4" for clip in (*good, "dies_once", "raises_once")}
    reasons = {name.removesuffix("_CT-0_66.mp4"): reason for name, reason in outcome.failures.items()}
    assert set(reasons) == set(bad)
    assert "its worker died (exit code 9)" in reasons["always_dies"]
    assert "ValueError: bad luck (tried 2 times)" in reasons["always_raises"]
    assert "Extract the image priors" in reasons["no_prior"]
    assert outcome.exit_code() == 1
    for path in fill.marks.glob(
        "*-66"
    ):  # one may be counted against for a neighbour's death before its own turn
        assert len(path.read_text().split()) <= 2
    assert "starting another" in capfd.readouterr().err


def test_the_files_hold_the_samples_frames(fill):
    fill(["a", "b"])
    for clip in ("a", "b"):
        sample = Sample(clip, "CT-0", 66)
        assert (
            abs(read_video(fill.out / sample.file_name).astype(int) - stand_in.frames_of(sample)).max() <= 1
        )


def test_out_of_memory_halves_the_batch_and_loses_nothing(fill):
    outcome = fill([f"c{i}" for i in range(20)], devices=["cpu"], batch_size=8, most_at_once=2)
    assert not outcome.failures and len(files(fill.out)) == 20
    assert [int(size) for size in (fill.marks / "batches").read_text().split()] == [8, 4] + [2] * 10
    assert (fill.marks / "released").exists()


def test_a_single_sample_too_big_for_memory_is_given_up(fill):
    outcome = fill(["a", "too_big", "b"], devices=["cpu"], batch_size=1)
    assert list(outcome.failures) == ["too_big_CT-0_66.mp4"]
    assert "out of memory" in outcome.failures["too_big_CT-0_66.mp4"]
    assert len(files(fill.out)) == 2


def test_a_device_that_cannot_start_leaves_its_work_to_the_others(fill, capfd):
    outcome = fill(
        [f"c{i}" for i in range(5)], factory=stand_in.cannot_start, devices=["cuda:0", "cpu"], pause=0.5
    )
    assert not outcome.failures and len(files(fill.out)) == 5
    assert "no such device" in capfd.readouterr().err


def test_no_device_starts(fill):
    outcome = fill(["a", "b"], factory=stand_in.cannot_start, devices=["cuda:0"])
    assert len(outcome.failures) == 2
    assert all("no such device" in reason for reason in outcome.failures.values())


def test_a_refused_model_is_one_error(fill):
    with pytest.raises(UserError, match="no sequence model folder"):
        fill(["a"], factory=stand_in.refuse)


def test_a_full_disk_stops_the_run(fill):
    with pytest.raises(UserError, match="disk is full"):
        fill(["a", "disk_full", "c"], devices=["cpu"], batch_size=1)
    assert files(fill.out) == {"a_CT-0_66.mp4"}
    assert not list(fill.out.glob("**/*unfinished*"))


def test_started_again_it_makes_only_what_is_missing(fill):
    clips = [f"c{i}" for i in range(6)]
    fill(clips)
    before = {path.name: path.read_bytes() for path in fill.out.glob("*.mp4")}
    (fill.out / "c3_CT-0_66.mp4").unlink()
    (fill.out / "c4_CT-0_66.mp4").write_bytes(b"")
    outcome = fill([*clips, "c6"])
    assert outcome.counts == {"made": 3, "kept": 4}
    after = {path.name: path.read_bytes() for path in fill.out.glob("*.mp4")}
    assert {name: after[name] for name in before} == before
    assert len(after) == 7


def test_manifest_has_a_row_a_file(fill):
    fill(["a", "b", "no_prior"], settings={"guidance_scale": 7.5, "model": {"unet": "f00"}})
    rows = [json.loads(line) for line in (fill.out / "manifest.jsonl").read_text().splitlines()]
    assert {row["file"] for row in rows} == {"a_CT-0_66.mp4", "b_CT-0_66.mp4"}
    for row in rows:
        assert row["clip"] in "ab" and row["class"] == "CT-0" and row["seed"] == 66
        assert row["guidance_scale"] == 7.5 and row["model"] == {"unet": "f00"}
        assert row["device"] == "cpu" and row["seconds"] >= 0 and row["time"]
    (fill.out / "a_CT-0_66.mp4").unlink()
    fill(["b"], settings={"guidance_scale": 7.5, "model": {"unet": "f00"}})
    assert [json.loads(line)["clip"] for line in (fill.out / "manifest.jsonl").read_text().splitlines()] == [
        "b"
    ]


def test_a_folder_never_mixes_settings(fill):
    fill(["a"], settings={"guidance_scale": 7.5})
    with pytest.raises(UserError, match=r"guidance_scale: 7.5 there, 5.0 now"):
        fill(["b"], settings={"guidance_scale": 5.0})
    (fill.out / "settings.json").unlink()
    with pytest.raises(UserError, match="no settings.json that says how they were made"):
        fill(["b"], settings={"guidance_scale": 7.5})


def test_names_out_of_the_ordinary_stay_in_their_folder(fill, tmp_path):
    names = ["a b;rm -rf", "-y", "%03d", "$(touch x)", "ü漢", "x" * 300, "pipe:1"]
    outcome = fill(names)
    made = {f"{name}_CT-0_66.mp4" for name in names if len(name) < 200}
    assert files(fill.out) == made
    assert list(outcome.failures) == [f"{'x' * 300}_CT-0_66.mp4"]
    assert {path.name for path in tmp_path.iterdir()} == {"out", "marks"}


def test_contact_sheets_show_each_class(fill):
    fill(["a", "b"])
    sheets = fill_folder.draw_contact_sheets(
        SynthesisFolder(fill.out), [Sample("a", "CT-0", 66), Sample("b", "CT-0", 66)]
    )
    assert [sheet.name for sheet in sheets] == ["contact_sheet_CT-0.png"]
    assert sheets[0].stat().st_size > 1000


def test_backlog_lends_what_failed_alone_and_gives_up_after_two():
    backlog = Backlog(["s0", "s1", "s2"])
    assert backlog.lease(2) == [0, 1]
    assert backlog.failed([0, 1]) == []
    assert backlog.lease(2) == [0]
    assert backlog.failed([0]) == [0]
    backlog.give_back([1])
    assert backlog.lease(5) == [1]
    assert backlog.lease(5) == [1, 2]
    assert not backlog
