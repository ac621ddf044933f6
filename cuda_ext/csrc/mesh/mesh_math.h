// One triangle and one pixel, shared by every backend.
//
// Which pixels a triangle covers is decided in whole numbers, on a grid of 2^-16 px, where the sign of an edge function
// is exact: so triangles that share an edge leave no gap and overlap nowhere (Pineda 1988, with the top-left rule). Where
// in the triangle a pixel lies is computed in double from the vertices as given.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "mesh.h"

#ifdef __CUDACC__
#define MESH_HD __host__ __device__ __forceinline__
#else
#define MESH_HD inline
#endif

namespace {
namespace mesh {

constexpr int64_t GRID = 1 << 16, HALF = GRID / 2;
constexpr float FURTHEST_PX = 8192.0f;  // products of differences on the grid stay below 2^61
constexpr int64_t FURTHEST = 8192 * GRID;
constexpr double MOST_OUTSIDE = 0.01;    // a triangle so thin that a pixel it covers lies further outside has no inside

struct Triangle {
  double x[3], y[3], z[3];
  int64_t fixed_x[3], fixed_y[3];         // counter-clockwise in x, y: the last two exchanged where need be
  int first_column, last_column, first_row, last_row;  // that it may cover, within the picture
  int32_t vertex[3];
};

MESH_HD int64_t edge(int64_t ax, int64_t ay, int64_t bx, int64_t by, int64_t x, int64_t y) {
  return (bx - ax) * (y - ay) - (by - ay) * (x - ax);
}

MESH_HD int clamp_to(int64_t value, int64_t low, int64_t high) {
  return static_cast<int>(value < low ? low : value > high ? high : value);
}

// Pixel columns (or rows) whose centres lie within [low, high] on the grid.
MESH_HD void covered(int64_t low, int64_t high, int size, int* first, int* last) {
  *first = clamp_to((low + FURTHEST + HALF - 1) / GRID - FURTHEST / GRID, 0, size);
  *last = clamp_to((high + FURTHEST - HALF) / GRID - FURTHEST / GRID, -1, size - 1);
}

// False: nothing to draw.
MESH_HD bool load_triangle(const MeshArguments& a, int picture, int face, Triangle* t) {
  int64_t low_x = 0, high_x = 0, low_y = 0, high_y = 0;
  for (int i = 0; i < 3; ++i) {
    const int32_t vertex = a.faces[3 * static_cast<size_t>(face) + i];
    if (vertex < 0 || vertex >= a.count) return false;
    const float* v = a.vertices + 3 * (static_cast<size_t>(picture) * a.count + vertex);
    // Comparisons with NaN are false.
    const bool usable = v[0] > -FURTHEST_PX && v[0] < FURTHEST_PX && v[1] > -FURTHEST_PX && v[1] < FURTHEST_PX &&
                        v[2] > a.near_plane && v[2] < 1e30f;
    if (!usable) return false;
    t->vertex[i] = vertex;
    t->x[i] = v[0], t->y[i] = v[1], t->z[i] = v[2];
    const int64_t x = llrint(t->x[i] * GRID), y = llrint(t->y[i] * GRID);
    t->fixed_x[i] = x, t->fixed_y[i] = y;
    low_x = i == 0 || x < low_x ? x : low_x, high_x = i == 0 || x > high_x ? x : high_x;
    low_y = i == 0 || y < low_y ? y : low_y, high_y = i == 0 || y > high_y ? y : high_y;
  }
  const int64_t area =
      edge(t->fixed_x[0], t->fixed_y[0], t->fixed_x[1], t->fixed_y[1], t->fixed_x[2], t->fixed_y[2]);
  if (area == 0) return false;
  if (area < 0) {
    const int64_t x = t->fixed_x[1], y = t->fixed_y[1];
    t->fixed_x[1] = t->fixed_x[2], t->fixed_y[1] = t->fixed_y[2];
    t->fixed_x[2] = x, t->fixed_y[2] = y;
  }
  covered(low_x, high_x, a.width, &t->first_column, &t->last_column);
  covered(low_y, high_y, a.height, &t->first_row, &t->last_row);
  return t->first_column <= t->last_column && t->first_row <= t->last_row;
}

MESH_HD bool covers(const Triangle& t, int column, int row) {
  const int64_t x = column * GRID + HALF, y = row * GRID + HALF;
  for (int i = 0; i < 3; ++i) {
    const int j = i == 2 ? 0 : i + 1;
    const int64_t dx = t.fixed_x[j] - t.fixed_x[i], dy = t.fixed_y[j] - t.fixed_y[i];
    const int64_t side = dx * (y - t.fixed_y[i]) - dy * (x - t.fixed_x[i]);
    const bool is_top_or_left = dy < 0 || (dy == 0 && dx > 0);
    if (side < 0 || (side == 0 && !is_top_or_left)) return false;
  }
  return true;
}

// Where a pixel lies in a triangle. e: twice the areas of the parts opposite the corners; w = e / z.
struct Place {
  double dx[3], dy[3], e[3], w[3], area, total;
  bool has_inside;
};

MESH_HD Place place_in(const Triangle& t, int column, int row) {
  Place p;
  for (int i = 0; i < 3; ++i) p.dx[i] = t.x[i] - (column + 0.5), p.dy[i] = t.y[i] - (row + 0.5);
  p.area = 0, p.total = 0;
  for (int i = 0; i < 3; ++i) {
    const int j = i == 2 ? 0 : i + 1, k = i == 0 ? 2 : i - 1;
    p.e[i] = p.dx[j] * p.dy[k] - p.dy[j] * p.dx[k];
    p.w[i] = p.e[i] / t.z[i];
    p.area += p.e[i], p.total += p.w[i];
  }
  p.has_inside = p.area != 0;
  for (int i = 0; i < 3; ++i) p.has_inside = p.has_inside && p.e[i] / p.area > -MOST_OUTSIDE;
  return p;
}

MESH_HD float depth_at(const Triangle& t, const Place& p) {
  return static_cast<float>(p.has_inside ? p.area / p.total : 3.0 / (1.0 / t.z[0] + 1.0 / t.z[1] + 1.0 / t.z[2]));
}

MESH_HD void write_pixel(const MeshArguments& a, size_t pixel, int face, const Triangle& t, const Place& p) {
  a.face_index[pixel] = face;
  a.depth[pixel] = depth_at(t, p);
  for (int i = 0; i < 3; ++i) {
    a.barycentrics[3 * pixel + i] = static_cast<float>(p.has_inside ? p.w[i] / p.total : 1.0 / 3.0);
  }
}

MESH_HD void write_nothing(const MeshArguments& a, size_t pixel) {
  a.face_index[pixel] = -1;
  a.depth[pixel] = 0;
  for (int i = 0; i < 3; ++i) a.barycentrics[3 * pixel + i] = 0;
}

// Adds the gradient of one pixel. With T = sum of w: barycentric i = w_i / T, depth = area / T.
MESH_HD void add_gradient(const MeshArguments& a, size_t pixel, const Triangle& t, const Place& p, double grad[9]) {
  if (!p.has_inside) return;
  double of_b[3] = {}, mean = 0;
  const double of_depth = a.grad_depth == nullptr ? 0.0 : static_cast<double>(a.grad_depth[pixel]);
  for (int i = 0; i < 3; ++i) {
    if (a.grad_barycentrics != nullptr) of_b[i] = a.grad_barycentrics[3 * pixel + i];
    mean += of_b[i] * p.w[i] / p.total;
  }
  const double depth = p.area / p.total;
  for (int i = 0; i < 3; ++i) {
    const int j = i == 2 ? 0 : i + 1, k = i == 0 ? 2 : i - 1;
    const double of_w = (of_b[i] - mean - of_depth * depth) / p.total;
    const double of_e = of_w / t.z[i] + of_depth / p.total;
    grad[3 * i + 2] -= of_w * p.w[i] / t.z[i];
    grad[3 * j] += of_e * p.dy[k], grad[3 * k + 1] += of_e * p.dx[j];
    grad[3 * j + 1] -= of_e * p.dx[k], grad[3 * k] -= of_e * p.dy[j];
  }
}

// Gradient of one triangle: of all pixels that show it, in their order.
MESH_HD void write_gradient(const MeshArguments& a, int picture, int face) {
  double grad[9] = {};
  Triangle t;
  if (load_triangle(a, picture, face, &t)) {
    for (int row = t.first_row; row <= t.last_row; ++row) {
      for (int column = t.first_column; column <= t.last_column; ++column) {
        const size_t pixel = (static_cast<size_t>(picture) * a.height + row) * a.width + column;
        if (a.face_index[pixel] == face) add_gradient(a, pixel, t, place_in(t, column, row), grad);
      }
    }
  }
  float* out = a.grad_corners + 9 * (static_cast<size_t>(picture) * a.triangles + face);
  for (int i = 0; i < 9; ++i) out[i] = static_cast<float>(grad[i]);
}

}  // namespace mesh
}  // namespace
