#pragma once
/// @file
/// Aligned memory that is kept for the next request of about the same size.

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>

#include "minnow/core/config.hpp"

namespace minnow::inline MINNOW_ABI {

/// Every tensor and scratch buffer starts at a multiple of this, whatever the compiler flags.
inline constexpr std::size_t memory_alignment = 64;

/// What the pool has done since the program's start, in calls and bytes.
struct MemoryStats {
  std::size_t system_allocations = 0;  ///< requests that went to the system
  std::size_t bytes_reserved = 0;      ///< held from the system, in use or waiting
  std::size_t bytes_in_use = 0;        ///< held by tensors and scratch buffers
  std::size_t peak_bytes_in_use = 0;
};

namespace detail {

/// Free blocks in one list per size class. Classes are four to a power of two, so a block is at
/// most a quarter larger than asked for, or than the alignment, and a changing batch size finds its
/// blocks again.
class MemoryPool {
 public:
  static MemoryPool& instance() {
    // Never destroyed: tensors in static variables may outlive any static object of ours.
    static MemoryPool& pool = *new MemoryPool;
    return pool;
  }

  /// Memory for at least `bytes`; where the system has none left, what waits here is given back to
  /// it first. Errors: std::bad_alloc. `size_class` must be given back to `release`.
  MINNOW_NOINLINE void* acquire(std::size_t bytes, std::uint32_t& size_class) {
    size_class = class_of(bytes);
    const std::size_t size = class_bytes(size_class);
    const std::lock_guard lock(mutex_);
    void* block = free_[size_class];
    if (block) {
      free_[size_class] = next(block);
    } else {
      block = ::operator new (size, std::align_val_t{memory_alignment}, std::nothrow);
      if (!block) {
        release_waiting();
        block = ::operator new (size, std::align_val_t{memory_alignment});
      }
      ++stats_.system_allocations;
      stats_.bytes_reserved += size;
    }
    stats_.bytes_in_use += size;
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    return block;
  }

  MINNOW_NOINLINE void release(void* block, std::uint32_t size_class) {
    const std::lock_guard lock(mutex_);
    stats_.bytes_in_use -= class_bytes(size_class);
    next(block) = free_[size_class];
    free_[size_class] = block;
  }

  /// Gives the waiting blocks back to the system.
  void trim() {
    const std::lock_guard lock(mutex_);
    release_waiting();
  }

  MemoryStats stats() {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    const std::lock_guard lock(mutex_);
    stats_.peak_bytes_in_use = stats_.bytes_in_use;
  }

 private:
  static constexpr std::uint32_t classes = 240;

  void release_waiting() {
    for (std::uint32_t size_class = 0; size_class < classes; ++size_class) {
      while (void* block = free_[size_class]) {
        free_[size_class] = next(block);
        stats_.bytes_reserved -= class_bytes(size_class);
        ::operator delete (block, std::align_val_t{memory_alignment});
      }
    }
  }

  static void*& next(void* block) { return *static_cast<void**>(block); }

  // Class 4e + q holds blocks of (4 + q) * 2^e * 16 bytes: 64, 80, 96, 112, 128, 160, ...
  // rounded up to the alignment by `class_bytes`.
  static std::uint32_t class_of(std::size_t bytes) {
    const std::size_t units = (std::max<std::size_t>(bytes, 64) + 15) / 16;
    const auto exponent = static_cast<std::uint32_t>(std::bit_width(units)) - 3;
    const std::size_t quarters = (units + (std::size_t{1} << exponent) - 1) >> exponent;
    return 4 * exponent + static_cast<std::uint32_t>(quarters) - 4;
  }
  static std::size_t class_bytes(std::uint32_t size_class) {
    const std::size_t bytes = (std::size_t{4} + size_class % 4) << (size_class / 4 + 4);
    return (bytes + memory_alignment - 1) & ~(memory_alignment - 1);
  }

  std::mutex mutex_;
  std::array<void*, classes> free_{};
  MemoryStats stats_;
};

}  // namespace detail

inline MemoryStats memory_stats() { return detail::MemoryPool::instance().stats(); }
inline void reset_peak_memory() { detail::MemoryPool::instance().reset_peak(); }
/// Gives memory that no tensor uses back to the system.
inline void release_cached_memory() { detail::MemoryPool::instance().trim(); }

/// A counted handle to `size` elements of pooled memory. Contents start uninitialised.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>, "tensors hold plain numbers");

 public:
  Buffer() = default;
  explicit Buffer(Index size) {
    std::uint32_t size_class = 0;
    void* block = detail::MemoryPool::instance().acquire(
        sizeof(Header) + static_cast<std::size_t>(size) * sizeof(T), size_class);
    header_ = new (block) Header{{1}, size_class};
  }
  Buffer(const Buffer& other) : header_(other.header_) {
    if (header_) header_->owners.fetch_add(1, std::memory_order_relaxed);
  }
  Buffer(Buffer&& other) noexcept : header_(std::exchange(other.header_, nullptr)) {}
  Buffer& operator=(Buffer other) noexcept {
    std::swap(header_, other.header_);
    return *this;
  }
  ~Buffer() {
    if (header_ && header_->owners.fetch_sub(1, std::memory_order_acq_rel) == 1)
      detail::MemoryPool::instance().release(header_, header_->size_class);
  }

  explicit operator bool() const { return header_ != nullptr; }
  T* data() const { return reinterpret_cast<T*>(header_ + 1); }
  /// True if no other handle shares this memory.
  bool unique() const { return header_ && header_->owners.load(std::memory_order_acquire) == 1; }
  friend bool operator==(const Buffer& a, const Buffer& b) { return a.header_ == b.header_; }

 private:
  struct alignas(memory_alignment) Header {
    std::atomic<std::uint32_t> owners;
    std::uint32_t size_class;
  };

  Header* header_ = nullptr;
};

/// Working memory of a kernel, given back to the pool at the end of the scope. None for a size of 0.
template <class T>
class Scratch {
 public:
  explicit Scratch(Index size) : buffer_(size > 0 ? Buffer<T>(size) : Buffer<T>()) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return buffer_ ? buffer_.data() : nullptr; }

 private:
  Buffer<T> buffer_;
};

}  // namespace minnow::inline MINNOW_ABI
