from torch import nn

from weakseg.networks.footprint import training_bytes


def test_what_a_training_step_keeps_is_counted_without_a_tensor() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 3, padding=1), nn.ReLU()
    )
    pixels = 1000 * 4096**2  # 200 GB of images alone
    # The image, for the first weights' gradients, and what both activations gave.
    assert training_bytes(network, 1000, 4096) == 4 * pixels * (3 + 8 + 5)
    network[0].requires_grad_(False)
    assert training_bytes(network, 1000, 4096) == 4 * pixels * (8 + 5)
    network[2].requires_grad_(False)
    assert training_bytes(network, 1000, 4096) == 0
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
