#pragma once
/// @file
/// Modules in a list.

#include <concepts>
#include <memory>
#include <string>
#include <utility>

#include "minnow/nn/module.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// Modules that are registered together but called by your own code.
template <class T = float>
class ModuleList : public Module<T> {
 public:
  ModuleList() = default;

  /// Appends a module under the next number.
  template <std::derived_from<Module<T>> M>
  std::shared_ptr<M> add(M module) {
    return this->register_module(std::to_string(size()), std::move(module));
  }
  void add(std::shared_ptr<Module<T>> module) {
    this->register_module(std::to_string(size()), std::move(module));
  }

  Index size() const { return std::ssize(this->children()); }
  /// Child number `i`. Errors: Error if there is none.
  Module<T>& operator[](Index i) const { return detail::child_of(*this, i); }

  /// Errors: always Error; a list has no order of calls.
  Variable<T> forward(const Variable<T>&) override {
    throw Error("ModuleList has no forward: call its modules, or use Sequential");
  }
  std::string name() const override { return "ModuleList"; }
};

}  // namespace minnow::inline MINNOW_ABI::nn
