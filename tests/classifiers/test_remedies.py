"""Each option against few clips and rare classes, by what it does to numbers."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from clip_home import SPEC, draw_clip, make_synthetic

from augment import classifiers
from augment.classifiers import arguments, clip_items
from augment.classifiers.clips import Augmentation, make_augmentation
from augment.classifiers.losses import ClipLoss, clip_targets, inverse_frequency
from augment.classifiers.mixing import make_mixing, mix_cuboid
from augment.classifiers.settings import AUGMENTATIONS, FitSettings, RunSettings, noted, noted_before
from augment.classifiers.stages import Stage, plan_stages
from augment.classifiers.train import Fit, lengths
from augment.classifiers.training_run import gather, train_and_test
from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import claim_folder
from ctrlgenaug.video import write_mp4

READER = {"input_size": 32, "num_frames": 8, "threads": 1}


@pytest.fixture
def logits():
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(1))


LABELS = torch.tensor([0, 2, 1, 1, 0, 2])
ONES = torch.ones(6)


# --- losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 3.0, 1.0])])
def test_without_focus_it_is_torchs_cross_entropy(logits, weights, smoothing):
    wanted = torch.nn.CrossEntropyLoss(weights, label_smoothing=smoothing)(logits, LABELS)
    torch.testing.assert_close(
        ClipLoss(weights, 0, smoothing)(logits, clip_targets(LABELS, 3, ONES)), wanted, rtol=1e-6, atol=1e-6
    )


def test_focal_loss_by_hand():
    sure, unsure = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    target = clip_targets(torch.tensor([0]), 3, torch.ones(1))
    for logits in (sure, unsure):
        p = float(logits.softmax(1)[0, 0])
        assert float(ClipLoss(gamma=2)(logits, target)) == pytest.approx(
            -((1 - p) ** 2) * np.log(p), rel=1e-5
        )
    # an easy clip counts far less beside a hard one than with cross-entropy
    ratio = [float(ClipLoss(gamma=g)(sure, target) / ClipLoss(gamma=g)(unsure, target)) for g in (0, 2)]
    assert ratio[1] < 0.05 * ratio[0]


def test_a_synthetic_clips_weight_scales_its_gradient(logits):
    def gradients(weight):
        x = logits.clone().requires_grad_()
        ClipLoss()(x, clip_targets(LABELS, 3, torch.tensor([1, 1, 1, weight, weight, weight]))).backward()
        return x.grad.norm(dim=1)

    even, light = gradients(1.0), gradients(0.25)
    torch.testing.assert_close(light[3:] / light[:3], 0.25 * even[3:] / even[:3])


def test_class_weights_even_out_frequencies():
    labels = np.array([0] * 90 + [1] * 10)
    weights = inverse_frequency(labels, 3)
    np.testing.assert_allclose(weights, [100 / 180, 100 / 20, 0], rtol=1e-6)
    np.testing.assert_allclose(weights[0] * 90, weights[1] * 10, rtol=1e-6)


# --- mixing ------------------------------------------------------------------------------------------------------


@pytest.fixture
def batch():
    """Clips of constant grey: clip i is i everywhere, so what is mixed in can be read off."""
    clips = torch.arange(4.0).reshape(4, 1, 1, 1, 1).expand(4, 1, 8, 12, 10).contiguous()
    return clips, clip_targets(torch.tensor([0, 1, 2, 0]), 3, torch.tensor([1.0, 1.0, 0.5, 1.0]))


@pytest.mark.parametrize("name", ["mixup", "cutmix", "videomix"])
def test_targets_are_mixed_as_the_pixels_are(batch, name):
    clips, targets = batch
    mixing, shares = make_mixing(name), []
    for seed in range(12):
        torch.manual_seed(seed)
        mixed, mixed_targets = mixing(*batch)
        assert mixed.shape == clips.shape and type(mixed) is torch.Tensor
        # clip 1 is mixed with clip 0: its mean is the share that stayed
        share = float(mixed[1].mean())
        shares.append(share)
        torch.testing.assert_close(
            mixed_targets, share * targets + (1 - share) * targets.roll(1, 0), rtol=1e-5, atol=1e-5
        )
        torch.manual_seed(seed)
        torch.testing.assert_close(mixing(*batch)[0], mixed, rtol=0, atol=0)
        values = set(mixed[1].unique().tolist())
        if name == "mixup":
            assert len(values) == 1
        else:
            assert values <= {0.0, 1.0}
            same_box = bool((mixed == mixed[:, :, :1]).all())
            assert same_box or name == "videomix"  # cutmix: the same box in all frames
    assert max(shares) - min(shares) > 0.2
    torch.testing.assert_close(clips, batch[0])  # the batch itself is left alone


def test_videomix_cuts_in_time_too(batch):
    torch.manual_seed(0)
    cut = [mix_cuboid(*batch, alpha=1.0)[0][1, 0].mean((1, 2)) for _ in range(20)]
    assert sum(bool((frames == 1).any() and (frames < 1).any()) for frames in cut) > 5


def test_alpha_decides_how_evenly_clips_are_mixed(batch):
    def distance_from_half(alpha):
        torch.manual_seed(3)
        return np.mean(
            [abs(float(make_mixing("mixup", alpha)(*batch)[0][1].mean()) - 0.5) for _ in range(200)]
        )

    assert distance_from_half(20) < 0.12 < 0.4 < distance_from_half(0.1)


# --- augmentation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trivialaugment", "randaugment"])
def test_library_augmentations_change_all_frames_alike(name):
    frame = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    clip, change, results = np.stack([frame] * 8), make_augmentation(name), []
    state = torch.get_rng_state()
    for seed in range(20):
        result = change(clip, np.random.default_rng(seed))
        assert result.shape == clip.shape and result.dtype == np.uint8
        assert (result == result[:1]).all()
        np.testing.assert_array_equal(result, change(clip, np.random.default_rng(seed)))
        results.append(result)
    assert sum(not np.array_equal(result, clip) for result in results) > 10
    assert len({result.tobytes() for result in results}) > 10
    assert torch.equal(state, torch.get_rng_state())  # dropout's stream goes on as if nothing had happened


def test_no_augmentation_changes_nothing():
    clip = np.random.default_rng(0).integers(0, 256, (8, 32, 32), dtype=np.uint8)
    np.testing.assert_array_equal(make_augmentation("none")(clip, np.random.default_rng(1)).round(), clip)
    assert isinstance(make_augmentation("builtin"), Augmentation)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_threads_change_no_clip(root, name):
    items = clip_items.real_items(SPEC, root / SPEC.home, "train")[:10]

    def read(threads):
        reader = clip_items.ClipReader(items, 32, 8, threads=threads)
        return np.concatenate([b for b, _ in reader.batches(range(10), 4, make_augmentation(name), (5, 0))])

    np.testing.assert_array_equal(read(1), read(4))


# --- length and order --------------------------------------------------------------------------------------------


def fit_of(**settings):
    fit = Fit.__new__(Fit)
    fit.settings, fit.num_classes, fit.device = FitSettings(**settings), 3, torch.device("cpu")
    return fit


def test_oversampling_draws_classes_alike():
    labels = np.array([0] * 90 + [1] * 10)
    drawn = labels[np.concatenate([fit_of(balanced_sampling=True)._order(labels, (0, e)) for e in range(50)])]
    assert 0.45 < drawn.mean() < 0.55
    assert labels[fit_of()._order(labels, (0, 0))].mean() == 0.1


def test_an_epoch_of_steps_shows_each_clip_as_often_as_the_others():
    labels = np.zeros(10, int)
    order = fit_of(batch_size=5)._order(labels, (0, 0), steps=6)
    assert len(order) == 30 and np.bincount(order).tolist() == [3] * 10
    assert len(fit_of(batch_size=8, balanced_sampling=True)._order(labels, (0, 0), steps=6)) == 48


@pytest.mark.parametrize(
    "paradigm", ["baseline", "joint", "pretrain_finetune", "linear_probe", "synthetic_only"]
)
def test_every_paradigm_takes_the_same_number_of_steps(paradigm):
    how = {"epochs": 1, "pretrain_epochs": 1, "lr": 1e-3, "finetune_lr": 1e-4, "steps": 41}
    stages = plan_stages(paradigm, [1] * 7, [] if paradigm == "baseline" else [2] * 90, **how)
    settings = FitSettings(steps=41)
    assert sum(lengths(stage, settings)[0] for stage in stages) == 41
    assert [stage.head_only for stage in stages] == [False, True][: len(stages)] or paradigm != "linear_probe"
    assert lengths(Stage("real", [1] * 7, 3, 1e-3), FitSettings(batch_size=2)) == (12, 4)
    assert lengths(Stage("real", [1] * 7, 3, 1e-3), FitSettings(batch_size=2, max_steps=5)) == (5, 4)


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    """Short runs in several settings: (metrics, rows, folder) by name."""
    torch.set_num_threads(1)
    folder, synthetic = tmp_path_factory.mktemp("runs"), (str(root / "synthetic"),)
    fit = FitSettings(steps=8, steps_per_validation=2, seed=1)
    settings = {
        "real": RunSettings("tiny", input_size=32, fit=fit),
        "real_again": RunSettings("tiny", input_size=32, fit=fit),
        "few": RunSettings("tiny", input_size=32, fit=fit, patients={"CT-1": 2}),
        "joint": RunSettings("tiny", "joint", synthetic, input_size=32, fit=fit),
        "probe": RunSettings("tiny", "linear_probe", synthetic, input_size=32, fit=fit),
        "only": RunSettings("tiny", "synthetic_only", synthetic, input_size=32, fit=fit),
    }
    for name, mixing in (("mixed", "videomix"), ("mixed_up", "mixup")):
        changed = dataclasses.replace(fit, mixing=mixing, focal_gamma=2.0, augmentation="trivialaugment")
        settings[name] = RunSettings("tiny", input_size=32, fit=changed)
    found = {}
    for name, chosen in settings.items():
        metrics = train_and_test(SPEC, root / SPEC.home, chosen, folder / name)
        rows = [json.loads(line) for line in (folder / name / "stats.jsonl").read_text().splitlines()]
        found[name] = (metrics, rows, folder / name)
    return found


def test_steps_and_validations_are_the_same_in_every_arm(runs):
    for name, (_, rows, _) in runs.items():
        last = {row["stage"]: row["step"] for row in rows}
        assert sum(last.values()) == 8 and len(rows) == 4, name


def test_equal_trainings_write_equal_bytes(runs):
    one, other = (runs[name][2] / "classifier.pth" for name in ("real", "real_again"))
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes() != (runs["mixed"][2] / "classifier.pth").read_bytes()


def test_mixing_changes_what_is_learned(runs):
    losses = {name: tuple(row["loss"] for row in runs[name][1]) for name in ("real", "mixed", "mixed_up")}
    assert len(set(losses.values())) == 3


def test_fewer_patients_of_one_class(runs):
    # of two patients one is held out; each has two clips
    assert runs["few"][0]["clips"]["train"] == {"CT-0": 10, "CT-1": 2, "CT-234": 10}
    assert runs["real"][0]["clips"]["train"] == {"CT-0": 10, "CT-1": 10, "CT-234": 10}


def test_synthetic_only_learns_from_no_real_clip(runs):
    assert [row["stage"] for row in runs["only"][1]] == ["synthetic"] * 4
    assert [row["stage"] for row in runs["probe"][1]] == ["pretrain"] * 2 + ["probe"] * 2


def test_a_linear_probe_changes_the_classifying_layer_alone(root, tmp_path):
    real = clip_items.real_items(SPEC, root / SPEC.home, "train")
    torch.manual_seed(0)
    model = classifiers.build("tiny", 3, 32)
    before = {key: value.clone() for key, value in model.weights().items()}
    stage = Stage("probe", real, 1, 1e-2, 3, head_only=True)
    Fit(model, [stage], [], 3, FitSettings(steps=3), tmp_path, READER, lambda row: None).run()
    changed = {key for key, value in model.weights().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith("cls_head.") for key in changed)  # batch statistics stay too
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_synthetic_clips_weight_reaches_the_loss(root, tmp_path):
    """A tiny weight makes joint training nearly blind to clips of a wrong class."""
    real = clip_items.real_items(SPEC, root / SPEC.home, "train")
    wrong = [dataclasses.replace(item, label=(item.label + 1) % 3, synthetic=True) for item in real]

    def last_loss(weight):
        torch.manual_seed(0)
        model = classifiers.build("tiny", 3, 32)
        settings = FitSettings(steps=40, synthetic_weight=weight, augmentation="none", seed=2)
        stage = Stage("joint", [*real, *wrong], 1, 3e-3, 40)
        fit = Fit(model, [stage], real[::3], 3, settings, tmp_path / str(weight), READER, lambda row: None)
        (tmp_path / str(weight)).mkdir()
        return min(row["validation_loss"] for row in fit.run().rows)

    assert last_loss(0.001) < 0.8 * last_loss(1.0)


# --- clips and settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 4000, "half", "link"], ids=["empty", "zeros", "torn", "a link to nowhere"]
)
def test_an_unreadable_synthetic_clip_is_skipped_and_said(root, tmp_path, content):
    folder = make_synthetic(root, tmp_path / "synthetic", each=1)
    # the first clip of each patient, so that one that is not held out is among them
    damaged = sorted(folder.glob("*_s01_*.mp4"))
    for path in damaged:
        whole = path.read_bytes()
        path.unlink()
        if content == "link":
            path.symlink_to("nowhere")
        else:
            path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    assert clip_items.digest(clip_items.synthetic_items([folder], SPEC)[0]).startswith("36 files")
    parts = gather(SPEC, root / SPEC.home, RunSettings("tiny", "joint", (str(folder),), input_size=32))
    assert len(parts.skipped) == 15 and len(parts.synthetic) == 15  # of the 18 patients, 3 are held out
    assert all(line.split(" (")[0] in {path.name for path in damaged} for line in parts.skipped)


def test_clips_of_patients_that_are_left_out_do_not_come_back(root):
    settings = RunSettings("tiny", "joint", (str(root / "synthetic"),), patients={"CT-0": 3}, input_size=32)
    parts = gather(SPEC, root / SPEC.home, settings)
    learned = {item.patient for item in parts.train}
    assert {item.patient for item in parts.synthetic} == learned
    assert not {item.patient for item in parts.validation} & learned


def test_a_patient_of_two_classes_does_not_come_back_in_the_one_that_he_is_left_out_of(root, tmp_path):
    shutil.copytree(root / SPEC.home, tmp_path / SPEC.home)
    metadata = SPEC.metadata_path(tmp_path / SPEC.home / SPEC.clips_dir, "train")
    rows = [json.loads(line) for line in metadata.read_text().splitlines()]
    last = [row for row in rows if row["cls"] == "CT-0"][-1]  # study_0006's second clip
    last["cls"] = "CT-1"
    metadata.write_text("".join(json.dumps(row) + "\n" for row in rows))
    synthetic = make_synthetic(tmp_path, tmp_path / "synthetic", each=1)
    settings = RunSettings(
        "tiny", "joint", (str(synthetic),), patients={"CT-0": 3}, input_size=32, validation_fraction=0
    )
    parts = gather(SPEC, tmp_path / SPEC.home, settings)
    for items in (parts.train, parts.synthetic):
        assert {item.label for item in items if item.patient == "study_0006"} == {1}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"synthetic_ratio": 0.01}, r"none of the 36 .* --synthetic_ratio 0.01\)"),
        (
            {"patients": {"CT-0": 3, "CT-1": 3, "CT-234": 3}},
            r"none of the 2 .*2 were made from patients who are not",
        ),
    ],
)
def test_synthetic_clips_of_which_none_is_left_are_told_from_none_given(root, tmp_path, changed, said):
    folder = root / "synthetic"
    if "patients" in changed:  # of the last patient of a class alone
        folder = tmp_path / "last"
        folder.mkdir()
        for path in sorted((root / "synthetic").glob("*_CT-1_*.mp4"))[-2:]:
            shutil.copy(path, folder)
    with pytest.raises(UserError, match=said):
        gather(SPEC, root / SPEC.home, RunSettings("tiny", "joint", (str(folder),), input_size=32, **changed))


def test_a_folder_given_twice_is_refused(root):
    twice = (str(root / "synthetic"), str(root / "synthetic" / "."))
    with pytest.raises(UserError, match="is given twice"):
        gather(SPEC, root / SPEC.home, RunSettings("tiny", "joint", twice, input_size=32))


def test_a_folder_and_what_the_filter_kept_of_it_are_refused_together(root, tmp_path):
    """Their clips would count twice; those of two generators have the same names and are not the same."""
    kept, another = tmp_path / "kept", tmp_path / "another"
    for number, path in enumerate(sorted((root / "synthetic").glob("*.mp4"))[::5]):
        kept.mkdir(exist_ok=True)
        shutil.copy(path, kept / path.name)
        write_mp4(another / path.name, draw_clip("CT-1", number))
    with pytest.raises(
        UserError, match=r"kept: holds clips that .*synthetic holds too, such as study_.*twice"
    ):
        clip_items.synthetic_items([root / "synthetic", kept], SPEC)
    assert len(clip_items.synthetic_items([root / "synthetic", another], SPEC)[0]) == 36 + 8


def test_smaller_choices_are_part_of_larger_ones(root):
    items = clip_items.real_items(SPEC, root / SPEC.home, "train")
    few, more = (clip_items.keep_patients(items, {1: number}) for number in (2, 4))
    assert set(few) < set(more) and sum(item.label == 1 for item in few) == 4
    assert [item for item in few if item.label != 1] == [item for item in items if item.label != 1]
    with pytest.raises(UserError, match="99 patients of class 1 are wanted, but there are 6"):
        clip_items.keep_patients(items, {1: 99})


@pytest.mark.parametrize(
    "make",
    [
        lambda: FitSettings(batch_size=0),
        lambda: FitSettings(seed=-1),
        lambda: FitSettings(seed=2**40),
        lambda: FitSettings(weight_decay=float("nan")),
        lambda: FitSettings(label_smoothing=1.5),
        lambda: FitSettings(focal_gamma=-1),
        lambda: FitSettings(mixing_alpha=0),
        lambda: FitSettings(mixing_alpha=1e-300),
        lambda: FitSettings(synthetic_weight=0),
        lambda: FitSettings(synthetic_weight=float("inf")),
        lambda: FitSettings(steps=0),
        lambda: FitSettings(steps=5, max_steps=5),
        lambda: FitSettings(mixing="stir"),
        lambda: FitSettings(augmentation="all"),
        lambda: RunSettings(lr=float("nan")),
        lambda: RunSettings(lr=0),
        lambda: RunSettings(input_size=1),
        lambda: RunSettings(num_frames=0),
        lambda: RunSettings(epochs=0),
        lambda: RunSettings(synthetic_ratio=float("nan")),
        lambda: RunSettings(split_seed=-3),
        lambda: RunSettings(validation_fraction=float("nan")),
        lambda: RunSettings(patients={"CT-1": 0}),
        lambda: RunSettings(paradigm="both"),
    ],
)
def test_nonsense_is_refused_by_name(make):
    with pytest.raises(UserError, match="^--"):
        make()


def test_a_folder_of_before_an_option_existed_is_still_its_own(tmp_path):
    now = RunSettings("tiny", fit=FitSettings(batch_size=4, augmentation="none"))
    old = noted(now, "MosMed")
    for key in ("patients", "split_seed"):
        del old[key]
    old["fit"] = {"augment": False, "batch_size": 4}  # as it was called
    (tmp_path / "settings.json").write_text(json.dumps(old))
    (tmp_path / "state.pt").touch()

    def claim(settings):
        before = noted_before(tmp_path / "settings.json")
        claim_folder(tmp_path, noted(settings, "MosMed"), pattern="state.pt", before=before)

    claim(now)
    for other in (
        dataclasses.replace(now, patients={"CT-1": 6}),
        dataclasses.replace(now, fit=FitSettings(batch_size=4)),
        dataclasses.replace(now, fit=dataclasses.replace(now.fit, mixing="mixup")),
    ):
        with pytest.raises(UserError, match="other settings"):
            claim(other)


@pytest.mark.parametrize(
    ("flags", "silent"),
    [
        ("--mixing_alpha 0.4", ["mixing_alpha"]),
        ("--mixing mixup --mixing_alpha 0.4", []),
        ("--steps_per_validation 5", ["steps_per_validation"]),
        ("--steps 50 --steps_per_validation 5", []),
        (
            "--paradigm joint --synthetic_dir a --finetune_lr 1e-4 --pretrain_epochs 3",
            ["pretrain_epochs", "finetune_lr"],
        ),
        ("--paradigm linear_probe --synthetic_dir a --finetune_lr 1e-4 --pretrain_epochs 3", ["finetune_lr"]),
        (
            "--paradigm pretrain_finetune --synthetic_dir a --steps 50 --pretrain_epochs 3",
            ["pretrain_epochs"],
        ),
        ("--paradigm pretrain_finetune --synthetic_dir a --pretrain_epochs 3 --finetune_lr 1e-4", []),
        ("--synthetic_ratio 0.5", ["synthetic_ratio"]),
        ("", []),
    ],
)
def test_flags_that_change_nothing_are_said(flags, silent):
    parser = argparse.ArgumentParser()
    arguments.add_all(parser)
    said = arguments.without_effect(parser.parse_args(flags.split()))
    assert [line.split()[0] for line in said] == [f"--{name}" for name in silent]
