"""First weights of a network."""

from torch import nn


def initialise(network: nn.Module) -> None:
    """Draws new weights for `network` from torch's random state, in place.

    Convolutions: normal, variance 2 / fan in (He et al. 2015, arXiv:1502.01852), biases zero. Fan in, because fan out
    as PyTorch counts it ignores groups and would make depthwise weights vanish. Linear layers: normal, variance
    1 / fan in, biases zero: with less, two in a row let almost no gradient through to the layers before. Batch norms
    keep PyTorch's 1 and 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
