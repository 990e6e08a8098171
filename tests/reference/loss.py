#!/usr/bin/env python3
"""Prints tests/reference/loss.inc: PyTorch's losses and their gradients for small inputs.

Inputs, targets, weights and upstream gradients come from formulas that the test repeats.
"""
import torch
from torch.nn import functional as F


def numbers(shape, factor, scale):
    size = int(torch.tensor(shape).prod())
    return (((torch.arange(size) * factor + 3) % 17 - 5).double() * scale).reshape(shape)


def row(values):
    return "{" + ", ".join("NAN" if v != v else f"{v:.12g}" for v in values.flatten().tolist()) + "}"


def show(kind, shape, weighted, smoothing, ignore, reduction, loss, x):
    upstream = numbers(loss.shape, 5, 0.25) if loss.dim() else torch.tensor(-1.5).double()
    loss.backward(upstream)
    sizes = ", ".join(str(s) for s in shape)
    print(f"{{Kind::{kind}, {{{sizes}}}, {str(weighted).lower()}, {smoothing}, {ignore}, Reduction::{reduction},\n"
          f" {row(loss)},\n {row(x.grad)}}},")


def classes(kind, shape, weighted=False, smoothing=0.0, ignore=-100, reduction="mean"):
    x = numbers(shape, 7, 0.25).requires_grad_()
    count = shape[1] if len(shape) > 1 else shape[0]
    weight = (torch.arange(count) % 3 + 1).double() / 2 if weighted else None
    labels = [s for axis, s in enumerate(shape) if axis != 1] if len(shape) > 1 else []
    size = int(torch.tensor(labels).prod()) if labels else 1
    target = ((torch.arange(size) * 7 + torch.arange(size) // 3 + 1) % count).reshape(labels)
    if kind == "nll":
        loss = F.nll_loss(x, target, weight, ignore_index=ignore, reduction=reduction)
    elif kind == "labels":
        loss = F.cross_entropy(x, target, weight, ignore_index=ignore, reduction=reduction, label_smoothing=smoothing)
    else:
        loss = F.cross_entropy(x, torch.softmax(numbers(shape, 11, 0.125), 1 if len(shape) > 1 else 0), weight,
                               reduction=reduction, label_smoothing=smoothing)
    show(kind, shape, weighted, smoothing, ignore, reduction, loss, x)


def elements(kind, shape, weighted=False, reduction="mean"):
    x = numbers(shape, 7, 0.5).requires_grad_()
    target = (numbers(shape, 11, 1) + 5) / 16
    if kind == "mse":
        loss = F.mse_loss(x, target, reduction=reduction)
    else:
        weight = (torch.arange(shape[-1]) % 3 + 1).double() / 2 if weighted else None
        positive = (torch.arange(shape[-1]) % 4 + 1).double() if weighted else None
        loss = F.binary_cross_entropy_with_logits(x, target, weight, pos_weight=positive, reduction=reduction)
    show(kind, shape, weighted, 0.0, -100, reduction, loss, x)


print("// Printed by loss.py.")
for reduction in ("mean", "sum", "none"):
    classes("labels", (4, 5), reduction=reduction)
    classes("labels", (4, 5), True, 0.1, 1, reduction)
    classes("labels", (2, 3, 2, 2), True, 0.25, 2, reduction)
    classes("probabilities", (3, 4), True, 0.1, reduction=reduction)
    classes("nll", (3, 4), True, 0.0, 1, reduction)
    classes("nll", (2, 3, 3), reduction=reduction)
    elements("mse", (2, 5), reduction=reduction)
    elements("bce", (2, 5), reduction=reduction)
    elements("bce", (2, 5), True, reduction)
classes("labels", (5,), True, 0.1)
classes("labels", (4, 3), False, 1.0)
classes("probabilities", (2, 3, 2))
classes("probabilities", (4,), True)
classes("labels", (1, 3), True, 0.1, 1)
