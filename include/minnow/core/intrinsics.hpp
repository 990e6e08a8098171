#pragma once
/// @file
/// The compiler's own functions for vector registers, where there are such.

// GCC 12's start from registers that are left undefined on purpose, and it warns whoever calls them
// (GCC bug 105593). What counts is where they are read for the first time.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#if defined(__AVX2__)
#include <immintrin.h>  // large: only where Eigen includes it, too
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
