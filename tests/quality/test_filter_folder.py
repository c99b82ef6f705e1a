"""The filter on a folder: what is read, decided, copied, removed, explained."""

import json
import os
import shutil

import numpy as np
import pytest
from test_vae_seq import clip, store_of, vae  # noqa: F401

from augment.quality import filter_folder, filter_report, vae_seq
from augment.quality.filter_levels import FilterSettings
from augment.quality.filter_report import tables
from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError
from ctrlgenaug.video import write_avi, write_mp4

SPEC = datasets.get("MosMed")
NAMES = [
    f"study_000{i}_s01_{cls}_{seed}.mp4" for i, cls in ((1, "CT-0"), (2, "CT-1")) for seed in range(66, 70)
]


@pytest.fixture
def folder(tmp_path, vae):  # noqa: F811
    """Two clips with four samples each. The last of each is a copy of the first; scores come from the VAE."""
    folder = tmp_path / "synthetic"
    for number, name in enumerate(NAMES):
        write_mp4(folder / name, clip(number - number % 4 if number % 4 == 3 else number))
    scores = vae_seq.score_videos(store_of(vae, folder), vae_seq.list_videos(folder)).results
    vae_seq.write_results(folder, scores)
    return folder


def classifier(clips):
    """Says what the mean of the first frame's first row tells it: different for each clip, the same each time."""
    return np.array([[float(frames[0, 0].mean()) / 50, 1.0, 0.0] for frames in clips])


def decide(folder, vae, score=classifier, **settings):  # noqa: F811
    return filter_folder.decide(folder, SPEC, store_of(vae, folder), score, FilterSettings(**settings))


def test_the_report_follows_from_its_own_numbers(folder, vae, tmp_path):  # noqa: F811
    result = decide(folder, vae)
    target = tmp_path / "kept"
    filter_folder.save(folder, target, result, FilterSettings(), {"vae_path": "here"})
    report = json.loads((target / "filter_report.json").read_text())
    rows = report["samples"]
    assert [row["file"] for row in rows] == NAMES
    low, high = report["thresholds"]["low"], report["thresholds"]["high"]
    for row in rows:
        losses = [other["loss"] for other in rows if other["clip"] == row["clip"]]
        assert row["group_mean"] == pytest.approx(np.mean(losses))
        assert row["class"] in ("CT-0", "CT-1") and row["seed"] in range(66, 70)
        expected = (
            "semantic"
            if row["loss"] > row["group_mean"]
            else "sequential_low"
            if row["vae_seq"] < low
            else "sequential_high"
            if row["vae_seq"] > high
            else "similar"
            if row["similarity"] is not None and row["similarity"] >= 0.98
            else None
        )
        assert row["reason"] == expected and row["decision"] == ("dropped" if expected else "kept")
    kept = {row["file"] for row in rows if row["decision"] == "kept"}
    assert {path.name for path in target.glob("*.mp4")} == kept
    assert all((target / name).read_bytes() == (folder / name).read_bytes() for name in kept)
    assert report["settings"]["alpha"] == 1.0 and report["settings"]["vae_path"] == "here"
    others = {path.name for path in target.iterdir()} - kept
    assert others == {"filter_report.json", "inner-video-kmeans-threshold.png", "filter_examples.png"}


def test_copies_of_a_kept_sample_are_dropped(folder, vae):  # noqa: F811
    result = decide(folder, vae, None, levels=("between",))
    by_name = {verdict.sample.file_name: verdict for verdict in result.verdicts}
    for first, copy in ((NAMES[0], NAMES[3]), (NAMES[4], NAMES[7])):
        assert by_name[first].kept
        assert by_name[copy].reason == "similar" and by_name[copy].nearest == first
        assert by_name[copy].similarity == pytest.approx(1, abs=1e-6)
    assert len(result.kept) == 6


def test_latents_are_not_computed_again(folder, vae):  # noqa: F811
    store = store_of(vae, folder)
    filter_folder.decide(folder, SPEC, store, None, FilterSettings(levels=("within", "between")))
    assert store.computed == 0


def test_another_run_into_the_same_folder_leaves_exactly_its_own(folder, vae, tmp_path):  # noqa: F811
    target = tmp_path / "kept"
    everything = decide(folder, vae, None, levels=())
    filter_folder.save(folder, target, everything, FilterSettings(), {})
    assert {path.name for path in target.glob("*.mp4")} == set(NAMES)
    (target / "mine.mp4").write_bytes(b"of a user")
    fewer = decide(folder, vae, None, levels=("between",))
    filter_folder.save(folder, target, fewer, FilterSettings(), {})
    assert {path.name for path in target.glob("*.mp4")} == {*fewer.kept, "mine.mp4"}
    assert any("from elsewhere, such as mine.mp4" in warning for warning in fewer.warnings)
    (folder / fewer.kept[0]).unlink()  # generated anew, with other conditions
    gone = decide(folder, vae, None, levels=("between",))
    filter_folder.save(folder, target, gone, FilterSettings(), {})
    assert {path.name for path in target.glob("*.mp4")} == {*gone.kept, "mine.mp4"}
    assert fewer.kept[0] not in gone.kept


def test_hard_links(folder, vae, tmp_path):  # noqa: F811
    settings = FilterSettings(levels=(), link=True)
    result = filter_folder.decide(folder, SPEC, store_of(vae, folder), None, settings)
    for _ in range(2):
        filter_folder.save(folder, tmp_path / "kept", result, settings, {})
    assert all(os.path.samefile(folder / name, tmp_path / "kept" / name) for name in NAMES)
    with pytest.raises(UserError, match="synthetic folder itself"):
        filter_folder.save(folder, folder, result, settings, {})


def test_foreign_and_broken_files(folder, vae, tmp_path):  # noqa: F811
    (folder / NAMES[1]).write_bytes(b"not a video")
    for stranger in (
        "holiday.mp4",
        "study_0001_s01_CT-9_66.mp4",
        "study_0001_s01_CT-0_066.mp4",
        "a b;rm_CT-0_x.mp4",
    ):
        write_mp4(folder / stranger, clip(1))
    result = decide(folder, vae)
    assert len(result.foreign) == 4 and len(result.verdicts) == 8
    assert result.verdicts[1].reason == "unreadable" and result.verdicts[1].loss is None
    filter_folder.save(folder, tmp_path / "kept", result, FilterSettings(), {})
    assert (
        json.loads((tmp_path / "kept" / "filter_report.json").read_text())["foreign"].keys()
        == result.foreign.keys()
    )


def test_scores_that_are_missing_or_nonsense_are_computed(folder, vae):  # noqa: F811
    path = folder / "VAE_Seq_train_results.json"
    scores = json.loads(path.read_text())
    good = dict(scores)
    del scores[NAMES[0]]
    path.write_text(
        json.dumps({**scores, NAMES[1]: "high", NAMES[2]: None, "../../x.mp4": 3, NAMES[4]: float("nan")})
    )
    result = decide(folder, vae)
    assert {v.sample.file_name: v.vae_seq for v in result.verdicts} == good
    assert any("4 samples are not in" in warning for warning in result.warnings)


def test_samples_made_after_their_scores_are_said(folder, vae):  # noqa: F811
    assert not any("newer" in warning for warning in decide(folder, vae).warnings)
    results = folder / "VAE_Seq_train_results.json"
    later = results.stat().st_mtime + 60
    os.utime(folder / NAMES[2], (later, later))
    (said,) = [warning for warning in decide(folder, vae).warnings if "newer" in warning]
    assert said.startswith(f"1 samples are newer than their scores in {results.name}, e.g. {NAMES[2]}")


def test_a_class_nobody_kept_is_said(folder, vae):  # noqa: F811
    def hates_ct_1(clips):
        return np.array([[0.0, float("nan") if number > 3 else 0.0, 0.0] for number, _ in enumerate(clips)])

    result = decide(folder, vae, hates_ct_1, levels=("semantic",))
    assert "class CT-1: nothing is kept" in result.warnings
    assert len(result.kept) == 4


@pytest.fixture
def real(tmp_path):
    """Training clips of five patients; two of them are the source of a synthetic clip below."""
    from augment.classifiers.clip_items import Item
    from ctrlgenaug.video import write_avi

    items = []
    for number in range(5):
        path = tmp_path / "real" / f"study_100{number}_s01.avi"
        write_avi(path, clip(50 + number))
        items.append(Item(path, 0, f"study_100{number}"))
    return items


@pytest.fixture
def sure(vae):  # noqa: F811
    """The VAE without its noise, as a trained one is nearly."""
    import copy

    import torch

    found = copy.deepcopy(vae)
    with torch.no_grad():
        found.quant_conv.weight[4:], found.quant_conv.bias[4:] = 0, -30
    return found


def test_copies_of_training_clips_are_dropped_and_named(folder, sure, real):
    noise = np.random.default_rng(0).normal(0, 2, (8, 64, 64))
    write_mp4(folder / NAMES[1], (clip(52) + noise).clip(0, 255).astype(np.uint8), crf=5)
    settings = FilterSettings(levels=("copies",))
    result = filter_folder.decide(folder, SPEC, store_of(sure, folder), None, settings, real=real)
    assert [verdict.reason for verdict in result.verdicts] == [None, "copy", *[None] * 6]
    dropped = result.verdicts[1]
    assert dropped.nearest_real == "study_1002_s01.avi"
    assert set(dropped.copy_distances) == {"pixel", "latent"} and max(dropped.copy_distances.values()) < 1
    assert all(max(verdict.copy_distances.values()) > 1 for verdict in result.verdicts if verdict.kept)
    assert "it is nearer to a training clip" in tables(result) and result.levels[-1] == "copies"
    with pytest.raises(UserError, match="needs the training clips"):
        filter_folder.decide(folder, SPEC, store_of(sure, folder), None, settings)
    one_patient = filter_folder.decide(folder, SPEC, store_of(sure, folder), None, settings, real=real[:1])
    assert len(one_patient.kept) == 8 and "fewer than two training patients" in one_patient.warnings[0]
    shutil.copy(real[0].path, real[3].path)  # one film under two patients' names
    twice = filter_folder.decide(folder, SPEC, store_of(sure, folder), None, settings, real=real)
    assert [verdict.reason for verdict in twice.verdicts] == [None, "copy", *[None] * 6]
    assert "2 training clips are there again under another patient's name" in twice.warnings[0]
    real[4].path.write_bytes(b"torn")
    fewer = filter_folder.decide(folder, SPEC, store_of(sure, folder), None, settings, real=real)
    assert [verdict.reason for verdict in fewer.verdicts] == [None, "copy", *[None] * 6]
    assert "1 training clips cannot be read: copies of them are not found" in fewer.warnings
    for item in real:
        item.path.write_bytes(b"torn")
    with pytest.raises(UserError, match="not one training clip can be read"):
        filter_folder.decide(folder, SPEC, store_of(sure, folder), None, settings, real=real)


def test_copies_are_looked_for_among_clips_of_one_frame_size(folder, sure, real):
    write_mp4(folder / NAMES[1], clip(52), crf=5)
    write_mp4(folder / NAMES[0], clip(1)[:, :32, :32])
    write_avi(real[4].path, clip(54)[:, :48, :48])
    settings = FilterSettings(levels=("copies",))
    result = filter_folder.decide(folder, SPEC, store_of(sure, folder), None, settings, real=real)
    assert [verdict.reason for verdict in result.verdicts] == [None, "copy", *[None] * 6]
    assert result.verdicts[0].nearest_real is None and result.verdicts[2].nearest_real
    said = "have frames of another size than most training clips: the copies level does not compare them"
    assert f"1 training clips {said}" in result.warnings and f"1 samples {said}" in result.warnings
    for name in NAMES:
        write_mp4(folder / name, clip(1)[:, :32, :32])
    with pytest.raises(UserError, match="another size than the training clips': none can be compared"):
        filter_folder.decide(folder, SPEC, store_of(sure, folder), None, settings, real=real)


def test_the_tables_say_what_each_level_removed_and_why(folder, vae):  # noqa: F811
    result = decide(folder, vae, None, levels=("between",))
    lines = [line.split() for line in tables(result).splitlines()]
    assert ["CT-0", "4", "4", "4", "3"] in lines and ["all", "8", "8", "8", "6"] in lines
    assert [
        "it",
        "resembles",
        "a",
        "sample",
        "of",
        "its",
        "group",
        "that",
        "is",
        "kept",
        "1",
        "1",
        "2",
    ] in lines
    kept = decide(folder, vae, None, levels=("between",), keep_at_least=4)
    assert len(kept.kept) == 8 and "taken back" in tables(kept)
    record = filter_report.record(kept, FilterSettings(), {})
    assert [row["readmitted"] for row in record["samples"]].count("similar") == 2
    assert record["counts"]["CT-1"]["kept"] == 4 and record["counts"]["CT-1"]["after_between"] == 3


def test_the_k_means_sees_the_scores_in_their_files_order(folder, vae, monkeypatch):  # noqa: F811
    path, seen = folder / "VAE_Seq_train_results.json", []
    scores = dict(reversed(json.loads(path.read_text()).items()))
    path.write_text(json.dumps(scores))
    monkeypatch.setattr("augment.quality.noise_filter.sequence_thresholds", lambda found: seen.append(found))
    decide(folder, vae, None, levels=("within",))
    assert seen == [list(scores.values())]


def test_wrong_settings_and_classifiers(folder, vae):  # noqa: F811
    with pytest.raises(UserError, match="98 in the official code means 0.98"):
        FilterSettings(inter_threshold=98)
    with pytest.raises(UserError, match="alpha"):
        FilterSettings(alpha=0)
    with pytest.raises(UserError, match="needs a classifier"):
        decide(folder, vae, None)
    with pytest.raises(UserError, match="gives 5 classes, MosMed has 3"):
        decide(folder, vae, lambda clips: np.zeros((len(list(clips)), 5)))
    with pytest.raises(UserError, match="Check --data_name"):
        filter_folder.decide(
            folder, datasets.get("ACDC"), store_of(vae, folder), classifier, FilterSettings()
        )
