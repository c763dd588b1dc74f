"""Rewriting of networks so that they compute less and answer the same.

Batch norm is folded into the weights of the convolution before it. And upsampling becomes part of the convolution after
it: U-Net and UNet++ double an image by repeating its pixels, put what the encoder saw beside it, and convolve both with
3 x 3 weights. Of the nine pixels under such a window only four differ where they were repeated, so that a transposed
convolution of the small image with 4 x 4 weights, sums of the former, gives the same numbers from four products instead
of nine, and the image of twice the size is never made. Who changes how networks are rewritten counts up
`thawmap.model.backends.sandbox.REWRITING`.
"""

from copy import deepcopy
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d
from torch.nn.utils.fusion import fuse_conv_bn_eval

from thawmap.model.network import PROBE_PX

_SUMS = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Matrix (4, 3) from three weights of an axis to the four of the doubled image."""

_GOLDEN = 0.6180340  # its multiples, without their integers, fill 0..1 evenly

_TOLERANCE = 1e-3  # of logits
_ROUNDING = 5e-5  # of the largest logit; five times what float32 without AVX-512 loses in U-Net with ResNet-34


def folded(network: nn.Module, *, channels: int) -> nn.Module:
    """Return a network with batch norm and upsampling folded into its convolutions.

    It answers the same, but for rounding, in fewer operations. A network that has nothing to fold is given back as it
    is. What is not folded is shared with ``network``, which stays as it is. Both are asked once, and where they
    disagree nothing is folded.

    Args:
        network: In eval mode, on any device; squares of `PROBE_PX` are the smallest that it needs to take.
        channels: Of its input.
    """
    shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    copy = deepcopy(network, shared)
    like = next(network.parameters())
    # numbers that look random, without a draw from the generator that a training may be using
    probe = torch.ones(channels * PROBE_PX**2, dtype=like.dtype).cumsum(0).mul(_GOLDEN).frac()
    probe = probe.view(1, channels, PROBE_PX, PROBE_PX).to(like.device)  # "meta" would load PyTorch's compiler for this
    with torch.no_grad():
        watch = _Watch(copy)
        truth = copy(probe)
        watch.end()
        if not watch.norms and not watch.doubled:
            return network
        for conv, norm in watch.norms.items():
            fused = fuse_conv_bn_eval(
                cast("nn.Conv2d", copy.get_submodule(conv)), cast("nn.BatchNorm2d", copy.get_submodule(norm))
            )
            copy.set_submodule(conv, fused)
            copy.set_submodule(norm, nn.Identity())
        for name, number in watch.doubled.items():
            block = copy.get_submodule(name)
            if _can_fold(block):
                copy.set_submodule(name, _FoldedBlock(block, number))
        if probe.is_meta:
            return copy
        # rounding grows with the largest number and with older processors
        atol = max(_TOLERANCE, _ROUNDING * truth.abs().max().item())
        return copy if torch.allclose(copy(probe), truth, rtol=_TOLERANCE, atol=atol) else network


class _Watch:
    """Record of the modules through which one image passes in a network.

    Attributes:
        norms: Names of convolutions, and of the norms that take their answers next.
        doubled: Names of blocks that answer with images of twice the size, with the number of channels they are given.
    """

    def __init__(self, network: nn.Module) -> None:
        self.norms: dict[str, str] = {}
        self.doubled: dict[str, int] = {}
        self._names = {module: name for name, module in network.named_modules()}
        self._convolved: dict[int, tuple[str, Tensor]] = {}
        self._hooks = [module.register_forward_hook(self._see) for module in self._names if module is not network]

    def end(self) -> None:
        """Stop recording, and let go of the answers of convolutions."""
        for hook in self._hooks:
            hook.remove()
        self._convolved.clear()

    def _see(self, module: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
        """Record a convolution, a norm behind one, or a block that doubles its image."""
        name = self._names[module]
        if not given or not isinstance(answer, Tensor):  # called by keywords alone, or answering with several
            return
        if isinstance(module, nn.Conv2d):
            self._convolved[id(answer)] = name, answer  # which is kept, so that no other tensor is taken for it
        elif type(module) is nn.BatchNorm2d and module.running_mean is not None and id(given[0]) in self._convolved:
            self.norms[self._convolved[id(given[0])][0]] = name
        elif hasattr(module, "interpolation_mode") and given[0].shape[2] * 2 == answer.shape[2]:
            self.doubled[name] = given[0].shape[1]
        elif not list(module.children()):
            self._convolved.pop(id(answer), None)  # it was changed in its place


class _FoldedBlock(nn.Module):
    """A decoder's block whose upsampling is part of its first convolution.

    Args:
        block: Of segmentation-models-pytorch, for which `_can_fold`.
        doubled: Number of its channels that are doubled in size; the others come from the encoder.
    """

    def __init__(self, block: nn.Module, doubled: int) -> None:
        super().__init__()
        first = cast("nn.Sequential", block.conv1)
        conv = cast("nn.Conv2d", first[0])
        weight = conv.weight.detach()
        sums = weight.new_tensor(_SUMS)
        self._doubling = _fixed(torch.einsum("ka,oiab,lb->iokl", sums, weight[:, :doubled], sums))
        self._beside = _fixed(weight[:, doubled:]) if doubled < conv.in_channels else None
        self._bias = None if conv.bias is None else _fixed(conv.bias)
        self._activation = first[2]
        self._rest = nn.Sequential(cast("nn.Module", block.conv2), cast("nn.Module", block.attention2))

    def forward(self, image: Tensor, *others: Tensor | int, **named: Tensor | None) -> Tensor:
        """Return features of twice the image's size, from it and the encoder's features.

        Sizes among the arguments are passed by: the transposed convolution doubles without them.
        """
        answer = conv_transpose2d(image, self._doubling, self._bias, stride=2, padding=1)
        if self._beside is not None:
            beside = next(argument for argument in (*others, *named.values()) if isinstance(argument, Tensor))
            answer = answer + conv2d(beside, self._beside, padding=1)
        return cast("Tensor", self._rest(self._activation(answer)))


def _fixed(weights: Tensor) -> nn.Parameter:
    """Return weights as a parameter that is not trained."""
    return nn.Parameter(weights.detach().contiguous(), requires_grad=False)


def _can_fold(block: nn.Module) -> bool:
    """Return whether a decoder's block has a form whose upsampling can be folded.

    That is, if it only repeats pixels, adds channels and convolves them.
    """
    first, attention = getattr(block, "conv1", None), getattr(block, "attention1", None)
    if not isinstance(first, nn.Sequential) or len(first) != 3 or attention is None:
        return False
    conv, norm, _ = first
    return (
        block.interpolation_mode == "nearest"
        and type(conv) is nn.Conv2d
        and (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and (conv.groups, conv.padding_mode) == (1, "zeros")
        and isinstance(norm, nn.Identity)
        and all(isinstance(module, nn.Identity) for module in attention.children())
    )
