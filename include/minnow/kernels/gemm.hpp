#pragma once
/// @file
/// Matrix products.

#include <algorithm>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/kernels/tile.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

/// Terms of a sum that are computed in one go: this much of a packed panel of b stays in the
/// first-level cache while every row of a passes over it.
template <class T>
inline constexpr Index gemm_depth = 32768 / (tile_cols<T> * Index{sizeof(T)});

/// Packs rows [row, row + height) of op(a) as [k][height].
template <class T>
void pack_a(T* out, const T* a, Index m, Index k, Index row, Index height, bool transposed) {
  for (Index r = 0; r < k; ++r)
    for (Index i = 0; i < height; ++i)
      *out++ = transposed ? a[r * m + row + i] : a[(row + i) * k + r];
}

/// Packs columns [col, col + tile_cols) of op(b) as [k][tile_cols]; missing columns become zero.
template <class T>
void pack_b(T* out, const T* b, Index n, Index k, Index col, bool transposed) {
  constexpr Index width = tile_cols<T>;
  const Index cols = std::min(width, n - col);
  if (!transposed) {
    for (Index r = 0; r < k; ++r, out += width) {
      std::copy_n(b + r * n + col, cols, out);
      std::fill(out + cols, out + width, T(0));
    }
    return;
  }
  // Square blocks are transposed in registers: reading a column of b number by number would be most
  // of the time of a product with few rows.
  constexpr Index w = Pack<T>::width;
  for (Index j = 0; j < width; j += w) {
    Index r = 0;
    if (col + j + w <= n) {
      for (; r + w <= k; r += w) {
        Pack<T> block[w];
        for (Index i = 0; i < w; ++i) block[i] = Pack<T>::load(b + (col + j + i) * k + r);
        transpose(block);
        for (Index i = 0; i < w; ++i) block[i].store(out + (r + i) * width + j);
      }
    }
    for (; r < k; ++r)
      for (Index i = j; i < j + w; ++i)
        out[r * width + i] = col + i < n ? b[(col + i) * k + r] : T(0);
  }
}

/// sum_r a[r] * b[r], in lane-wise partial sums.
template <class T>
T dot(const T* a, const T* b, Index k) {
  using V = Pack<T>;
  constexpr Index w = V::width;
  V sums[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  Index r = 0;
  for (; r + 4 * w <= k; r += 4 * w)
    for (Index u = 0; u < 4; ++u)
      sums[u] = fma(V::load(a + r + u * w), V::load(b + r + u * w), sums[u]);
  for (; r + w <= k; r += w) sums[0] = fma(V::load(a + r), V::load(b + r), sums[0]);
  if (r < k) sums[1] = fma(V::load(a + r, k - r), V::load(b + r, k - r), sums[1]);
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/// out[j] = sum_r vector[r] * matrix[r, j] or, transposed, sum_r vector[r] * matrix[j, r]: the
/// matrix is read once, as it lies.
template <class T>
void vector_times_matrix(T* out, const T* vector, const T* matrix, Index n, Index k,
                         bool transposed) {
  if (transposed)
    return parallel_chunks(n, k, [&](Index begin, Index end) {
      for (Index j = begin; j < end; ++j) out[j] = dot(vector, matrix + j * k, k);
    });
  using V = Pack<T>;
  // Columns side by side, as many as there are registers for: memory is read in long stretches.
  constexpr Index side = 8, block = side * V::width;
  parallel_chunks((n + block - 1) / block, k * block, [&](Index begin, Index end) {
    for (Index j = begin * block; j < std::min(n, end * block); j += V::width) {
      const Index cols = std::min(V::width, n - j);
      if (j + block <= std::min(n, end * block)) {
        V sums[side];
        MINNOW_UNROLL
        for (Index u = 0; u < side; ++u) sums[u] = V::zero();
        for (Index r = 0; r < k; ++r) {
          MINNOW_UNROLL
          for (Index u = 0; u < side; ++u)
            sums[u] = fma(V(vector[r]), V::load(matrix + r * n + j + u * V::width), sums[u]);
        }
        MINNOW_UNROLL
        for (Index u = 0; u < side; ++u) sums[u].store(out + j + u * V::width);
        j += block - V::width;
      } else if (cols == V::width) {
        V sums = V::zero();
        for (Index r = 0; r < k; ++r) sums = fma(V(vector[r]), V::load(matrix + r * n + j), sums);
        sums.store(out + j);
      } else {
        V sums = V::zero();
        for (Index r = 0; r < k; ++r)
          sums = fma(V(vector[r]), V::load(matrix + r * n + j, cols), sums);
        sums.store(out + j, cols);
      }
    }
  });
}

/// c[i, j] = a[i] * b[j].
template <class T>
void outer_product(T* c, const T* a, const T* b, Index m, Index n) {
  parallel_chunks(m, n, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const T factor = a[i];
      T* row = c + i * n;
      MINNOW_SIMD
      for (Index j = 0; j < n; ++j) row[j] = factor * b[j];
    }
  });
}

}  // namespace detail

/// Matrix product.
///
///   c[i, j] = sum_r op(a)[i, r] * op(b)[r, j]
///
/// Shapes    c [m, n]; op(a) [m, k], stored [k, m] if `transpose_a`; op(b) [k, n], stored [n, k] if
///           `transpose_b`; all row-major and packed
/// Writes    every element of c, which must not overlap a or b; k = 0 gives zeros
/// Numerics  sums run over r in order within blocks of `gemm_depth`, in T
/// Parallel  over blocks of c; the same bits for any number of threads
/// Method    both operands are packed into panels, blocks of 8 rows by 3 packs stay in registers
///           (Goto, van de Geijn, "Anatomy of high-performance matrix multiplication", TOMS 2008)
template <class T>
void gemm(T* c, const T* a, const T* b, Index m, Index n, Index k, bool transpose_a = false,
          bool transpose_b = false) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    std::fill_n(c, m * n, T(0));
    return;
  }
  if (m == 1) return detail::vector_times_matrix(c, a, b, n, k, transpose_b);
  if (n == 1) return detail::vector_times_matrix(c, b, a, m, k, !transpose_a);
  if (k == 1) return detail::outer_product(c, a, b, m, n);

  constexpr Index width = tile_cols<T>;
  constexpr Index depth = detail::gemm_depth<T>;
  const TileRows rows{m};
  const Index panels = (n + width - 1) / width;
  const Scratch<T> a_packed(m * k), b_packed(panels * width * k);
  // A tile of height h that begins at row i lies at i * k: tiles follow each other without gaps.
  parallel_chunks(rows.count, tile_rows * k, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      detail::pack_a(a_packed.data() + rows.begin(t) * k, a, m, k, rows.begin(t), rows.height(t),
                     transpose_a);
  });
  parallel_chunks(panels, width * k, [&](Index begin, Index end) {
    for (Index p = begin; p < end; ++p)
      detail::pack_b(b_packed.data() + p * width * k, b, n, k, p * width, transpose_b);
  });

  Index offset[depth];
  for (Index r = 0; r < depth; ++r) offset[r] = r * width;

  // A block of c is 16 tiles high and 3 panels wide: its part of a stays in the second-level cache.
  constexpr Index block_tiles = 16, block_panels = 3;
  const Index high = (rows.count + block_tiles - 1) / block_tiles;
  const Index wide = (panels + block_panels - 1) / block_panels;
  parallel_for(high * wide, [&](Index block) {
    const Index first_tile = block / wide * block_tiles, first_panel = block % wide * block_panels;
    const Index last_tile = std::min(rows.count, first_tile + block_tiles);
    const Index last_panel = std::min(panels, first_panel + block_panels);
    for (Index r = 0; r < k; r += depth)
      for (Index p = first_panel; p < last_panel; ++p)
        for (Index t = first_tile; t < last_tile; ++t)
          tile_row(c + rows.begin(t) * n + p * width, n,
                   a_packed.data() + rows.begin(t) * k + r * rows.height(t),
                   b_packed.data() + (p * k + r) * width, offset, std::min(depth, k - r),
                   rows.height(t), std::min(width, n - p * width), {.accumulate = r > 0});
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
