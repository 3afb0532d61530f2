import numpy as np
import pytest
import torch
from torch import nn

from resque.errors import ModelError, RepresentationError
from resque.indices.compute_profile import profile
from resque.models.feature_extraction import capture_features, reduce_features
from resque.models.inference import forward, iterate_batches


def state_of(model):
    flags = {name: module.training for name, module in model.named_modules()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return {key: value.clone() for key, value in model.state_dict().items()}, flags, hooks


def assert_same(before, after):
    assert before[1:] == after[1:]
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])


@pytest.mark.parametrize("training", [True, False])
def test_a_pass_leaves_weights_flags_and_hooks_unchanged(cnn, small, training):
    cnn.train(training)
    cnn[1].eval()  # frozen batch normalization stays frozen
    before = state_of(cnn)
    profile(cnn, small[0].batches())
    assert_same(before, state_of(cnn))
    assert all(p.grad is None for p in cnn.parameters())


def test_a_failed_pass_leaves_weights_flags_and_hooks_unchanged(cnn, small):
    cnn.train()
    before = state_of(cnn)
    with pytest.raises(ModelError, match=r"does not take images of shape \(3, 16, 16\)"):
        profile(cnn, [(torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 0, 1]))])
    with pytest.raises(RepresentationError, match="NaN or infinity"):
        profile(cnn, [(torch.full((4, 1, 16, 16), float("nan")), torch.tensor([0, 1, 0, 1]))])
    assert_same(before, state_of(cnn))


def test_no_hook_stays_if_the_second_layer_does_not_exist(cnn):
    before = state_of(cnn)
    with pytest.raises(AttributeError), capture_features(cnn, "0", also=[("nine", "flatten")]):
        raise AssertionError("the block was entered")
    assert_same(before, state_of(cnn))


def test_each_sample_is_passed_once(cnn, small):
    seen = []
    cnn.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    profile(cnn, small[0].batches(64))
    assert seen == [64] * 5


def test_representations_are_those_before_a_later_layer_works_in_place():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    x = torch.rand(5, 1, 8, 8)
    with capture_features(model, "0") as extract:
        rows, _ = extract(x)
    assert torch.equal(rows, model[0](x).flatten(1))
    assert float(rows.min()) < 0


def test_penultimate_is_the_heads_input(cnn):
    cnn.eval()
    x = torch.rand(5, 1, 16, 16)
    with capture_features(cnn, "penultimate") as extract:
        rows, logits = extract(x)
    assert torch.allclose(cnn[12](rows), logits, atol=1e-5)


def test_reductions():
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(reduce_features(x), x.reshape(2, 60))
    assert torch.allclose(reduce_features(x, "mean"), x.double().mean((2, 3)))
    assert torch.allclose(reduce_features(x[0], "token-mean"), x[0].double().mean(1))
    with pytest.raises(RepresentationError, match="unknown reduction"):
        reduce_features(x, "max")
    with pytest.raises(RepresentationError, match="token-mean needs"):
        reduce_features(x, "token-mean")


def test_a_layer_that_does_not_run_is_named():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(3, 2), nn.Conv1d(1, 1, 1)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ModelError, match="layer 'spare' did not run"), capture_features(Unused(), "spare") as extract:
        extract(torch.rand(2, 3))


def test_an_output_that_is_not_logits_is_refused():
    with pytest.raises(ModelError, match=r"returned \(4, 3, 3\); expected logits of shape \(4, classes\)"):
        forward(nn.Identity(), torch.rand(4, 3, 3))


class Counting(nn.Module):
    """Changes a buffer in place, replaces another, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))
        self.body, self.fc = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.fc(self.body(x))


def test_buffers_that_a_pass_changes_are_restored():
    model = Counting()
    before = state_of(model)
    profile(model, [(torch.rand(6, 4), torch.arange(6) % 3)] * 2)
    assert_same(before, state_of(model))


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return {"logits": self.fc(input=self.body(x))}


def test_a_head_that_is_called_by_keyword_and_logits_in_a_mapping_or_a_tuple():
    model = ByKeyword()
    batches = [(np.ones((6, 4), dtype=np.float32), np.arange(6) % 3)]
    assert profile(model, batches, layer="penultimate").width == 8
    pair = nn.Sequential(nn.Linear(4, 3))
    pair.register_forward_hook(lambda module, inputs, output: (output, "features"))
    assert forward(pair, torch.rand(2, 4)).shape == (2, 3)


class Overwriting(nn.Module):
    """Changes the output of a layer without telling autograd."""

    def __init__(self, how):
        super().__init__()
        self.how, self.body, self.fc = how, nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 3)

    def forward(self, x):
        z = self.body(x)
        z.data.clamp_(min=0) if self.how == "data" else np.maximum(z.numpy(), 0, out=z.numpy())
        return self.fc(z.flatten(1))


@pytest.mark.parametrize("how", ["data", "numpy"])
def test_representations_survive_writes_that_autograd_does_not_see(how):
    model, x = Overwriting(how), torch.rand(6, 1, 8, 8)
    result = profile(model, [(x, torch.arange(6) % 3)] * 2, layer="body")
    with torch.no_grad():
        expected = 2 * model.body(x).flatten(1)[0::3].double().sum(0).numpy()
    assert np.allclose(result.sums[0], expected, atol=1e-5)


def test_only_errors_that_may_come_from_the_size_mention_it(cnn):
    class Broken(nn.Sequential):
        def forward(self, x):
            return self.nothing(x)

    with pytest.raises(ModelError, match=r"failed on inputs of shape \(1, 8, 8\): AttributeError") as caught:
        forward(Broken(nn.Linear(2, 2)), torch.rand(1, 1, 8, 8))
    assert "resize" not in str(caught.value)


def test_inputs_are_cast_to_the_precision_of_the_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).bfloat16()
    assert forward(model, torch.rand(2, 1, 2, 2)).dtype == torch.bfloat16


def test_an_empty_loader_is_refused():
    with pytest.raises(RepresentationError, match="no batch"):
        profile(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)), [])


class InPlaceOnSmallBatches(nn.Module):
    """Works in place on batches of three samples, not on others."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        z = self.body(x)
        return self.fc(z.relu_() if len(x) == 3 else z.relu())


def test_representations_are_right_when_only_a_later_batch_is_overwritten():
    torch.manual_seed(0)
    model = InPlaceOnSmallBatches()
    with capture_features(model, "body") as extract:
        for n in (5, 3, 3, 5):
            x = torch.randn(n, 4)
            assert torch.equal(extract(x)[0], model.body(x))


class Body(nn.Module):
    """Returns what its function makes of the inputs."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Wrapped(nn.Module):
    """A head on the inputs themselves, after a body whose output is not used."""

    def __init__(self, function):
        super().__init__()
        self.body, self.head = Body(function), nn.Linear(4, 3)

    def forward(self, x):
        self.body(x)
        return self.head(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: {"z": x}, "layer 'body' returns a dict; expected a tensor"),
        (lambda x: x.reshape(-1, 2), r"layer 'body' gave 12 rows for 6 samples"),
    ],
)
def test_a_layer_without_one_row_per_sample_is_refused(function, message):
    with pytest.raises(ModelError, match=message), capture_features(Wrapped(function), "body") as extract:
        extract(torch.rand(6, 4))


def test_further_layers_stand_between_the_first_and_the_logits(cnn):
    x = torch.rand(5, 1, 16, 16)
    with capture_features(cnn, "7", "mean", also=[("penultimate", "flatten"), ("0", "mean")]) as extract:
        last, head_input, first, logits = extract(x)
    assert [tuple(each.shape) for each in (last, head_input, first, logits)] == [(5, 64), (5, 64), (5, 16), (5, 10)]


def test_inputs_that_a_model_does_not_take_are_named():
    with pytest.raises(ModelError, match="does not take the inputs input_ids, attention_mask: TypeError"):
        forward(nn.Linear(2, 2), {"input_ids": torch.ones(2, 3), "attention_mask": torch.ones(2, 3)})


def test_errors_of_resque_inside_a_model_stay_as_they_are():
    def refuse(x):
        raise RepresentationError("refused inside")

    with pytest.raises(RepresentationError, match="refused inside"):
        forward(Wrapped(refuse), torch.rand(2, 4))


@pytest.mark.parametrize("batch", [(torch.ones(2), torch.ones(2), torch.ones(2)), "text", {"x": torch.ones(2)}])
def test_a_batch_of_another_form_is_refused(batch):
    with pytest.raises(RepresentationError, match=r"expected a pair \(inputs, labels\), or a mapping with labels"):
        next(iterate_batches([batch], torch.device("cpu")))


@pytest.mark.parametrize("batch", [[1.0, 2.0], {"x": [1.0, 2.0], "labels": [0, 1]}, ([1.0, 2.0], [0, 1])])
def test_labels_are_ignored_where_none_are_wanted(batch):
    batch = np.array(batch) if isinstance(batch, list) else batch
    ((inputs, labels),) = iterate_batches([batch], torch.device("cpu"), labeled=False)
    inputs = inputs["x"] if isinstance(inputs, dict) else inputs
    assert (inputs.tolist(), labels) == ([1.0, 2.0], None)
