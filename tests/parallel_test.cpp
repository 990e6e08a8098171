#include "minnow/core/parallel.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "threads.hpp"

using namespace minnow;
using minnow_test::Threads;

TEST_CASE("a parallel loop calls its body once for each number, with any number of threads") {
  for (const int threads : {1, 2, 3, 4}) {
    const Threads scope(threads);
    for (const Index count : {0, 1, 2, 3, 100}) {
      std::vector<int> calls(static_cast<std::size_t>(count));
      parallel_for(count, [&](Index i) { ++calls[static_cast<std::size_t>(i)]; });
      for (const int call : calls) CHECK(call == 1);
    }
  }
}

TEST_CASE("a loop's workers are numbered, and no two threads share a number") {
  const Threads scope(4);
  const Index workers = worker_count(100);
  std::vector<std::set<std::thread::id>> threads_of(static_cast<std::size_t>(workers));
  std::mutex mutex;
  parallel_for(
      100,
      [&](Index, Index worker) {
        const std::lock_guard lock(mutex);
        threads_of.at(static_cast<std::size_t>(worker)).insert(std::this_thread::get_id());
      },
      workers);
  std::set<std::thread::id> all;
  for (const auto& threads : threads_of) {
    CHECK(threads.size() <= 1);
    for (const auto id : threads) CHECK(all.insert(id).second);
  }
#if defined(_OPENMP)
  CHECK(workers == 4);
  CHECK(all.size() == 4);
#else
  CHECK(workers == 1);
#endif
}

TEST_CASE("the number of threads is what was asked for, and never more than there is to do") {
  const int before = num_threads();
  CHECK(before >= 1);
  set_num_threads(3);
#if defined(_OPENMP)
  CHECK(num_threads() == 3);
  CHECK(worker_count(100) == 3);
  CHECK(worker_count(2) == 2);
  // OpenMP's own setting is not touched.
  CHECK(omp_get_max_threads() == before);
#else
  CHECK(num_threads() == 1);
#endif
  CHECK(worker_count(0) == 1);
  set_num_threads(0);
  CHECK(num_threads() == before);
  set_num_threads(-5);
  CHECK(num_threads() == before);
}

TEST_CASE("a loop within a loop stays on its thread") {
  const Threads scope(4);
  std::vector<int> strangers(8);
  parallel_for(8, [&](Index i) {
    const auto self = std::this_thread::get_id();
    if (num_threads() > 1) CHECK(worker_count(10) == 1);
    parallel_for(10, [&](Index) {
      strangers[static_cast<std::size_t>(i)] += std::this_thread::get_id() != self;
    });
  });
  for (const int count : strangers) CHECK(count == 0);
}

TEST_CASE("in a serial scope loops stay on the calling thread") {
  const Threads scope(4);
  {
    const SerialScope serial;
    {
      const SerialScope inner;
      CHECK(worker_count(100) == 1);
    }
    CHECK(worker_count(100) == 1);
    const auto self = std::this_thread::get_id();
    int strangers = 0;
    parallel_for(100, [&](Index) { strangers += std::this_thread::get_id() != self; });
    CHECK(strangers == 0);
    // Another thread is not affected.
    std::thread([] { CHECK(worker_count(100) == num_threads()); }).join();
  }
  CHECK(worker_count(100) == num_threads());
}

TEST_CASE("chunks cover everything once, are large enough, and do not depend on the threads") {
  for (const Index items : {0, 1, 2, 63, 64, 65, 1000, 100000, 12345678})
    for (const Index cost : {0, 1, 10, 8192, 1000000})
      for (const Index most : {1, 7, 64}) {
        CAPTURE(items);
        CAPTURE(cost);
        CAPTURE(most);
        Chunks chunks{};
        {
          const Threads scope(1);
          chunks = make_chunks(items, cost, most);
        }
        const Threads scope(4);
        const Chunks again = make_chunks(items, cost, most);
        CHECK(again.size == chunks.size);
        CHECK(again.count == chunks.count);
        CHECK(chunks.items == items);
        CHECK(chunks.count <= most);
        Index covered = 0;
        for (Index i = 0; i < chunks.count; ++i) {
          REQUIRE(chunks.begin(i) == covered);
          REQUIRE(chunks.end(i) > chunks.begin(i));
          covered = chunks.end(i);
          if (i + 1 < chunks.count) REQUIRE((chunks.end(i) - chunks.begin(i)) * (cost + 1) >= 8192);
        }
        CHECK(covered == items);
      }
}

TEST_CASE(
    "loops over chunks see each item once, reversed ones from the end of each thread's share") {
  const Threads scope(4);
  for (const Index items : {0, 1, 100, 100003}) {
    std::vector<int> seen(static_cast<std::size_t>(items));
    const auto see = [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
    };
    parallel_chunks(items, 100, see);
    for (const int count : seen) REQUIRE(count == 1);
    parallel_chunks_reversed(items, 100, see);
    for (const int count : seen) REQUIRE(count == 2);
  }
  set_num_threads(1);
  Index rest = 100003;
  parallel_chunks_reversed(rest, 100, [&](Index begin, Index end) {
    REQUIRE(end == rest);
    rest = begin;
  });
  CHECK(rest == 0);
}

TEST_CASE("no threads are woken for little work, and the cut of the work is the same") {
  const Threads scope(4);
  const Chunks little = make_chunks(32, 1000), more = make_chunks(33, 1000);
  CHECK(little.count == 4);
  CHECK(worker_count(little) == 1);
  CHECK(worker_count(more) == worker_count(more.count));
  CHECK(worker_count(make_chunks(32767, 0)) == 1);
  CHECK(worker_count(make_chunks(1, Index{1} << 40)) == 1);
  CHECK(worker_count(make_chunks(Index{1} << 40, Index{1} << 20)) == num_threads());
  std::vector<int> seen(static_cast<std::size_t>(more.count));
  parallel_for(more, [&](Index chunk) { ++seen[static_cast<std::size_t>(chunk)]; });
  for (const int count : seen) CHECK(count == 1);
}

TEST_CASE("ranges cover everything once, one for each thread") {
  const Threads scope(4);
  for (const Index items : {0, 1, 3, 4, 1001})
    for (const Index workers : {1, 2, 3, 4}) {
      std::vector<int> seen(static_cast<std::size_t>(items));
      std::atomic<Index> ranges = 0;
      parallel_ranges(items, workers, [&](Index begin, Index end) {
        ++ranges;
        for (Index i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      CHECK(ranges == workers);
      for (const int count : seen) REQUIRE(count == 1);
    }
}
