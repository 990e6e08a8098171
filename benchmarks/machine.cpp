#include "machine.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <limits>

#include "minnow/core/error.hpp"
#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/core/simd.hpp"
#include "minnow/kernels/streaming.hpp"

namespace bench {

using V = Pack<float>;

namespace {

double now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

/// The median of samples of f that together take `seconds`.
template <class F>
double median_time(double seconds, const F& f) {
  f();
  std::vector<double> samples;
  const double end = now() + seconds;
  while (samples.size() < 5 || now() < end) {
    const double begin = now();
    f();
    samples.push_back(now() - begin);
  }
  std::ranges::nth_element(samples, samples.begin() + std::ssize(samples) / 2);
  return samples[samples.size() / 2];
}

volatile float sink;

double fma_rate(int threads, double seconds) {
  constexpr int sums = vector_registers / 2, rounds = 20000;
  const double time = median_time(seconds, [&] {
    parallel_for(
        threads,
        [](Index) {
          V sum[sums], x(0.999f), y(1e-3f);
          for (int i = 0; i < sums; ++i) sum[i] = V(static_cast<float>(i));
          for (int n = 0; n < rounds; ++n)
            MINNOW_UNROLL for (int i = 0; i < sums; ++i) sum[i] = fma(sum[i], x, y);
          V total = V::zero();
          for (const V& s : sum) total += s;
          sink = minnow::sum(total);
        },
        threads);
  });
  return 2e-9 * static_cast<double>(V::width) * sums * rounds * threads / time;
}

void read_all(const float* x, Index count) {
  V sum[8];
  for (V& s : sum) s = V::zero();
  for (Index i = 0; i + 8 * V::width <= count; i += 8 * V::width)
    for (Index j = 0; j < 8; ++j) sum[j] += V::load(x + i + j * V::width);
  for (const V& s : sum) sink = minnow::sum(s);
}
void write_all(float* x, Index count) {
  const V value(1.0f);
  for (Index i = 0; i + V::width <= count; i += V::width) value.store(x + i);
}
void copy_all(float* y, const float* x, Index count) {
  // A product, so that no compiler makes this a call of memcpy.
  const V factor(1.0001f);
  for (Index i = 0; i + V::width <= count; i += V::width) (V::load(x + i) * factor).store(y + i);
}

Bandwidth bandwidth(const Level& level, int threads, double seconds) {
  // Half of a level: what else is there must fit, too; and of a shared one no more than a few times
  // what the level below holds, since it may serve many more cores than this program sees. Beyond
  // the last cache: four times it.
  const auto levels = memory_levels();
  const auto at = static_cast<std::size_t>(std::ranges::find(levels, level.name, &Level::name) -
                                           levels.begin());
  const double below = at > 0 ? levels[at - 1].bytes : level.bytes;
  const bool dram = level.bytes == std::numeric_limits<double>::infinity();
  const double bytes = dram           ? 4 * below / threads
                       : level.shared ? std::min(level.bytes / 2 / threads, 8 * below)
                                      : level.bytes / 2;
  const Index count = static_cast<Index>(bytes) / 4096 * 1024;
  const int rounds = static_cast<int>(std::max(1.0, 2e6 / bytes));
  const Scratch<float> memory(count * threads);
  const auto all = [&](const auto& f) {
    const double time = median_time(seconds, [&] {
      parallel_for(
          threads,
          [&](Index thread) {
            float* own = memory.data() + thread * count;
            for (int i = 0; i < rounds; ++i) {
              f(own);
              benchmark::ClobberMemory();
            }
          },
          threads);
    });
    return 1e-9 * static_cast<double>(count) * sizeof(float) * rounds * threads / time;
  };
  Bandwidth result{.level = level.name, .read = 0, .write = 0, .copy = 0, .memcpy = 0};
  result.write = all([&](float* x) { write_all(x, count); });
  result.read = all([&](float* x) { read_all(x, count); });
  const Index half = count / 2;
  result.copy = all([&](float* x) { copy_all(x + half, x, half); });
  result.memcpy = all(
      [&](float* x) { std::memcpy(x + half, x, static_cast<std::size_t>(half) * sizeof(float)); });
  return result;
}

}  // namespace

std::vector<Level> memory_levels() {
  std::vector<Level> levels;
  for (const auto& cache : benchmark::CPUInfo::Get().caches)
    if (cache.type != "Instruction")
      levels.push_back({text("L", cache.level), static_cast<double>(cache.size),
                        cache.num_sharing > 1 && cache.level > 2});
  if (levels.empty()) levels = {{"L1", 32e3, false}, {"L2", 1e6, false}, {"L3", 32e6, true}};
  levels.push_back({"DRAM", std::numeric_limits<double>::infinity(), true});
  return levels;
}

std::size_t level_of(double bytes, int threads) {
  static const auto levels = memory_levels();
  std::size_t i = 0;
  while (bytes > levels[i].bytes * (levels[i].shared ? 1 : threads)) ++i;
  return i;
}

Peak measure_peak(int threads, double seconds) {
  Peak peak{.threads = threads, .gflops = fma_rate(threads, seconds), .fork_join = 0, .levels = {}};
  constexpr int calls = 100;
  if (threads > 1)
    peak.fork_join = median_time(seconds,
                                 [&] {
                                   for (int i = 0; i < calls; ++i)
                                     parallel_for(
                                         threads, [](Index) { sink = 1; }, threads);
                                 }) /
                     calls;
  for (const Level& level : memory_levels())
    peak.levels.push_back(bandwidth(level, threads, seconds));
  return peak;
}

PlainCopy::PlainCopy(double bytes)
    : from_(Tensor<float>::ones({static_cast<Index>(bytes / 8) + V::width})), to_(from_.clone()) {}

void PlainCopy::by_loop() {
  const Index count = from_.size() / V::width * V::width;
  const bool past_caches = kernels::detail::fills_caches<float>(count);
  parallel_chunks(count / V::width, V::width, [&](Index begin, Index end) {
    const float* const from = from_.data() + begin * V::width;
    float* const to = to_.data() + begin * V::width;
    const Index size = (end - begin) * V::width;
    past_caches ? kernels::detail::stream_packs(to, from, size) : copy_all(to, from, size);
  });
}

void PlainCopy::by_memcpy() {
  parallel_chunks(from_.size(), 1, [&](Index begin, Index end) {
    std::memcpy(to_.data() + begin, from_.data() + begin,
                static_cast<std::size_t>(end - begin) * sizeof(float));
  });
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

}  // namespace bench
