import pytest
import torch

from resque.energy.clock import now


@pytest.mark.parametrize(
    ("device", "gpu", "waited"),
    [
        (None, True, [(torch.device("cuda"),)]),
        (None, False, []),
        (torch.device("cpu"), True, []),
        (torch.device("cuda", 1), True, [(torch.device("cuda", 1),)]),
    ],
)
def test_clock_waits_for_its_device_only(monkeypatch, device, gpu, waited):
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *device: calls.append(device))
    assert now(device) <= now(torch.device("cpu"))
    assert calls == waited
