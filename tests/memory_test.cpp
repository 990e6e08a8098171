#include "minnow/core/memory.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <thread>
#include <vector>

using namespace minnow;

namespace {

bool aligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % memory_alignment == 0;
}

std::size_t in_use() { return memory_stats().bytes_in_use; }

}  // namespace

TEST_CASE("every buffer is aligned and as large as asked for") {
  for (const Index size : {0, 1, 3, 15, 16, 17, 64, 100, 1000, 4097, 100000}) {
    CAPTURE(size);
    const Buffer<float> floats(size);
    const Buffer<double> doubles(size);
    const Buffer<std::uint8_t> bytes(size);
    CHECK(aligned(floats.data()));
    CHECK(aligned(doubles.data()));
    CHECK(aligned(bytes.data()));
    // Written to the last byte: a sanitizer sees a block that is too small.
    std::fill_n(floats.data(), size, 1.f);
    std::fill_n(doubles.data(), size, 2.);
    std::fill_n(bytes.data(), size, std::uint8_t{3});
    for (Index i = 0; i < size; ++i) REQUIRE(floats.data()[i] == 1.f);
  }
}

TEST_CASE("a block is at most a quarter, and a cache line, larger than asked for") {
  for (std::size_t bytes = 1; bytes < 200000; bytes += 1 + bytes / 7) {
    CAPTURE(bytes);
    const std::size_t before = in_use();
    const Buffer<std::uint8_t> buffer(static_cast<Index>(bytes));
    const std::size_t block = in_use() - before;
    // 64 bytes of header, 64 of rounding.
    CHECK(block >= bytes);
    CHECK(4 * block <= 5 * (bytes + 64) + 4 * 64);
  }
}

TEST_CASE("handles share one block, which is in use until the last is gone") {
  const std::size_t before = in_use();
  {
    Buffer<float> a(1000);
    const std::size_t with = in_use();
    CHECK(with > before);
    CHECK(a.unique());
    {
      Buffer<float> b = a;
      CHECK_FALSE(a.unique());
      CHECK(a == b);
      CHECK(a.data() == b.data());
      CHECK(in_use() == with);
      Buffer<float> c = std::move(b);
      CHECK_FALSE(static_cast<bool>(b));  // NOLINT: moved-from is empty by contract
      CHECK(c == a);
      c = Buffer<float>();
      CHECK(a.unique());
      Buffer<float>& alias = a;
      a = alias;
      CHECK(a.unique());
    }
    CHECK(in_use() == with);
  }
  CHECK(in_use() == before);
}

TEST_CASE("what was given back is used again instead of asking the system") {
  const Index size = 12345;
  const float* place;
  {
    const Buffer<float> first(size);
    place = first.data();
  }
  const std::size_t system = memory_stats().system_allocations;
  for (int repeat = 0; repeat < 10; ++repeat) {
    const Buffer<float> again(size);
    CHECK(again.data() == place);
  }
  // A size of the same class finds the block too, and so does another type.
  const Buffer<double> other(size / 2 - 10);
  CHECK(static_cast<const void*>(other.data()) == place);
  CHECK(memory_stats().system_allocations == system);
  // It is taken, so a second one needs memory of its own.
  const Buffer<float> second(size);
  CHECK(memory_stats().system_allocations == system + 1);
}

TEST_CASE("changing sizes allocate nothing once all of them were seen") {
  const auto run = [] {
    for (Index size = 1; size < 5000; size += 37) {
      const Scratch<float> a(size), b(2 * size);
      a.data()[size - 1] = b.data()[2 * size - 1] = 0;
    }
  };
  run();
  const MemoryStats before = memory_stats();
  run();
  CHECK(memory_stats().system_allocations == before.system_allocations);
  CHECK(memory_stats().bytes_reserved == before.bytes_reserved);
  CHECK(memory_stats().bytes_in_use == before.bytes_in_use);
}

TEST_CASE("waiting blocks go back to the system on request, those in use stay") {
  const Buffer<float> kept(500);
  kept.data()[499] = 7;
  { const Buffer<float> waiting(70000); }
  CHECK(memory_stats().bytes_reserved > memory_stats().bytes_in_use);
  release_cached_memory();
  CHECK(memory_stats().bytes_reserved == memory_stats().bytes_in_use);
  CHECK(kept.data()[499] == 7);
  const std::size_t system = memory_stats().system_allocations;
  { const Buffer<float> again(70000); }
  CHECK(memory_stats().system_allocations == system + 1);
}

TEST_CASE("the peak is the most that was in use at once since its reset") {
  reset_peak_memory();
  const std::size_t base = in_use();
  CHECK(memory_stats().peak_bytes_in_use == base);
  std::size_t with_both = 0;
  {
    const Buffer<float> a(10000), b(20000);
    with_both = in_use();
  }
  { const Buffer<float> c(10000); }
  CHECK(memory_stats().peak_bytes_in_use == with_both);
  reset_peak_memory();
  CHECK(memory_stats().peak_bytes_in_use == base);
}

TEST_CASE("threads may take and give back at the same time") {
  const std::size_t before = in_use();
  std::vector<std::thread> threads;
  std::vector<int> errors(4);
  for (std::size_t t = 0; t < errors.size(); ++t)
    threads.emplace_back([t, &errors] {
      const auto mine = static_cast<double>(t);
      for (Index repeat = 0; repeat < 500; ++repeat) {
        const Buffer<double> a(50 + repeat % 7);
        std::fill_n(a.data(), 50, mine);
        const Buffer<double> copy = a, b(300);
        b.data()[0] = -1;
        for (Index i = 0; i < 50; ++i) errors[t] += copy.data()[i] != mine;
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const int count : errors) CHECK(count == 0);
  CHECK(in_use() == before);
}
