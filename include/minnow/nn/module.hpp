#pragma once
/// @file
/// `Module<T>`: something with named parameters that maps a variable to a variable.

#include <algorithm>
#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "minnow/autograd.hpp"
#include "minnow/core/random.hpp"
#include "minnow/state.hpp"

namespace minnow::inline MINNOW_ABI::nn {

template <class T>
class Module;

/// Called with each module and its output, in the order of the calls, while a `ModuleObserver`
/// lives.
template <class T>
using ModuleCallback = std::function<void(const Module<T>&, const Variable<T>& y)>;

namespace detail {

template <class T>
inline const ModuleCallback<T>*& module_observer() {
  thread_local const ModuleCallback<T>* observer = nullptr;
  return observer;
}

}  // namespace detail

/// Reports every module call on this thread to a callback while it lives.
template <class T>
class ModuleObserver {
 public:
  explicit ModuleObserver(ModuleCallback<T> callback)
      : callback_(std::move(callback)),
        before_(std::exchange(detail::module_observer<T>(), &callback_)) {}
  ~ModuleObserver() { detail::module_observer<T>() = before_; }
  ModuleObserver(const ModuleObserver&) = delete;
  ModuleObserver& operator=(const ModuleObserver&) = delete;

 private:
  ModuleCallback<T> callback_;
  const ModuleCallback<T>* before_;
};

/// The base of all layers and of your own networks.
///
/// A derived class registers its parameters, buffers and children in its constructor, and overrides
/// `forward`. The registered handles share memory with the members, so moving a module keeps them
/// valid; modules do not copy.
///
///     struct Net : nn::Module<float> {
///       std::shared_ptr<nn::Linear<float>> fc = register_module("fc", nn::Linear(784, 10));
///       Variable<float> forward(const Variable<float>& x) override { return (*fc)(x); }
///       std::string name() const override { return "Net"; }
///     };
template <class T>
class Module {
 public:
  using value_type = T;
  using NamedParameters = std::vector<std::pair<std::string, Variable<T>>>;
  using NamedBuffers = std::vector<std::pair<std::string, StateTensor>>;
  using NamedChildren = std::vector<std::pair<std::string, std::shared_ptr<Module>>>;

  virtual ~Module() = default;
  Module(Module&&) = default;
  Module& operator=(Module&&) = default;

  /// The result for `x`. Called through `operator()`.
  virtual Variable<T> forward(const Variable<T>& x) = 0;

  /// The class's name, as a summary prints it: "Conv2d".
  virtual std::string name() const = 0;

  Variable<T> operator()(const Variable<T>& x) {
    Variable<T> y = forward(x);
    if (const auto* observer = detail::module_observer<T>()) (*observer)(*this, y);
    return y;
  }

  /// Training (the state after construction) or evaluation, for this module and all below it.
  void train(bool on = true) {
    training_ = on;
    for (auto& [key, child] : children_) child->train(on);
  }
  void eval() { train(false); }
  bool is_training() const { return training_; }

  /// Parameters of this module and all below it, in order of registration; names joined by dots.
  NamedParameters named_parameters() const {
    NamedParameters result;
    visit("", [&](const std::string& prefix, const Module& module) {
      for (const auto& [key, parameter] : module.parameters_)
        result.emplace_back(prefix + key, parameter);
    });
    return result;
  }
  /// The same without names; what several modules share once.
  std::vector<Variable<T>> parameters() const {
    std::vector<Variable<T>> result;
    for (auto& [key, parameter] : named_parameters()) {
      const Tensor<T>* value = &parameter.value();
      const auto is_this = [value](const Variable<T>& other) { return &other.value() == value; };
      if (std::ranges::none_of(result, is_this)) result.push_back(parameter);
    }
    return result;
  }

  /// State that is no parameter, such as running statistics.
  NamedBuffers named_buffers() const {
    NamedBuffers result;
    visit("", [&](const std::string& prefix, const Module& module) {
      for (const auto& [key, buffer] : module.buffers_) result.emplace_back(prefix + key, buffer);
    });
    return result;
  }

  /// The modules directly below this one.
  const NamedChildren& children() const { return children_; }
  /// The parameters registered by this very module.
  const NamedParameters& own_parameters() const { return parameters_; }

  void zero_grad() {
    for (auto& parameter : parameters()) parameter.zero_grad();
  }

  /// Parameters and buffers by name. The tensors are the module's own, not copies: `clone` what
  /// must not change with further training.
  StateDict state_dict() const {
    StateDict state;
    for (const auto& [key, parameter] : named_parameters()) state.emplace(key, parameter.value());
    for (const auto& [key, buffer] : named_buffers()) state.emplace(key, buffer);
    return state;
  }

  /// Copies the state's numbers into this module, converting between float and double.
  ///
  /// Errors: one Error that lists every missing name, every unexpected name and every difference in
  /// shape or between integers and others; nothing is changed then. With `strict` false, missing
  /// and unexpected names are passed over.
  void load_state_dict(const StateDict& state, bool strict = true) {
    const StateDict own = state_dict();
    std::string problems;
    for (const auto& [key, target] : own) {
      const auto found = state.find(key);
      if (found == state.end()) {
        if (strict) problems += text("\n  missing: ", key);
      } else if (const std::string problem =
                     minnow::detail::mismatch(found->second, minnow::detail::shape_of(target),
                                              minnow::detail::holds_integers(target));
                 !problem.empty()) {
        problems += text("\n  ", key, ' ', problem);
      }
    }
    if (strict)
      for (const auto& [key, source] : state)
        if (!own.contains(key)) problems += text("\n  unexpected: ", key);
    check(problems.empty(), name(), ": the state does not fit:", problems);
    for (const auto& [key, target] : own)
      if (const auto found = state.find(key); found != state.end()) assign(target, found->second);
  }

 protected:
  Module() = default;

  /// Makes `value` a parameter of this module. Returns the handle to keep as a member.
  Variable<T> register_parameter(std::string key, Tensor<T> value) {
    return parameters_.emplace_back(unused(std::move(key)), Variable<T>(std::move(value), true))
        .second;
  }

  /// Makes `value` part of the state. Change it in place only: the state shares its memory.
  template <class U>
  Tensor<U> register_buffer(std::string key, Tensor<U> value) {
    buffers_.emplace_back(unused(std::move(key)), value);
    return value;
  }

  /// Makes `child` part of this module. Returns the handle to keep as a member.
  template <std::derived_from<Module> M>
  std::shared_ptr<M> register_module(std::string key, M child) {
    auto shared = std::make_shared<M>(std::move(child));
    register_module(std::move(key), std::shared_ptr<Module>(shared));
    return shared;
  }
  void register_module(std::string key, std::shared_ptr<Module> child) {
    check(child != nullptr, "register_module: ", key, " is null");
    children_.emplace_back(unused(std::move(key)), std::move(child));
  }

 private:
  template <class Visitor>
  void visit(const std::string& prefix, const Visitor& visitor) const {
    visitor(prefix, *this);
    for (const auto& [key, child] : children_) child->visit(prefix + key + ".", visitor);
  }

  static void assign(StateTensor target, const StateTensor& source) {
    std::visit(
        [](auto& to, const auto& from) {
          using To = typename std::remove_cvref_t<decltype(to)>::value_type;
          to.copy_from(from.template to<To>());
        },
        target, source);
  }

  std::string unused(std::string key) const {
    const auto taken = [&](const auto& entry) { return entry.first == key; };
    check(std::ranges::none_of(parameters_, taken) && std::ranges::none_of(buffers_, taken) &&
              std::ranges::none_of(children_, taken),
          "Module: the name '", key, "' is registered already");
    check(!key.empty() && key.find('.') == std::string::npos, "Module: '", key,
          "' is no name for a part: it must not be empty or contain a dot");
    return key;
  }

  NamedParameters parameters_;
  NamedBuffers buffers_;
  NamedChildren children_;
  bool training_ = true;
};

namespace detail {

/// Child number `i` of a module. Errors: Error if there is none.
template <class T>
Module<T>& child_of(const Module<T>& module, Index i) {
  const Index size = std::ssize(module.children());
  check(i >= 0 && i < size, module.name(), ": there is no child ", i, "; it has ", size,
        ", numbered from 0");
  return *module.children()[static_cast<std::size_t>(i)].second;
}

/// Puts the default generator back to where it was.
class RandomStateScope {
 public:
  RandomStateScope() : before_(default_generator().state()) {}
  ~RandomStateScope() { default_generator().set_state(before_); }
  RandomStateScope(const RandomStateScope&) = delete;
  RandomStateScope& operator=(const RandomStateScope&) = delete;

 private:
  RandomKey before_;
};

/// Puts every module below `model` into eval mode, and back into the mode it was in.
template <class T>
class EvalScope {
 public:
  explicit EvalScope(Module<T>& model) : model_(model) {
    remember(model);
    model.eval();
  }
  ~EvalScope() {
    auto mode = modes_.cbegin();
    restore(model_, mode);
  }
  EvalScope(const EvalScope&) = delete;
  EvalScope& operator=(const EvalScope&) = delete;

 private:
  void remember(const Module<T>& module) {
    modes_.push_back(module.is_training());
    for (const auto& [key, child] : module.children()) remember(*child);
  }
  // A parent's `train` reaches all below it, so parents come first.
  void restore(Module<T>& module, std::vector<bool>::const_iterator& mode) {
    module.train(*mode++);
    for (const auto& [key, child] : module.children()) restore(*child, mode);
  }

  Module<T>& model_;
  std::vector<bool> modes_;
};

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI::nn
