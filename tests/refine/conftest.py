import pytest
import torch


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def torch_device(request: pytest.FixtureRequest) -> torch.device:
    """Where torch's operators compute."""
    return torch.device(request.param)


@pytest.fixture(params=[None, "cpu", "cuda"] if torch.cuda.is_available() else [None, "cpu"])
def device(request: pytest.FixtureRequest) -> torch.device | None:
    """The same, and None for compiled loops."""
    return torch.device(request.param) if request.param else None
