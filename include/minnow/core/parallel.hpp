#pragma once
/// @file
/// Loops over threads whose results do not depend on how many threads there are. The only door to
/// OpenMP; without OpenMP every loop runs on the calling thread.

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <type_traits>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "minnow/core/config.hpp"

namespace minnow::inline MINNOW_ABI {

namespace detail {

inline std::atomic<int>& requested_threads() {
  static std::atomic<int> threads = [] {
    const char* text = std::getenv("MINNOW_NUM_THREADS");
    return text ? std::max(0, std::atoi(text)) : 0;
  }();
  return threads;
}

}  // namespace detail

/// How many threads a loop may use: what `set_num_threads` or MINNOW_NUM_THREADS (a number above
/// 0; anything else counts as unset) asked for, else what OpenMP would use (OMP_NUM_THREADS, or the
/// number of cores). Never changes OpenMP's settings.
inline int num_threads() {
#if defined(_OPENMP)
  const int requested = detail::requested_threads().load(std::memory_order_relaxed);
  return requested > 0 ? requested : omp_get_max_threads();
#else
  return 1;
#endif
}

namespace detail {

inline int& serial_scopes() {
  thread_local int scopes = 0;
  return scopes;
}

}  // namespace detail

/// While an object of this class lives, loops that this thread starts stay on it. For a thread that
/// works beside the ones that train, and must not start a second team of them.
class SerialScope {
 public:
  SerialScope() { ++detail::serial_scopes(); }
  ~SerialScope() { --detail::serial_scopes(); }
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;
};

/// Sets the number of threads for the whole process; 0 goes back to OpenMP's choice.
inline void set_num_threads(int threads) { detail::requested_threads() = std::max(0, threads); }

/// How many threads a `parallel_for` over `count` would use now: the number of scratch buffers it
/// needs.
inline Index worker_count([[maybe_unused]] Index count) {
#if defined(_OPENMP)
  if (detail::serial_scopes() == 0 && !omp_in_parallel())
    return std::clamp<Index>(num_threads(), 1, std::max<Index>(1, count));
#endif
  return 1;
}

namespace detail {

/// Runs a part of a loop: its body is called for every i in [begin, end).
using LoopPart = void (*)(const void* body, Index begin, Index end, Index worker);

/// What was written past the caches is in order before what is written after. Ordinary stores need
/// no such thing, and synchronisation orders only those.
inline void stream_fence() {
#if defined(__GNUC__) && defined(__SSE2__)
  __builtin_ia32_sfence();
#endif
}

/// The one parallel region of the library. Not inlined, so that the compiler sees each loop's body
/// once: that halves the time to compile them.
MINNOW_NOINLINE inline void run_loop(LoopPart part, const void* body, Index count,
                                     [[maybe_unused]] Index workers) {
#if defined(_OPENMP)
  if (workers > 1) {
#pragma omp parallel num_threads(static_cast <int>(workers))
    {
      const Index worker = omp_get_thread_num(), team = omp_get_num_threads();
      part(body, count * worker / team, count * (worker + 1) / team, worker);
      stream_fence();
    }
    return;
  }
#endif
  part(body, 0, count, 0);
  stream_fence();
}

template <bool reversed, class Body>
void parallel_loop(Index count, const Body& body, Index workers) {
  run_loop(
      [](const void* loop_body, Index begin, Index end, [[maybe_unused]] Index worker) {
        const Body& call = *static_cast<const Body*>(loop_body);
        for (Index step = begin; step < end; ++step) {
          const Index i = reversed ? begin + end - 1 - step : step;
          if constexpr (std::is_invocable_v<const Body&, Index, Index>)
            call(i, worker);
          else
            call(i);
        }
      },
      &body, count, workers);
}

}  // namespace detail

/// Calls `body(i)`, or `body(i, worker)`, for every i in [0, count), spread over `workers` threads.
///
/// `body` must not throw, and what it writes for one i must not depend on another; then the result
/// is the same for any number of threads. Partial sums go to a place of their own per i and are
/// combined afterwards in the order of i; `worker` < workers is for choosing scratch memory only.
/// Inside a parallel region of the caller the loop runs serially.
template <class Body>
void parallel_for(Index count, const Body& body, Index workers) {
  detail::parallel_loop<false>(count, body, workers);
}
template <class Body>
void parallel_for(Index count, const Body& body) {
  parallel_for(count, body, worker_count(count));
}

/// `items` things cut into `count` pieces of `size` (the last may be shorter). The cut is a
/// function of the problem's size alone, never of the number of threads.
struct Chunks {
  Index items, size, count;
  bool brief = false;  ///< all of it takes less time than to wake other threads

  Index begin(Index chunk) const { return chunk * size; }
  Index end(Index chunk) const { return std::min(items, (chunk + 1) * size); }
};

/// Cuts `items`, each worth `cost` elementary operations, into at most `most` chunks that are large
/// enough to be worth a thread's attention.
inline Chunks make_chunks(Index items, Index cost, Index most = 64) {
  constexpr Index worthwhile = 8192, worth_waking = 4 * worthwhile;
  const Index per_item = std::max<Index>(1, cost),
              least_items = std::max<Index>(1, worthwhile / per_item);
  const Index size = std::max({Index{1}, least_items, (items + most - 1) / most});
  return {items, size, (items + size - 1) / size, items <= (worth_waking - 1) / per_item};
}

/// How many threads a loop over those chunks uses now.
inline Index worker_count(const Chunks& chunks) {
  return chunks.brief ? 1 : worker_count(chunks.count);
}

/// Calls `body(chunk)` for the number of every chunk, spread over the threads.
template <class Body>
void parallel_for(const Chunks& chunks, const Body& body) {
  parallel_for(chunks.count, body, worker_count(chunks));
}

/// Calls `body(begin, end)` for every chunk of [0, items), spread over the threads.
template <class Body>
void parallel_chunks(Index items, Index cost, const Body& body) {
  const Chunks chunks = make_chunks(items, cost);
  parallel_for(chunks, [&](Index i) { body(chunks.begin(i), chunks.end(i)); });
}

/// The same, by each thread from its last chunk to its first: for a second pass over what does not
/// fit its caches, which begins with what the first pass left there.
template <class Body>
void parallel_chunks_reversed(Index items, Index cost, const Body& body) {
  const Chunks chunks = make_chunks(items, cost);
  const auto chunk = [&](Index i) { body(chunks.begin(i), chunks.end(i)); };
  detail::parallel_loop<true>(chunks.count, chunk, worker_count(chunks));
}

/// Calls `body(begin, end)` for one range of [0, items) on each of `workers` threads: for bodies
/// that prepare something first, which then need not come from another core. The cut depends on
/// the number of threads, so what is written for an item must not depend on it.
template <class Body>
void parallel_ranges(Index items, Index workers, const Body& body) {
  const auto range = [&](Index i) { body(items * i / workers, items * (i + 1) / workers); };
  parallel_for(workers, range, workers);
}

}  // namespace minnow::inline MINNOW_ABI
