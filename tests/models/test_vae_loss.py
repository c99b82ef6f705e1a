"""The VAE's loss against its formula, and LPIPS against the library's own."""

import logging
import math

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from golden_vectors import arr
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from cond2img.models import VAELoss
from cond2img.models.vae_loss import LPIPS
from ctrlgenaug.errors import UserError


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """Random VGG16 weights under torchvision's names (the classifier, which is not needed, left out)."""
    torch.manual_seed(1)
    network = make_layers(cfgs["D"], batch_norm=False)
    for layer in network:
        if isinstance(layer, nn.Conv2d):  # features as large as a trained network's
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    weights = network.state_dict()
    file = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save({f"features.{name}": value for name, value in weights.items()}, file)
    return file


@pytest.fixture(scope="module")
def lpips(vgg_file):
    return LPIPS(vgg_file)


@pytest.fixture
def batch():
    pixels, reconstruction = (arr(name, (3, 1, 64, 64)).clip(-1, 1) for name in ("pixels", "reconstruction"))
    return pixels, reconstruction, DiagonalGaussianDistribution(arr("moments", (3, 8, 8, 8)))


def test_lpips_is_torchmetrics(lpips, vgg_file):
    from torchmetrics.functional.image import lpips as library

    weights = torch.load(vgg_file, weights_only=True)
    network = library._LPIPS(pretrained=True, net="vgg", pnet_rand=True)
    for name, parameter in network.net.named_parameters():  # slice2.4.weight is VGG16's features.4.weight
        parameter.data.copy_(weights["features." + name.split(".", 1)[1]])
    first, second = (arr(name, (2, 3, 64, 64)).clip(-1, 1) for name in ("one", "two"))
    torch.testing.assert_close(lpips(first, second), network(first, second), rtol=1e-4, atol=1e-6)


def test_lpips_of_grey_is_that_of_three_equal_channels(lpips):
    first, second = (arr(name, (2, 1, 64, 64)).clip(-1, 1) for name in ("one", "two"))
    three = lpips(first.expand(-1, 3, -1, -1), second.expand(-1, 3, -1, -1))
    torch.testing.assert_close(lpips(first, second), three)
    assert lpips(first, first).abs().max() == 0


def test_lpips_has_gradients_where_all_features_are_zero(lpips):
    second = torch.zeros(1, 1, 64, 64, requires_grad=True)
    for number, layers in enumerate(lpips.slices):
        assert isinstance(layers[-1], nn.ReLU), number
    lpips(arr("one", (1, 1, 64, 64)), second).sum().backward()
    assert second.grad.isfinite().all()


def test_loss_without_lpips_is_its_formula(batch, caplog):
    with caplog.at_level(logging.WARNING):
        criterion = VAELoss(None)
    assert "WITHOUT LPIPS" in caplog.text
    assert [name for name, _ in criterion.named_parameters()] == ["logvar"] and criterion.logvar == 0
    pixels, reconstruction, posterior = batch
    with torch.no_grad():
        criterion.logvar.fill_(0.3)
    loss, parts = criterion(*batch)

    differences = (pixels - reconstruction).abs().double()
    likelihood = (differences.sum() / math.exp(0.3) + 0.3 * pixels.numel()) / 3
    mean, logvar = posterior.mean.double(), posterior.logvar.double()
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum() / 3
    assert loss.item() == pytest.approx((likelihood + 1e-6 * kl).item(), rel=1e-5)
    assert parts["rec"].item() == pytest.approx(differences.mean().item(), rel=1e-5)
    assert parts["kl"].item() == pytest.approx(kl.item(), rel=1e-5)
    assert not any(part.requires_grad for part in parts.values())


def test_lpips_of_an_image_counts_for_each_of_its_pixels(batch, vgg_file, lpips):
    with_lpips, _ = VAELoss(vgg_file)(*batch)
    without, _ = VAELoss(None)(*batch)
    expected = lpips(batch[0], batch[1]).sum() * 64 * 64 / 3
    assert (with_lpips - without).item() == pytest.approx(expected.item(), rel=1e-4)


def test_only_the_scale_is_trained(batch, vgg_file):
    criterion = VAELoss(vgg_file).train()
    reconstruction = batch[1].clone().requires_grad_()
    loss, _ = criterion(batch[0], reconstruction, batch[2])
    loss.backward()
    assert reconstruction.grad.abs().max() > 0
    assert {n for n, p in criterion.named_parameters() if p.grad is not None} == {"logvar"}
    assert not criterion.lpips.training


@pytest.mark.parametrize("content", [None, b"no weights", "list", "another network"])
def test_refused_vgg_files(tmp_path, content):
    file = tmp_path / "vgg16.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content == "list":
        torch.save([torch.ones(1)], file)
    elif content:
        torch.save({"features.0.weight": torch.ones(1)}, file)
    with pytest.raises(UserError, match="vgg16-397923af.pth.*lpips_weights"):
        VAELoss(file)
