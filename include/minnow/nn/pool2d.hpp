#pragma once
/// @file
/// Pooling of images: the largest or the mean value of windows.

#include <optional>

#include "minnow/kernels/pool2d.hpp"
#include "minnow/nn/module.hpp"

namespace minnow::inline MINNOW_ABI::nn {

struct MaxPool2dOptions {
  std::optional<Size2> stride = {};  ///< the kernel's size if not given
  Size2 padding = 0;                 ///< at most half the kernel; never the largest
  Size2 dilation = 1;                ///< distance of a window's elements
  bool ceil_mode = false;            ///< also windows that hang over the end
};

struct AvgPool2dOptions {
  std::optional<Size2> stride = {};  ///< the kernel's size if not given
  Size2 padding = 0;                 ///< at most half the kernel
  bool ceil_mode = false;            ///< also windows that hang over the end
  bool count_include_pad = true;     ///< zeros of the padding count in the mean
};

namespace detail {

/// The window's size, unless the options say otherwise.
Size2 stride_of(const auto& options, Size2 kernel) {
  return options.stride ? *options.stride : kernel;
}

/// "MaxPool2d(3)", "MaxPool2d(3, 2)"
inline std::string pool_name(std::string_view layer, Size2 size) {
  return size.h == size.w ? text(layer, '(', size, ')') : text(layer, size);
}

/// Throws ShapeError where no window is like that. `name` is "MaxPool2d(3)".
inline void check_windows(const std::string& name, Size2 kernel, Size2 stride, Size2 padding,
                          Size2 dilation) {
  check_sides(name, "kernel", kernel, 1);
  check_sides(name, "stride", stride, 1);
  check_sides(name, "dilation", dilation, 1);
  check<ShapeError>(
      padding.h >= 0 && padding.w >= 0 && 2 * padding.h <= kernel.h && 2 * padding.w <= kernel.w,
      name, ": padding ", padding, " must lie between 0 and half the kernel, ",
      Size2(kernel.h / 2, kernel.w / 2));
}

/// The axis of a pooling with windows that have been checked. `side` is "height" or "width".
inline kernels::PoolAxis pool_axis(const std::string& name, const char* side, const Shape& shape,
                                   Index size, Index kernel, Index stride, Index padding,
                                   Index dilation, bool ceil_mode) {
  kernels::PoolAxis axis{
      size,    kernels::PoolAxis::count(size, kernel, stride, padding, dilation, ceil_mode),
      kernel,  stride,
      padding, dilation};
  if (axis.out == 1) axis.stride = 1;  // whatever it was; kernels make room for it
  const Index reach = dilation * (kernel - 1) + 1;
  check<ShapeError>(size > 0 && axis.out > 0, name, ": a window of ", side, " ", reach,
                    " does not fit into x of shape ", shape, " with padding ", padding);
  for (Index o = 0; o < axis.out; ++o)
    check<ShapeError>(axis.window(o).first < axis.window(o).last, name, ": window ", o,
                      " along the ", side, " of x of shape ", shape, " holds nothing but padding");
  return axis;
}

inline void check_images(const std::string& name, const Shape& shape) {
  check<ShapeError>(shape.rank() == 3 || shape.rank() == 4, name, ": x has shape ", shape,
                    "; expected images, [N, C, H, W] or [C, H, W]");
}

/// x's shape with images of another size.
inline Shape with_image_size(Shape shape, Index h, Index w) {
  shape.set(-2, h);
  shape.set(-1, w);
  return shape;
}

template <class T, class Axis>
Variable<T> avg_pool2d(std::string_view name, const Variable<T>& x, const Axis& rows,
                       const Axis& cols) {
  const Index planes = x.shape().product(0, x.rank() - 2);
  Tensor<T> y(with_image_size(x.shape(), rows.out, cols.out));
  kernels::avg_pool2d_forward(y.data(), x.value().data(), planes, rows, cols);
  return record<T>(name, y, {x}, [planes, rows, cols, in = x.shape()](const Tensor<T>& dy) {
    Tensor<T> dx(in);
    kernels::avg_pool2d_backward(dx.data(), dy.data(), planes, rows, cols);
    return std::vector{dx};
  });
}

}  // namespace detail

/// The largest number of each window. [N, C, H, W] or [C, H, W] to the same with
/// H' = (H + 2 padding - dilation (kernel - 1) - 1) / stride + 1, rounded down, or up with
/// `ceil_mode`. Of equal numbers the first gets the gradient; NaN counts as the largest. Errors:
/// ShapeError for another rank, a window that does not fit or holds nothing but padding (which
/// dilation makes possible), padding beyond half the kernel.
template <class T>
Variable<T> max_pool2d(const Variable<T>& x, Size2 kernel, const MaxPool2dOptions& options = {}) {
  const std::string name = detail::pool_name("MaxPool2d", kernel);
  detail::check_images(name, x.shape());
  const Size2 stride = detail::stride_of(options, kernel);
  detail::check_windows(name, kernel, stride, options.padding, options.dilation);
  const auto rows = detail::pool_axis(name, "height", x.shape(), x.size(-2), kernel.h, stride.h,
                                      options.padding.h, options.dilation.h, options.ceil_mode);
  const auto cols = detail::pool_axis(name, "width", x.shape(), x.size(-1), kernel.w, stride.w,
                                      options.padding.w, options.dilation.w, options.ceil_mode);
  Tensor<T> y(detail::with_image_size(x.shape(), rows.out, cols.out));
  const Index planes = y.shape().product(0, y.rank() - 2);
  Tensor<std::uint8_t> bytes;  // one of the two holds the places
  Tensor<std::int32_t> numbers;
  if (x.requires_grad() && grad_enabled()) {
    if (kernel.h * kernel.w <= 256)
      bytes = Tensor<std::uint8_t>(y.shape());
    else
      numbers = Tensor<std::int32_t>(y.shape());
  }
  kernels::max_pool2d_forward(y.data(), {bytes.data(), numbers.data()}, x.value().data(), planes,
                              rows, cols);
  return record<T>("max_pool2d", y, {x}, [=, in = x.shape()](const Tensor<T>& dy) mutable {
    Tensor<T> dx(in);
    kernels::max_pool2d_backward(dx.data(), dy.data(), {bytes.data(), numbers.data()}, planes, rows,
                                 cols);
    return std::vector{dx};
  });
}

/// The mean of each window. [N, C, H, W] or [C, H, W] to the same with
/// H' = (H + 2 padding - kernel) / stride + 1, rounded down, or up with `ceil_mode`.
/// Errors: ShapeError for another rank, a window that does not fit, padding beyond half the kernel.
template <class T>
Variable<T> avg_pool2d(const Variable<T>& x, Size2 kernel, const AvgPool2dOptions& options = {}) {
  const std::string name = detail::pool_name("AvgPool2d", kernel);
  detail::check_images(name, x.shape());
  const Size2 stride = detail::stride_of(options, kernel);
  detail::check_windows(name, kernel, stride, options.padding, 1);
  auto rows = detail::pool_axis(name, "height", x.shape(), x.size(-2), kernel.h, stride.h,
                                options.padding.h, 1, options.ceil_mode);
  auto cols = detail::pool_axis(name, "width", x.shape(), x.size(-1), kernel.w, stride.w,
                                options.padding.w, 1, options.ceil_mode);
  rows.count_padding = cols.count_padding = options.count_include_pad;
  return detail::avg_pool2d("avg_pool2d", x, rows, cols);
}

/// The means of output.h x output.w windows that cover the image evenly; neighbours may share a row
/// or column. [N, C, H, W] or [C, H, W] to the same with the sizes of `output`. Errors: ShapeError
/// for another rank, an empty image, an output size below 1.
template <class T>
Variable<T> adaptive_avg_pool2d(const Variable<T>& x, Size2 output) {
  const std::string name = detail::pool_name("AdaptiveAvgPool2d", output);
  detail::check_images(name, x.shape());
  check_sides(name, "output", output, 1);
  check<ShapeError>(x.size(-2) > 0 && x.size(-1) > 0, name, ": x of shape ", x.shape(),
                    " has no pixels to average");
  return detail::avg_pool2d("adaptive_avg_pool2d", x,
                            kernels::AdaptivePoolAxis{x.size(-2), output.h},
                            kernels::AdaptivePoolAxis{x.size(-1), output.w});
}

/// The largest number of each window; see `max_pool2d`.
///
/// Parameters: the window's size; options `stride` (default: the window's size), `padding` (0),
/// `dilation` (1), `ceil_mode` (false).
///
///     nn::MaxPool2d(2)                                  // 8x26x26 to 8x13x13
///     nn::MaxPool2d(3, {.stride = 2, .padding = 1})
template <class T = float>
class MaxPool2d : public Module<T> {
 public:
  /// Errors: ShapeError for sizes that are not positive, or padding beyond half the kernel.
  explicit MaxPool2d(Size2 kernel, const MaxPool2dOptions& options = {})
      : kernel_(kernel), options_(options) {
    detail::check_windows(detail::pool_name("MaxPool2d", kernel), kernel,
                          detail::stride_of(options, kernel), options.padding, options.dilation);
  }

  Size2 kernel() const { return kernel_; }
  const MaxPool2dOptions& options() const { return options_; }
  Variable<T> forward(const Variable<T>& x) override { return max_pool2d(x, kernel_, options_); }
  std::string name() const override { return "MaxPool2d"; }

 private:
  Size2 kernel_;
  MaxPool2dOptions options_;
};

/// The mean of each window; see `avg_pool2d`.
///
/// Parameters: the window's size; options `stride` (default: the window's size), `padding` (0),
/// `ceil_mode` (false), `count_include_pad` (true).
///
///     nn::AvgPool2d(5)                                  // 50x5x5 to 50x1x1
template <class T = float>
class AvgPool2d : public Module<T> {
 public:
  /// Errors: ShapeError for sizes that are not positive, or padding beyond half the kernel.
  explicit AvgPool2d(Size2 kernel, const AvgPool2dOptions& options = {})
      : kernel_(kernel), options_(options) {
    detail::check_windows(detail::pool_name("AvgPool2d", kernel), kernel,
                          detail::stride_of(options, kernel), options.padding, 1);
  }

  Size2 kernel() const { return kernel_; }
  const AvgPool2dOptions& options() const { return options_; }
  Variable<T> forward(const Variable<T>& x) override { return avg_pool2d(x, kernel_, options_); }
  std::string name() const override { return "AvgPool2d"; }

 private:
  Size2 kernel_;
  AvgPool2dOptions options_;
};

/// The means of windows that cover the image evenly, whatever its size; see `adaptive_avg_pool2d`.
///
/// Parameter: the sizes of the output.
///
///     nn::AdaptiveAvgPool2d(1)                          // the mean of each channel
///     nn::AdaptiveAvgPool2d({7, 5})
template <class T = float>
class AdaptiveAvgPool2d : public Module<T> {
 public:
  /// Errors: ShapeError for sizes that are not positive.
  explicit AdaptiveAvgPool2d(Size2 output) : output_(output) {
    check_sides(detail::pool_name("AdaptiveAvgPool2d", output), "output", output, 1);
  }

  Size2 output() const { return output_; }
  Variable<T> forward(const Variable<T>& x) override { return adaptive_avg_pool2d(x, output_); }
  std::string name() const override { return "AdaptiveAvgPool2d"; }

 private:
  Size2 output_;
};

}  // namespace minnow::inline MINNOW_ABI::nn
