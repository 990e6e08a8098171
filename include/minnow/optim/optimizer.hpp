#pragma once
/// @file
/// What all optimisers share: groups of parameters with options of their own.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "minnow/autograd.hpp"
#include "minnow/core/error.hpp"
#include "minnow/state.hpp"

namespace minnow::inline MINNOW_ABI::optim {

/// An optimiser as training loops and schedules see it: whatever its rule and its scalar type.
class OptimizerBase {
 public:
  virtual ~OptimizerBase() = default;
  OptimizerBase(const OptimizerBase&) = delete;
  OptimizerBase& operator=(const OptimizerBase&) = delete;

  /// Changes every parameter that has a gradient; parameters without one, and their state, stay as
  /// they are.
  virtual void step() = 0;
  /// Drops the gradients of all parameters.
  virtual void zero_grad() = 0;

  virtual Index group_count() const = 0;
  virtual double lr(Index group = 0) const = 0;
  virtual void set_lr(double lr, Index group) = 0;
  /// The momentum, or what stands for it: the first beta of Adam.
  virtual double momentum(Index group = 0) const = 0;
  virtual void set_momentum(double momentum, Index group) = 0;

 protected:
  OptimizerBase() = default;
};

/// The base of an optimiser with the given options and the given state per parameter.
///
/// `Options` is a plain struct with `lr`, with `momentum` or `betas`, and with `verify()`, which
/// throws where a value makes no sense. `State` is a plain struct whose tensors stay undefined
/// until a parameter's first step, and whose `visit` names them. An optimiser holds handles: it
/// changes the very parameters of the module. Schedules point at it, so it can be neither copied
/// nor moved.
template <class T, class Options, class State>
class Optimizer : public OptimizerBase {
 public:
  using value_type = T;

  /// Parameters that share options. State number i belongs to parameter number i.
  struct Group {
    std::vector<Variable<T>> parameters;
    Options options;
    std::vector<State> state;
  };

  /// Parameters with options of their own; what `options` leaves out has its default, not the value
  /// of the other groups.
  ///
  /// Errors: Error for an empty list, for a parameter that is undefined, computed, without
  /// requires_grad or already in this optimiser, and for options that make no sense.
  void add_group(std::vector<Variable<T>> parameters, const Options& options) {
    options.verify();
    check(!parameters.empty(), Options::name, ": the list of parameters is empty");
    std::vector<State> state(parameters.size());
    groups_.push_back({std::move(parameters), options, std::move(state)});
    try {
      for (std::size_t i = 0; i < groups_.back().parameters.size(); ++i) verify_parameter(i);
    } catch (...) {
      groups_.pop_back();
      throw;
    }
  }

  /// All that there is to read, change, save or restore.
  std::span<Group> groups() { return groups_; }
  std::span<const Group> groups() const { return groups_; }

  void zero_grad() override {
    for (Group& group : groups_)
      for (Variable<T>& parameter : group.parameters) parameter.zero_grad();
  }

  Index group_count() const override { return std::ssize(groups_); }
  double lr(Index group = 0) const override { return at(*this, group).options.lr; }
  void set_lr(double lr, Index group) override { at(*this, group).options.lr = lr; }
  double momentum(Index group = 0) const override { return momentum_of(at(*this, group).options); }
  void set_momentum(double momentum, Index group) override {
    momentum_of(at(*this, group).options) = momentum;
  }

  /// What steps have left behind for each parameter, numbered through all groups, and what
  /// schedules change: "state.0.momentum_buffer", "param_groups.0.lr", "param_groups.0.momentum". The tensors
  /// are the optimiser's own, not copies. Not virtual, so that only programs that save compile it.
  StateDict state_dict() const {
    StateDict result;
    Index number = 0;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const Group& group = groups_[g];
      const std::string options = text("param_groups.", g);
      result.emplace(options + ".lr", Tensor<double>::scalar(group.options.lr));
      result.emplace(options + ".momentum", Tensor<double>::scalar(momentum_of(group.options)));
      for (const State& state : group.state) {
        const std::string parameter = text("state.", number++, '.');
        State::visit(state, [&](const char* name, const auto& member) {
          if constexpr (std::integral<std::remove_cvref_t<decltype(member)>>) {
            if (member != 0) result.emplace(parameter + name, Tensor<std::int64_t>::scalar(member));
          } else {
            if (member.defined()) result.emplace(parameter + name, member);
          }
        });
      }
    }
    return result;
  }

  /// Goes on where the state was taken, by an optimiser of the same class for parameters of the
  /// same shapes in the same groups; all other options are those of this one. Errors: Error for a state
  /// that does not fit; nothing is changed then.
  void load_state_dict(const StateDict& state) {
    std::vector<Group> groups = groups_;
    std::size_t used = 0;
    Index number = 0;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      Group& group = groups[g];
      const std::string options = text("param_groups.", g);
      group.options.lr = minnow::detail::read_entry<double>(Options::name, state, options + ".lr");
      momentum_of(group.options) =
          minnow::detail::read_entry<double>(Options::name, state, options + ".momentum");
      used += 2;
      group.options.verify();
      for (std::size_t i = 0; i < group.parameters.size(); ++i) {
        const std::string parameter = text("state.", number++, '.');
        group.state[i] = {};
        State::visit(group.state[i], [&](const char* name, auto& member) {
          const std::string key = parameter + name;
          if (!state.contains(key)) return;
          ++used;
          if constexpr (std::integral<std::remove_cvref_t<decltype(member)>>)
            member = minnow::detail::read_entry<std::int64_t>(Options::name, state, key);
          else
            member = minnow::detail::read_entry<T>(Options::name, state, key,
                                                   group.parameters[i].shape());
        });
      }
    }
    check(used == state.size(), Options::name, ": of the state's ", state.size(), " entries ", used,
          " fit; it is another optimizer's, or one's for more parameters or groups");
    groups_ = std::move(groups);
  }

 protected:
  Optimizer() = default;

  /// Calls `update(parameter, gradient, state, options)` for every parameter that has a gradient.
  template <class Update>
  void for_each_gradient(const Update& update) {
    for (Group& group : groups_) {
      check(group.state.size() == group.parameters.size(), Options::name, ": ", group.state.size(),
            " states for a group of ", group.parameters.size(),
            " parameters; a saved state has one for each");
      for (std::size_t i = 0; i < group.parameters.size(); ++i) {
        const Tensor<T>& dp = group.parameters[i].grad();
        if (!dp.defined()) continue;
        Tensor<T>& p = group.parameters[i].mutable_value();
        check<ShapeError>(dp.shape() == p.shape(), Options::name, ": parameter ", i, " has shape ",
                          p.shape(), ", its gradient has ", dp.shape());
        update(p, dp, group.state[i], group.options);
      }
    }
  }

  /// The memory of a state tensor of p's shape, zeros at first.
  static T* slot(Tensor<T>& state, const Tensor<T>& p) {
    if (!state.defined()) state = Tensor<T>::zeros(p.shape());
    check<ShapeError>(state.shape() == p.shape(), Options::name, ": the state has shape ",
                      state.shape(), ", its parameter has ", p.shape());
    return state.data();
  }

 private:
  template <class Self>
  static auto& at(Self& self, Index group) {
    check(group >= 0 && group < self.group_count(), Options::name, ": there is no group ", group,
          "; it has ", self.group_count(), ", numbered from 0");
    return self.groups_[static_cast<std::size_t>(group)];
  }

  static auto& momentum_of(auto& options) {
    if constexpr (requires { options.betas; })
      return options.betas[0];
    else
      return options.momentum;
  }

  // Of the last group.
  void verify_parameter(std::size_t i) const {
    const Variable<T>& parameter = groups_.back().parameters[i];
    check(parameter.defined(), Options::name, ": parameter ", i, " is undefined");
    check(parameter.is_leaf(), Options::name, ": parameter ", i, " of shape ", parameter.shape(),
          " is the result of a function; only leaves can be optimised");
    check(parameter.requires_grad(), Options::name, ": parameter ", i, " of shape ",
          parameter.shape(),
          " has requires_grad false and will never get a gradient; call set_requires_grad(true), "
          "or leave it out");
    const auto same = [&](const Variable<T>& other) {
      return &other != &parameter && other.defined() && &other.value() == &parameter.value();
    };
    for (const Group& group : groups_)
      check(std::ranges::none_of(group.parameters, same), Options::name, ": parameter ", i,
            " of shape ", parameter.shape(), " is in this optimizer twice");
  }

  std::vector<Group> groups_;
};

namespace detail {

/// Throws "SGD: lr = -1 must be positive" unless `value` is finite and passes.
inline void check_option(bool passes, std::string_view owner, std::string_view option, double value,
                         std::string_view need) {
  check(passes && std::isfinite(value), owner, ": ", option, " = ", value, " must be ", need);
}

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI::optim
