"""VAE-Seq against its formula, and the latents it shares with the filter."""

import csv
import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from augment.quality import vae_seq
from augment.quality.latents import LatentSettings, LatentStore
from ctrlgenaug.errors import UserError
from ctrlgenaug.video import read_video, write_mp4


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    kind = "EncoderBlock2D"
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=(f"Down{kind}",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        latent_channels=4,
    ).eval()


def clip(seed, num_frames=8, size=64):
    """A drifting pattern, different for each seed."""
    base = np.random.default_rng(seed).integers(0, 255, (size, size), dtype=np.uint8)
    return np.stack([np.roll(base, 3 * i, axis=1) for i in range(num_frames)])


@pytest.fixture
def folder(tmp_path):
    for seed in range(4):
        write_mp4(tmp_path / f"study_0001_s01_CT-0_{seed}.mp4", clip(seed))
    return tmp_path


def store_of(vae, folder, **settings):
    return LatentStore(lambda: vae, "tiny", folder, LatentSettings(**settings))


def plain_vae_seq(latents):
    """The definition, in float64 and without shortcuts."""
    cosines = []
    for one, two in zip(latents[:-1], latents[1:], strict=True):
        a, b = one.astype(np.float64).ravel(), two.astype(np.float64).ravel()
        cosines.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    return round(100 * sum(cosines) / len(cosines), 2)


def test_the_score_is_its_definition():
    noise = np.random.default_rng(0)
    for frames in (2, 8, 15):
        latents = noise.standard_normal((frames, 4, 8, 8)).cumsum(0)
        assert vae_seq.vae_seq(latents) == pytest.approx(plain_vae_seq(latents), abs=0.011)
    still = np.repeat(latents[:1], 5, 0)
    assert vae_seq.vae_seq(still) == 100
    assert vae_seq.vae_seq(np.stack([still[0], -still[0]])) == -100
    assert vae_seq.vae_seq(still[:1]) is None


def test_the_score_of_the_golden_clip():
    from golden_vectors import FOLDER, generator
    from golden_vectors import vae as golden_vae

    frames = generator("A_clip").random((8, 1, 256, 256)).astype(np.float32)
    with torch.no_grad():
        latents = golden_vae().encode(torch.from_numpy(frames)).latent_dist.mean.numpy()
    published = float(np.load(FOLDER / "A_io.npz")["vae_seq_mode_percent"])
    for rounded in (latents, latents.astype(np.float16)):  # as stored in the cache
        assert vae_seq.vae_seq(rounded) == pytest.approx(published, abs=0.0051)


@pytest.mark.parametrize("pixel_range", ["official", "model"])
def test_mode_latents_are_the_posteriors_mean(vae, folder, pixel_range):
    path = folder / "study_0001_s01_CT-0_0.mp4"
    ((_, latents),) = store_of(vae, None, posterior="mode", pixel_range=pixel_range).stream([path])
    pixels = torch.from_numpy(read_video(path)).double()[:, None] / 255
    if pixel_range == "model":
        pixels = pixels * 2 - 1
    with torch.no_grad():
        expected = vae.encode(pixels.float()).latent_dist.mean
    assert latents.shape == (8, 4, 8, 8) and latents.dtype == np.float16
    assert np.abs(latents - expected.numpy()).max() <= 1e-3 * expected.abs().max().item()


def test_sampled_latents_depend_on_the_video_alone(vae, folder):
    videos = vae_seq.list_videos(folder)
    forwards = dict(store_of(vae, None).stream(videos))
    backwards = dict(store_of(vae, None).stream(videos[::-1]))
    for path in videos:
        assert np.array_equal(forwards[path], backwards[path])
    others = dict(store_of(vae, None, seed=1).stream(videos))
    modes = dict(store_of(vae, None, posterior="mode").stream(videos))
    for path in videos:
        assert not np.array_equal(forwards[path], others[path])
        assert not np.array_equal(forwards[path], modes[path])
    renamed = folder / "other_CT-0_9.mp4"
    renamed.write_bytes(videos[0].read_bytes())
    ((_, again),) = store_of(vae, None).stream([renamed])
    assert np.array_equal(again, forwards[videos[0]])


def test_a_second_run_encodes_nothing_and_scores_the_same(vae, folder):
    first, second = store_of(vae, folder), LatentStore(lambda: 1 / 0, "tiny", folder)
    videos = vae_seq.list_videos(folder)
    scores = vae_seq.score_videos(first, videos).results
    assert vae_seq.score_videos(second, videos).results == scores
    assert (first.computed, second.computed) == (4, 0)
    cached = next((folder / ".latents").rglob("*.npy"))
    cached.write_bytes(cached.read_bytes()[:100])  # a damaged entry is computed again
    third = store_of(vae, folder)
    assert vae_seq.score_videos(third, videos).results == scores and third.computed == 1
    other = store_of(vae, folder, pixel_range="model")
    assert vae_seq.score_videos(other, videos).results != scores and other.computed == 4
    write_mp4(videos[0], clip(9))  # another video under the same name
    assert vae_seq.score_videos(store_of(vae, folder), videos).results != scores


def test_out_of_memory_halves_the_batch(vae, folder, capfd):
    class Small(torch.nn.Module):
        """A VAE for which three clips are too many."""

        def __init__(self):
            super().__init__()
            self.inner = vae

        def encode(self, pixels):
            if len(pixels) > 16:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.inner.encode(pixels)

    videos = vae_seq.list_videos(folder)
    store = LatentStore(Small, "tiny", None)
    store.batch_size = 4
    scores = vae_seq.score_videos(store, videos).results
    assert scores == vae_seq.score_videos(store_of(vae, None), videos).results
    assert store.batch_size == 2 and "out of memory" in capfd.readouterr().err


def test_bad_videos_are_named_and_the_rest_scored(vae, folder, capfd):
    (folder / "broken_CT-0_1.mp4").write_bytes(b"not a video")
    (folder / "empty_CT-0_1.mp4").touch()
    write_mp4(folder / "single_CT-0_1.mp4", clip(1, 1))
    write_mp4(folder / "odd_CT-0_1.mp4", clip(1, size=60))
    outcome = vae_seq.score_videos(store_of(vae, folder), vae_seq.list_videos(folder))
    assert len(outcome.results) == 4
    assert {name.split("_")[0] for name in outcome.failures} == {"broken", "empty", "single", "odd"}
    assert "broken_CT-0_1.mp4" in capfd.readouterr().err


def test_results_as_published_and_as_a_table(folder):
    scores = {"study_0001_s01_CT-0_0.mp4": 84.07, "study_0002_s01_CT-234_66.mp4": 96.33, "stranger.mp4": 77.0}
    vae_seq.write_results(folder, scores)
    assert json.loads((folder / "VAE_Seq_train_results.json").read_text()) == scores
    rows = list(csv.DictReader((folder / "VAE_Seq_train_results.csv").open(newline="")))
    assert rows[1] == {
        "file_name": "study_0002_s01_CT-234_66.mp4",
        "clip": "study_0002_s01",
        "class": "CT-234",
        "seed": "66",
        "vae_seq": "96.33",
    }
    assert rows[2]["class"] == ""
    assert (folder / "VAE_Seq_train_results.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_without_clips(tmp_path):
    with pytest.raises(UserError, match="holds no clip"):
        vae_seq.list_videos(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        vae_seq.list_videos(tmp_path / "nowhere")
