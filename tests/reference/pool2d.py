#!/usr/bin/env python3
"""Prints tests/reference/pool2d.inc: what PyTorch's poolings make of small images.

Inputs and upstream gradients are small integers from a formula that the test repeats.
"""
import torch
from torch.nn import functional as F


def integers(shape, factor):
    size = int(torch.tensor(shape).prod())
    return ((torch.arange(size) * factor + 3) % 17 - 5).double().reshape(shape)


def row(values):
    return "{" + ", ".join(f"{v:.9g}" for v in values.flatten().tolist()) + "}"


def case(kind, h, w, kernel, stride=None, padding=(0, 0), dilation=(1, 1), ceil=False, include=True):
    x = integers((2, h, w), 7).requires_grad_()
    stride = stride or kernel
    if kind == "max":
        y = F.max_pool2d(x, kernel, stride, padding, dilation, ceil)
    elif kind == "avg":
        y = F.avg_pool2d(x, kernel, stride, padding, ceil, include)
    else:
        y = F.adaptive_avg_pool2d(x, kernel)
    y.backward(integers(y.shape, 5))
    pair = lambda p: f"{{{p[0]}, {p[1]}}}"
    flag = lambda b: "true" if b else "false"
    print(f"{{{{Kind::{kind}, {{2, {h}, {w}}}, {pair(kernel)}, {pair(stride)}, {pair(padding)}, {pair(dilation)}, "
          f"{flag(ceil)}, {flag(include)}}},\n {{2, {y.shape[1]}, {y.shape[2]}}},\n {row(y)},\n {row(x.grad)}}},")


print("// Printed by pool2d.py.")
case("max", 4, 6, (2, 2))
case("max", 5, 7, (2, 2))
case("max", 5, 7, (2, 2), ceil=True)
case("max", 6, 5, (3, 2), (2, 1), (1, 1))
case("max", 7, 6, (3, 3), (2, 2), (1, 1), ceil=True)
case("max", 7, 8, (3, 2), (1, 2), (1, 0), (2, 3))
case("max", 6, 6, (3, 3), (4, 4), (0, 0), ceil=True)
case("max", 3, 3, (2, 2), (3, 3), (1, 1), ceil=True)
case("avg", 5, 5, (5, 5))
case("avg", 4, 6, (2, 3))
case("avg", 6, 5, (3, 2), (2, 1), (1, 1))
case("avg", 6, 5, (3, 2), (2, 1), (1, 1), include=False)
case("avg", 5, 8, (3, 3), (2, 2), (1, 1), ceil=True)
case("avg", 5, 8, (3, 3), (2, 2), (1, 1), ceil=True, include=False)
case("avg", 6, 6, (2, 2), (3, 4))
case("avg", 4, 5, (2, 4), (3, 3), (1, 2), ceil=True)
case("avg", 3, 3, (4, 4), (4, 4), (1, 1), ceil=True)
case("adaptive", 5, 7, (1, 1))
case("adaptive", 5, 7, (2, 3))
case("adaptive", 6, 4, (3, 2))
case("adaptive", 2, 3, (5, 4))
