#pragma once
/// @file
/// Two-dimensional convolution: the differentiable function and the layer.

#include <string>

#include "minnow/kernels/conv2d.hpp"
#include "minnow/nn/init.hpp"
#include "minnow/nn/module.hpp"
#include "minnow/nn/parameters.hpp"

namespace minnow::inline MINNOW_ABI::nn {

struct Conv2dOptions {
  Size2 stride = 1;
  Size2 padding = 0;   ///< zeros on each side
  Size2 dilation = 1;  ///< distance between the taps
  Index groups = 1;    ///< channels are cut into this many groups that do not see each other
  bool bias = true;
};

namespace detail {

inline void check_conv2d_options(std::string_view place, const Conv2dOptions& options,
                                 Size2 kernel) {
  check_sides(place, "kernel", kernel, 1);
  check_sides(place, "stride", options.stride, 1);
  check_sides(place, "dilation", options.dilation, 1);
  check_sides(place, "padding", options.padding, 0);
  check<ShapeError>(options.groups > 0, place, ": groups = ", options.groups, " must be positive");
}

}  // namespace detail

/// Convolution of images x [N, C, H, W] with weight [K, C / groups, kh, kw] and bias [K] (undefined
/// for none): y [N, K, OH, OW] with OH = (H + 2 padding - dilation (kh - 1) - 1) / stride + 1,
/// rounded down. `options.bias` is not looked at.
///
/// Kernels of 3 x 3 may take half the multiplications (kernels/winograd.hpp): outputs that share a
/// row of four then share rounding errors, in the size of the largest of their inputs, and infinity
/// or NaN.
///
/// Errors: ShapeError where the sizes do not fit or the kernel is larger than the padded image.
template <class T>
Variable<T> conv2d(const Variable<T>& x, const Variable<T>& weight, const Variable<T>& bias = {},
                   const Conv2dOptions& options = {}) {
  check<ShapeError>(x.rank() == 4, "conv2d: x has shape ", x.shape(), ", expected [N, C, H, W]");
  check<ShapeError>(weight.rank() == 4, "conv2d: weight has shape ", weight.shape(),
                    ", expected [out channels, in channels / groups, kernel height, kernel width]");
  kernels::Conv2dSizes s{.n = x.size(0),
                         .c = x.size(1),
                         .h = x.size(2),
                         .w = x.size(3),
                         .k = weight.size(0),
                         .kernel = {weight.size(2), weight.size(3)},
                         .stride = options.stride,
                         .padding = options.padding,
                         .dilation = options.dilation,
                         .groups = options.groups};
  detail::check_conv2d_options("conv2d", options, s.kernel);
  check<ShapeError>(s.c == weight.size(1) * s.groups, "conv2d: x has shape ", x.shape(), ", so ",
                    s.c, " channels, but weight ", weight.shape(), " with ", s.groups,
                    s.groups == 1 ? " group" : " groups", " takes ", weight.size(1) * s.groups);
  check<ShapeError>(s.k % s.groups == 0, "conv2d: weight ", weight.shape(), ": ", s.k,
                    " output channels cannot be divided into ", s.groups, " groups");
  const Size2 reach(s.dilation.h * (s.kernel.h - 1) + 1, s.dilation.w * (s.kernel.w - 1) + 1);
  check<ShapeError>(s.h + 2 * s.padding.h >= reach.h && s.w + 2 * s.padding.w >= reach.w,
                    "conv2d: x has shape ", x.shape(), ", and with padding ", s.padding,
                    " that is smaller than the kernel ", s.kernel, " with dilation ", s.dilation,
                    "; use a smaller kernel or more padding");
  // A stride beyond the image leaves one output whatever it is; kernels make room for it.
  s.stride.h = std::min(s.stride.h, s.h + 2 * s.padding.h - reach.h + 1);
  s.stride.w = std::min(s.stride.w, s.w + 2 * s.padding.w - reach.w + 1);
  detail::check_bias("conv2d", bias, s.k);

  Tensor<T> y(Shape{s.n, s.k, s.oh(), s.ow()});
  kernels::conv2d_forward(y.data(), x.value().data(), weight.value().data(),
                          detail::data_or_null(bias), s);
  return record(
      "conv2d", std::move(y), {x, weight, bias},
      [s, x = x.value(), weight = weight.value(), wants_dx = x.requires_grad(),
       wants_dweight = weight.requires_grad(),
       wants_dbias = bias.requires_grad()](const Tensor<T>& dy) -> std::vector<Tensor<T>> {
        auto dx = detail::gradient_if<T>(wants_dx, x.shape());
        auto dweight = detail::gradient_if<T>(wants_dweight, weight.shape());
        auto dbias = detail::gradient_if<T>(wants_dbias, {s.k});
        if (wants_dx) kernels::conv2d_backward_data(dx.data(), dy.data(), weight.data(), s);
        if (wants_dweight) kernels::conv2d_backward_weight(dweight.data(), dy.data(), x.data(), s);
        if (wants_dbias)
          kernels::conv2d_backward_bias(dbias.data(), dy.data(), s.n, s.k, s.oh() * s.ow());
        return {dx, dweight, dbias};
      });
}

/// Convolution layer: x [N, in_channels, H, W] -> y [N, out_channels, OH, OW]; see `conv2d`.
///
/// Parameters `weight` [out_channels, in_channels / groups, kh, kw] and, unless `.bias = false`,
/// `bias` [out_channels]; both start uniform in +-1 / sqrt(in_channels / groups * kh * kw), as
/// PyTorch's.
///
///     nn::Conv2d conv(1, 8, 3, {.padding = 1, .bias = false});
///
/// Errors: ShapeError where groups do not divide the channels or a size is not positive.
template <class T = float>
class Conv2d : public Module<T> {
 public:
  Conv2d(Index in_channels, Index out_channels, Size2 kernel, const Conv2dOptions& options = {})
      : kernel_(kernel), options_(options) {
    detail::check_conv2d_options("Conv2d", options, kernel);
    check<ShapeError>(in_channels > 0 && out_channels > 0, "Conv2d(", in_channels, ", ",
                      out_channels, "): the numbers of channels must be positive");
    check<ShapeError>(in_channels % options.groups == 0 && out_channels % options.groups == 0,
                      "Conv2d(", in_channels, ", ", out_channels,
                      "): both numbers of channels must be multiples of "
                      "groups = ",
                      options.groups);
    const Shape shape{out_channels, in_channels / options.groups, kernel.h, kernel.w};
    weight_ = this->register_parameter("weight", init::default_weight(Tensor<T>(shape)));
    if (options.bias)
      bias_ = this->register_parameter("bias",
                                       init::default_bias(Tensor<T>(Shape{out_channels}), shape));
  }

  Variable<T> forward(const Variable<T>& x) override { return conv2d(x, weight_, bias_, options_); }
  std::string name() const override { return "Conv2d"; }

  const Variable<T>& weight() const { return weight_; }
  /// Undefined without a bias.
  const Variable<T>& bias() const { return bias_; }
  Size2 kernel() const { return kernel_; }
  const Conv2dOptions& options() const { return options_; }

 private:
  Variable<T> weight_, bias_;
  Size2 kernel_;
  Conv2dOptions options_;
};

}  // namespace minnow::inline MINNOW_ABI::nn
