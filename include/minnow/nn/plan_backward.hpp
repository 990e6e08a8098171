#pragma once
/// @file
/// The backward of a `Plan`.

#include <algorithm>

#include "minnow/kernels/reduce.hpp"
#include "minnow/nn/parameters.hpp"
#include "minnow/nn/plan_state.hpp"

namespace minnow::inline MINNOW_ABI::nn {

namespace detail {

/// The backward of one call: each stage sums up what its gradients depend on, and spreads them.
template <class T>
class PlanBackward {
 public:
  explicit PlanBackward(PlanState<T>& state)
      : state_(state), waits_(std::ranges::any_of(state.calls, [](const auto& call) {
          return call.batch_moments;
        })) {}

  /// Gradients of x (undefined unless wanted) and then of each stage's parameters.
  std::vector<Tensor<T>> run(const Tensor<T>& dy, bool dx_wanted) {
    state_.workers = worker_count(state_.packets);
    const Index places = waits_ ? state_.packets : state_.workers;
    Tensor<T> dx = dx_wanted ? Tensor<T>(state_.batch_of(state_.plan->x)) : Tensor<T>();
    Index out = 0, inner = 0, bordered = 0, affine = 0, runs = 0;
    for (const Stage& s : state_.plan->stages) {
      out = std::max({out, s.x_size(), s.out_size()});
      inner = std::max({inner, s.z_size(), s.padded_size()});
      bordered = std::max(bordered, s.conv().k * s.conv().oh() * s.conv().bordered_w());
      affine = std::max(affine, s.norm.affine_size());
      runs = std::max(runs, s.norm.runs());
    }
    const Index slot_size = (out + inner + 2 * runs) * lanes,
                worker_size = (bordered + 2 * affine) * lanes + state_.plan->memory_size;
    const Scratch<T> slot_memory(places * slot_size), worker_memory(state_.workers * worker_size);
    const Scratch<T> sums(state_.packets * state_.plan->sums_size);
    const auto gradients_of = [&](Index packet, Index worker) {
      T* slot = slot_memory.data() + (waits_ ? packet : worker) * slot_size;
      T* own = worker_memory.data() + worker * worker_size;
      return Gradients{slot,
                       slot + out * lanes,
                       slot + (out + inner) * lanes,
                       slot + (out + inner + runs) * lanes,
                       own,
                       own + bordered * lanes,
                       own + (bordered + affine) * lanes,
                       own + (bordered + 2 * affine) * lanes,
                       sums.data() + packet * state_.plan->sums_size};
    };
    state_.run_steps(
        [&](std::size_t i, Index packet, Index worker) {
          sum_gradients(i, packet, dy.data(), gradients_of(packet, worker));
        },
        [&](std::size_t i) { merge_gradient_means(i, sums.data()); },
        [&](std::size_t i, Index packet, Index worker) {
          spread_gradients(i, packet, dx.data(), gradients_of(packet, worker));
        },
        true);
    return collect(dx, sums.data());
  }

 private:
  using V = Pack<T>;
  using Stage = PlanStage<T>;
  static constexpr Index lanes = V::width;

  /// The memory that the backward of one packet works in.
  struct Gradients {
    T* out;    ///< with respect to a stage's result, then to the result of the stage before
    T* inner;  ///< with respect to what was pooled
    T *mean_g, *mean_gx;
    T* dz;  ///< with respect to the convolution's result, bordered
    T *dgamma, *dbeta;
    T* memory;  ///< of a convolution
    T* sums;
  };

  void sum_gradients(std::size_t i, Index packet, const T* dy, const Gradients& g) {
    const Stage& s = state_.stage(i);
    if (i + 1 == state_.calls.size())
      kernels::interleave(g.out, dy + packet * lanes * s.out_size(), state_.images_of(packet),
                          s.out_size());
    const T* activated = state_.saved(packet, s.y_at);
    if (s.pool == Stage::Pool::max)
      kernels::lane_max_pool2d_backward(g.inner, g.out, activated, state_.saved(packet, s.out_at),
                                        s.pooling);
    if (s.pool == Stage::Pool::average)
      kernels::lane_avg_pool2d_backward(g.inner, g.out, s.pooling);
    T* dactivated = gradient_of(s, g);
    const auto& dropout = state_.calls[i].dropout;
    const kernels::LaneReluBackward<T> gradient(dactivated, activated,
                                                dropout ? dropout->scale : 1);
    if (dropout && !s.relu)
      kernels::lane_dropout<false>(dactivated, dactivated, 0, s.z_size(), packet * lanes, *dropout);
    if (!s.normalized) {
      if (s.relu) kernels::lane_relu_backward(gradient, s.z_size());
      return;
    }
    const T *z = state_.saved(packet, s.z_at), *mean = state_.mean_of(i, packet),
            *rstd = state_.rstd_of(i, packet);
    T* mean_g = s.batch_norm ? nullptr : g.mean_g;
    const auto sum_up = [&](auto relu) {
      kernels::lane_norm_sums<relu>(g.dgamma, g.dbeta, mean_g, g.mean_gx, gradient, z, mean, rstd,
                                    data_or_null(s.gamma), s.norm);
    };
    s.relu ? sum_up(std::true_type{}) : sum_up(std::false_type{});
    for (Index p = 0; p < s.norm.affine_size(); ++p) {
      g.sums[s.dgamma_at + p] = sum(V::load(g.dgamma + p * lanes));
      g.sums[s.dbeta_at + p] = sum(V::load(g.dbeta + p * lanes));
    }
  }

  void merge_gradient_means(std::size_t i, const T* sums) {
    const Stage& s = state_.stage(i);
    const double count = static_cast<double>(state_.images * s.norm.plane());
    T* mean_g = state_.shared_mean_g_of(i);
    for (Index c = 0; c < s.norm.channels; ++c) {
      double g = 0, gx = 0;
      for (Index packet = 0; packet < state_.packets; ++packet) {
        g += static_cast<double>(sums[packet * state_.plan->sums_size + s.dbeta_at + c]);
        gx += static_cast<double>(sums[packet * state_.plan->sums_size + s.dgamma_at + c]);
      }
      const double scale = s.gamma.defined() ? static_cast<double>(s.gamma.value()[c]) : 1;
      V(static_cast<T>(g * scale / count)).store(mean_g + c * lanes);
      V(static_cast<T>(gx * scale / count)).store(mean_g + (s.norm.channels + c) * lanes);
    }
  }

  void spread_gradients(std::size_t i, Index packet, T* dx, const Gradients& g) {
    const Stage& s = state_.stage(i);
    const T *mean_g = g.mean_g, *mean_gx = g.mean_gx;
    if (s.batch_norm) {
      mean_g = state_.calls[i].batch_moments ? state_.shared_mean_g_of(i) : nullptr;
      mean_gx = mean_g ? mean_g + s.norm.channels * lanes : nullptr;
    }
    const Index border = s.conv().kernel.w - 1;
    kernels::lane_norm_backward(g.dz, border, gradient_of(s, g), state_.saved(packet, s.z_at),
                                s.normalized ? state_.mean_of(i, packet) : nullptr,
                                s.normalized ? state_.rstd_of(i, packet) : nullptr, mean_g, mean_gx,
                                data_or_null(s.gamma), s.norm);
    const Index dz_size = s.conv().k * s.conv().oh() * s.conv().bordered_w(),
                images = state_.images_of(packet);
    // Batch norm spreads its means to lanes without an image, too.
    if (images < lanes)
      for (Index p = 0; p < dz_size; ++p)
        std::fill(g.dz + p * lanes + images, g.dz + (p + 1) * lanes, T(0));
    if (s.bias.defined())
      for (Index k = 0; k < s.conv().k; ++k) {
        V total = V::zero();
        for (Index p = k * dz_size / s.conv().k; p < (k + 1) * dz_size / s.conv().k; ++p)
          total += V::load(g.dz + p * lanes);
        g.sums[s.dbias_at + k] = sum(total);
      }
    s.convolution.backward_weight(g.sums + s.dweight_at, g.dz, state_.saved(packet, s.padded_at),
                                  g.memory);
    if (i == 0 && !dx) return;
    s.convolution.backward_data(s.padded() ? g.inner : g.out, g.dz,
                                state_.packed.data() + state_.calls[i].backward_at, waits_,
                                g.memory);
    if (s.padded())
      kernels::cut_border(g.out, g.inner, s.conv().c, s.x_h(), s.x_w(), s.padding, lanes);
    if (i == 0) kernels::separate(dx + packet * lanes * s.x_size(), g.out, images, s.x_size());
  }

  /// The gradient with respect to what was normalised and activated, before pooling.
  static T* gradient_of(const Stage& s, const Gradients& g) {
    return s.pool == Stage::Pool::none ? g.out : g.inner;
  }

  /// The sums of all packets, in their order, as the gradients of the parameters.
  std::vector<Tensor<T>> collect(Tensor<T> dx, const T* sums) const {
    std::vector<Tensor<T>> gradients{std::move(dx)};
    const auto add = [&](const Variable<T>& parameter, Index at) {
      if (!parameter.defined()) return;
      Tensor<T> gradient(parameter.shape());
      kernels::sum_columns(gradient.data(), sums + at, state_.packets, gradient.size(),
                           state_.plan->sums_size);
      gradients.push_back(std::move(gradient));
    };
    for (const Stage& s : state_.plan->stages) {
      add(s.weight, s.dweight_at);
      add(s.bias, s.dbias_at);
      add(s.gamma, s.dgamma_at);
      add(s.beta, s.dbeta_at);
    }
    return gradients;
  }

  PlanState<T>& state_;
  /// Gradients live on across a wait: then each packet has buffers of its own, else each thread.
  bool waits_;
};

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI::nn
