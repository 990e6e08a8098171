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

/// True for addresses that packs may be streamed to.
template <class T>
bool is_pack_aligned(const T* y) {
  return reinterpret_cast<std::uintptr_t>(y) % sizeof(Pack<T>) == 0;
}

/// True where a result of `size` numbers, written in stretches of `stretch`, goes past the caches:
/// if it fills them, and no line is written half this way and half the other, which takes three
/// times as long.
template <class T>
constexpr bool goes_past_caches(Index size, Index stretch) {
  return fills_caches<T>(size) && stretch % Pack<T>::width == 0;
}

/// The same for long runs that map_planes writes: of the lines that a run shares with others,
/// plainly written, there are but two.
template <class T>
constexpr bool run_goes_past_caches(Index size, Index run) {
  return goes_past_caches<T>(size, run) ||
         (fills_caches<T>(size) && run * Index{sizeof(T)} >= 8 * 1024);
}

/// True where results y that fill the caches are written in stretches that are not whole packs:
/// made in a block that stays in the first-level cache, they are then copied past the caches.
template <class T>
bool goes_through_block(const T* y, Index size, Index stretch) {
  return y && fills_caches<T>(size) && stretch % Pack<T>::width != 0 && is_pack_aligned(y);
}

/// Copies whole packs past the caches; `to` is aligned to packs.
template <class T>
void stream_packs(T* to, const T* from, Index count) {
  for (Index i = 0; i < count; i += Pack<T>::width) stream(Pack<T>::load(from + i), to + i);
}

/// Calls `f(store)`, where `store(pack, to)` writes a pack: past the caches if asked for and if
/// `y`, from which on all packs are written side by side, is aligned to packs.
template <class T, class F>
MINNOW_INLINE void with_store(bool past_caches, const T* y, const F& f) {
  if (past_caches && is_pack_aligned(y)) {
    f([](Pack<T> value, T* to) { stream(value, to); });
  } else {
    f([](Pack<T> value, T* to) { value.store(to); });
  }
}

/// The same for `count` numbers of which the first and the last line may be written elsewhere, too:
/// these two are stored plainly.
template <class T, class F>
MINNOW_INLINE void with_run_store(bool past_caches, T* y, Index count, const F& f) {
  constexpr std::uintptr_t line = 64;
  if constexpr (sizeof(Pack<T>) == line) {
    with_store(past_caches, y, f);
  } else if (past_caches && is_pack_aligned(y)) {
    const auto first = reinterpret_cast<std::uintptr_t>(y),
               last = reinterpret_cast<std::uintptr_t>(y + count);
    const std::uintptr_t begin = (first + line - 1) / line * line, end = last / line * line;
    f([begin, end](Pack<T> value, T* to) {
      const auto at = reinterpret_cast<std::uintptr_t>(to);
      const bool whole_line = begin <= at && at < end;
      whole_line ? stream(value, to) : value.store(to);
    });
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
