#pragma once
/// @file
/// A number of threads for one scope.

#include "minnow/core/parallel.hpp"

namespace minnow_test {

class Threads {
 public:
  explicit Threads(int count) { minnow::set_num_threads(count); }
  ~Threads() { minnow::set_num_threads(0); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
};

}  // namespace minnow_test
