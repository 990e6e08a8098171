#pragma once
/// @file
/// Layer normalisation: each row, that is everything that belongs to one position of the leading
/// axes.

#include <algorithm>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/kernels/moments.hpp"
#include "minnow/kernels/packed_rows.hpp"
#include "minnow/kernels/reduce.hpp"
#include "minnow/kernels/row_norm.hpp"
#include "minnow/kernels/short_rows.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

/// Layer normalisation or, not centered (then mean is null), RMS normalisation of all rows.
template <bool centered, class T>
void normalize_rows(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta, Index rows,
                    Index cols, double eps) {
  if (normalize_rows_in_packs<centered>(y, mean, rstd, x, gamma, beta, rows, cols, eps)) return;
  if (ShortRows<T>::suits(rows, cols))
    return normalize_short_rows<centered>(y, mean, rstd, x, gamma, beta, rows, cols, eps);
  parallel_chunks(rows, cols, [&](Index begin, Index end) {
    normalize_row_by_row<centered>(y + begin * cols, centered ? mean + begin : nullptr,
                                   rstd + begin, x + begin * cols, gamma, beta, end - begin, cols,
                                   eps, {.past_caches = goes_past_caches<T>(rows * cols, cols)});
  });
}

/// Their gradients.
template <bool centered, class T>
void gradient_rows(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                   const T* rstd, const T* gamma, Index rows, Index cols) {
  if (gradient_rows_in_packs<centered>(dx, dgamma, dbeta, dy, x, mean, rstd, gamma, rows, cols))
    return;
  if (ShortRows<T>::suits(rows, cols))
    return gradient_short_rows<centered>(dx, dgamma, dbeta, dy, x, mean, rstd, gamma, rows, cols);
  const Chunks chunks = make_chunks(rows, 2 * cols, std::clamp<Index>(rows / 16, 8, 64));
  const RowTraits traits{.past_caches = goes_past_caches<T>(rows * cols, cols),
                         .from_memory = fills_caches<T>(3 * rows * cols)};
  // Of each chunk: the columns' sums of dy * xhat, then those of dy. One chunk's are the gradients.
  const bool one = chunks.count == 1;
  const Scratch<T> partial(!one && (dgamma || dbeta) ? chunks.count * 2 * cols : 0);
  parallel_for(chunks, [&](Index chunk) {
    T* dgammas = one || !dgamma ? dgamma : partial.data() + chunk * 2 * cols;
    T* dbetas = one || !dbeta ? dbeta : partial.data() + (chunk * 2 + 1) * cols;
    if (dgammas) std::fill_n(dgammas, cols, T(0));
    if (dbetas) std::fill_n(dbetas, cols, T(0));
    const Index begin = chunks.begin(chunk), first = begin * cols;
    gradient_block_by_block<centered>(dx ? dx + first : nullptr, dgammas, dbetas, dy + first,
                                      x + first, centered ? mean + begin : nullptr, rstd + begin,
                                      gamma, chunks.end(chunk) - begin, cols, traits);
  });
  if (one) return;
  parallel_chunks(cols, 2 * chunks.count, [&](Index begin, Index end) {
    const T* first = partial.data() + begin;
    if (dgamma) sum_columns(dgamma + begin, first, chunks.count, end - begin, 2 * cols);
    if (dbeta) sum_columns(dbeta + begin, first + cols, chunks.count, end - begin, 2 * cols);
  });
}

}  // namespace detail

/// Normalises each row.
///
///   y = (x - mean) * rstd * gamma + beta    rstd = 1 / sqrt(variance + eps), variance biased
///
/// x, y [rows, cols] (y may be x); gamma, beta [cols] or null (1 and 0). Writes y, mean and rstd
/// [rows], which the backward needs.
///
/// Each row's statistics (see moments.hpp) and its y are computed while it is in cache. Rows of a
/// few packs or less lie in lanes or in packs (see short_rows.hpp, packed_rows.hpp). Numerics:
/// inputs of 1e4 + N(0, 1) give y within 1e-5, constant rows give beta, inputs around 1e30 are as
/// accurate as others. Parallel over rows. Paper: Ba, Kiros, Hinton, "Layer normalization", 2016.
template <class T>
void layer_norm_forward(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                        Index rows, Index cols, double eps) {
  detail::normalize_rows<true>(y, mean, rstd, x, gamma, beta, rows, cols, eps);
}

/// The gradients of layer normalisation.
///
///   dbeta = sum(dy)    dgamma = sum(dy * xhat)    xhat = (x - mean) * rstd
///   dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))    dxhat = gamma * dy
///
/// Sums run over rows, means along a row. Derivation: x[k] acts on its own xhat directly, and on
/// all of the row through the mean (d mean / dx[k] = 1 / cols) and through rstd (d rstd / dx[k] =
/// -rstd^2 * xhat[k] / cols): three paths, three terms.
///
/// x, dy, dx [rows, cols] (dx may be dy); mean, rstd [rows] from the forward; gamma [cols] or null.
/// Writes dx, dgamma [cols] and dbeta [cols]; any of them may be null. Parallel over rows; each
/// chunk of rows has sums of its own, which are added in order.
template <class T>
void layer_norm_backward(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                         const T* rstd, const T* gamma, Index rows, Index cols) {
  detail::gradient_rows<true>(dx, dgamma, dbeta, dy, x, mean, rstd, gamma, rows, cols);
}

}  // namespace minnow::inline MINNOW_ABI::kernels
