#pragma once
/// @file
/// Normalisation of rows of one to eight packs (row_packs.hpp) and its gradients, a block of rows
/// at a time: as many rows as a pack has lanes are added up, and have their roots taken, together.
///
/// What a loop needs stands in local variables: beside the stores of packs, which may go anywhere
/// as far as the compiler can tell, all else would be read again for each row.

#include <algorithm>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/kernels/reduce.hpp"
#include "minnow/kernels/row_norm.hpp"
#include "minnow/kernels/row_packs.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// normalize_row_by_row for whole groups of rows, RowPacks::most_rows at most; false, with nothing
/// written, where a square has overflown. Each step is taken for all rows before the next: it waits
/// for the one before it.
template <bool centered, int packs, class T>
bool normalize_packed_rows(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                           const RowPacks<T, packs> shape, Index rows, T eps,
                           bool past_caches = false) {
  using V = Pack<T>;
  using Rows = RowPacks<T, packs>;
  constexpr Index W = V::width;
  const Index cols = shape.cols;
  const V per_col(T(1) / static_cast<T>(cols));
  // The means are center + rest: the digits that T cannot hold.
  typename Rows::Values center, rest, squares, scale, shift;
  if constexpr (centered) {
    typename Rows::Values pivot, sum;
    for (Index r = 0; r < rows; ++r) pivot[r] = x[r * cols];
    shape.sum_rows(sum, x, rows, [&](Index r, V value) { return value - V(x[r * cols]); });
    for (Index r = 0; r < rows; r += W) {
      const V p = V::load(pivot + r), mean_distance = V::load(sum + r) * per_col,
              c = p + mean_distance;
      c.store(center + r);
      (mean_distance - (c - p)).store(rest + r);
    }
  }
  shape.sum_rows(squares, x, rows, [&](Index r, V value) {
    const V d = centered ? value - V(center[r]) : value;
    return d * d;
  });
  V overflow = V::zero();
  for (Index r = 0; r < rows; r += W) {
    const V sum = V::load(squares + r), digits = centered ? V::load(rest + r) : V::zero();
    const V deviation = V(T(1)) / sqrt(max(sum * per_col - digits * digits, V::zero()) + V(eps));
    deviation.store(scale + r);
    (-(digits * deviation)).store(shift + r);
    overflow += sum - sum;
  }
  if (!(sum(overflow) == 0)) [[unlikely]]
    return false;
  V gammas[packs], betas[packs];
  shape.load(gammas, gamma, T(1));
  shape.load(betas, beta, T(0));
  with_store(past_caches, y, [&](const auto& store) {
    for (Index r = 0; r < rows; ++r) {
      const V c(centered ? center[r] : T(0)), a(scale[r]), b(centered ? shift[r] : T(0));
      V v[packs];
      MINNOW_UNROLL
      for (int p = 0; p < packs; ++p) {
        v[p] = V::load(x + r * cols + shape.at(p));
        __builtin_prefetch(x + (rows + r) * cols + shape.at(p), 0, 2);  // of the next block
      }
      MINNOW_UNROLL
      for (int p = 0; p < packs; ++p)
        store(fma(centered ? fma(v[p] - c, a, b) : v[p] * a, gammas[p], betas[p]),
              y + r * cols + shape.at(p));
    }
  });
  if constexpr (centered) std::copy_n(center, rows, mean);
  std::copy_n(scale, rows, rstd);
  return true;
}

/// normalize_packed_rows for fewer rows than a group: filled up to one, so that a row's bits do not
/// depend on the others.
template <bool centered, int packs, class T>
bool normalize_last_rows(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                         const RowPacks<T, packs>& shape, Index rows, T eps) {
  using Rows = RowPacks<T, packs>;
  alignas(memory_alignment) typename Rows::Group padded;
  typename Rows::Values padded_mean{}, padded_rstd;
  const Index count = rows * shape.cols;
  pad(padded, x, count, Rows::W * shape.cols);
  if (!normalize_packed_rows<centered, packs, T>(padded, padded_mean, padded_rstd, padded, gamma,
                                                 beta, shape, Rows::W, eps))
    return false;
  std::copy_n(padded, count, y);
  if constexpr (centered) std::copy_n(padded_mean, rows, mean);
  std::copy_n(padded_rstd, rows, rstd);
  return true;
}

/// normalize_row_by_row for all rows of x [rows, cols], if they are of one to eight packs; false,
/// with nothing done, otherwise. Not centered, mean is null.
template <bool centered, class T>
bool normalize_rows_in_packs(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                             Index rows, Index cols, double eps) {
  return with_packs_of_row<T>(cols, [&](auto packs_constant) {
    constexpr int packs = packs_constant;
    using Rows = RowPacks<T, packs>;
    constexpr Index group = Rows::W;
    const Rows shape(cols);
    const bool past_caches = goes_past_caches<T>(rows * cols, cols),
               through_block = goes_through_block(y, rows * cols, cols);
    const Index most = through_block ? Rows::most_gradient_rows : Rows::most_rows;
    parallel_chunks((rows + group - 1) / group, group * cols, [&](Index begin, Index end) {
      const Index last = std::min(rows, end * group);
      alignas(memory_alignment) typename Rows::Block results;
      Rows::for_blocks(begin * group, last, most, [&](Index row, Index count) {
        const bool staged = through_block && count >= group;
        T *to = staged ? results : y + row * cols, *means = centered ? mean + row : nullptr;
        const T* from = x + row * cols;
        const bool done =
            count < group
                ? normalize_last_rows<centered, packs>(to, means, rstd + row, from, gamma, beta,
                                                       shape, count, static_cast<T>(eps))
                : normalize_packed_rows<centered, packs>(to, means, rstd + row, from, gamma, beta,
                                                         shape, count, static_cast<T>(eps),
                                                         past_caches);
        if (!done)
          normalize_row_by_row<centered>(to, means, rstd + row, from, gamma, beta, count, cols,
                                         eps);
        if (staged) stream_packs(y + row * cols, results, count * cols);
      });
    });
  });
}

/// Of each column, the sums of dy * xhat and of dy: the gradients of gamma and beta. What a row's
/// last pack shares with the one before it is in both.
template <class T, int packs>
struct PackedGradients {
  Pack<T> gamma[packs], beta[packs];

  PackedGradients() {
    for (int p = 0; p < packs; ++p) gamma[p] = beta[p] = Pack<T>::zero();
  }
};

/// Adds the shares of whole groups of rows, RowPacks::most_gradient_rows at most, to the
/// gradients of gamma and beta, and writes their dx, unless it is null; dx may be dy. The formulas
/// are those of gradient_rows_together.
template <bool centered, int packs, class T>
void gradient_packed_rows(T* dx, PackedGradients<T, packs>& gradients, const T* dy, const T* x,
                          const T* mean, const T* rstd, const T* gamma,
                          const RowPacks<T, packs> shape, Index rows, bool past_caches = false) {
  using V = Pack<T>;
  constexpr Index W = V::width;
  const Index cols = shape.cols;
  const auto xhat_of = [&](Index r, V value) {
    return (centered ? value - V(mean[r]) : value) * V(rstd[r]);
  };
  V gammas[packs], dgammas[packs], dbetas[packs];
  shape.load(gammas, gamma, T(1));
  typename RowPacks<T, packs>::Values of_one, of_xhat;
  for (Index first = 0; dx && first < rows; first += W) {
    V halves[2];  // of the rows, whose two sums are side by side
    for (Index half = 0; half < 2; ++half) {
      V of_row[W];
      MINNOW_UNROLL
      for (Index i = 0; i < W / 2; ++i) {
        const Index r = first + half * (W / 2) + i;
        V dxhats = V::zero(), dxhats_xhat = dxhats;
        MINNOW_UNROLL
        for (int p = packs - 1; p >= 0; --p) {
          const Index at = r * cols + shape.at(p);
          V dxhat = V::load(dy + at) * gammas[p];
          if (p + 1 == packs) dxhat = shape.once(dxhat);
          dxhats += dxhat;
          dxhats_xhat = fma(dxhat, xhat_of(r, V::load(x + at)), dxhats_xhat);
        }
        of_row[2 * i] = dxhats;
        of_row[2 * i + 1] = dxhats_xhat;
      }
      halves[half] = lane_sums<W>(of_row);
    }
    V dxhats, dxhats_xhat;
    deinterleave(halves[0], halves[1], dxhats, dxhats_xhat);
    const V share = V::load(rstd + first) * V(T(-1) / static_cast<T>(cols));
    (centered ? dxhats * share : V::zero()).store(of_one + first);
    (dxhats_xhat * share).store(of_xhat + first);
  }
  MINNOW_UNROLL
  for (int p = 0; p < packs; ++p) {
    dgammas[p] = gradients.gamma[p];
    dbetas[p] = gradients.beta[p];
  }
  with_store(past_caches && dx, dx, [&](const auto& store) {
    for (Index r = 0; r < rows; ++r) {
      const V scale(rstd[r]), a(dx ? of_xhat[r] : T(0)), b(dx ? of_one[r] : T(0));
      const V last = V::load(dy + r * cols + shape.at(packs - 1));  // dx may be dy
      MINNOW_UNROLL
      for (int p = 0; p < packs; ++p) {
        const Index at = r * cols + shape.at(p), next = rows * cols + at;
        const V g = p + 1 < packs ? V::load(dy + at) : last, xhat = xhat_of(r, V::load(x + at));
        __builtin_prefetch(dy + next, 0, 2);  // of the next block
        __builtin_prefetch(x + next, 0, 2);
        dgammas[p] = fma(g, xhat, dgammas[p]);
        dbetas[p] += g;
        if (dx) store(fma(g * gammas[p], scale, fma(xhat, a, b)), dx + at);
      }
    }
  });
  MINNOW_UNROLL
  for (int p = 0; p < packs; ++p) {
    gradients.gamma[p] = dgammas[p];
    gradients.beta[p] = dbetas[p];
  }
}

/// gradient_packed_rows for fewer rows than a group: filled up to one with rows of zeros, which add
/// nothing.
template <bool centered, int packs, class T>
void gradient_last_rows(T* dx, PackedGradients<T, packs>& gradients, const T* dy, const T* x,
                        const T* mean, const T* rstd, const T* gamma,
                        const RowPacks<T, packs>& shape, Index rows) {
  using Rows = RowPacks<T, packs>;
  alignas(memory_alignment) typename Rows::Group padded_dy, padded_x;
  typename Rows::Values padded_mean{}, padded_rstd;
  const Index count = rows * shape.cols, size = Rows::W * shape.cols;
  pad(padded_dy, dy, count, size);
  pad(padded_x, x, count, size);
  if constexpr (centered) std::copy_n(mean, rows, padded_mean);
  pad(padded_rstd, rstd, rows, Rows::W);
  gradient_packed_rows<centered, packs, T>(dx ? padded_dy : nullptr, gradients, padded_dy, padded_x,
                                           padded_mean, padded_rstd, gamma, shape, Rows::W);
  if (dx) std::copy_n(padded_dy, count, dx);
}

/// The gradients of all rows, if they are of one to eight packs; false, with nothing done,
/// otherwise. Not centered, mean is null. dx, dgamma, dbeta and gamma may be null.
template <bool centered, class T>
bool gradient_rows_in_packs(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                            const T* rstd, const T* gamma, Index rows, Index cols) {
  return with_packs_of_row<T>(cols, [&](auto packs_constant) {
    constexpr int packs = packs_constant;
    using Rows = RowPacks<T, packs>;
    constexpr Index group = Rows::W;
    const Rows shape(cols);
    const bool past_caches = goes_past_caches<T>(rows * cols, cols),
               through_block = goes_through_block(dx, rows * cols, cols);
    const Chunks chunks = make_chunks((rows + group - 1) / group, 2 * group * cols);
    // Of each chunk: the columns' sums of dy * xhat, then those of dy.
    const Scratch<T> partial(chunks.count * 2 * cols);
    parallel_for(chunks, [&](Index chunk) {
      PackedGradients<T, packs> gradients;
      const Index last = std::min(rows, chunks.end(chunk) * group);
      const Index begin = chunks.begin(chunk) * group;
      alignas(memory_alignment) typename Rows::Block results;
      Rows::for_blocks(begin, last, Rows::most_gradient_rows, [&](Index row, Index count) {
        const Index at = row * cols;
        const bool staged = through_block && count >= group;
        T* to = staged ? results : dx ? dx + at : nullptr;
        const T* means = centered ? mean + row : nullptr;
        if (count < group)
          gradient_last_rows<centered, packs>(to, gradients, dy + at, x + at, means, rstd + row,
                                              gamma, shape, count);
        else
          gradient_packed_rows<centered, packs>(to, gradients, dy + at, x + at, means, rstd + row,
                                                gamma, shape, count, past_caches);
        if (staged) stream_packs(dx + at, results, count * cols);
      });
      T* sums = partial.data() + chunk * 2 * cols;
      for (int p = 0; p < packs; ++p) {
        gradients.gamma[p].store(sums + shape.at(p));
        gradients.beta[p].store(sums + cols + shape.at(p));
      }
    });
    if (dgamma) sum_columns(dgamma, partial.data(), chunks.count, cols, 2 * cols);
    if (dbeta) sum_columns(dbeta, partial.data() + cols, chunks.count, cols, 2 * cols);
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
