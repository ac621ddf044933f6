// What ties Gaussians to the pixels of a picture, for every backend: the camera, tile tests, the visible radius and the
// decisions of blending.
//
// Templates over the scalar T like those of gs_math.h, which also need min(), max(), exp2() and fma() of T. Whatever
// two passes must decide alike is written with fma() alone, so that no compiler can round it in two ways.
#pragma once

#include "gs_math.h"

namespace {
namespace gs {

constexpr float LOG2_ALPHA_MIN = -7.99435343685886f;  // log2(ALPHA_MIN)
constexpr float WHITEN_SCALE = 0.84932180028801904f;  // sqrt(log2(e) / 2): exp(power) = 2^-(u^2 + w^2)
// A Gaussian with a depth, opacity, colour or feature beyond this is left out, like one with a NaN: what it would do to
// the gradients of others is no longer a number.
constexpr float VALUE_MAX = 1e15f;
constexpr float TILE_SLACK = 0.01f;                   // added to u^2 + w^2 so that rounding never loses a pixel

// viewmat: rows of world-to-camera, four floats each.
GS_HD Camera
make_camera(const float* viewmat, float fx, float fy, float cx, float cy, float near_plane, int width, int height) {
  Camera c;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) c.rotation[3 * i + j] = viewmat[4 * i + j];
    c.translation[i] = viewmat[4 * i + 3];
    c.eye[i] = -(viewmat[i] * viewmat[3] + viewmat[4 + i] * viewmat[7] + viewmat[8 + i] * viewmat[11]);
  }
  c.fx = fx, c.fy = fy, c.cx = cx, c.cy = cy, c.near_plane = near_plane;
  const float w = static_cast<float>(width), h = static_cast<float>(height);
  c.x_low = (-cx - 0.15f * w) / fx, c.x_high = (1.15f * w - cx) / fx;
  c.y_low = (-cy - 0.15f * h) / fy, c.y_high = (1.15f * h - cy) / fy;
  return c;
}

template <class T>
struct Direction {
  T x, y, z, inv_length;
};

// From the camera to a Gaussian.
template <class T>
GS_HD Direction<T> view_direction(const Camera& camera, const T mean[3]) {
  const T x = mean[0] - camera.eye[0], y = mean[1] - camera.eye[1], z = mean[2] - camera.eye[2];
  const T square = x * x + y * y + z * z;
  const T inverse = 1.0f / sqrt(square > 1e-24f ? square : T{} + 1e-24f);
  return {x * inverse, y * inverse, z * inverse, inverse};
}

struct Range {
  int first, end;
};

// Tiles of `tile` pixels that pixel centres within `extent` of `centre` fall in, along one axis of the picture.
GS_HD Range tile_range(float centre, float extent, int pixels, int tile) {
  const float low = min(max(centre - extent - 0.5f, 0.0f), static_cast<float>(pixels));
  const float high = min(max(centre + extent - 0.5f, -1.0f), static_cast<float>(pixels - 1));
  int first = static_cast<int>(low);
  if (static_cast<float>(first) < low) ++first;
  first /= tile;
  return {first, high < 0.0f || low > high ? first : static_cast<int>(high) / tile + 1};
}

// Inria's integer radius: 0 unless its square of 16 x 16 tiles meets the picture (specs/gaussian_head.md j.2).
GS_HD int visible_radius(float x, float y, float three_sigma, int width, int height) {
  const float radius = ceilf(three_sigma);
  const float centre[2] = {x - 0.5f, y - 0.5f};
  const int pixels[2] = {width, height};
  for (int axis = 0; axis < 2; ++axis) {
    const float tiles = static_cast<float>((pixels[axis] + TILE - 1) / TILE);
    const float low = (centre[axis] - radius) / TILE, high = (centre[axis] + radius + (TILE - 1)) / TILE;
    const int first = static_cast<int>(min(max(low, 0.0f), tiles)), end = static_cast<int>(min(max(high, 0.0f), tiles));
    if (!(end > first)) return 0;
  }
  return radius < 1e9f ? static_cast<int>(radius) : 1000000000;
}

// The whitened square u^2 + w^2 of pixels, and on which lines it is smallest: y = y_by_x x and x = x_by_y y.
template <class T>
struct Ellipse {
  Whitening<T> l;
  T y_by_x, x_by_y;
};

template <class T>
GS_HD Ellipse<T> ellipse(const Whitening<T>& l) {
  return {l, -(l.xx * l.yx / fma(l.yx, l.yx, l.yy * l.yy)), -(l.yx / l.xx)};
}

// The smallest u^2 + w^2 over a rectangle of offsets from the Gaussian's centre: on an edge that faces the centre.
template <class T>
GS_HD T nearest(const Ellipse<T>& e, T x0, T x1, T y0, T y1) {
  const T zero = T{}, edge_x = min(max(zero, x0), x1), edge_y = min(max(zero, y0), y1);
  const T best_y = min(max(edge_x * e.y_by_x, y0), y1), best_x = min(max(edge_y * e.x_by_y, x0), x1);
  const T w0 = e.l.yy * best_y, u0 = fma(e.l.xx, edge_x, e.l.yx * best_y);
  const T w1 = e.l.yy * edge_y, u1 = fma(e.l.xx, best_x, e.l.yx * edge_y);
  return min(fma(u0, u0, w0 * w0), fma(u1, u1, w1 * w1));
}

// Whether the part of a Gaussian with alpha >= 1/255 meets pixel centres of a rectangle of columns x rows pixels whose
// corner lies at (offset_x, offset_y) from the Gaussian's centre. Never wrongly false.
template <class T>
GS_HD bool meets(const Ellipse<T>& e, T log2_opacity, T offset_x, T offset_y, int columns, int rows) {
  const T x0 = offset_x + 0.5f, y0 = offset_y + 0.5f;
  const T x1 = x0 + static_cast<float>(columns - 1), y1 = y0 + static_cast<float>(rows - 1);
  return nearest(e, x0, x1, y0, y1) <= log2_opacity - LOG2_ALPHA_MIN + TILE_SLACK;
}

// A pixel's whitened offset from a Gaussian and log2 of the alpha there. It is visible if that is >= LOG2_ALPHA_MIN.
template <class T>
struct Offset {
  T u, w, log2_alpha;
};

template <class T>
GS_HD Offset<T> offset_at(const Whitening<T>& l, T log2_opacity, T dx, T dy) {
  const T w = l.yy * dy, u = fma(l.xx, dx, l.yx * dy);
  return {u, w, fma(-w, w, fma(-u, u, log2_opacity))};
}

// Blends a visible Gaussian into one pixel (T is a single number): returns false, and changes nothing, if too little
// light would be left.
template <class T>
GS_HD bool blend_step(T log2_alpha, T& light, T& weight) {
  const T alpha = min(exp2(log2_alpha), ALPHA_MAX), absorbed = alpha * light, left = light - absorbed;
  if (!(left >= TRANSMITTANCE_MIN)) return false;
  light = left, weight = absorbed;
  return true;
}

// Undoes blend_step from the back. `value`: the Gaussian's channels times the pixel's gradients; `behind`: the sum of
// weight times value over what lies behind. Returns dL/dpower.
template <class T>
GS_HD T blend_step_backward(T log2_alpha, T value, T& light, T& behind, T& weight) {
  const T raw = exp2(log2_alpha), alpha = min(raw, ALPHA_MAX), inverse = 1.0f / (1.0f - alpha);
  light = light * inverse;
  weight = alpha * light;
  const T grad_alpha = fma(light, value, -(behind * inverse));
  behind = fma(weight, value, behind);
  return raw <= ALPHA_MAX ? raw * grad_alpha : 0.0f;
}

}  // namespace gs
}  // namespace
