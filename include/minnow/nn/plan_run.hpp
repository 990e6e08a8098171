#pragma once
/// @file
/// Carries out a `Plan`: forward and backward of all its stages as one differentiable function.

#include <algorithm>
#include <optional>

#include "minnow/core/parallel.hpp"
#include "minnow/nn/plan.hpp"

namespace minnow::inline MINNOW_ABI::nn {

namespace detail {

/// One call of a plan: what the backward needs to know of the forward.
///
/// Packets of images are independent of each other but for batch norm's moments. So the work is a
/// list of steps that every packet goes through, and only where a batch norm collects its moments
/// do all packets wait for each other. A packet's numbers stay in the caches of the core that works
/// on it.
template <class T>
class PlanRun {
 public:
  using V = Pack<T>;
  using Stage = PlanStage<T>;
  static constexpr Index lanes = V::width;

  PlanRun(std::shared_ptr<const Plan<T>> plan, Index images)
      : plan_(std::move(plan)),
        images_(images),
        packets_(kernels::packet_count<T>(images)),
        workers_(worker_count(packets_)),
        saved_(Shape{packets_, plan_->packet_size, lanes}),
        calls_(plan_->stages.size()) {
    Index packed = 0, shared = 0;
    for (std::size_t i = 0; i < calls_.size(); ++i) {
      const Stage& s = plan_->stages[i];
      Call& call = calls_[i];
      if (s.dropout && s.dropout->is_training() && s.dropout->p() > 0)
        call.dropout.emplace(default_generator().next(), s.dropout->p());
      call.batch_moments = s.batch_norm && (s.batch_norm->is_training() ||
                                            !s.batch_norm->options().track_running_stats);
      call.forward_at = std::exchange(packed, packed + s.weight.size());
      call.backward_at = std::exchange(packed, packed + s.weight.size());
      // mean, rstd, and in the backward mean_g, mean_gx, the same for every packet
      if (s.batch_norm)
        call.shared_at = std::exchange(shared, shared + 4 * s.norm.channels * lanes);
    }
    packed_ = Tensor<T>(Shape{packed});
    shared_ = Tensor<T>(Shape{shared});
    for (std::size_t i = 0; i < calls_.size(); ++i) {
      const Stage& s = plan_->stages[i];
      const T* weight = s.weight.value().data();
      kernels::lane_conv2d_pack_forward(packed_.data() + calls_[i].forward_at, weight, s.conv);
      kernels::lane_conv2d_pack_backward(packed_.data() + calls_[i].backward_at, weight, s.conv);
      if (s.batch_norm && !calls_[i].batch_moments)
        share_moments(i, [&](Index c) {
          return std::pair(static_cast<double>(s.batch_norm->running_mean()[c]),
                           static_cast<double>(s.batch_norm->running_var()[c]));
        });
    }
  }

  /// True if the convolutions' moments of this call have at least two values each.
  static bool has_enough_values(const Plan<T>& plan, Index images) {
    return std::ranges::all_of(
        plan.stages, [&](const Stage& s) { return !s.batch_norm || images * s.norm.plane() > 1; });
  }

  Tensor<T> forward(const Tensor<T>& x) {
    Tensor<T> y(batch_of(plan_->y));
    std::vector<kernels::Moments> moments(static_cast<std::size_t>(packets_ * most_channels()));
    run_steps([&](std::size_t i) { return calls_[i].batch_moments; },
              [&](std::size_t i, Index packet) {
                convolve(i, packet, x.data(), moments.data() + packet * most_channels());
              },
              [&](std::size_t i) { merge_moments(i, moments); },
              [&](std::size_t i, Index packet) { finish(i, packet, y.data()); }, false);
    return y;
  }

  /// Gradients of x (undefined unless wanted) and then of each stage's parameters.
  std::vector<Tensor<T>> backward(const Tensor<T>& dy, bool dx_wanted) {
    const bool waits =
        std::ranges::any_of(calls_, [](const Call& call) { return call.batch_moments; });
    // Gradients live on across a wait: then each packet has buffers of its own, else each thread.
    workers_ = worker_count(packets_);
    const Index slots = waits ? packets_ : workers_;
    Tensor<T> dx = dx_wanted ? Tensor<T>(batch_of(plan_->x)) : Tensor<T>();
    Index out = 0, inner = 0, bordered = 0, affine = 0, runs = 0;
    for (const Stage& s : plan_->stages) {
      out = std::max({out, s.x_size(), s.out_size()});
      inner = std::max({inner, s.z_size(), s.padded_size()});
      bordered = std::max(bordered, s.conv.k * s.conv.oh() * s.conv.bordered_w());
      affine = std::max(affine, s.norm.affine_size());
      runs = std::max(runs, s.norm.runs());
    }
    const Index slot_size = (out + inner + 2 * runs) * lanes,
                worker_size = (bordered + 2 * affine) * lanes;
    const Scratch<T> slot_memory(slots * slot_size), worker_memory(workers_ * worker_size);
    const Scratch<T> sums(packets_ * plan_->sums_size);
    const auto gradients_of = [&](Index packet, Index worker) {
      T* slot = slot_memory.data() + (waits ? packet : worker) * slot_size;
      T* own = worker_memory.data() + worker * worker_size;
      return Gradients{slot,
                       slot + out * lanes,
                       slot + (out + inner) * lanes,
                       slot + (out + inner + runs) * lanes,
                       own,
                       own + bordered * lanes,
                       own + (bordered + affine) * lanes,
                       sums.data() + packet * plan_->sums_size};
    };
    run_steps([&](std::size_t i) { return calls_[i].batch_moments; },
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
  /// What is particular to this call of a stage.
  struct Call {
    std::optional<kernels::DropoutRule> dropout;
    bool batch_moments = false;  ///< batch norm by this batch's own moments
    Index forward_at = 0, backward_at = 0, shared_at = 0;
  };

  /// The memory that the backward of one packet works in.
  struct Gradients {
    T* out;    ///< with respect to a stage's result, then to the result of the stage before
    T* inner;  ///< with respect to what was pooled
    T *mean_g, *mean_gx;
    T* dz;  ///< with respect to the convolution's result, bordered
    T *dgamma, *dbeta;
    T* sums;
  };

  Shape batch_of(const Shape& image) const {
    Shape shape{images_};
    for (const Index size : image) shape.push_back(size);
    return shape;
  }
  Index most_channels() const {
    Index most = 0;
    for (const Stage& s : plan_->stages) most = std::max(most, s.norm.channels);
    return most;
  }
  Index images_of(Index packet) const { return std::min(lanes, images_ - packet * lanes); }
  T* saved(Index packet, Index at) {
    return saved_.data() + (packet * plan_->packet_size + at) * lanes;
  }
  T* mean_of(std::size_t i, Index packet) {
    const Stage& s = plan_->stages[i];
    return s.batch_norm ? shared_.data() + calls_[i].shared_at : saved(packet, s.mean_at);
  }
  T* rstd_of(std::size_t i, Index packet) {
    const Stage& s = plan_->stages[i];
    return s.batch_norm ? shared_.data() + calls_[i].shared_at + s.norm.channels * lanes
                        : saved(packet, s.rstd_at);
  }

  /// Runs `first` and `second` of each stage for every packet, all packets waiting for each other
  /// between the two, with `between` on one thread, where `waits` says so.
  ///
  /// A worker keeps its packets from wait to wait and takes them to and fro: the last one before a
  /// wait, whose numbers are still in its core's cache, is the first one after it.
  template <class Waits, class First, class Between, class Second>
  void run_steps(const Waits& waits, const First& first, const Between& between,
                 const Second& second, bool reversed) {
    const std::size_t count = 2 * calls_.size();
    const auto stage = [&](std::size_t step) {
      return reversed ? calls_.size() - 1 - step / 2 : step / 2;
    };
    const auto call = [](const auto& f, std::size_t i, Index packet, Index worker) {
      if constexpr (std::is_invocable_v<decltype(f), std::size_t, Index, Index>)
        f(i, packet, worker);
      else
        f(i, packet);
    };
    for (std::size_t begin = 0; begin < count;) {
      std::size_t end = begin + 1;
      while (end < count && !(end % 2 == 1 && waits(stage(end)))) ++end;
      parallel_for(
          workers_,
          [&](Index worker) {
            const Index first_packet = packets_ * worker / workers_,
                        last_packet = packets_ * (worker + 1) / workers_ - 1;
            for (Index n = 0; n <= last_packet - first_packet; ++n) {
              const Index packet = descending_ ? last_packet - n : first_packet + n;
              for (std::size_t step = begin; step < end; ++step)
                if (step % 2 == 0)
                  call(first, stage(step), packet, worker);
                else
                  call(second, stage(step), packet, worker);
            }
          },
          workers_);
      descending_ = !descending_;
      if (end < count) between(stage(end));
      begin = end;
    }
  }

  // Forward.

  void convolve(std::size_t i, Index packet, const T* x, kernels::Moments* moments) {
    const Stage& s = plan_->stages[i];
    const Index images = images_of(packet);
    if (i == 0)
      kernels::interleave(saved(packet, s.x_at), x + packet * lanes * s.x_size(), images,
                          s.x_size());
    if (s.padded())
      kernels::add_border(saved(packet, s.padded_at), saved(packet, s.x_at), s.conv.c, s.x_h(),
                          s.x_w(), s.padding, lanes);
    T* z = saved(packet, s.z_at);
    const bool relu_now = s.relu && !s.normalized && !calls_[i].dropout;
    kernels::lane_conv2d_forward(z, saved(packet, s.padded_at),
                                 packed_.data() + calls_[i].forward_at, data_or_null(s.bias),
                                 relu_now, s.forward_offsets.data(), s.conv);
    if (calls_[i].batch_moments)
      kernels::lane_channel_moments(moments, z, s.norm, images);
    else if (s.normalized && !s.batch_norm)
      kernels::lane_run_moments(mean_of(i, packet), rstd_of(i, packet), z, s.norm, s.eps);
  }

  void finish(std::size_t i, Index packet, T* y) {
    const Stage& s = plan_->stages[i];
    T* activated = saved(packet, s.y_at);
    const auto& dropout = calls_[i].dropout;
    const auto normalize = [&](Index begin, Index end, auto relu) {
      if (s.normalized)
        kernels::lane_normalize<relu>(activated, saved(packet, s.z_at), begin, end,
                                      mean_of(i, packet), rstd_of(i, packet), data_or_null(s.gamma),
                                      data_or_null(s.beta), s.norm);
    };
    const auto drop = [&](Index begin, Index end, auto relu) {
      kernels::lane_dropout<relu>(activated, activated, begin, end, packet * lanes, *dropout);
    };
    if (dropout) {
      // In steps that stay in the first-level cache.
      constexpr Index step = 16 * kernels::DropoutRule::block_size;
      for (Index begin = 0; begin < s.z_size(); begin += step) {
        const Index end = std::min(s.z_size(), begin + step);
        normalize(begin, end, std::false_type{});
        s.relu ? drop(begin, end, std::true_type{}) : drop(begin, end, std::false_type{});
      }
    } else {
      s.relu ? normalize(0, s.z_size(), std::true_type{})
             : normalize(0, s.z_size(), std::false_type{});
    }
    T* out = saved(packet, s.out_at);
    if (s.pool == Stage::Pool::max) kernels::lane_max_pool2d_forward(out, activated, s.pooling);
    if (s.pool == Stage::Pool::average) kernels::lane_avg_pool2d_forward(out, activated, s.pooling);
    if (i + 1 == calls_.size())
      kernels::separate(y + packet * lanes * s.out_size(), out, images_of(packet), s.out_size());
  }

  /// Puts mean and rstd of each channel into every lane of the shared memory.
  template <class MeanAndVariance>
  void share_moments(std::size_t i, const MeanAndVariance& moments) {
    const Stage& s = plan_->stages[i];
    for (Index c = 0; c < s.norm.channels; ++c) {
      const auto [mean, variance] = moments(c);
      V(static_cast<T>(mean)).store(mean_of(i, 0) + c * lanes);
      V(static_cast<T>(1 / std::sqrt(variance + s.eps))).store(rstd_of(i, 0) + c * lanes);
    }
  }

  void merge_moments(std::size_t i, const std::vector<kernels::Moments>& moments) {
    const Stage& s = plan_->stages[i];
    std::vector<kernels::Moments> total(static_cast<std::size_t>(s.norm.channels));
    for (Index packet = 0; packet < packets_; ++packet)
      for (Index c = 0; c < s.norm.channels; ++c) {
        kernels::Moments& sum = total[static_cast<std::size_t>(c)];
        sum = merge(sum, moments[static_cast<std::size_t>(packet * most_channels() + c)]);
      }
    share_moments(i, [&](Index c) {
      const kernels::Moments& m = total[static_cast<std::size_t>(c)];
      return std::pair(m.mean, m.variance());
    });
    s.batch_norm->track(total);
  }

  // Backward.

  void sum_gradients(std::size_t i, Index packet, const T* dy, const Gradients& g) {
    const Stage& s = plan_->stages[i];
    if (i + 1 == calls_.size())
      kernels::interleave(g.out, dy + packet * lanes * s.out_size(), images_of(packet),
                          s.out_size());
    const T* activated = saved(packet, s.y_at);
    if (s.pool == Stage::Pool::max)
      kernels::lane_max_pool2d_backward(g.inner, g.out, activated, saved(packet, s.out_at),
                                        s.pooling);
    if (s.pool == Stage::Pool::average)
      kernels::lane_avg_pool2d_backward(g.inner, g.out, s.pooling);
    T* dactivated = gradient_of(s, g);
    const auto& dropout = calls_[i].dropout;
    const kernels::LaneReluBackward<T> gradient(dactivated, activated,
                                                dropout ? dropout->scale : 1);
    if (dropout && !s.relu)
      kernels::lane_dropout<false>(dactivated, dactivated, 0, s.z_size(), packet * lanes, *dropout);
    if (!s.normalized) {
      if (s.relu) kernels::lane_relu_backward(gradient, s.z_size());
      return;
    }
    const T *z = saved(packet, s.z_at), *mean = mean_of(i, packet), *rstd = rstd_of(i, packet);
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
    const Stage& s = plan_->stages[i];
    const double count = static_cast<double>(images_ * s.norm.plane());
    T* mean_g = shared_.data() + calls_[i].shared_at + 2 * s.norm.channels * lanes;
    for (Index c = 0; c < s.norm.channels; ++c) {
      double g = 0, gx = 0;
      for (Index packet = 0; packet < packets_; ++packet) {
        g += static_cast<double>(sums[packet * plan_->sums_size + s.dbeta_at + c]);
        gx += static_cast<double>(sums[packet * plan_->sums_size + s.dgamma_at + c]);
      }
      const double scale = s.gamma.defined() ? static_cast<double>(s.gamma.value()[c]) : 1;
      V(static_cast<T>(g * scale / count)).store(mean_g + c * lanes);
      V(static_cast<T>(gx * scale / count)).store(mean_g + (s.norm.channels + c) * lanes);
    }
  }

  void spread_gradients(std::size_t i, Index packet, T* dx, const Gradients& g) {
    const Stage& s = plan_->stages[i];
    const T *mean_g = g.mean_g, *mean_gx = g.mean_gx;
    if (s.batch_norm) {
      mean_g = calls_[i].batch_moments
                   ? shared_.data() + calls_[i].shared_at + 2 * s.norm.channels * lanes
                   : nullptr;
      mean_gx = mean_g ? mean_g + s.norm.channels * lanes : nullptr;
    }
    const Index border = s.conv.kernel.w - 1;
    kernels::lane_norm_backward(g.dz, border, gradient_of(s, g), saved(packet, s.z_at),
                                s.normalized ? mean_of(i, packet) : nullptr,
                                s.normalized ? rstd_of(i, packet) : nullptr, mean_g, mean_gx,
                                data_or_null(s.gamma), s.norm);
    const Index dz_size = s.conv.k * s.conv.oh() * s.conv.bordered_w(), images = images_of(packet);
    // Batch norm spreads its means to lanes without an image, too.
    if (images < lanes)
      for (Index p = 0; p < dz_size; ++p)
        std::fill(g.dz + p * lanes + images, g.dz + (p + 1) * lanes, T(0));
    if (s.bias.defined())
      for (Index k = 0; k < s.conv.k; ++k) {
        V total = V::zero();
        for (Index p = k * dz_size / s.conv.k; p < (k + 1) * dz_size / s.conv.k; ++p)
          total += V::load(g.dz + p * lanes);
        g.sums[s.dbias_at + k] = sum(total);
      }
    kernels::lane_conv2d_backward_weight(g.sums + s.dweight_at, g.dz, saved(packet, s.padded_at),
                                         s.forward_offsets.data(), s.conv);
    if (i == 0 && !dx) return;
    kernels::lane_conv2d_backward_data(s.padded() ? g.inner : g.out, g.dz,
                                       packed_.data() + calls_[i].backward_at,
                                       s.backward_offsets.data(), s.conv);
    if (s.padded())
      kernels::cut_border(g.out, g.inner, s.conv.c, s.x_h(), s.x_w(), s.padding, lanes);
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
      const Scratch<double> totals(gradient.size());
      std::fill_n(totals.data(), gradient.size(), 0.0);
      for (Index packet = 0; packet < packets_; ++packet) {
        const T* from = sums + packet * plan_->sums_size + at;
        MINNOW_SIMD
        for (Index j = 0; j < gradient.size(); ++j)
          totals.data()[j] += static_cast<double>(from[j]);
      }
      std::transform(totals.data(), totals.data() + gradient.size(), gradient.data(),
                     [](double total) { return static_cast<T>(total); });
      gradients.push_back(std::move(gradient));
    };
    for (const Stage& s : plan_->stages) {
      add(s.weight, s.dweight_at);
      add(s.bias, s.dbias_at);
      add(s.gamma, s.dgamma_at);
      add(s.beta, s.dbeta_at);
    }
    return gradients;
  }

  std::shared_ptr<const Plan<T>> plan_;
  Index images_, packets_, workers_;
  bool descending_ = false;  ///< the direction in which the packets are taken next
  Tensor<T> saved_;
  std::vector<Call> calls_;
  Tensor<T> packed_, shared_;
};

}  // namespace detail

/// The result of a plan's stages for images x [N, plan->x], recorded as one function of x and of
/// the stages' parameters.
template <class T>
Variable<T> run_plan(const std::shared_ptr<const Plan<T>>& plan, const Variable<T>& x) {
  auto run = std::make_shared<detail::PlanRun<T>>(plan, x.size(0));
  Tensor<T> y = run->forward(x.value());
  std::vector<Variable<T>> inputs{x};
  for (const PlanStage<T>& s : plan->stages)
    for (const auto* parameter : {&s.weight, &s.bias, &s.gamma, &s.beta})
      if (parameter->defined()) inputs.push_back(*parameter);
  return record<T>("plan", std::move(y), std::move(inputs),
                   [run, dx_wanted = x.requires_grad()](const Tensor<T>& dy) {
                     return run->backward(dy, dx_wanted);
                   });
}

}  // namespace minnow::inline MINNOW_ABI::nn
