"""Networks without batch normalization get their channels back to original moments, and nothing else changes."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resque.errors import ModelError
from resque.models.adaptation import adapt
from resque.models.channel_matching import ChannelSums, ObservedChannels, add_channels, match_channels
from resque.models.inference import eval_mode

KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def network(spatial, seed=0):
    """Three convolutions, of which one runs twice and one never."""
    torch.manual_seed(seed)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.block = KINDS[spatial](2, 4, 3), KINDS[spatial](4, 4, 1)
            self.unused, self.head = KINDS[spatial](4, 4, 1), nn.Linear(4, 3)

        def forward(self, x):
            hidden = self.block(torch.relu(self.block(torch.relu(self.stem(x)))))
            return self.head(hidden.flatten(2).mean(2))

    return Network()


def images(spatial, n=40, seed=0, scale=1.0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, 2, *[5] * spatial, generator=generator) + offset


def observed(model, *batches):
    found = ObservedChannels()
    with found.attached(model), eval_mode(model):
        for inputs in batches:
            model(inputs)
            found.end_batch()
    return found.channels


@settings(max_examples=15)
@given(spatial=st.sampled_from([1, 2, 3]), seed=st.integers(0, 10**6), cut=st.integers(1, 39))
def test_sums_are_those_of_all_values_however_the_stream_is_cut(spatial, seed, cut):
    model, inputs = network(spatial, seed), images(spatial, seed=seed)
    whole, parts = observed(model, inputs), [observed(model, part) for part in (inputs[:cut], inputs[cut:])]
    streamed = observed(model, inputs[:cut], inputs[cut:])
    outputs = model.stem(inputs).detach().double().transpose(0, 1).flatten(1)
    assert set(whole) == {"stem", "block"}
    assert whole["block"].count == 2 * whole["stem"].count == 2 * outputs.shape[1]
    assert torch.allclose(whole["stem"].mean, outputs.mean(1), atol=1e-6)
    assert torch.allclose(whole["stem"].variance, outputs.var(1, correction=0), atol=1e-6)
    for other in (streamed, add_channels(*parts)):
        for name, sums in whole.items():
            assert other[name].count == sums.count
            assert torch.allclose(other[name].sums, sums.sums, rtol=1e-5, atol=1e-4)  # convolutions round by batch


@settings(max_examples=15)
@given(
    spatial=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 10**6),
    scale=st.floats(0.2, 5.0),
    offset=st.floats(-3.0, 3.0),
)
def test_a_matched_network_has_the_original_moments_on_the_new_data(spatial, seed, scale, offset):
    model = network(spatial, seed).train()
    state = copy.deepcopy(model.state_dict())
    original = observed(model, images(spatial, seed=seed))
    new = images(spatial, seed=seed + 1, scale=scale, offset=offset)
    matched = match_channels(model, [(new, None)], original)
    first = observed(matched, new)["stem"]
    assert torch.allclose(first.mean, original["stem"].mean, atol=1e-3)
    assert torch.allclose(first.variance, original["stem"].variance, rtol=1e-2, atol=1e-3)
    assert (matched.training, model.training) == (False, True)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("spatial", KINDS)
def test_a_shift_that_scales_and_moves_inputs_is_undone(spatial):
    torch.manual_seed(0)
    model = nn.Sequential(KINDS[spatial](2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3**spatial, 3)).eval()
    inputs = images(spatial)
    matched = match_channels(model, [(3.0 * inputs - 2.0, None)], observed(model, inputs))
    assert torch.allclose(matched(3.0 * inputs - 2.0), model(inputs), atol=1e-3)
    assert not torch.allclose(model(3.0 * inputs - 2.0), model(inputs), atol=1e-1)


def test_a_sample_without_a_batch_dimension_is_one_sample():
    one = torch.randn(3, 4, 4)
    assert ChannelSums.of(one, 2).count == ChannelSums.of(one[None], 2).count == 16
    assert torch.equal(ChannelSums.of(one, 2).sums, ChannelSums.of(one[None], 2).sums)


def test_no_batch_reads_a_value():
    """Tensors on the device ``meta`` have no values, so that to read one, as a wait for a GPU does, is an error."""
    model, found = network(2).to("meta"), ObservedChannels(observed(network(2), images(2)))
    with found.attached(model), torch.no_grad():
        for _ in range(3):
            model(torch.zeros(20, 2, 5, 5, device="meta"))
            found.end_batch()


def test_what_cannot_be_matched_stays_or_is_refused():
    model = network(2)
    known = observed(model, images(2))
    assert observed(model, images(2) * torch.nan) is None
    assert adapt(model, []) is adapt(model, [], {}) is None
    part = match_channels(model, [(images(2, scale=3.0), None)], {"stem": known["stem"]})
    assert [name for name, module in part.named_modules() if module._forward_hooks] == ["stem"]
    with pytest.raises(ModelError, match="'stem' has 4 channels, the original data's profile 7"):
        match_channels(model, [(images(2), None)], {"stem": ChannelSums(3, torch.ones(2, 7).double())})


def test_batch_norm_is_adapted_where_there_is_any():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2))
    adapted = adapt(model, [(images(2), None)], observed(model, images(2)))
    assert not any(module._forward_hooks for module in adapted.modules())
    assert not torch.equal(adapted[1].running_mean, model[1].running_mean)
