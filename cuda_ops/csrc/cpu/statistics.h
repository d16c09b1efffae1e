// Mean and variance of planes: of one after the other, or of all channels of a strip of pixels at once.
//
// Included by `kernels.cpp` only, like `vector.h`.
#pragma once

#include "layout.h"

namespace sc_layers::SC_LAYERS_ISA {
namespace {

// Mean of a plane and the sum of squared deviations from it. The mean is corrected by the mean deviation from it,
// which makes it exact for a constant plane.
template <typename T, typename A>
void plane_statistics(const T* x, int64_t pixels, A& mean, A& squares) {
  constexpr int64_t kStep = kLanes<A>;
  Vector<A> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kStep <= pixels; i += 4 * kStep) {
    for (int part = 0; part < 4; ++part) sums[part] += load(x + i + part * kStep);
  }
  for (; i < pixels; i += kStep) sums[0] += load_up_to<true, A>(x + i, pixels - i);
  const A rough = sum_of<A>((sums[0] + sums[1]) + (sums[2] + sums[3])) / static_cast<A>(pixels);

  Vector<A> deviation[2] = {}, square[2] = {};
  for (i = 0; i + 2 * kStep <= pixels; i += 2 * kStep) {
    for (int part = 0; part < 2; ++part) {
      const Vector<A> d = load(x + i + part * kStep) - rough;
      deviation[part] += d;
      square[part] += d * d;
    }
  }
  A rest = 0, rest_square = 0;
  if (i + kStep <= pixels) {
    const Vector<A> d = load(x + i) - rough;
    deviation[0] += d;
    square[0] += d * d;
    i += kStep;
  }
  if (i < pixels) {
    const Vector<A> last = load_first(x + i, pixels - i) - rough;
    for (int64_t lane = 0; lane < pixels - i; ++lane) {
      rest += last[lane];
      rest_square += last[lane] * last[lane];
    }
  }
  const A correction = (sum_of<A>(deviation[0] + deviation[1]) + rest) / static_cast<A>(pixels);
  mean = rough + correction;
  squares = sum_of<A>(square[0] + square[1]) + rest_square - correction * correction * static_cast<A>(pixels);
}

template <typename A>
A rstd_of(A squares, int64_t pixels, double eps) {
  // Rounding may leave a tiny negative sum; NaN passes through.
  const A variance = squares < 0 ? A(0) : squares / static_cast<A>(pixels);
  return A(1) / sqrt_of(static_cast<A>(variance + static_cast<A>(eps)));
}

// ---- channels_last

// Statistics of every channel over one strip: mean and sum of squared deviations. Means are relative to `pivot`, the
// first pixel of the sample: where the features lie far from 0, differences of means would lose what matters.
template <typename T, typename A>
void strip_statistics(const Sizes& s, const T* pivot, const T* x, int64_t count, A* mean, A* squares) {
  // A few rows at a time, as many as the L1 cache holds: two passes over them, then merged with what came before.
  constexpr int64_t kRowsBytes = 16 << 10;
  const int64_t rows = min_of(64, max_of(4, kRowsBytes / (s.c * static_cast<int64_t>(sizeof(T)))));
  for (int64_t done = 0; done < count; done += rows) {
    const int64_t now = min_of(rows, count - done);
    const A share = static_cast<A>(now) / static_cast<A>(done + now);
    const A inverse = A(1) / static_cast<A>(now);
    for (int64_t c = 0; c < s.c; c += kLanes<A>) {
      const T* from = x + done * s.c + c;
      Vector<A> sum{}, deviation{}, square{};
      for (int64_t i = 0; i < now; ++i) sum += load_up_to<true, A>(from + i * s.c, s.c - c);
      const Vector<A> rough = sum * inverse;
      for (int64_t i = 0; i < now; ++i) {
        const Vector<A> d = load_up_to<true, A>(from + i * s.c, s.c - c) - rough;
        deviation += d;
        square += d * d;
      }
      const Vector<A> correction = deviation * inverse;
      const Vector<A> here = (rough - load_up_to<true, A>(pivot + c, s.c - c)) + correction;
      square -= correction * deviation;
      if (done > 0) {
        const Vector<A> before = load(static_cast<const A*>(mean + c));
        const Vector<A> difference = here - before;
        square += load(static_cast<const A*>(squares + c)) + difference * difference * (share * static_cast<A>(done));
        store(mean + c, before + difference * share);
      } else {
        store(mean + c, here);
      }
      store(squares + c, square);
    }
  }
}

// Merges the statistics of the strips, `partial` [strip][mean, squares][channels], always in the same order.
template <typename T, typename A>
void merge_statistics(const Sizes& s, const T* pivot, const A* partial, double eps, int64_t block, A* means, A* rstds) {
  const int64_t end = min_of(s.c, (block + 1) * kBlock);
  for (int64_t c = block * kBlock; c < end; ++c) {
    A mean = 0, squares = 0;
    for (int64_t strip = 0; strip < s.strips; ++strip) {
      const A* from = partial + strip * 2 * s.channels + c;
      const int64_t done = strip * s.strip, now = s.pixels_of(strip);
      const A share = static_cast<A>(now) / static_cast<A>(done + now);
      const A difference = from[0] - mean;
      mean = done == 0 ? from[0] : mean + difference * share;
      squares += from[s.channels] + difference * difference * (share * static_cast<A>(done));
    }
    means[c] = static_cast<A>(widen(pivot[c])) + mean;
    rstds[c] = rstd_of(squares, s.pixels, eps);
  }
}

}  // namespace
}  // namespace sc_layers::SC_LAYERS_ISA
