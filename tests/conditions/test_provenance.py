"""What conditions say of themselves: their steps' settings, and the versions of frames and clips."""

from ctrlgenaug import datasets
from ctrlgenaug.conditions import provenance
from ctrlgenaug.plain_data import write_json
from ctrlgenaug.preprocessing import ledger

SPEC = datasets.get("MosMed")
BOTH = {"image_prior", "motion_field"}


def test_folders_from_elsewhere_say_nothing(tmp_path):
    assert provenance.made_with(SPEC, tmp_path, BOTH) == {}
    assert provenance.Versions(SPEC, tmp_path, BOTH).of("study_0001_s01") == {}


def test_settings_without_mere_notes(tmp_path):
    write_json(
        tmp_path / SPEC.priors_dir / "weights.json",
        {"fingerprint": "f", "dtype": "float32", "encoder": "a.pth", "variants": 3},
    )
    write_json(tmp_path / SPEC.trajectories_dir / "settings.json", {"seed": 1, "official_format": True})
    expected = {"image_prior": {"fingerprint": "f", "dtype": "float32"}, "motion_field": {"seed": 1}}
    assert provenance.made_with(SPEC, tmp_path, BOTH) == expected
    assert provenance.made_with(SPEC, tmp_path, {"motion_field"}) == {"motion_field": {"seed": 1}}


def test_versions_come_from_the_ledgers(tmp_path):
    clip = "study_0001_s01"
    for folder, case, made_from in (
        (SPEC.priors_dir, SPEC.first_frame(clip), "of the frame"),
        (SPEC.motion_dir, clip, ["of the clip", 1000, 2000]),
    ):
        (tmp_path / folder).mkdir()
        ledger.record(tmp_path / folder, {"case": case, "made_from": made_from, "files": {}})
    versions = provenance.Versions(SPEC, tmp_path, BOTH)
    assert versions.of(clip) == {"image_prior": "of the frame", "motion_field": "of the clip"}
    assert versions.of("study_0002_s01") == {}
    assert provenance.Versions(SPEC, tmp_path, set()).of(clip) == {}
