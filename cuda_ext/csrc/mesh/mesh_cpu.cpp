// Triangles by z-buffer on the CPU. A thread takes bands of rows forward, and triangles backward; compiled once per
// instruction set.
#include <memory>
#include <new>

#include "../parallel.h"
#include "mesh_math.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

namespace {

constexpr int BAND = 16;  // rows that one thread draws at a time
constexpr int GROUP = 256;  // triangles that one thread takes at a time

// Rows that each triangle of a picture may cover: first > last where it covers none.
struct Rows {
  int first, last;
};

void draw_band(const MeshArguments& a, int picture, int first_row, int end_row, const Rows* rows) {
  const size_t start = (static_cast<size_t>(picture) * a.height + first_row) * a.width;
  const size_t end = start + static_cast<size_t>(end_row - first_row) * a.width;
  for (size_t pixel = start; pixel < end; ++pixel) mesh::write_nothing(a, pixel);
  for (int face = 0; face < a.triangles; ++face) {
    if (rows[face].first >= end_row || rows[face].last < first_row) continue;
    mesh::Triangle t;
    if (!mesh::load_triangle(a, picture, face, &t)) continue;
    const int low = t.first_row > first_row ? t.first_row : first_row;
    const int high = t.last_row < end_row ? t.last_row : end_row - 1;
    for (int row = low; row <= high; ++row) {
      for (int column = t.first_column; column <= t.last_column; ++column) {
        if (!mesh::covers(t, column, row)) continue;
        const size_t pixel = (static_cast<size_t>(picture) * a.height + row) * a.width + column;
        const mesh::Place place = mesh::place_in(t, column, row);
        const bool is_nearer = a.face_index[pixel] < 0 || mesh::depth_at(t, place) < a.depth[pixel];
        if (is_nearer) mesh::write_pixel(a, pixel, face, t, place);
      }
    }
  }
}

int forward(const MeshArguments& a) {
  const std::unique_ptr<Rows[]> rows(new (std::nothrow) Rows[static_cast<size_t>(a.triangles) + 1]);
  if (!rows) return 1;
  const int threads = thread_count(a.threads), bands = (a.height + BAND - 1) / BAND;
  const int groups = (a.triangles + GROUP - 1) / GROUP;
  for (int picture = 0; picture < a.pictures; ++picture) {
    parallel_dynamic(threads, groups, [&](int group, int) {
      for (int face = group * GROUP; face < a.triangles && face < (group + 1) * GROUP; ++face) {
        mesh::Triangle t;
        const bool draws = mesh::load_triangle(a, picture, face, &t);
        rows[face] = draws ? Rows{t.first_row, t.last_row} : Rows{a.height, -1};
      }
    });
    parallel_dynamic(threads, bands, [&](int band, int) {
      const int end = (band + 1) * BAND < a.height ? (band + 1) * BAND : a.height;
      draw_band(a, picture, band * BAND, end, rows.get());
    });
  }
  return 0;
}

int backward(const MeshArguments& a) {
  const int groups = (a.triangles + GROUP - 1) / GROUP;
  parallel_dynamic(thread_count(a.threads), groups * a.pictures, [&](int task, int) {
    const int picture = task / groups, group = task % groups;
    for (int face = group * GROUP; face < a.triangles && face < (group + 1) * GROUP; ++face) {
      mesh::write_gradient(a, picture, face);
    }
  });
  return 0;
}

}  // namespace

extern "C" {
int JOIN(mesh_forward, ISA)(const MeshArguments* arguments) { return forward(*arguments); }
int JOIN(mesh_backward, ISA)(const MeshArguments* arguments) { return backward(*arguments); }
}
