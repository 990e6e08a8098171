#pragma once
/// @file
/// A trained network, ready to answer.

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "minnow/core/parallel.hpp"
#include "minnow/kernels/conv2d.hpp"
#include "minnow/kernels/layer_norm.hpp"
#include "minnow/kernels/plane_winograd.hpp"
#include "minnow/nn/plan.hpp"
#include "minnow/nn/sequential.hpp"

namespace minnow::inline MINNOW_ABI::nn {

struct PredictorOptions {
  /// Whether the images of one call are spread over threads. Turn it off in a program that calls
  /// from several threads of its own.
  bool parallel = true;
};

/// A copy of a trained `Sequential` for prediction: batch norm is folded into the convolutions,
/// memory is planned once, and nothing is recorded. `predict` allocates nothing, the call operator
/// its result.
///
///     const nn::Predictor predictor(model, {128, 1, 28, 28});  // at most 128 images a call
///     const Tensor<float> scores = predictor(images);          // images [N, 1, 28, 28]
///
/// Everything is const: any number of threads may call at once, each with a workspace of its own
/// (the call operator keeps a list of them). Results are those of `model` in evaluation up to
/// rounding; later changes of the model are not seen.
///
/// Packets of images are computed one image a lane; a rest of less than half a packet, image by
/// image with neighbouring positions in lanes. The model must consist of what a plan covers, not of
/// classes derived from that: Conv2d (stride 1, no dilation, one group), Linear after Flatten, the
/// norms after them, Dropout, ReLU and pooling without padding.
///
/// Errors: Error for a model with other layers, naming the first; ShapeError for x of another
/// shape.
template <class T = float>
class Predictor {
 public:
  /// The memory of one call in progress.
  class Workspace {
   public:
    explicit Workspace(const Predictor& predictor)
        : memory_(Tensor<T>::zeros(Shape{predictor.workspace_size()})) {}

   private:
    friend class Predictor;
    Tensor<T> memory_;
  };

  /// `x_shape` is [N, C, H, W], or [N, C] for features, with the largest N of a call.
  Predictor(Sequential<T>& model, const Shape& x_shape, const PredictorOptions& options = {})
      : options_(options), most_images_(check_images(x_shape)), workers_(count_workers()) {
    plan_ = make_plan<T>(model.children(), 0, x_shape.slice(1), PlanSizes::any);
    check(!model.children().empty(), "Predictor: the model has no layers");
    const std::size_t covered = plan_ ? plan_->children : 0;
    if (covered < model.children().size()) {
      const auto& [key, child] = model.children()[covered];
      throw Error(
          text("Predictor: child ", key, " (", child->name(), ") cannot be part of a predictor: ",
               obstacle(*child, plan_ ? plan_->y : x_shape.slice(1)), ". For input ", x_shape,
               ", the first size being the number of samples, call "
               "the model itself after eval(), under a NoGrad"));
    }
    for (const auto& stage : plan_->stages) stages_.push_back(fold(stage));
    idle_.push_back(std::make_unique<Workspace>(*this));
  }

  const Shape& x_shape() const { return plan_->x; }  ///< of one image
  const Shape& y_shape() const { return plan_->y; }  ///< of one result

  Workspace workspace() const { return Workspace(*this); }

  /// y [images, y_shape()] = the model's result for x [images, x_shape()], images <= the largest N.
  /// Allocates nothing, except that single images take working memory from the pool for pooling
  /// windows other than 2 x 2 and the whole plane. Errors: ShapeError for more images than that,
  /// and for a workspace that was made for a smaller predictor.
  void predict(T* y, const T* x, Index images, Workspace& workspace) const {
    check<ShapeError>(images >= 0 && images <= most_images_, "Predictor: ", images,
                      " images, planned for at most ", most_images_,
                      "; give the constructor the largest number of a call");
    check<ShapeError>(workspace.memory_.size() >= workspace_size(),
                      "Predictor: the workspace was made for another predictor: it holds ",
                      workspace.memory_.size(), " numbers, ", workspace_size(), " are needed");
    std::optional<SerialScope> serial;
    if (!options_.parallel) serial.emplace();
    T* memory = workspace.memory_.data();
    const Index packets = images / lanes + (2 * (images % lanes) >= lanes ? 1 : 0);
    const auto run_packet = [&](Index packet, Index worker) {
      predict_packet(y + packet * lanes * plan_->y.size(), x + packet * lanes * plan_->x.size(),
                     std::min(lanes, images - packet * lanes), memory + worker * worker_size());
    };
    if (packets > 0) parallel_for(packets, run_packet, std::min(workers_, worker_count(packets)));
    const Index first = packets * lanes, rest = images - first;
    const auto run_image = [&](Index i, Index worker) {
      predict_image(y + (first + i) * plan_->y.size(), x + (first + i) * plan_->x.size(),
                    memory + worker * worker_size());
    };
    if (rest > 0) parallel_for(rest, run_image, std::min(workers_, worker_count(rest)));
  }

  /// The same for tensors: x [N, ...] -> y [N, ...]. Allocates the result, and a workspace if more
  /// threads call at once than ever before. Errors: ShapeError where x has another shape.
  Tensor<T> operator()(const Tensor<T>& x) const {
    check<ShapeError>(x.rank() == plan_->x.rank() + 1 && x.shape().slice(1) == plan_->x,
                      "Predictor: x has shape ", x.shape(), ", expected [N] and ", plan_->x);
    Shape shape{x.size(0)};
    for (const Index size : plan_->y) shape.push_back(size);
    Tensor<T> y(shape);
    std::unique_ptr<Workspace> workspace = borrow();
    predict(y.data(), x.data(), x.size(0), *workspace);
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(workspace));
    return y;
  }

 private:
  using V = Pack<T>;
  using Pool = typename PlanStage<T>::Pool;
  static constexpr Index lanes = V::width;
  static constexpr Index slack = kernels::tile_cols<T>;  // a tile reads whole packs

  /// What is left of a stage.
  struct Stage {
    kernels::LaneConv2d<T> convolution;
    Size2 padding = 0;
    /// A single image is convolved with half the multiplications if that pays, else by rows.
    std::optional<kernels::PlaneWinograd<T>> winograd;
    std::vector<T> lane_weight, plane_weight, bias;  ///< packed, with batch norm folded in
    std::vector<Index> row_offsets;
    bool normalized = false;
    kernels::LaneNormSizes norm;
    double eps = 0;
    std::vector<T> gamma, beta;  ///< filled in whole if normalized
    bool relu = false;
    Pool pool = Pool::none;
    kernels::LanePool2dSizes pooling;

    const kernels::LaneConv2dSizes& conv() const { return convolution.sizes(); }
    Index x_size() const {
      return conv().c * (conv().h - 2 * padding.h) * (conv().w - 2 * padding.w);
    }
    Index padded_size() const { return padding == Size2(0) ? 0 : conv().c * conv().h * conv().w; }
    /// Flattened rows: outputs lie at the input's pitch.
    Index row_pitch() const { return conv().oh() * conv().w; }
    /// Working memory for the convolution of a single image.
    Index image_memory() const { return winograd ? winograd->memory() : conv().k * row_pitch(); }
  };

  static Index check_images(const Shape& x_shape) {
    check<ShapeError>(x_shape.rank() >= 2 && x_shape[0] > 0, "Predictor: shape ", x_shape,
                      ", expected [N, C, H, W] or [N, C] with the largest N of a call");
    return x_shape[0];
  }
  Index count_workers() const { return options_.parallel ? worker_count(most_images_) : 1; }

  static Stage fold(const PlanStage<T>& s) {
    Stage folded;
    folded.convolution = s.convolution;
    folded.padding = s.padding;
    folded.normalized = s.normalized && !s.batch_norm;
    folded.norm = s.norm;
    folded.eps = s.eps;
    folded.relu = s.relu;
    folded.pool = s.pool;
    folded.pooling = s.pooling;
    const Index k = s.conv().k, terms = s.conv().terms();
    Tensor<T> weight = s.weight.value().clone();
    folded.bias.assign(static_cast<std::size_t>(k), T(0));
    const auto parameter = [](const Variable<T>& p, Index i, double otherwise) {
      return p.defined() ? static_cast<double>(p.value()[i]) : otherwise;
    };
    for (Index c = 0; c < k; ++c) {
      double scale = 1, shift = parameter(s.bias, c, 0);
      if (s.batch_norm) {
        check(s.batch_norm->options().track_running_stats,
              "Predictor: a batch norm without running statistics has nothing to predict with");
        const double variance = static_cast<double>(s.batch_norm->running_var()[c]);
        scale = parameter(s.gamma, c, 1) / std::sqrt(variance + s.eps);
        shift = (shift - static_cast<double>(s.batch_norm->running_mean()[c])) * scale +
                parameter(s.beta, c, 0);
      }
      for (Index r = 0; r < terms; ++r)
        weight[c * terms + r] = static_cast<T>(static_cast<double>(weight[c * terms + r]) * scale);
      folded.bias[static_cast<std::size_t>(c)] = static_cast<T>(shift);
    }
    folded.lane_weight.resize(static_cast<std::size_t>(s.convolution.forward_weights()));
    s.convolution.pack_forward(folded.lane_weight.data(), weight.data());
    if (kernels::PlaneWinograd<T>::pays(s.conv())) {
      folded.winograd.emplace(s.conv());
      folded.plane_weight.resize(static_cast<std::size_t>(folded.winograd->weights()));
      folded.winograd->pack(folded.plane_weight.data(), weight.data());
    } else {
      folded.plane_weight.resize(static_cast<std::size_t>(s.conv().weights()));
      kernels::lane_conv2d_pack(folded.plane_weight.data(), weight.data(), s.conv());
      folded.row_offsets.resize(static_cast<std::size_t>(terms));
      kernels::lane_conv2d_terms(folded.row_offsets.data(), s.conv(), 1);
    }
    if (folded.normalized)
      for (Index i = 0; i < s.norm.affine_size(); ++i) {
        folded.gamma.push_back(static_cast<T>(parameter(s.gamma, i, 1)));
        folded.beta.push_back(static_cast<T>(parameter(s.beta, i, 0)));
      }
    return folded;
  }

  /// Numbers of one lane in each of the two arrays between which a stage's input and output
  /// alternate, and in the third, which holds a padded input.
  Index activation_size() const {
    Index most = 0;
    for (const Stage& s : stages_) most = std::max({most, s.x_size(), s.norm.positions()});
    return most + slack;
  }
  Index padded_size() const {
    Index most = 0;
    for (const Stage& s : stages_) most = std::max(most, s.padded_size() + slack);
    return most;
  }
  Index image_memory() const {
    Index most = 0;
    for (const Stage& s : stages_) most = std::max(most, s.image_memory() + slack);
    return most;
  }
  Index moments_size() const {
    Index most = 0;
    for (const Stage& s : stages_) most = std::max(most, 2 * s.norm.runs());
    return most;
  }
  Index worker_size() const {
    return std::max(
        (2 * activation_size() + padded_size() + moments_size()) * lanes + plan_->memory_size,
        2 * activation_size() + padded_size() + moments_size() + image_memory());
  }
  Index workspace_size() const { return workers_ * worker_size(); }

  std::unique_ptr<Workspace> borrow() const {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<Workspace> workspace = std::move(idle_.back());
        idle_.pop_back();
        return workspace;
      }
    }
    return std::make_unique<Workspace>(*this);
  }

  /// Why a layer does not go on with images of that shape.
  static std::string obstacle(const Module<T>& child, const Shape& image) {
    if (const auto* conv = dynamic_cast<const Conv2d<T>*>(&child)) {
      const Conv2dOptions& o = conv->options();
      if (o.stride != Size2(1)) return text("its stride is ", o.stride, ", only 1 will do");
      if (o.dilation != Size2(1)) return text("its dilation is ", o.dilation, ", only 1 will do");
      if (o.groups != 1) return text("it has ", o.groups, " groups, only 1 will do");
    }
    const bool usual =
        dynamic_cast<const Conv2d<T>*>(&child) || dynamic_cast<const Linear<T>*>(&child);
    return usual ? text("it does not take a sample of shape ", image)
                 : "nn/predictor.hpp names the layers that can be, and which may follow which";
  }

  /// Copies x [c, h, w] into the middle of zeros; `width` numbers a position.
  static const T* pad(T* padded, const T* x, const Stage& s, Index width) {
    if (s.padded_size() == 0) return x;
    kernels::add_border(padded, x, s.conv().c, s.conv().h - 2 * s.padding.h,
                        s.conv().w - 2 * s.padding.w, s.padding, width);
    return padded;
  }

  void predict_packet(T* y, const T* x, Index images, T* memory) const {
    T *in = memory, *out = in + activation_size() * lanes,
      *padded = out + activation_size() * lanes;
    T *mean = padded + padded_size() * lanes, *rstd = mean + moments_size() / 2 * lanes,
      *convolution_memory = mean + moments_size() * lanes;
    kernels::interleave(in, x, images, plan_->x.size());
    for (const Stage& s : stages_) {
      s.convolution.forward(out, pad(padded, in, s, lanes), s.lane_weight.data(),
                            {.bias = s.bias.data(), .relu = s.relu && !s.normalized},
                            convolution_memory);
      if (s.normalized) {
        kernels::lane_run_moments(mean, rstd, out, s.norm, s.eps, images);
        const auto normalize = [&](auto relu) {
          kernels::lane_normalize<relu>(out, out, 0, s.norm.positions(), mean, rstd, s.gamma.data(),
                                        s.beta.data(), s.norm);
        };
        s.relu ? normalize(std::true_type{}) : normalize(std::false_type{});
      }
      std::swap(in, out);
      if (s.pool == Pool::none) continue;
      if (s.pool == Pool::max)
        kernels::lane_max_pool2d_forward(out, in, s.pooling);
      else
        kernels::lane_avg_pool2d_forward(out, in, s.pooling);
      std::swap(in, out);
    }
    kernels::separate(y, in, images, plan_->y.size());
  }

  void predict_image(T* y, const T* x, T* memory) const {
    T *in = memory, *out = in + activation_size(), *padded = out + activation_size();
    T *moments = padded + padded_size(), *convolution_memory = moments + moments_size();
    std::copy_n(x, plan_->x.size(), in);
    for (const Stage& s : stages_) {
      convolve_image(out, pad(padded, in, s, 1), s, convolution_memory);
      if (s.normalized)
        normalize_image(in, out, moments, s);
      else
        std::swap(in, out);
      if (s.pool == Pool::none) continue;
      pool_image(out, in, s);
      std::swap(in, out);
    }
    std::copy_n(in, plan_->y.size(), y);
  }

  /// With the bias and, where nothing else comes before it, relu.
  static void convolve_image(T* y, const T* x, const Stage& s, T* memory) {
    const kernels::LaneConv2dSizes& conv = s.conv();
    const bool relu = s.relu && !s.normalized;
    if (s.winograd)
      return s.winograd->forward(y, x, s.plane_weight.data(), {.bias = s.bias.data(), .relu = relu},
                                 memory);
    // Rows are as long as those of x; with a kernel of one column, they are those of y.
    const bool compact = conv.kernel.w == 1;
    kernels::detail::correlate(compact ? y : memory, s.row_pitch(), s.plane_weight.data(), x,
                               s.row_offsets.data(), conv.terms(), kernels::TileRows{conv.k},
                               (conv.oh() - 1) * conv.w + conv.ow(),
                               {.bias = s.bias.data(), .relu = relu});
    if (!compact) close_up(y, memory, conv.k * conv.oh(), conv.ow(), conv.w);
  }

  /// y [rows, cols] of rows at a pitch. May write up to a pack beyond y.
  static void close_up(T* y, const T* x, Index rows, Index cols, Index pitch) {
    for (Index row = 0; row < rows; ++row, y += cols, x += pitch)
      for (Index j = 0; j < cols; j += lanes) V::load(x + j).store(y + j);
  }

  /// y = (x - center) * scale + shift, cut off below zero if `relu`. May write up to a pack beyond
  /// y.
  static void map(T* y, const T* x, const kernels::detail::Affine<T>& affine, Index count,
                  bool relu) {
    const V center(affine.center), scale(affine.scale), shift(affine.shift),
        least(relu ? T(0) : -std::numeric_limits<T>::infinity());
    for (Index i = 0; i < count; i += lanes)
      max(fma(V::load(x + i) - center, scale, shift), least).store(y + i);
  }

  static void normalize_image(T* y, const T* x, T* moments, const Stage& s) {
    const Index plane = s.norm.plane(), run = s.norm.run;
    if (s.norm.affine_by_position) {
      kernels::layer_norm_forward<T>(y, moments, moments + s.norm.runs(), x, s.gamma.data(),
                                     s.beta.data(), s.norm.runs(), run, s.eps);
      if (s.relu) map(y, y, {T(0), T(1), T(0)}, s.norm.positions(), true);
      return;
    }
    for (Index at = 0; at < s.norm.positions(); at += run) {
      const kernels::Moments group = kernels::moments(x + at, run);
      const double rstd = 1 / std::sqrt(group.variance() + s.eps);
      for (Index of = at; of < at + run; of += plane) {
        const auto c = static_cast<std::size_t>(of / plane);
        const auto affine = kernels::detail::make_affine<T>(
            group.mean, rstd, static_cast<double>(s.gamma[c]), static_cast<double>(s.beta[c]));
        map(y + of, x + of, affine, plane, s.relu);
      }
    }
  }

  static void pool_image(T* y, const T* x, const Stage& s) {
    const auto& p = s.pooling;
    const kernels::PoolAxis rows{p.h, p.oh(), p.kernel.h, p.stride.h},
        cols{p.w, p.ow(), p.kernel.w, p.stride.w};
    if (s.pool == Pool::max)
      kernels::max_pool2d_forward(y, {}, x, p.c, rows, cols);
    else
      kernels::avg_pool2d_forward(y, x, p.c, rows, cols);
  }

  PredictorOptions options_;
  Index most_images_, workers_;
  std::shared_ptr<const Plan<T>> plan_;
  std::vector<Stage> stages_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace minnow::inline MINNOW_ABI::nn
