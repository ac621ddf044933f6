// Real spherical harmonics up to degree 3 and their derivatives, shared by every backend (see gs_math.h).
#pragma once

#include "gs_math.h"

namespace {
namespace gs {

constexpr float SH0 = 0.28209479177387814f, SH1 = 0.4886025119029199f, SH2 = 1.0925484305920792f;
constexpr float SH20 = 0.31539156525252005f, SH33 = 0.5900435899266435f, SH32 = 2.890611442640554f;
constexpr float SH31 = 0.4570457994644658f, SH30 = 0.3731763325901154f;

// Values for the unit direction (x, y, z): (degree + 1)^2 of them.
template <class T>
GS_HD void sh_basis(int degree, T x, T y, T z, T* b) {
  b[0] = T{} + SH0;
  if (degree < 1) return;
  b[1] = -SH1 * y, b[2] = SH1 * z, b[3] = -SH1 * x;
  if (degree < 2) return;
  const T xx = x * x, yy = y * y, zz = z * z;
  b[4] = SH2 * (x * y), b[5] = -SH2 * (y * z), b[6] = SH20 * (2.0f * zz - xx - yy);
  b[7] = -SH2 * (x * z), b[8] = 0.5f * SH2 * (xx - yy);
  if (degree < 3) return;
  b[9] = -SH33 * y * (3.0f * xx - yy), b[10] = SH32 * (x * y) * z, b[11] = -SH31 * y * (4.0f * zz - xx - yy);
  b[12] = SH30 * z * (2.0f * zz - 3.0f * (xx + yy)), b[13] = -SH31 * x * (4.0f * zz - xx - yy);
  b[14] = 0.5f * SH32 * z * (xx - yy), b[15] = -SH33 * x * (xx - 3.0f * yy);
}

// Gradient on (x, y, z), taken as free variables, from g[k] = dL/db[k].
template <class T>
GS_HD void sh_basis_backward(int degree, T x, T y, T z, const T* g, T out[3]) {
  out[0] = out[1] = out[2] = T{};
  if (degree < 1) return;
  out[0] = -SH1 * g[3], out[1] = -SH1 * g[1], out[2] = SH1 * g[2];
  if (degree < 2) return;
  out[0] = out[0] + SH2 * (y * g[4] - z * g[7] + x * g[8]) - 2.0f * SH20 * (x * g[6]);
  out[1] = out[1] + SH2 * (x * g[4] - z * g[5] - y * g[8]) - 2.0f * SH20 * (y * g[6]);
  out[2] = out[2] - SH2 * (y * g[5] + x * g[7]) + 4.0f * SH20 * (z * g[6]);
  if (degree < 3) return;
  const T xx = x * x, yy = y * y, zz = z * z, xy = x * y, xz = x * z, yz = y * z;
  out[0] = out[0] - 6.0f * SH33 * (xy * g[9]) + SH32 * (yz * g[10]) + 2.0f * SH31 * (xy * g[11]) - 6.0f * SH30 * (xz * g[12]) -
           SH31 * ((4.0f * zz - 3.0f * xx - yy) * g[13]) + SH32 * (xz * g[14]) - 3.0f * SH33 * ((xx - yy) * g[15]);
  out[1] = out[1] - 3.0f * SH33 * ((xx - yy) * g[9]) + SH32 * (xz * g[10]) - SH31 * ((4.0f * zz - xx - 3.0f * yy) * g[11]) -
           6.0f * SH30 * (yz * g[12]) + 2.0f * SH31 * (xy * g[13]) - SH32 * (yz * g[14]) + 6.0f * SH33 * (xy * g[15]);
  out[2] = out[2] + SH32 * (xy * g[10]) - 8.0f * SH31 * (yz * g[11]) + SH30 * ((6.0f * zz - 3.0f * (xx + yy)) * g[12]) -
           8.0f * SH31 * (xz * g[13]) + 0.5f * SH32 * ((xx - yy) * g[14]);
}

}  // namespace gs
}  // namespace
