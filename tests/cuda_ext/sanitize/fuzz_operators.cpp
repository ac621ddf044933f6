// Runs one compiled copy of the operators on random and on broken scenes, from exactly fitting heap memory, so that
// sanitizers see every access. Exit status 0: no fault, the same bits from one thread and from several, and no broken
// numbers from whole scenes. ISA is the suffix of the copy's names; MAX_PAIRS is set low to reach that error.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "mesh/mesh.h"
#include "motion/motion.h"
#include "rasterize/rasterize.h"
#include "ssim/ssim.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

extern "C" {
void* JOIN(workspace_new, ISA)();
void JOIN(workspace_delete, ISA)(void*);
int JOIN(rasterize_forward, ISA)(void*, const RasterizeView*, const RasterizeTensors*);
int JOIN(rasterize_backward, ISA)(void*, const RasterizeView*, const RasterizeTensors*);
int JOIN(l1_ssim_forward, ISA)(const SsimImages*);
int JOIN(l1_ssim_backward, ISA)(const SsimImages*);
int JOIN(place_forward, ISA)(const PlaceArguments*);
int JOIN(place_backward, ISA)(const PlaceArguments*);
int JOIN(deform_forward, ISA)(const DeformArguments*);
int JOIN(deform_backward, ISA)(const DeformArguments*);
int JOIN(mesh_forward, ISA)(const MeshArguments*);
int JOIN(mesh_backward, ISA)(const MeshArguments*);
}

namespace {

std::mt19937 dice;

float uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(dice); }
int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(dice); }

using Floats = std::vector<float>;

Floats random_floats(size_t n, float low, float high) {
  Floats v(n);
  for (float& x : v) x = uniform(low, high);
  return v;
}

void damage(Floats& v) {
  const float values[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-38f, 1e10f, -1e15f, 1e20f, 3e38f, -3e38f, -2.0f};
  for (float& x : v) {
    if (pick(0, 30) == 0) x = values[pick(0, 11)];
  }
}

bool finite(const Floats& v) {
  for (float x : v) {
    if (!std::isfinite(x)) return false;
  }
  return true;
}

#define REQUIRE(condition)                                                       \
  if (!(condition)) {                                                            \
    std::fprintf(stderr, "seed %d line %d: %s\n", seed, __LINE__, #condition);   \
    std::exit(1);                                                                \
  }

struct Scene {
  RasterizeView view{};
  Floats means, quats, scales, opacities, sh, colors, features, background;
  std::vector<Floats> cotangents;  // color, alpha, depth, features; empty: no gradient
  bool whole, with_means2d, absolute;
};

Scene make_scene() {
  Scene s;
  RasterizeView& v = s.view;
  const int counts[] = {0, 1, 7, 8, 15, 16, 17, 60, 255, 257, 900};
  v.gaussians = counts[pick(0, 10)];
  v.width = pick(1, 90), v.height = pick(1, 70);
  v.features = pick(0, 5), v.sh_degree = pick(0, 3);
  const bool with_sh = pick(0, 3) != 0;
  v.sh_coefficients = with_sh ? (v.sh_degree + 1) * (v.sh_degree + 1) + (pick(0, 2) == 0 ? pick(0, 6) : 0) : 0;
  const float rows[12] = {0.8f, 0, 0.6f, 0.05f, 0, 1, 0, -0.03f, -0.6f, 0, 0.8f, 2};
  std::memcpy(v.viewmat, rows, sizeof rows);
  v.fx = uniform(10, 200), v.fy = uniform(10, 200), v.near_plane = 0.2f;
  v.cx = uniform(-1, 2) * v.width, v.cy = uniform(-1, 2) * v.height;
  const size_t n = v.gaussians;
  s.means = random_floats(3 * n, -0.8f, 0.8f), s.quats = random_floats(4 * n, -2, 2);
  s.scales = random_floats(3 * n, 0.002f, pick(0, 5) == 0 ? 2.0f : 0.1f), s.opacities = random_floats(n, 0, 1);
  s.sh = random_floats(with_sh ? 3 * n * v.sh_coefficients : 0, -1, 1), s.colors = random_floats(with_sh ? 0 : 3 * n, 0, 1);
  s.features = random_floats(n * v.features, -1, 1), s.background = random_floats(3, 0, 1);
  s.whole = pick(0, 1) == 0;
  if (!s.whole) {
    for (Floats* f : {&s.means, &s.quats, &s.scales, &s.opacities, &s.sh, &s.colors, &s.features}) damage(*f);
  }
  const size_t pixels = static_cast<size_t>(v.width) * v.height;
  for (size_t planes : {3, 1, 1, static_cast<int>(v.features)}) {
    s.cotangents.push_back(pick(0, 3) == 0 ? Floats() : random_floats(planes * pixels, -1, 1));
  }
  s.with_means2d = pick(0, 1) == 0, s.absolute = s.with_means2d && pick(0, 1) == 0;
  return s;
}

const float* or_null(const Floats& f) { return f.empty() ? nullptr : f.data(); }
float* or_null(Floats& f) { return f.empty() ? nullptr : f.data(); }

// Everything that a forward and a backward pass write.
std::vector<Floats> render(const Scene& s, int threads, int seed) {
  RasterizeView view = s.view;
  view.threads = threads;
  const size_t pixels = static_cast<size_t>(view.width) * view.height, n = view.gaussians, e = view.features;
  Floats color(3 * pixels), alpha(pixels), depth(pixels), feature_map(e * pixels), background(3);
  Floats means(3 * n), quats(4 * n), scales(3 * n), opacities(n), sh(s.sh.size()), colors(s.colors.size()), features(e * n);
  Floats means2d(s.with_means2d ? 2 * n : 0), absolute(s.absolute ? 2 * n : 0);
  std::vector<int32_t> radii(n), n_contrib(pixels);
  RasterizeTensors t{};
  t.means = s.means.data(), t.quats = s.quats.data(), t.scales = s.scales.data(), t.opacities = s.opacities.data();
  t.sh = s.view.sh_coefficients > 0 ? s.sh.data() : nullptr, t.colors = t.sh == nullptr ? s.colors.data() : nullptr;
  if (n == 0 && t.sh == nullptr) t.colors = s.background.data();  // an empty vector's address may be null
  t.features = s.features.data(), t.background = s.background.data();
  t.color = color.data(), t.alpha = alpha.data(), t.depth = depth.data(), t.feature_map = feature_map.data();
  t.radii = radii.data(), t.n_contrib = n_contrib.data();
  void* workspace = JOIN(workspace_new, ISA)();
  const int status = JOIN(rasterize_forward, ISA)(workspace, &view, &t);
  REQUIRE(status == 0 || status == 2);
  std::vector<Floats> written;
  if (status == 0) {
    t.grad_color = or_null(s.cotangents[0]), t.grad_alpha = or_null(s.cotangents[1]);
    t.grad_depth = or_null(s.cotangents[2]), t.grad_feature_map = or_null(s.cotangents[3]);
    t.grad_means = means.data(), t.grad_quats = quats.data(), t.grad_scales = scales.data(), t.grad_opacities = opacities.data();
    t.grad_sh = t.sh == nullptr ? nullptr : sh.data(), t.grad_colors = colors.data(), t.grad_features = features.data();
    t.grad_background = background.data(), t.grad_means2d = or_null(means2d), t.grad_means2d_abs = or_null(absolute);
    REQUIRE(JOIN(rasterize_backward, ISA)(workspace, &view, &t) == 0);
    written = {color, alpha, depth, feature_map, background, means, quats, scales, opacities, sh, colors, features, means2d, absolute};
    for (size_t i = 0; i < 5; ++i) REQUIRE(finite(written[i]));
    if (s.whole) {
      for (const Floats& f : written) REQUIRE(finite(f));
    }
  }
  JOIN(workspace_delete, ISA)(workspace);
  return written;
}

void check_loss(int seed) {
  const int channels = pick(1, 3), width = pick(1, 60), height = pick(1, 50);
  const size_t pixels = static_cast<size_t>(width) * height;
  const Floats x = random_floats(channels * pixels, 0, 1), y = random_floats(channels * pixels, 0, 1);
  const Floats mask = pick(0, 1) == 0 ? Floats() : random_floats(pixels, 0, 1);
  std::vector<Floats> results;
  for (int threads : {1, 3}) {
    Floats means(2), maps(3 * channels * pixels), grad(channels * pixels);
    SsimImages images{};
    images.channels = channels, images.width = width, images.height = height, images.threads = threads;
    images.prediction = x.data(), images.target = y.data(), images.mask = or_null(mask);
    images.means = means.data(), images.maps = maps.data();
    REQUIRE(JOIN(l1_ssim_forward, ISA)(&images) == 0);
    images.grad_l1 = 0.8f, images.grad_ssim = -0.2f, images.grad_prediction = grad.data();
    REQUIRE(JOIN(l1_ssim_backward, ISA)(&images) == 0);
    REQUIRE(finite(means) && finite(grad));
    grad.insert(grad.end(), means.begin(), means.end());
    results.push_back(grad);
  }
  REQUIRE(results[0] == results[1]);
}

bool same_bits(const std::vector<Floats>& a, const std::vector<Floats>& b) {
  bool same = a.size() == b.size();
  for (size_t i = 0; same && i < a.size(); ++i) {
    same = a[i].empty() || std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) == 0;
  }
  return same;
}

void check_places(int seed) {
  constexpr size_t WIDEST = 16, GROUP_ROWS = 3;  // as in cuda_ext/_cpu_motion.py
  const size_t n = pick(0, 700), levels = pick(1, 3), hidden = pick(1, 40), regions = pick(1, 40), gates = pick(0, 3);
  const size_t features = 12 * levels + 3, outputs = regions + gates;
  const auto padded = [&](size_t columns) { return (n + GROUP_ROWS) * ((columns + WIDEST - 1) / WIDEST * WIDEST); };
  Floats where = random_floats(3 * n, -1.5f, 1.5f);
  const Floats weight1 = random_floats(hidden * features, -1, 1), bias1 = random_floats(hidden, -1, 1);
  const Floats weight2 = random_floats(outputs * hidden, -1, 1), bias2 = random_floats(outputs, -1, 1);
  const Floats cotangent = random_floats(n * regions, -1, 1), of_gates = random_floats(n * gates, -1, 1);
  PlaceArguments a{};
  std::vector<Floats> grids;
  for (size_t i = 0; i < levels; ++i) {
    a.resolution[i] = pick(1, 20);
    grids.push_back(random_floats(static_cast<size_t>(12 * a.resolution[i] * a.resolution[i]), -1, 1));
    a.grids[i] = grids[i].data();
  }
  if (pick(0, 1) == 0) damage(where);
  std::vector<std::vector<Floats>> results;
  for (int threads : {1, 3}) {
    Floats along(n * levels * 6), kept(padded(features)), activations(padded(hidden)), out(n * regions), out_gates(n * gates);
    std::vector<Floats> written = {Floats(weight1.size()), Floats(hidden), Floats(weight2.size()), Floats(outputs)};
    for (const Floats& grid : grids) written.push_back(Floats(grid.size()));
    a.points = static_cast<int32_t>(n), a.levels = static_cast<int32_t>(levels), a.hidden = static_cast<int32_t>(hidden);
    a.regions = static_cast<int32_t>(regions), a.gates = static_cast<int32_t>(gates), a.threads = threads;
    a.where = where.data(), a.weight1 = weight1.data(), a.bias1 = bias1.data(), a.weight2 = weight2.data(), a.bias2 = bias2.data();
    a.along = along.data(), a.features = kept.data(), a.activations = activations.data();
    a.out_regions = out.data(), a.out_gates = out_gates.data();
    REQUIRE(JOIN(place_forward, ISA)(&a) == OK);
    a.grad_out_regions = cotangent.data(), a.grad_out_gates = of_gates.data();
    a.grad_weight1 = written[0].data(), a.grad_bias1 = written[1].data(), a.grad_weight2 = written[2].data();
    a.grad_bias2 = written[3].data();
    for (size_t i = 0; i < levels; ++i) a.grad_grids[i] = written[4 + i].data();
    REQUIRE(JOIN(place_backward, ISA)(&a) == OK);
    written.push_back(out), written.push_back(out_gates), results.push_back(written);
  }
  REQUIRE(same_bits(results[0], results[1]));
}

void check_deformation(int seed) {
  const size_t n = pick(0, 700), hidden = pick(1, 40), rest = pick(0, 15), carriers = pick(0, 2), responses = pick(1, 2);
  DeformArguments a{};
  Floats stored[] = {random_floats(3 * n, -1, 1), random_floats(4 * n, -1, 1), random_floats(3 * n, -8, 0),
                     random_floats(3 * n, -1, 1), random_floats(3 * n * rest, -1, 1)};
  const Floats regions = random_floats(n * hidden, -1, 1), gates = random_floats(n * carriers, 0, 1);
  if (pick(0, 1) == 0) {
    for (Floats& f : stored) damage(f);
  }
  std::vector<std::vector<int64_t>> indices(carriers);
  std::vector<Floats> weights, displacement, share, response;
  bool broken = false;
  for (size_t c = 0; c < carriers; ++c) {
    a.neighbours[c] = pick(0, 8), a.carrier_points[c] = pick(1, 30);
    for (size_t k = 0; k < n * a.neighbours[c]; ++k) indices[c].push_back(pick(0, a.carrier_points[c] - 1));
    if (!indices[c].empty() && pick(0, 9) == 0) indices[c].back() = pick(0, 1) == 0 ? -1 : 1LL << 40, broken = true;
    weights.push_back(random_floats(n * a.neighbours[c], 0, 1));
    displacement.push_back(random_floats(3 * a.carrier_points[c], -1, 1));
  }
  for (size_t r = 0; r < responses; ++r) {
    share.push_back(pick(0, 1) == 0 ? Floats() : random_floats(n, 0, 1));
    response.push_back(random_floats(hidden * 13, -1, 1));
  }
  for (size_t c = 0; c < carriers; ++c) {
    a.indices[c] = indices[c].data(), a.weights[c] = weights[c].data(), a.displacement[c] = displacement[c].data();
  }
  for (size_t r = 0; r < responses; ++r) a.share[r] = or_null(share[r]), a.response[r] = response[r].data();
  a.gaussians = static_cast<int32_t>(n), a.hidden = static_cast<int32_t>(hidden), a.sh_rest = static_cast<int32_t>(rest);
  a.carriers = static_cast<int32_t>(carriers), a.responses = static_cast<int32_t>(responses), a.position_scale = 0.01f;
  a.means = stored[0].data(), a.quats = stored[1].data(), a.log_scales = stored[2].data(), a.sh0 = stored[3].data();
  a.shN = stored[4].data(), a.regions = regions.data(), a.gates = gates.data();
  const size_t sizes[] = {3 * n, 4 * n, 3 * n, 3 * n * (1 + rest), 13 * n};
  std::vector<Floats> cotangents;
  for (size_t size : sizes) cotangents.push_back(pick(0, 3) == 0 ? Floats() : random_floats(size, -1, 1));
  std::vector<std::vector<Floats>> results;
  for (int threads : {1, 3}) {
    std::vector<Floats> out, grads;
    for (size_t size : sizes) out.push_back(Floats(size));
    for (size_t size : {4 * n, 3 * n, 3 * n, 3 * n * rest, n * hidden, n * carriers}) grads.push_back(Floats(size));
    for (size_t r = 0; r < responses; ++r) grads.push_back(Floats(hidden * 13));
    a.threads = threads;
    a.moved_means = out[0].data(), a.moved_quats = out[1].data(), a.moved_scales = out[2].data(), a.moved_sh = out[3].data();
    a.change = out[4].data();
    const int status = JOIN(deform_forward, ISA)(&a);
    REQUIRE(status == (broken ? BAD_INDEX : OK));
    if (broken) return;
    a.grad_moved_means = or_null(cotangents[0]), a.grad_moved_quats = or_null(cotangents[1]);
    a.grad_moved_scales = or_null(cotangents[2]), a.grad_moved_sh = or_null(cotangents[3]), a.grad_change = or_null(cotangents[4]);
    a.grad_quats = grads[0].data(), a.grad_log_scales = grads[1].data(), a.grad_sh0 = grads[2].data(), a.grad_shN = grads[3].data();
    a.grad_regions = grads[4].data(), a.grad_gates = grads[5].data();
    for (size_t r = 0; r < responses; ++r) a.grad_response[r] = grads[6 + r].data();
    REQUIRE(JOIN(deform_backward, ISA)(&a) == OK);
    grads.insert(grads.end(), out.begin(), out.end()), results.push_back(grads);
  }
  REQUIRE(same_bits(results[0], results[1]));
}

void check_mesh(int seed) {
  const size_t b = pick(1, 2), v = pick(0, 120), f = pick(0, 300), pixels = b * pick(1, 70) * 40;
  Floats vertices = random_floats(b * v * 3, -30, 100);
  for (size_t i = 2; i < vertices.size(); i += 3) vertices[i] = uniform(-0.5f, 4);  // depths
  if (pick(0, 1) == 0) damage(vertices);
  std::vector<int32_t> faces(3 * f);
  for (int32_t& index : faces) index = pick(0, 50) == 0 ? pick(-3, 400) : pick(0, static_cast<int>(v));
  const Floats of_places = random_floats(3 * pixels, -1, 1), of_depth = random_floats(pixels, -1, 1);
  MeshArguments a{};
  a.vertices = vertices.data(), a.faces = faces.data(), a.near_plane = 0.01f;
  a.pictures = static_cast<int32_t>(b), a.count = static_cast<int32_t>(v), a.triangles = static_cast<int32_t>(f);
  a.width = 40, a.height = static_cast<int32_t>(pixels / b / 40);
  a.grad_barycentrics = of_places.data(), a.grad_depth = of_depth.data();
  std::vector<std::vector<Floats>> results;
  for (int threads : {1, 3}) {
    std::vector<int32_t> shown(pixels);
    Floats places(3 * pixels), depth(pixels), grad(b * f * 9);
    a.threads = threads, a.face_index = shown.data(), a.barycentrics = places.data(), a.depth = depth.data();
    a.grad_corners = grad.data();
    REQUIRE(JOIN(mesh_forward, ISA)(&a) == 0);
    for (int32_t face : shown) REQUIRE(face >= -1 && face < a.triangles);
    REQUIRE(JOIN(mesh_backward, ISA)(&a) == 0);
    results.push_back({places, depth, grad, Floats(shown.begin(), shown.end())});
  }
  REQUIRE(same_bits(results[0], results[1]));
}

}  // namespace

int main(int, char** arguments) {
  int refused = 0;
  const int scenes = std::atoi(arguments[1]);
  for (int seed = 0; seed < scenes; ++seed) {
    dice.seed(seed);
    const Scene scene = make_scene();
    const std::vector<Floats> alone = render(scene, 1, seed), together = render(scene, 3, seed);
    refused += alone.empty();
    REQUIRE(same_bits(alone, together));
    check_loss(seed);
    check_places(seed);
    check_deformation(seed);
    check_mesh(seed);
  }
  std::printf("%d scenes, %d with too many pairs\n", scenes, refused);
  return refused > 0 && refused < scenes / 4 ? 0 : 1;
}
