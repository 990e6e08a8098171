#pragma once
/// @file
/// One function applied to every element of one or several arrays.

#include "minnow/core/parallel.hpp"
#include "minnow/core/simd.hpp"
#include "minnow/kernels/nest.hpp"
#include "minnow/kernels/streaming.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

template <bool dense, class T, class... Tail>
MINNOW_INLINE Pack<T> load(const T* x, Index stride, Index i, Tail... count) {
  if constexpr (!dense)
    if (stride == 0) return Pack<T>(*x);
  return Pack<T>::load(x + i, count...);
}

/// y[i] = f(x[i * stride]...) for i in [0, size); strides are 1 or, unless `dense`, 0.
template <bool dense, class F, class T, std::size_t... k>
void map_row(const F& f, T* y, const std::array<const T*, sizeof...(k)>& x,
             const std::array<Index, sizeof...(k)>& strides, Index size, bool past_caches,
             std::index_sequence<k...>) {
  constexpr Index width = Pack<T>::width;
  Index i = 0;
  with_store(past_caches, y, [&](const auto& store) {
    for (; i + width <= size; i += width) store(f(load<dense>(x[k], strides[k], i)...), y + i);
  });
  if (i < size) f(load<dense>(x[k], strides[k], i, size - i)...).store(y + i, size - i);
}

}  // namespace detail

/// y = f(x...), element by element, for a function of packs.
///
///     y[i] = f(x[i]...)        i in [0, size)
///
/// Writes y, which may be one of the x. Parallel over chunks of elements, each worth `cost`.
template <class F, class T, class... X>
void map(const F& f, T* y, Index size, Index cost, const X*... x) {
  using Sequence = std::index_sequence_for<X...>;
  parallel_chunks(size, cost, [&](Index begin, Index end) {
    detail::map_row<true>(f, y + begin, {(x + begin)...}, {}, end - begin,
                          detail::goes_past_caches<T>(size, Pack<T>::width), Sequence{});
  });
}

/// The same over a nest from `broadcast_nest`: y is dense, each x moves by its strides of the nest.
/// An x that is repeated must not be y.
template <class F, class T, class... X>
void map(const F& f, T* y, const Nest<sizeof...(X)>& nest, Index cost, const X*... x) {
  using Sequence = std::index_sequence_for<X...>;
  parallel_chunks(nest.size(), cost, [&](Index begin, Index end) {
    nest.walk(begin, end, [&](Index position, const auto& offsets, Index count) {
      std::array<const T*, sizeof...(X)> from{x...};
      for (std::size_t k = 0; k < from.size(); ++k) from[k] += offsets[k];
      detail::map_row<false>(f, y + position, from, nest.strides(), count, false, Sequence{});
    });
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
