"""What a synthesis folder says about itself, who may fill it, and folders that say nothing."""

import json
import multiprocessing
import time

import pytest

from augment.generation.plan import Sample
from augment.generation.synthesis_folder import PARTS, SynthesisFolder
from cond2img.guidance import CONTRASTS, Guidance
from cond2img.sampling import Sampling
from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError

SAMPLES = [Sample(f"study_{i:04d}_s01", "CT-0", 66) for i in range(1, 5)]
SETTINGS = {"conditions": ["image_condition"], "guidance_scale": 7.5, "split": "train"}


@pytest.fixture
def folder(tmp_path):
    return SynthesisFolder(tmp_path / "out")


def make(part, *samples):
    for sample in samples:
        (part.folder.path / sample.file_name).write_bytes(b"clip")
        part.add(sample, "cpu", 1.0)


def names_in_manifest(folder):
    return [json.loads(line)["file"] for line in (folder.path / "manifest.jsonl").read_text().splitlines()]


def test_a_released_set_has_names_and_nothing_else(tmp_path):
    for name in (
        "0001_s01_1_3407.mp4",
        "0000_s01_0_66.mp4",
        "holiday.mp4",
        ".hidden_s01_1_66.mp4",
        "0002_s01_7_66.mp4",
    ):
        (tmp_path / name).write_bytes(b"clip")
    folder = SynthesisFolder(tmp_path)
    clips = folder.clips(datasets.get("MRNet"))
    assert list(clips.samples.values()) == [Sample("0000_s01", "0", 66), Sample("0001_s01", "1", 3407)]
    assert sorted(clips.foreign) == ["0002_s01_7_66.mp4", "holiday.mp4"]
    assert clips.of_class("1") == [tmp_path / "0001_s01_1_3407.mp4"]
    assert (folder.settings(), folder.rows(), folder.splits()) == ({}, {}, set())
    assert not SynthesisFolder(tmp_path / "none").clips().samples


def test_rows_and_splits_come_from_the_manifest_and_from_runs_at_work(folder):
    with folder.filled_by((1, 2), SETTINGS) as part:
        assert part.missing(SAMPLES[:2]) == SAMPLES[:2]
        make(part, SAMPLES[0])
        assert set(folder.rows()) == {SAMPLES[0].file_name} and folder.splits() == {"train"}
    assert names_in_manifest(folder) == [SAMPLES[0].file_name]
    assert {path.name for path in folder.path.iterdir()} == {
        SAMPLES[0].file_name,
        "manifest.jsonl",
        "settings.json",
    }


def test_a_clip_whose_row_a_kill_prevented_gets_one(folder):
    with folder.filled_by((1, 1), SETTINGS) as part:
        part.missing(SAMPLES)
        (folder.path / SAMPLES[2].file_name).write_bytes(b"clip")
        (folder.path / "foreign_s01_CT-0_66.mp4").write_bytes(b"clip")
    row = folder.rows()[SAMPLES[2].file_name]
    assert row["seconds"] is None and row["time"] is None and row["clip"] == SAMPLES[2].clip
    assert len(names_in_manifest(folder)) == 1


def test_line_ends_of_other_scripts_inside_a_text_end_no_row(folder):
    text = "first\u2028second\u2029third\u0085fourth"
    with folder.filled_by((1, 1), {**SETTINGS, "conditions": ["text_condition"]}) as part:
        make(part, Sample("study_0001_s01", "CT-0", 66, text))
    with folder.filled_by((1, 1), {**SETTINGS, "conditions": ["text_condition"]}):
        pass
    assert folder.rows()["study_0001_s01_CT-0_66.mp4"]["prompt"] == text


def test_a_run_that_failed_before_its_first_clip_claims_nothing(folder):
    with pytest.raises(RuntimeError), folder.filled_by((1, 1), SETTINGS):
        raise RuntimeError
    with folder.filled_by((1, 1), {**SETTINGS, "guidance_scale": 3.0}) as part:
        assert folder.settings()["guidance_scale"] == 3.0
        # somebody is at work
        other = folder.filled_by((2, 2), SETTINGS)
        with pytest.raises(UserError, match=r"guidance_scale: 3\.0 there, 7\.5 now"), other:
            pass
        make(part, SAMPLES[0])
    with pytest.raises(UserError, match="guidance_scale"), folder.filled_by((1, 1), SETTINGS):
        pass


def test_settings_of_older_folders_are_equal(folder):
    """Those made before an option existed have no key of it."""
    now = {**SETTINGS, **Sampling().settings()}
    old = {key: value for key, value in now.items() if value is not None}
    assert set(old) - set(SETTINGS) == {"scheduler", "num_inference_steps", "dtype"}
    with folder.filled_by((1, 1), old) as part:
        make(part, SAMPLES[0])
    with folder.filled_by((1, 1), now) as part:
        assert part.missing(SAMPLES) == SAMPLES[1:]
    contrasted = {**SETTINGS, **Sampling(guidance=Guidance(class_contrast=2)).settings()}
    with (
        pytest.raises(UserError, match="class_contrast: None there, 2 now"),
        folder.filled_by((1, 1), contrasted),
    ):
        pass


def test_a_folder_has_one_contrast(folder):
    mean, nearest = (
        {**SETTINGS, **Sampling(guidance=Guidance(class_contrast=1, contrast_with=other)).settings()}
        for other in CONTRASTS
    )
    with folder.filled_by((1, 1), mean) as part:
        make(part, SAMPLES[0])
    with (
        pytest.raises(UserError, match="contrast_with: None there"),
        folder.filled_by((1, 1), nearest),
    ):
        pass


def _come_and_go(path, index, count, rounds):
    folder, samples = (
        SynthesisFolder(path),
        [Sample(f"study_{index:04d}_s01", "CT-0", seed) for seed in range(rounds)],
    )
    for sample in samples:
        with folder.filled_by((index, count), SETTINGS) as part:
            make(part, sample)


def test_shards_that_come_and_go_never_lose_their_corners(folder):
    """A shard that leaves tidies up after killed runs; one that is just entering is none of them."""
    context, rounds = multiprocessing.get_context("fork"), 60
    shards = [context.Process(target=_come_and_go, args=(folder.path, i, 3, rounds)) for i in (1, 2, 3)]
    for shard in shards:
        shard.start()
    for shard in shards:
        shard.join()
    assert [shard.exitcode for shard in shards] == [0, 0, 0]
    assert len(set(names_in_manifest(folder))) == 3 * rounds
    assert not (folder.path / PARTS).exists()


def test_ten_thousand_clips_are_listed_in_a_moment(folder):
    folder.path.mkdir()
    for i in range(10_000):
        (folder.path / f"study_{i:05d}_s01_CT-0_66.mp4").touch()
    before = time.process_time()
    assert len(folder.clips(datasets.get("MosMed")).samples) == 10_000 and folder.names() == set()
    assert time.process_time() - before < 2


def test_clips_of_former_conditions_are_made_again(folder):
    settings, old = {**SETTINGS, "conditions": ["text_condition"]}, {"image_prior": "a", "motion_field": "b"}
    clips = [Sample(f"study_{i:04d}_s01", "CT-0", 66, "a text") for i in range(1, 6)]
    with folder.filled_by((1, 1), settings, {sample.clip: old for sample in clips}) as part:
        assert part.remove_outdated(clips) == 0
        make(part, *clips)
    now = {
        clips[0].clip: old,
        clips[1].clip: {**old, "image_prior": "other frame"},
        clips[2].clip: {**old, "motion_field": "other clip"},
        clips[3].clip: {},  # the ledger was lost: nothing is known
        clips[4].clip: old,
    }
    planned = [*clips[:4], Sample(clips[4].clip, "CT-0", 66, "another text")]
    with folder.filled_by((1, 1), settings, now) as part:
        assert part.remove_outdated(planned) == 3
        assert part.missing(planned) == [planned[1], planned[2], planned[4]]
        make(part, planned[1], planned[2], planned[4])
    with folder.filled_by((1, 1), settings, now) as part:
        assert part.remove_outdated(planned) == 0 and part.missing(planned) == []


def test_conditions_made_otherwise_are_other_settings(folder):
    def claim(conditions_made_with):
        made = {} if conditions_made_with is None else {"conditions_made_with": conditions_made_with}
        with folder.filled_by((1, 1), {**SETTINGS, **made}) as part:
            if part.missing(SAMPLES[:1]):
                make(part, SAMPLES[0])

    claim({"motion_field": {"seed": 0}})
    claim({"motion_field": {"seed": 0}})
    claim({})  # the note is gone: nothing is known
    with pytest.raises(UserError, match=r"conditions_made_with\.motion_field\.seed: 0 there, 1 now"):
        claim({"motion_field": {"seed": 1}})


def test_of_an_older_folder_nothing_is_known_of_its_conditions(folder):
    for settings in (SETTINGS, {**SETTINGS, "conditions_made_with": {"motion_field": {"seed": 0}}}):
        with folder.filled_by((1, 1), settings, {SAMPLES[0].clip: {"image_prior": "a"}}) as part:
            assert part.remove_outdated(SAMPLES) == 0
            make(part, *part.missing(SAMPLES[:1]))


def test_who_reads_a_folder_that_is_being_filled_is_told(folder, capsys):
    with folder.filled_by((1, 1), SETTINGS) as part:
        make(part, SAMPLES[0])
        folder.say_if_filled()
    assert "is being filled by generate.py now" in "".join(capsys.readouterr())
    folder.say_if_filled()
    assert "".join(capsys.readouterr()) == ""
