#!/usr/bin/env python3
"""Writes PyTorch's numbers, which the tests compare minnow's with, into the directory this script lies in.

    apt-get install python3-torch python3-numpy   # Debian 12: PyTorch 1.13.1
    /usr/bin/python3 tests/reference/generate.py [file...]

Everything is computed in double. A file holds named tensors, two lines each: the name with the sizes,
then the values, row by row. tests/reference.hpp reads it.
"""

import math
import os
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
HERE = os.path.dirname(os.path.abspath(__file__))


def numbers(*shape, low=-2.0, high=2.0):
    """Random numbers with three digits, so that text holds them exactly."""
    return torch.round((low + (high - low) * torch.rand(shape)) * 1000) / 1000


class File:
    """The named tensors of one file."""

    def __init__(self, stem):
        self.stem = stem
        self.lines = []
        torch.manual_seed(sum(stem.encode()))

    def put(self, name, tensor, digits=9):
        tensor = torch.as_tensor(tensor).detach()
        self.lines.append(" ".join([name] + [str(size) for size in tensor.shape]))
        self.lines.append(" ".join(f"{value:.{digits}g}" for value in tensor.flatten().tolist()))

    def function(self, name, f, *inputs, names=("x", "y", "z"), out="out"):
        """The value of f and the gradients of sum(dout * f) for every input that requires one."""
        result = f(*inputs)
        dout = numbers(*result.shape)
        for key, value in zip(names, inputs):
            self.put(f"{name}/{key}", value)
            value.grad = None
        self.put(f"{name}/{out}", result)
        if not any(value.requires_grad for value in inputs):
            return
        result.backward(dout)
        self.put(f"{name}/d{out}", dout)
        for key, value in zip(names, inputs):
            if value.requires_grad:
                self.put(f"{name}/d{key}", value.grad)

    def parameters(self, name, module):
        """Random parameters for the module; without affine parameters, nothing."""
        with torch.no_grad():
            for key, parameter in module.named_parameters():
                parameter.copy_(numbers(*parameter.shape, low=-1, high=1))
                self.put(f"{name}/{key}", parameter)

    def pass_through(self, name, module, *shape, low=-2.0, high=2.0):
        """One forward and backward of the module, with its buffers after it."""
        x = numbers(*shape, low=low, high=high).requires_grad_()
        module.zero_grad(set_to_none=True)
        self.function(name, module, x, names=("x",), out="y")
        for key, parameter in module.named_parameters():
            self.put(f"{name}/d{key}", parameter.grad)
        for key, buffer in module.named_buffers():
            self.put(f"{name}/after/{key}", buffer)

    def layer(self, name, module, *shape, **limits):
        self.parameters(name, module)
        self.pass_through(name, module, *shape, **limits)

    def write(self):
        path = os.path.join(HERE, self.stem + ".txt")
        with open(path, "w") as file:
            file.write("\n".join(self.lines) + "\n")
        print(f"{os.path.getsize(path):8d} {self.stem}.txt")


# --- Optimisers --------------------------------------------------------------------------------------------------

STEPS = 20


def gradient(p, step):
    """A curved valley that shifts from step to step; reference.hpp computes the same."""
    i = torch.arange(p.numel(), dtype=torch.float64)
    return (1 + i) * p + torch.sin(0.7 * step + i)


def optimizers(file):
    def run(name, make, lr_from_10=None, skip=None):
        p = torch.tensor([0.5, -1.25, 2.0, -0.125, 0.75], requires_grad=True)
        optimizer = make([p])
        path = []
        for step in range(STEPS):
            if lr_from_10 and step == 10:
                optimizer.param_groups[0]["lr"] = lr_from_10
            p.grad = None if step == skip else gradient(p.detach(), step)
            optimizer.step()
            path.append(p.detach().clone())
        file.put(name, torch.stack(path))

    def sgd(**options):
        return lambda p: torch.optim.SGD(p, **options)

    run("sgd", sgd(lr=0.1))
    run("sgd_momentum", sgd(lr=0.02, momentum=0.9), lr_from_10=0.002)
    run("sgd_dampening", sgd(lr=0.05, momentum=0.9, dampening=0.5))
    run("sgd_nesterov", sgd(lr=0.02, momentum=0.8, nesterov=True), skip=3)
    run("sgd_decay", sgd(lr=0.05, weight_decay=0.3))
    run("sgd_all", sgd(lr=0.02, momentum=0.7, dampening=0.2, weight_decay=0.1))

    def adam(**options):
        return lambda p: torch.optim.Adam(p, **options)

    run("adam", adam(), skip=0)
    run("adam_options", adam(lr=0.1, betas=(0.7, 0.95), eps=1e-2), lr_from_10=0.01, skip=4)
    run("adam_decay", adam(lr=0.05, weight_decay=0.2))
    run("adam_amsgrad", adam(lr=0.1, betas=(0.8, 0.6), weight_decay=0.05, amsgrad=True), skip=6)
    run("adamw", lambda p: torch.optim.AdamW(p), skip=2)
    run("adamw_options", lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.4))
    run("adamw_amsgrad", lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.6), amsgrad=True))

    def rmsprop(**options):
        return lambda p: torch.optim.RMSprop(p, **options)

    run("rmsprop", rmsprop(), skip=5)
    run("rmsprop_options", rmsprop(lr=0.05, alpha=0.8, eps=1e-2, weight_decay=0.2), lr_from_10=0.01)
    run("rmsprop_momentum", rmsprop(lr=0.01, alpha=0.9, momentum=0.8))
    run("rmsprop_centered", rmsprop(lr=0.02, alpha=0.9, centered=True))
    run("rmsprop_all", rmsprop(lr=0.01, alpha=0.9, momentum=0.5, centered=True, weight_decay=0.1))


def clipping(file):
    for name, norm_type in (("two", 2.0), ("one", 1.0), ("three", 3.0), ("half", 0.5), ("largest", math.inf)):
        p, q = torch.zeros(3, 2, requires_grad=True), torch.zeros(5, requires_grad=True)
        p.grad, q.grad = numbers(3, 2), numbers(5)
        file.put(f"{name}/p", p.grad)
        file.put(f"{name}/q", q.grad)
        file.put(f"{name}/norm", nn.utils.clip_grad_norm_([p, q], 1.5, norm_type))
        file.put(f"{name}/clipped_p", p.grad)
        file.put(f"{name}/clipped_q", q.grad)


# --- Schedules ---------------------------------------------------------------------------------------------------


def schedulers(file):
    lr_scheduler = torch.optim.lr_scheduler

    def optimizer_of(kind, lr):
        p = [torch.zeros(1, requires_grad=True)]
        return torch.optim.Adam(p, lr=lr) if kind == "adam" else torch.optim.SGD(p, lr=lr, momentum=0.9)

    def curve(name, make, steps, kind="sgd", lr=0.3, momentum=False):
        optimizer = optimizer_of(kind, lr)
        schedules = make(optimizer)
        schedules = schedules if isinstance(schedules, list) else [schedules]
        values = []
        for step in range(steps + 1):
            group = optimizer.param_groups[0]
            values.append([group["lr"], group["betas"][0] if kind == "adam" else group["momentum"]])
            optimizer.step()
            if step < steps:
                for schedule in schedules:
                    schedule.step()
        values = torch.tensor(values)
        file.put(name, values if momentum else values[:, 0], digits=12)

    curve("step", lambda o: lr_scheduler.StepLR(o, 7, gamma=0.3), 30)
    curve("multi_step", lambda o: lr_scheduler.MultiStepLR(o, [0, 3, 5, 5, 20], gamma=0.5), 30)
    curve("exponential", lambda o: lr_scheduler.ExponentialLR(o, 0.93), 30)
    curve("lambda", lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + 0.5 * epoch)), 20)
    curve("cosine", lambda o: lr_scheduler.CosineAnnealingLR(o, 12), 50)
    curve("cosine_eta_min", lambda o: lr_scheduler.CosineAnnealingLR(o, 25, eta_min=0.01), 60)
    curve("cosine_long", lambda o: lr_scheduler.CosineAnnealingLR(o, 200, eta_min=1e-5), 200)
    curve(
        "exponential_and_cosine",
        lambda o: [lr_scheduler.ExponentialLR(o, 0.95), lr_scheduler.CosineAnnealingLR(o, 9, eta_min=0.02)],
        30,
    )

    def one_cycle(name, steps=None, kind="sgd", **options):
        curve(
            name,
            lambda o: lr_scheduler.OneCycleLR(o, **options),
            options["total_steps"] if steps is None else steps,
            kind=kind,
            momentum=True,
        )

    one_cycle("one_cycle", max_lr=0.1, total_steps=60)
    one_cycle("one_cycle_adam", kind="adam", max_lr=0.01, total_steps=41)
    one_cycle("one_cycle_linear", max_lr=0.5, total_steps=50, pct_start=0.45, anneal_strategy="linear")
    one_cycle("one_cycle_three_phase", max_lr=0.2, total_steps=57, pct_start=0.4, three_phase=True)
    one_cycle(
        "one_cycle_options",
        max_lr=1.0,
        total_steps=33,
        pct_start=0.21,
        anneal_strategy="linear",
        base_momentum=0.7,
        max_momentum=0.99,
        div_factor=7.0,
        final_div_factor=300.0,
        three_phase=True,
    )
    one_cycle("one_cycle_fixed_momentum", max_lr=0.1, total_steps=25, cycle_momentum=False)
    one_cycle("one_cycle_no_rise", max_lr=0.1, total_steps=20, pct_start=0.0)

    metric = [5.0, 4.0, 4.2, 4.1, 3.9999, 4.5, 4.5, 4.4, 3.0, 3.0, 3.1, 3.2, 3.3, 2.9995, 3.0, 3.1, 2.5, 2.4, 2.6, 2.7]
    metric += [2.39, 2.5, math.nan, 2.6, 2.4, 2.41, 2.42, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5]

    def plateau(name, sign=1, **options):
        optimizer = optimizer_of("sgd", 0.3)
        schedule = lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        values = []
        for value in metric:
            schedule.step(sign * value)
            values.append(optimizer.param_groups[0]["lr"])
        file.put(name, torch.tensor(values), digits=12)

    file.put("metric", torch.tensor(metric))
    plateau("plateau", patience=2)
    plateau("plateau_default")
    plateau("plateau_abs", patience=1, factor=0.5, threshold=0.05, threshold_mode="abs", cooldown=2)
    plateau("plateau_max", sign=-1, mode="max", patience=2, factor=0.3, threshold=0.01, threshold_mode="abs")
    plateau("plateau_max_rel", mode="max", patience=3, factor=0.3, threshold=0.05)
    plateau("plateau_min_lr", patience=0, factor=0.2, min_lr=1e-3, eps=1e-3, cooldown=1)


# --- Layers ------------------------------------------------------------------------------------------------------


def conv2d(file):
    file.layer("plain", nn.Conv2d(3, 4, 3), 2, 3, 5, 6)
    file.layer("no_bias", nn.Conv2d(2, 3, 3, bias=False), 1, 2, 5, 5)
    file.layer("padding", nn.Conv2d(2, 3, 3, padding=1), 2, 2, 4, 5)
    file.layer("stride", nn.Conv2d(2, 3, 3, stride=2, padding=1), 1, 2, 7, 6)
    file.layer("dilation", nn.Conv2d(2, 3, 3, dilation=2, padding=2), 1, 2, 6, 7)
    file.layer("groups", nn.Conv2d(4, 6, 3, groups=2), 1, 4, 4, 5)
    file.layer("depthwise", nn.Conv2d(3, 6, 3, groups=3, padding=1), 1, 3, 4, 4)
    file.layer("pointwise", nn.Conv2d(5, 4, 1), 2, 5, 3, 3)
    file.layer(
        "all", nn.Conv2d(4, 2, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(2, 1), groups=2), 2, 4, 6, 5
    )
    file.layer("whole_image", nn.Conv2d(3, 5, 4), 2, 3, 4, 4)


def linear(file):
    file.layer("plain", nn.Linear(7, 5), 4, 7)
    file.layer("no_bias", nn.Linear(3, 6, bias=False), 2, 3)
    file.layer("three_axes", nn.Linear(5, 3), 2, 3, 5)
    file.layer("one", nn.Linear(1, 1), 1, 1)


def batch_norm(file):
    def sequence(name, module, *shape):
        file.parameters(name, module)
        file.pass_through(f"{name}/first", module, *shape)
        file.pass_through(f"{name}/second", module, *shape, low=0, high=4)
        module.eval()
        file.pass_through(f"{name}/eval", module, *shape)

    sequence("two_d", nn.BatchNorm2d(3), 2, 3, 3, 4)
    sequence("one_d", nn.BatchNorm1d(4), 5, 4)
    sequence("one_d_length", nn.BatchNorm1d(3), 2, 3, 5)
    sequence("options", nn.BatchNorm2d(2, eps=0.1, momentum=0.3), 2, 2, 2, 3)
    sequence("cumulative", nn.BatchNorm2d(2, momentum=None), 2, 2, 2, 3)
    sequence("no_affine", nn.BatchNorm2d(2, affine=False), 2, 2, 2, 3)
    sequence("no_tracking", nn.BatchNorm2d(2, track_running_stats=False), 2, 2, 2, 3)


def norms(file):
    file.layer("group", nn.GroupNorm(2, 4), 2, 4, 3, 5)
    file.layer("group_one", nn.GroupNorm(1, 3, eps=0.1), 2, 3, 2, 2)
    file.layer("group_each", nn.GroupNorm(3, 3), 2, 3, 2, 4)
    file.layer("group_flat", nn.GroupNorm(2, 6), 3, 6)
    file.layer("group_no_affine", nn.GroupNorm(2, 4, affine=False), 2, 4, 2, 2)
    file.layer("layer_last", nn.LayerNorm(7), 2, 3, 7)
    file.layer("layer_image", nn.LayerNorm((3, 2, 4), eps=0.1), 2, 3, 2, 4)
    file.layer("layer_no_affine", nn.LayerNorm(5, elementwise_affine=False), 4, 5)
    file.layer("instance", nn.InstanceNorm2d(3), 2, 3, 3, 4)
    file.layer("instance_affine", nn.InstanceNorm2d(2, affine=True, eps=0.1), 2, 2, 3, 3)
    tracking = nn.InstanceNorm2d(2, affine=True, track_running_stats=True, momentum=0.3)
    file.parameters("instance_tracking", tracking)
    file.pass_through("instance_tracking/first", tracking, 2, 2, 3, 3)
    tracking.eval()
    file.pass_through("instance_tracking/eval", tracking, 2, 2, 3, 3)

    class RMSNorm(nn.Module):
        """By its formula: this version of PyTorch has none."""

        def __init__(self, axes, eps, shape):
            super().__init__()
            self.axes, self.eps = axes, eps
            self.weight = nn.Parameter(torch.ones(shape)) if shape else None

        def forward(self, x):
            y = x * torch.rsqrt((x * x).mean(self.axes, keepdim=True) + self.eps)
            return y if self.weight is None else y * self.weight

    file.layer("rms_last", RMSNorm((-1,), 1e-5, (6,)), 2, 3, 6)
    file.layer("rms_image", RMSNorm((-2, -1), 0.1, (3, 4)), 2, 2, 3, 4)
    file.layer("rms_no_affine", RMSNorm((-1,), 1e-5, None), 3, 5)


def pool2d(file):
    file.layer("max", nn.MaxPool2d(2), 2, 3, 4, 6)
    file.layer("max_odd", nn.MaxPool2d(2), 1, 2, 5, 7)
    file.layer("max_overlap", nn.MaxPool2d(3, stride=2, padding=1), 2, 2, 6, 5)
    file.layer("max_ceil", nn.MaxPool2d(2, ceil_mode=True), 1, 2, 5, 7)
    file.layer("max_ceil_padding", nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), 1, 2, 6, 6)
    file.layer("max_oblong", nn.MaxPool2d((2, 3), stride=(1, 2), padding=(1, 0)), 1, 2, 4, 7)
    file.layer("max_dilation", nn.MaxPool2d(2, stride=1, dilation=(2, 3)), 1, 2, 4, 6)
    ties = torch.randint(0, 3, (1, 2, 5, 5)).double().requires_grad_()
    file.function("max_ties", nn.MaxPool2d(3, stride=1, padding=1), ties, names=("x",), out="y")
    file.layer("average", nn.AvgPool2d(5), 2, 3, 5, 5)
    file.layer("average_odd", nn.AvgPool2d(2), 1, 2, 5, 7)
    file.layer("average_overlap", nn.AvgPool2d(3, stride=2, padding=1), 2, 2, 6, 5)
    file.layer("average_no_pad", nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), 1, 2, 6, 5)
    file.layer("average_ceil", nn.AvgPool2d(2, ceil_mode=True), 1, 2, 5, 7)
    file.layer("average_ceil_padding", nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), 1, 2, 6, 6)
    file.layer(
        "average_ceil_no_pad",
        nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        1, 2, 6, 6,
    )
    file.layer("average_oblong", nn.AvgPool2d((2, 3), stride=(1, 2), padding=(1, 0)), 1, 2, 4, 7)
    file.layer("adaptive_one", nn.AdaptiveAvgPool2d(1), 2, 2, 4, 5)
    file.layer("adaptive_uneven", nn.AdaptiveAvgPool2d((3, 4)), 1, 2, 7, 6)
    file.layer("adaptive_grow", nn.AdaptiveAvgPool2d((5, 3)), 1, 1, 3, 4)


def activations(file):
    x = torch.tensor([-30.0, -6.0, -2.5, -1.0, -0.3, -0.01, 0.01, 0.2, 0.9, 1.0, 2.7, 6.0, 30.0]).requires_grad_()
    for name, module in (
        ("relu", nn.ReLU()),
        ("leaky_relu", nn.LeakyReLU()),
        ("leaky_relu_slope", nn.LeakyReLU(0.2)),
        ("elu", nn.ELU()),
        ("elu_alpha", nn.ELU(0.5)),
        ("gelu", nn.GELU()),
        ("gelu_tanh", nn.GELU(approximate="tanh")),
        ("silu", nn.SiLU()),
        ("sigmoid", nn.Sigmoid()),
        ("tanh", nn.Tanh()),
    ):
        file.function(name, module, x, names=("x",), out="y")
    for name, function in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
        for axis in (0, 1, -1):
            file.function(
                f"{name}/{axis}", lambda x: function(x, axis), numbers(3, 4, 5).requires_grad_(), names=("x",), out="y"
            )


def losses(file):
    reductions = ("mean", "sum", "none")
    labels = torch.tensor([2, 0, 4, 1, 2, 3])
    some = torch.tensor([2, -100, 4, 1, -100, 3])
    weight = torch.tensor([0.5, 1.0, 2.0, 0.25, 3.0])
    file.put("labels", labels)
    file.put("labels_some", some)
    file.put("weight", weight)

    def loss(name, f, *inputs):
        for reduction in reductions:
            file.function(
                f"{name}/{reduction}", lambda *inputs: f(*inputs, reduction=reduction), *inputs, names=("x", "target")
            )

    def logits(*shape):
        return numbers(*shape).requires_grad_()

    loss("cross_entropy", lambda x, **r: F.cross_entropy(x, labels, **r), logits(6, 5))
    loss("cross_entropy_weight", lambda x, **r: F.cross_entropy(x, labels, weight=weight, **r), logits(6, 5))
    loss("cross_entropy_ignore", lambda x, **r: F.cross_entropy(x, some, **r), logits(6, 5))
    loss("cross_entropy_smooth", lambda x, **r: F.cross_entropy(x, labels, label_smoothing=0.1, **r), logits(6, 5))
    loss(
        "cross_entropy_all",
        lambda x, **r: F.cross_entropy(x, some, weight=weight, label_smoothing=0.2, **r),
        logits(6, 5),
    )
    shares = torch.softmax(numbers(6, 5), 1).round(decimals=3)
    file.put("shares", shares)
    loss("cross_entropy_shares", lambda x, **r: F.cross_entropy(x, shares, **r), logits(6, 5))
    loss(
        "cross_entropy_shares_all",
        lambda x, **r: F.cross_entropy(x, shares, weight=weight, label_smoothing=0.2, **r),
        logits(6, 5),
    )
    pixels = torch.tensor([[[0, 2], [1, 1]], [[2, -100], [0, 1]]])
    file.put("pixels", pixels)
    loss(
        "cross_entropy_pixels",
        lambda x, **r: F.cross_entropy(x, pixels, weight=weight[:3], label_smoothing=0.1, **r),
        logits(2, 3, 2, 2),
    )
    loss("nll_pixels", lambda x, **r: F.nll_loss(x, pixels, **r), logits(2, 3, 2, 2))
    loss("nll", lambda x, **r: F.nll_loss(x, labels, **r), logits(6, 5))
    loss("nll_weight", lambda x, **r: F.nll_loss(x, some, weight=weight, **r), logits(6, 5))
    loss("mse", F.mse_loss, logits(3, 4), numbers(3, 4).requires_grad_())
    target = numbers(3, 4, low=0, high=1)
    loss("bce", F.binary_cross_entropy_with_logits, logits(3, 4), target)
    factor, positive = numbers(3, 1, low=0, high=1), numbers(4, low=0, high=3)
    file.put("bce_weight", factor)
    file.put("bce_pos_weight", positive)
    loss(
        "bce_all",
        lambda x, t, **r: F.binary_cross_entropy_with_logits(x, t, weight=factor, pos_weight=positive, **r),
        logits(3, 4),
        target,
    )
    far = torch.tensor([[-200.0, 200.0, 0.0], [50.0, -50.0, 1.0]]).requires_grad_()
    loss("bce_far", F.binary_cross_entropy_with_logits, far, torch.tensor([[0.0, 1.0, 0.5], [0.0, 1.0, 1.0]]))


def ops(file):
    def two(*shapes, low=-2.0):
        return [numbers(*shape, low=low).requires_grad_() for shape in shapes]

    file.function("add", torch.add, *two((2, 3, 4), (3, 1)))
    file.function("subtract", torch.sub, *two((4,), (2, 3, 4)))
    file.function("multiply", torch.mul, *two((2, 1, 4), (3, 1)))
    file.function("divide", torch.div, *two((2, 3), (2, 3), low=0.5))
    file.function("exp", torch.exp, *two((7,)))
    file.function("log", torch.log, *two((7,), low=0.1))
    file.function("sqrt", torch.sqrt, *two((7,), low=0.1))
    file.function("pow", lambda x: torch.pow(x, 3), *two((7,)))
    file.function("pow_fraction", lambda x: torch.pow(x, 1.7), *two((7,), low=0.1))
    file.function("sum", lambda x: x.sum(), *two((2, 3, 4)))
    file.function("sum_axes", lambda x: x.sum((0, 2)), *two((2, 3, 4)))
    file.function("mean_keep", lambda x: x.mean(1, keepdim=True), *two((2, 3, 4)))
    file.function("max_axis", lambda x: x.amax(-1), *two((2, 3, 4)))
    file.function("max_ties", lambda x: x.amax((0, 2)), torch.randint(0, 3, (2, 3, 4)).double().requires_grad_())
    file.function("matmul", torch.matmul, *two((3, 4), (4, 5)))
    file.function("matmul_batch", torch.matmul, *two((2, 3, 4), (2, 4, 5)))
    file.function("matmul_broadcast", torch.matmul, *two((2, 3, 4), (4, 2)))
    file.function("permute", lambda x: x.permute(2, 0, 1) * 1, *two((2, 3, 4)))
    file.function("transpose", lambda x: x.transpose(0, 2) * 1, *two((2, 3, 4)))
    file.function("concat", lambda x, y: torch.cat([x, y], 1), *two((2, 3, 2), (2, 1, 2)))
    file.function("slice", lambda x: x[:, 1:3] * 1, *two((2, 4, 3)))


# --- A whole network ---------------------------------------------------------------------------------------------


def network(file):
    """The 35-layer MNIST network with three norms; pytorch_net_test.cpp builds the same from the same formulas."""

    def net(norm):
        layers = []

        def block(inputs, outputs, kernel, size):
            layers.append(nn.Conv2d(inputs, outputs, kernel, bias=False))
            layers.append({"batch": lambda: nn.BatchNorm2d(outputs), "group": lambda: nn.GroupNorm(2, outputs),
                           "layer": lambda: nn.LayerNorm(size)}[norm]())
            layers.extend([nn.Dropout(0.0), nn.ReLU()])

        block(1, 8, 3, 26)
        block(8, 8, 3, 24)
        block(8, 8, 3, 22)
        layers.append(nn.MaxPool2d(2))
        block(8, 12, 3, 9)
        block(12, 14, 3, 7)
        block(14, 8, 1, 7)
        block(8, 26, 3, 5)
        block(26, 50, 1, 5)
        layers.extend([nn.AvgPool2d(5), nn.Conv2d(50, 10, 1, bias=False), nn.Flatten()])
        return nn.Sequential(*layers)

    def excerpt(tensor):
        """Sum, sum of squares, first, middle and last value."""
        values = tensor.detach().flatten()
        return torch.stack([values.sum(), (values * values).sum(), values[0], values[values.numel() // 2], values[-1]])

    i = torch.arange(2 * 28 * 28, dtype=torch.float64)
    x = torch.sin(0.37 * torch.floor(i / 28)) * torch.cos(0.23 * (i % 28)) + 0.2 * torch.sin(1.3 * i)
    for norm in ("batch", "group", "layer"):
        model = net(norm)
        with torch.no_grad():
            for number, (key, parameter) in enumerate(model.named_parameters()):
                wave = torch.sin(1.7 * torch.arange(parameter.numel(), dtype=torch.float64) + number)
                if parameter.dim() == 4:
                    scale, offset = 1.5 / math.sqrt(parameter[0].numel()), 0.0
                else:
                    scale, offset = 0.2, 1.0 if key.endswith("weight") else 0.0
                parameter.copy_((offset + scale * wave).reshape(parameter.shape))
        inputs = x.reshape(2, 1, 28, 28).clone().requires_grad_()
        logits = model(inputs)
        loss = F.cross_entropy(logits, torch.tensor([3, 7]))
        loss.backward()
        file.put(f"{norm}/logits", logits)
        file.put(f"{norm}/loss", loss)
        file.put(f"{norm}/dx", excerpt(inputs.grad))
        for key, parameter in model.named_parameters():
            file.put(f"{norm}/{key}", excerpt(parameter.grad))
        for key, buffer in model.named_buffers():
            if buffer.dim() > 0:
                file.put(f"{norm}/{key}", excerpt(buffer))
        model.eval()
        file.put(f"{norm}/eval_logits", model(inputs))


FILES = (optimizers, clipping, schedulers, conv2d, linear, batch_norm, norms, pool2d, activations, losses, ops, network)

if __name__ == "__main__":
    wanted = sys.argv[1:] or [write.__name__ for write in FILES]
    for write in FILES:
        if write.__name__ in wanted:
            file = File(write.__name__)
            write(file)
            file.write()
