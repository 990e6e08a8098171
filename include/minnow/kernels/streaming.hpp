#pragma once
/// @file
/// Writing past the caches, and to lines that were fetched before. A plain store first fetches the
/// line that it changes: of a result that is larger than the caches, so that nobody finds it there,
/// that is a third of all traffic.

#include <cstdint>

#include "minnow/core/simd.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// True where so many numbers take at least half of a common last-level cache.
template <class T>
constexpr bool fills_caches(Index size) {
  return size * Index{sizeof(T)} >= Index{16} << 20;
}

/// True where a result of `size` numbers, written in stretches of `stretch`, goes past the caches:
/// if it fills them, and no line is written half this way and half the other, which takes three
/// times as long.
template <class T>
constexpr bool goes_past_caches(Index size, Index stretch) {
  return fills_caches<T>(size) && stretch % Pack<T>::width == 0;
}

/// Calls `f(store)`, where `store(pack, to)` writes a pack: past the caches if asked for and if
/// `y`, from which on all packs are written side by side, is aligned to packs.
template <class T, class F>
MINNOW_INLINE void with_store(bool past_caches, const T* y, const F& f) {
  if (past_caches && reinterpret_cast<std::uintptr_t>(y) % sizeof(Pack<T>) == 0) {
    f([](Pack<T> value, T* to) { stream(value, to); });
  } else {
    f([](Pack<T> value, T* to) { value.store(to); });
  }
}

/// Asks for the lines of `count` numbers that will be written soon.
template <class T>
MINNOW_INLINE void prefetch_to_write(const T* to, Index count) {
  for (Index i = 0; i < count; i += Index{64 / sizeof(T)}) __builtin_prefetch(to + i, 1);
  if (count > 0) __builtin_prefetch(to + count - 1, 1);
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
