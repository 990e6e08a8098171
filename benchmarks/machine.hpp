#pragma once
/// @file
/// What this machine could do at best, measured in the same run as the kernels.

#include <string>
#include <vector>

#include "minnow/tensor.hpp"

namespace bench {

using namespace minnow;

/// A level of memory. `bytes` is infinite for DRAM.
struct Level {
  std::string name;
  double bytes;
  bool shared;  ///< by all cores; otherwise each has as much
};

/// L1, L2, ... of data, as the system tells them, and DRAM.
std::vector<Level> memory_levels();

/// GB/s through buffers that lie in one level. A copy counts what it reads and what it writes.
struct Bandwidth {
  std::string level;
  double read, write, copy, memcpy;

  /// What a kernel that reads and writes is held against.
  double best_copy() const { return copy > memcpy ? copy : memcpy; }
};

struct Peak {
  int threads;
  double gflops;     ///< fused multiply-adds, two operations each
  double fork_join;  ///< seconds of a parallel loop that does nothing
  std::vector<Bandwidth> levels;
};

/// Takes about `seconds` for each of its figures.
Peak measure_peak(int threads, double seconds);

/// What a kernel that moves `bytes` is held against: half of them copied to the other half, on as
/// many threads as the library's loops would use. Results that fill the caches go past them.
class PlainCopy {
 public:
  explicit PlainCopy(double bytes);
  void by_loop();
  void by_memcpy();

 private:
  Tensor<float> from_, to_;
};

/// The smallest level that holds `bytes` when they are spread over the threads' cores.
std::size_t level_of(double bytes, int threads);

/// "AMD EPYC", of /proc/cpuinfo.
std::string cpu_name();

}  // namespace bench
