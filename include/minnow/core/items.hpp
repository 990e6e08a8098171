#pragma once
/// @file
/// Loops over items that need working memory.

#include <algorithm>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"

namespace minnow::inline MINNOW_ABI {

/// Calls f(item, memory) for every item, spread over the threads; `memory` holds `size` numbers,
/// the first `zeros` of them zero to begin with, and is used by one item after the other. `cost` is
/// that of an item.
template <class T, class F>
void for_each_item(Index items, Index cost, Index size, Index zeros, const F& f) {
  const Chunks chunks = make_chunks(items, cost);
  const Index workers = worker_count(chunks);
  const Scratch<T> scratch(workers * size);
  const auto run = [&](Index chunk, Index worker) {
    T* memory = scratch.data() + worker * size;
    std::fill_n(memory, zeros, T(0));
    for (Index item = chunks.begin(chunk); item < chunks.end(chunk); ++item) f(item, memory);
  };
  parallel_for(chunks.count, run, workers);
}

}  // namespace minnow::inline MINNOW_ABI
