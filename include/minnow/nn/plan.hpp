#pragma once
/// @file
/// What a `Sequential` runs in one go: children grouped into stages, and where their numbers lie.
///
/// A plan is a description; `run_plan` (nn/plan_run.hpp) carries it out. Layer by layer stays the
/// reference: a plan gives the same results up to rounding.

#include <algorithm>
#include <memory>
#include <string>
#include <typeinfo>
#include <vector>

#include "minnow/kernels/lane_conv2d.hpp"
#include "minnow/kernels/lane_norm.hpp"
#include "minnow/kernels/lane_pool2d.hpp"
#include "minnow/nn/activations.hpp"
#include "minnow/nn/batch_norm.hpp"
#include "minnow/nn/conv2d.hpp"
#include "minnow/nn/dropout.hpp"
#include "minnow/nn/flatten.hpp"
#include "minnow/nn/group_norm.hpp"
#include "minnow/nn/layer_norm.hpp"
#include "minnow/nn/linear.hpp"
#include "minnow/nn/module.hpp"
#include "minnow/nn/pool2d.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// A convolution (or linear layer) and what follows it up to the next: normalisation, dropout and
/// relu in either order, pooling; all but the first optional.
template <class T>
struct PlanStage {
  enum class Pool { none, max, average };

  std::size_t children = 0;  ///< how many children of the Sequential it stands for
  std::string layers;        ///< "Conv2d + BatchNorm2d + ReLU", for a person
  Variable<T> weight, bias, gamma, beta;
  Shape weight_shape, affine_shape;  ///< which weight, and gamma and beta, it was made for
  Size2 padding = 0;
  kernels::LaneConv2d<T> convolution;  ///< of the padded input
  bool normalized = false;
  kernels::LaneNormSizes norm;  ///< holds the sizes of the convolution's output in any case
  double eps = 0;
  BatchNorm<T>* batch_norm = nullptr;  ///< null for a norm that looks at each image alone
  const Dropout<T>* dropout = nullptr;
  bool relu = false;
  Pool pool = Pool::none;
  kernels::LanePool2dSizes pooling;

  // Places in a packet's saved numbers, counted in packs.
  Index x_at = 0, padded_at = 0, z_at = 0, y_at = 0, out_at = 0, mean_at = 0, rstd_at = 0;
  // Places in a packet's sums for the parameters' gradients, counted in numbers.
  Index dweight_at = 0, dbias_at = 0, dgamma_at = 0, dbeta_at = 0;

  const kernels::LaneConv2dSizes& conv() const { return convolution.sizes(); }
  Index x_h() const { return conv().h - 2 * padding.h; }
  Index x_w() const { return conv().w - 2 * padding.w; }
  Index x_size() const { return conv().c * x_h() * x_w(); }
  Index padded_size() const { return conv().c * conv().h * conv().w; }
  Index z_size() const { return norm.positions(); }
  Index out_size() const {
    return pool == Pool::none ? z_size() : pooling.c * pooling.oh() * pooling.ow();
  }
  bool padded() const { return padding.h > 0 || padding.w > 0; }
  /// True while the parameters have the shapes of this stage: others may have been assigned since.
  bool fits_parameters() const {
    const auto has = [](const Variable<T>& parameter, const Shape& shape) {
      return !parameter.defined() || parameter.shape() == shape;
    };
    return has(weight, weight_shape) && has(bias, {conv().k}) && has(gamma, affine_shape) &&
           has(beta, affine_shape);
  }
};

/// Stages that run one after the other on packets of images.
template <class T>
struct Plan {
  std::vector<PlanStage<T>> stages;
  std::size_t children = 0;  ///< how many children of the Sequential the stages stand for
  Shape x, y;                ///< of one image
  Index packet_size = 0;     ///< saved numbers of a packet, in packs
  Index sums_size = 0;       ///< sums for gradients of a packet, in numbers
  Index memory_size = 0;     ///< working memory of a convolution, in numbers

  bool fits_parameters() const {
    return std::ranges::all_of(stages, &PlanStage<T>::fits_parameters);
  }
  /// True if the moments of batch norms are of two values at least when so many images go through.
  bool has_enough_values(Index images) const {
    return std::ranges::all_of(stages, [&](const PlanStage<T>& s) {
      return !s.batch_norm || images * s.norm.plane() > 1;
    });
  }
};

/// Which sizes a plan takes: those where it is faster than layer by layer, or any.
enum class PlanSizes { worthwhile, any };

namespace detail {

/// Makes a stage of the children from `next` on, as far as they fit one.
template <class T>
class StageBuilder {
 public:
  using Children = typename Module<T>::NamedChildren;

  StageBuilder(const Children& children, std::size_t next, const Shape& image, PlanSizes sizes)
      : children_(children), next_(next), image_(image), sizes_(sizes) {}

  /// False, with nothing taken, where there is no convolution to begin with.
  bool build() {
    if (!take_convolution() && !take_linear()) return false;
    take_norm();
    for (int i = 0; i < 2; ++i) {
      take_dropout();
      take_relu();
    }
    take_pool();
    return true;
  }

  const PlanStage<T>& stage() const { return stage_; }
  std::size_t next() const { return next_; }
  /// The shape of an image after this stage.
  Shape image() const {
    if (linear_) return {stage_.conv().k};
    if (stage_.pool == PlanStage<T>::Pool::none)
      return {stage_.norm.channels, stage_.norm.h, stage_.norm.w};
    return {stage_.pooling.c, stage_.pooling.oh(), stage_.pooling.ow()};
  }

 private:
  /// The next child, if it is an `M` itself: a class derived from it has a `forward` of its own.
  template <class M>
  M* peek(std::size_t ahead = 0) const {
    if (next_ + ahead >= children_.size()) return nullptr;
    Module<T>& child = *children_[next_ + ahead].second;
    return typeid(child) == typeid(M) ? static_cast<M*>(&child) : nullptr;
  }
  void take(std::size_t count = 1) {
    stage_.children += count;
    for (; count > 0; --count) {
      if (!stage_.layers.empty()) stage_.layers += " + ";
      stage_.layers += children_[next_++].second->name();
    }
  }

  bool take_convolution() {
    const auto* conv = peek<Conv2d<T>>();
    if (!conv || image_.rank() != 3) return false;
    const Conv2dOptions& o = conv->options();
    const Shape& weight = conv->weight().shape();
    const kernels::LaneConv2dSizes sizes{image_[0], image_[1] + 2 * o.padding.h,
                                         image_[2] + 2 * o.padding.w, weight[0], conv->kernel()};
    if (o.groups != 1 || o.stride != Size2(1) || o.dilation != Size2(1) || weight[1] != sizes.c ||
        sizes.h < sizes.kernel.h || sizes.w < sizes.kernel.w || !takes(sizes))
      return false;
    stage_.padding = o.padding;
    stage_.weight_shape = {sizes.k, sizes.c, sizes.kernel.h, sizes.kernel.w};
    set_convolution(sizes, conv->weight(), conv->bias());
    take();
    return true;
  }

  bool take_linear() {
    const auto* flatten = peek<Flatten<T>>();
    const bool flattens = flatten && flatten->start() == 1 && flatten->end() == -1;
    const auto* linear = peek<Linear<T>>(flattens ? 1 : 0);
    if (!linear || (image_.rank() != 1 && !flattens)) return false;
    const kernels::LaneConv2dSizes sizes{image_.size(), 1, 1, linear->weight().size(0), 1};
    if (linear->weight().size(1) != sizes.c || !takes(sizes)) return false;
    linear_ = true;
    stage_.weight_shape = {sizes.k, sizes.c};
    set_convolution(sizes, linear->weight(), linear->bias());
    take(flattens ? 2 : 1);
    return true;
  }

  bool takes(const kernels::LaneConv2dSizes& sizes) const {
    return sizes_ == PlanSizes::any || kernels::lanes_pay<T>(sizes);
  }

  void set_convolution(const kernels::LaneConv2dSizes& sizes, const Variable<T>& weight,
                       const Variable<T>& bias) {
    stage_.convolution = kernels::LaneConv2d<T>(sizes);
    stage_.weight = weight;
    stage_.bias = bias;
    stage_.norm = {sizes.k, sizes.oh(), sizes.ow(), sizes.oh() * sizes.ow()};
  }

  template <class Norm>
  void set_norm(const Norm& norm, Index run, const Shape& affine_shape) {
    stage_.normalized = true;
    stage_.affine_shape = affine_shape;
    stage_.norm.run = run;
    stage_.eps = norm.options().eps;
    stage_.gamma = norm.weight();
    stage_.beta = norm.bias();
    take();
  }

  void take_norm() {
    const Index c = stage_.norm.channels, plane = stage_.norm.plane();
    BatchNorm<T>* batch = nullptr;
    if (linear_)
      batch = peek<BatchNorm1d<T>>();
    else
      batch = peek<BatchNorm2d<T>>();
    if (batch && batch->num_features() == c) {
      stage_.batch_norm = batch;
      return set_norm(*batch, plane, {c});
    }
    if (const auto* group = peek<GroupNorm<T>>(); group && group->num_channels() == c)
      return set_norm(*group, c / group->num_groups() * plane, {c});
    if (const auto* layer = peek<LayerNorm<T>>()) {
      const Shape shape = linear_ ? Shape{c} : Shape{c, stage_.norm.h, stage_.norm.w};
      const Shape& over = layer->normalized_shape();
      if (over.rank() <= shape.rank() && over == shape.slice(shape.rank() - over.rank())) {
        stage_.norm.affine_by_position = true;
        set_norm(*layer, over.size(), over);
      }
    }
  }

  void take_dropout() {
    if (stage_.dropout) return;
    if ((stage_.dropout = peek<Dropout<T>>())) take();
  }
  void take_relu() {
    if (stage_.relu || !peek<ReLU<T>>()) return;
    stage_.relu = true;
    take();
  }

  void take_pool() {
    using Pool = typename PlanStage<T>::Pool;
    if (linear_) return;
    const kernels::LanePool2dSizes plane{stage_.norm.channels, stage_.norm.h, stage_.norm.w};
    const auto set = [&](Pool pool, Size2 kernel, Size2 stride, bool plain) {
      if (!plain || kernel.h > plane.h || kernel.w > plane.w) return;
      stage_.pool = pool;
      stage_.pooling = plane;
      stage_.pooling.kernel = kernel;
      stage_.pooling.stride = stride;
      take();
    };
    if (const auto* max = peek<MaxPool2d<T>>()) {
      const auto& o = max->options();
      set(Pool::max, max->kernel(), o.stride.value_or(max->kernel()),
          o.padding == Size2(0) && o.dilation == Size2(1) && !o.ceil_mode);
    } else if (const auto* average = peek<AvgPool2d<T>>()) {
      const auto& o = average->options();
      set(Pool::average, average->kernel(), o.stride.value_or(average->kernel()),
          o.padding == Size2(0) && !o.ceil_mode);
    } else if (const auto* adaptive = peek<AdaptiveAvgPool2d<T>>()) {
      const Size2 out = adaptive->output();
      if (plane.h % out.h == 0 && plane.w % out.w == 0) {
        const Size2 kernel(plane.h / out.h, plane.w / out.w);
        set(Pool::average, kernel, kernel, true);
      }
    }
  }

  const Children& children_;
  std::size_t next_;
  Shape image_;
  PlanSizes sizes_;
  PlanStage<T> stage_;
  bool linear_ = false;
};

/// Gives every array of every stage its place.
template <class T>
void lay_out(Plan<T>& plan) {
  const auto place = [&](Index size) {
    return std::exchange(plan.packet_size, plan.packet_size + size);
  };
  const auto sums = [&](Index size) {
    return std::exchange(plan.sums_size, plan.sums_size + size);
  };
  Index x_at = place(plan.stages.front().x_size());
  for (PlanStage<T>& s : plan.stages) {
    s.x_at = s.padded_at = x_at;
    if (s.padded()) s.padded_at = place(s.padded_size());
    s.z_at = s.y_at = place(s.z_size());
    if (s.normalized) {
      s.y_at = place(s.z_size());
      s.mean_at = place(s.norm.runs());
      s.rstd_at = place(s.norm.runs());
    }
    s.out_at = s.pool == PlanStage<T>::Pool::none ? s.y_at : place(s.out_size());
    x_at = s.out_at;
    plan.memory_size = std::max(plan.memory_size, s.convolution.memory());
    s.dweight_at = sums(s.weight.size());
    if (s.bias.defined()) s.dbias_at = sums(s.bias.size());
    if (s.normalized) {
      s.dgamma_at = sums(s.norm.affine_size());
      s.dbeta_at = sums(s.norm.affine_size());
    }
  }
}

}  // namespace detail

/// The plan for the children from `first` on and images of the given shape, as far as it reaches;
/// null where it would not begin.
template <class T>
std::shared_ptr<const Plan<T>> make_plan(const typename Module<T>::NamedChildren& children,
                                         std::size_t first, const Shape& image,
                                         PlanSizes sizes = PlanSizes::worthwhile) {
  auto plan = std::make_shared<Plan<T>>();
  plan->x = plan->y = image;
  std::size_t next = first;
  for (;;) {
    detail::StageBuilder<T> builder(children, next, plan->y, sizes);
    if (!builder.build()) break;
    plan->stages.push_back(builder.stage());
    plan->y = builder.image();
    next = builder.next();
  }
  plan->children = next - first;
  if (plan->stages.empty()) return nullptr;
  detail::lay_out(*plan);
  return plan;
}

}  // namespace minnow::inline MINNOW_ABI::nn
