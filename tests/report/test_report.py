"""report.py as a user runs it on a fabricated run: every section, what is missing, and nothing but the page itself."""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser

import numpy as np
import pytest
from clip_home import SPEC, make_home, make_synthetic
from PIL import Image

from augment.comparison.table import write_table
from augment.report import page
from augment.report.all_sections import SECTIONS, sections
from augment.report.evaluation_sections import evaluation_section
from augment.report.run_folders import find
from ctrlgenaug.plain_data import write_json, write_jsonl

NASTY = '<img src=x onerror="alert(1)">.mp4'
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a browser would see of a page: text, targets of links and pictures, ids; checks that tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.targets, self.ids, self.tags = [], [], [], [], set()
        self.feed(text)
        assert self.open == []
        self.text = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.targets += [value for key, value in attributes if key in ("src", "href")]
        self.ids += [value for key, value in attributes if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def save_png(path, width=60, height=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width), np.uint8)).save(path)


def figures(value):
    by_class = {cls: {"count": 3, "sensitivity": value} for cls in SPEC.classes}
    common = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "auc"), value)
    return {**common, "count": 9, "per_class": by_class, "intervals": {"balanced_accuracy": [0.1, 0.9]}}


def add_training(root):
    for number, name in enumerate(("vae", "ldm", "sequence_ldm")):
        folder = root / "runs/MosMed" / name
        folder.mkdir(parents=True)
        rows = [
            {"step": 5 * i, "loss": 4.0 / i, "lr": 1e-4, "samples": 40 * i, "samples_per_s": 12.5}
            for i in (1, 2)
        ]
        write_jsonl(folder / "stats.jsonl", [{**row, "peak_memory_gb": 7.0 + number} for row in rows])
        (folder / "config.yaml").write_text("learning_rate: 0.0001\nmixed_precision: bf16\nseed: 3407\n")
        last = 0.75 if name == "sequence_ldm" else 0.25
        (folder / "test_loss.txt").write_text(f"step 0: 0.5\nstep 5: 0.1\nstep 10: {last}\n")
        save_png(folder / "inter_test_results/iter_5.png")
        if name == "sequence_ldm":
            save_png(folder / "inter_test_results/iter_10/study_0001_s01.png")
        elif name == "ldm":
            save_png(folder / "inter_test_results/iter_10.png")
            save_png(folder / "loss_curve.png")


def add_filter(root, files):
    counts = {
        cls: {
            "before": 4, "after_semantic": 3, "after_within": 2, "after_between": 1,
            "dropped_semantic": 1, "dropped_sequential_low": 1, "dropped_similar": 1,
        }
        for cls in SPEC.classes
    }  # fmt: skip
    reasons = {"semantic": "loss too high", "sequential_low": "frames apart", "similar": "seen before"}
    report = {
        "settings": {"alpha": 1.0, "levels": ["semantic"]},
        "thresholds": {"low": 80.0, "high": 92.5, "centroids": []},
        "counts": counts,
        "reasons": reasons,
        "warnings": ["class CT-1: nearly nothing is kept"],
        "strangers": {NASTY: "no"},
        "samples": [],
    }
    folder = root / "MosMed_filtered"
    folder.mkdir()
    write_json(folder / "filter_report.json", report)
    for name in ("inner-video-kmeans-threshold.png", "filter_examples.png"):
        save_png(folder / name)
    for path in files:
        (folder / path.name).write_bytes(path.read_bytes())


def add_evaluation(root):
    spread = {"mean": 2.0, "deviation": 0.5, "size": 9, "draws": 3}
    near = {
        "flagged": 1, "count": 24, "threshold": 3.5, "median_distance": 9.0, "median_between_patients": 11.0,
        "nearest_is_its_own_source": 0.25, "flagged_files": ["study_0001_s01_CT-0_66.mp4"],
    }  # fmt: skip
    retrieval = {
        "interval": [0.0, 0.2], "chance": 0.05, "candidates": 20, "mean_rank": 9.0, "nearer_than_another": 0.6,
        "own_distance": 3.0, "another_distance": 4.0, "count": 24,
    }  # fmt: skip
    private = {
        "median_distance": 9.0, "test_median_distance": 12.0, "nearer_than_test_clips": 0.7,
        "nearer_than_the_nearest_test_clips": 0.1, "count": 24,
        "membership": {"auc": 0.8, "interval": [0.6, 0.95], "train": 6, "test": 3},
    }  # fmt: skip
    control = {"accuracy": 0.75, "count": 24, "confusion": [[8, 0, 0], [4, 4, 0], [0, 2, 6]]}
    means = {"synthetic": {"mean": 88.0, "deviation": 1.0}, "real": {"mean": 97.0, "deviation": 1.0}}
    metrics = {
        "fvd": {"all": {"value": 12.34, "matched": spread, "floor": spread}, "CT-0": None},
        "smoothness": {"all": means},
        "diversity": {
            "all": {"synthetic": {"pixel": 30.0, "latent": 0.1}, "real": {"pixel": 40.0}},
            "CT-1": {"synthetic": {"pixel": 0.5}, "real": {"pixel": 40.0}},
        },
        "class_control": {
            "all": control,
            "CT-0": {"accuracy": 1.0, "count": 8},
            "CT-1": {"accuracy": 0.25, "count": 8},
        },
        "memorisation": {"all": {"pixel": near}},
        "privacy": {"all": {"pixel": private}},
        "image_prior": {"all": {**retrieval, "retrieved": 0.9}},
        "motion_field": {"all": {**retrieval, "retrieved": 0.05}},
    }
    tools = {"fvd": "features of <script>evil</script>", "class_control": "i3d"}
    found = {
        "data_name": "MosMed",
        "metrics": metrics,
        "tools": tools,
        "failures": {},
        "published": {"fvd": 2.91},
    }
    write_json(root / "evaluation.json", found)
    save_png(root / "evaluation.png")
    save_png(root / "evaluation_distances.png")


def add_classifiers(root):
    folder = root / "classifier_MosMed_i3d_baseline"
    common = {"data_name": "MosMed", "classifier": "i3d", "paradigm": "baseline", "seed": 0, "strangers": []}
    folder.mkdir()
    write_json(folder / "metrics.json", {**common, "test": {"patient": figures(0.5), "clip": figures(0.5)}})
    save_png(folder / "curves.png")
    save_png(folder / "confusion_matrix.png")
    (root / "reproduce_MosMed").mkdir()
    runs = [("baseline", 0, 2), ("baseline", 1, 2), ("joint_filtered", 0, 3), ("joint_filtered", 1, 3)]
    write_table(root / "reproduce_MosMed", [comparison_run(*run) for run in runs], resamples=50)


def comparison_run(arm, seed, right):
    """A line of reproduce.sh's results.jsonl: ``right`` of three test patients of each class are got right."""
    labels = [c for c in range(3) for _ in range(3)]
    seen = [label if index % 3 < right else (label + 1) % 3 for index, label in enumerate(labels)]
    agreement = {"CT-1": {"count": 4, "found": 3, "diversity": 0.5, "real_diversity": 1.0}}
    return {
        "classifier": "i3d", "arm": arm, "seed": seed, "patients": {}, "classes": list(SPEC.classes),
        "clips": {"train": {"CT-0": 9, "CT-1": 2, "CT-234": 9}},
        "test": {
            "patients": [f"p{i}" for i in range(9)], "labels": labels,
            "probabilities": [[0.8 if c == s else 0.1 for c in range(3)] for s in seen],
        },
        "agreement": {"filtered": agreement},
    }  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A finished run with all official folder names, and a file whose name is HTML."""
    root = make_home(tmp_path_factory.mktemp("run"), train=2, test=1, clips=1)
    for folder in (SPEC.motion_dir, SPEC.trajectories_dir, SPEC.priors_dir):
        (root / SPEC.home / folder).mkdir()
    for split in ("train", "test"):
        for clip in SPEC.clips(root / SPEC.home, split):
            SPEC.motion_path(root / SPEC.home, clip.name).touch()
            SPEC.trajectory_path(root / SPEC.home, clip.name).touch()
            if clip.name != "study_0001_s01":
                SPEC.prior_path(root / SPEC.home, SPEC.first_frame(clip.name)).touch()
    made = make_synthetic(root, root / "sequence_model_MosMed/cond_im_synthesis_mp4", each=1)
    files = sorted(made.glob("*.mp4"))
    (made / NASTY).write_bytes(b"")
    write_json(
        made / "settings.json", {"split": "train", "scheduler": "ddim", "conditions": ["image_condition"]}
    )
    write_json(
        made / "VAE_Seq_train_results.json", {path.name: 80.0 + i for i, path in enumerate(files[:-1])}
    )
    for name in ("VAE_Seq_train_results.png", *(f"contact_sheet_{cls}.png" for cls in SPEC.classes)):
        save_png(made / name)
    add_training(root)
    add_filter(root, files[:1])
    add_evaluation(root)
    add_classifiers(root)
    return root


def test_a_whole_run_by_its_official_names(root, run_script):
    skipped = root / "MosMedData/MosMed_all_slices/skipped.json"
    write_json(skipped, {"study_0007": "a.nii.gz: is damaged."})
    result = run_script("report.py", "--data_name", "MosMed", cwd=root)
    skipped.unlink()  # the other tests' run has none
    assert result.stdout.startswith("report of MosMed in report.html; ")
    text = (root / "report.html").read_text()
    seen = Page(text)
    for title in SECTIONS:
        assert title in seen.text
    # the page stands alone, its contents lead somewhere, and names from the data stay text
    links = [target for target in seen.targets if target.startswith("#")]
    assert len(links) >= len(SECTIONS) and {link[1:] for link in links} <= set(seen.ids)
    assert len(seen.ids) == len(set(seen.ids)) == len(SECTIONS)
    pictures = [target for target in seen.targets if not target.startswith("#")]
    assert len(pictures) == 28 and all(target.startswith("data:image/png;base64,") for target in pictures)
    assert not {"script", "link", "iframe"} & seen.tags and "onerror=" in seen.text and NASTY not in text
    assert "url(" not in text and "@import" not in text

    for figure in (
        "MosMed_all_slices study_0007 a.nii.gz: is damaged.",
        "train all 6 6 6",  # patients, cases, clips
        "trajectories MosMedData/MosMed_motion_field_trajectory 9 9",
        "VAE 10 80 3 3 0.5 0.25 12.5 7.0",  # steps, samples, losses, test losses, samples/s, memory
        "learning rate 0.0001 0.0001 0.0001",
        "Step 10: real frames, priors, samples",
        "all 6 6",  # synthetic clips, the real clips they came from
        "all 5 82.00 1.41 80.00 82.00 84.00",  # VAE-Seq: clips, mean, deviation, least, median, most
        "all 12 9 6 3",  # the filter's levels
        "frames apart 1 1 1 3",
        "finds the requested class in 75 % of 24 synthetic clips (chance: 33 %)",
        "CT-1 4 4 0",
        "all 12.34 2.00 ± 0.50 – 2.00 ± 0.50 – 9",
        "Published, by another protocol and not comparable: FVD 2.91.",
        "all pixel 1 of 24 3.5000 9.0000 11.0000 25",
        "all pixel 9.0000 12.0000 70.0 10.0 0.80 0.60 to 0.95",
        "Image prior: followed. 90 % of 24 clips are nearest to their own among 20 of their class (chance: 5 %)",
        "all 24 5.0 0.0 to 20.0 5.0 60.0 3.00 4.00",
        "i3d baseline 0 9 50.0 50.0 50.0 50.0 10.0 to 90.0",
        "joint, both filter levels 100.0 (100.0 to 100.0) +33.3 (",
        "Rare class CT-1; 9 test patients",
        "Best with synthetic clips: joint, both filter levels: +33.3 (",
        "filtered CT-1 4 75 50",  # number, class found, diversity
        "best gain in balanced accuracy (i3d, joint, both filter levels) +33.3 (",
    ):
        assert figure in seen.text, figure
    # what is missing or doubtful stands at the top and in its place
    for notice in (
        "1 cases were skipped: study_0007.",
        "image priors of the clips' first frames: 1 of 9 missing: study_0001_slice01.",
        "1 clips have no score",
        "sequence LDM: the loss on test samples did not fall (0.5 to 0.75).",
        "The filter warned: class CT-1: nearly nothing is kept.",
        "Synthetic clips of CT-1 hardly differ from each other: mean distance 0.50 grey values, of real clips 40.00.",
        "Class CT-1 is found in 25.0 % of its clips: less than by chance.",
        "Possible copies by pixel distance: study_0001_s01_CT-0_66.mp4.",
        "Motion field: a clip's own is retrieved hardly more often than by chance.",
        "evaluation.json was made without fid.",
        "Fewer than 5 seeds say little: joint, both filter levels, real clips, built-in augmentation.",
    ):
        assert seen.text.count(notice) == 2, notice


def test_an_empty_folder_names_every_step(tmp_path, run_script):
    run_script("report.py", "--data_name", "ACDC", "--output", "r.html", cwd=tmp_path)
    seen = Page((tmp_path / "r.html").read_text())
    for step in (
        "sampling script",
        *("vae_train.sh", "LDM_train.sh", "sequence_LDM_train.sh", "generate.py", "VAE-Seq.py"),
        *("noisy_data_filter.py", "evaluate.py", "train_classifier.py", "reproduce.sh"),
    ):
        assert f"Made by {step}" in seen.text or f"Made by the data set's {step}" in seen.text, step
    wrong = run_script("report.py", "--data_name", "ACDCC", cwd=tmp_path, code=2)
    assert "Did you mean ACDC" in wrong.stderr and "Traceback" not in wrong.stderr


def test_damaged_files_spoil_only_their_section(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    (tmp_path / "broken.json").write_text("{")
    write_json(tmp_path / "other.json", {"data_name": "MosMed", "metrics": 3})
    (tmp_path / "table.json").write_text(json.dumps([{"classifier": "i3d"}]))
    (tmp_path / "filter_report.json").write_text("[]")
    folders = find(
        SPEC,
        evaluation=tmp_path / "broken.json",
        reproduce=tmp_path,
        filtered=tmp_path,
        classifiers=[tmp_path],
    )
    found = {title: [notice.text for notice in part.notices] for title, part in sections(folders).items()}
    assert "is not readable JSON" in found["Evaluation"][0]
    assert "not as the step writes it (KeyError: 'group')" in found["Does it help?"][0]
    assert "is not a JSON object" in found["Noise filter"][0]
    assert "holds no finished run" in found["Classifiers"][0]
    assert found["Data"] == []
    other = sections(find(SPEC, evaluation=tmp_path / "other.json"))
    assert "not as the step writes it" in other["Class control"].notices[0].text


def test_clips_that_are_newer_than_their_evaluation_are_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = tmp_path / "kept" / "study_0001_s01_CT-0_66.mp4"
    clip.parent.mkdir()
    clip.write_bytes(b"a clip")
    judged = {
        "synthetic": ["kept"],
        "real": "MosMedData",
        "split": "train",
        "classifier": "c.pth",
        "vae_path": None,
    }
    write_json(tmp_path / "evaluation.json", {"data_name": "MosMed", "metrics": {}, "judged": judged})
    made = (tmp_path / "evaluation.json").stat().st_mtime

    def section(seconds):
        os.utime(clip, (made + seconds, made + seconds))
        return evaluation_section(find(SPEC))

    assert "Clips in kept, beside the train clips in MosMedData, classifier c.pth." in section(-60).blocks
    assert not any("newer" in notice.text for notice in section(-60).notices)
    (said,) = [notice.text for notice in section(60).notices if "newer" in notice.text]
    assert said == f"kept has 1 clips that are newer than evaluation.json: {clip.name}."


def test_pictures_are_never_enlarged_and_damage_is_said(tmp_path):
    save_png(tmp_path / "wide.png", 4000, 100)
    save_png(tmp_path / "small.png", 40, 20)
    (tmp_path / "torn.png").write_bytes((tmp_path / "wide.png").read_bytes()[:60])
    assert page.picture(tmp_path / "wide.png", "w").size == (page.WIDEST, 40)
    small = page.picture(tmp_path / "small.png", "s")
    assert small.size == (40, 20) and small.png == (tmp_path / "small.png").read_bytes()
    assert "is not a readable picture" in page.picture(tmp_path / "torn.png", "t").text
    assert "there is no picture" in page.picture(tmp_path / "none.png", "n").text


def test_all_text_is_escaped(tmp_path):
    table = page.Table(("<a>", "b"), [("<b>", 1.5)], numeric=(1,), caption="<c>")
    blocks = [
        "<p1>",
        page.Key("<k>"),
        page.Heading("<h>"),
        page.Notice("<n>"),
        page.Fold("<f>", "<pre2>"),
        table,
    ]
    picture = page.drawn(np.zeros((4, 4), np.uint8), '"><i>')
    section = page.Section("<script>", [*blocks, picture], facts=[("<w>", "<v>")])
    page.write_page(tmp_path / "page.html", "T & <t>", "<lead>", [section])
    text = (tmp_path / "page.html").read_text()
    seen = Page(text)
    for word in ("<a>", "<b>", "<c>", "<p1>", "<k>", "<h>", "<n>", "<f>", "<pre2>", "<script>", "<w>", "<v>"):
        assert word not in text and word in seen.text
    assert "<i>" not in text and "T &amp; &lt;t&gt;" in text and "<td class=number>1.5</td>" in text
