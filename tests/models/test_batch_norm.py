"""The published batch norm while sampling, against torch's own in training mode."""

import copy

import pytest
import torch
from torch import nn

from cond2img.pipelines.batch_norm import statistics_of_the_batch


@pytest.fixture
def bn():
    torch.manual_seed(0)
    bn = nn.BatchNorm2d(6)
    for tensor in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
        tensor.data.uniform_(0.5, 1.5)
    return bn.eval()


@pytest.mark.parametrize("branches", [1, 2, 4])
def test_each_sample_by_its_own_two_branches(bn, branches):
    prior = torch.randn(3, 6, 8, 8)
    x = torch.cat([torch.zeros_like(prior)] * (branches > 1) + [prior] * max(1, branches - 1))
    training = copy.deepcopy(bn).train()
    with torch.no_grad(), statistics_of_the_batch(bn, branches):
        got = bn(x).unflatten(0, (branches, 3))
    for index in range(3):
        pair = x.unflatten(0, (branches, 3))[:, index]
        pair = pair[[0, -1]] if branches > 1 else pair
        with torch.no_grad():
            expected = training(pair)
        assert torch.allclose(got[0, index], expected[0], atol=1e-6)
        assert torch.allclose(got[-1, index], expected[-1], atol=1e-6)
    assert bn.num_batches_tracked == 0  # the model's own statistics stay
    with torch.no_grad():
        assert torch.equal(bn(x), copy.deepcopy(bn)(x))  # and outside the block they count again
