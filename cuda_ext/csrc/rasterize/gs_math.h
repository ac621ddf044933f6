// The mathematics of splatting one Gaussian, shared by every backend.
//
// Templates over the scalar T: float on a GPU or in a test, eight floats (simd.h) on the CPU. Only operators, comparisons
// with ?:, and an overloaded sqrt() are used. Notation: camera frame x right, y down, z forward; A = J W R S, the 2 x 3
// square root of the projected covariance (EWA, Zwicker et al. 2001), so that Sigma = A A^T + 0.3 I.
#pragma once

#ifdef __CUDACC__
#define GS_HD __host__ __device__ __forceinline__
#else
#define GS_HD inline __attribute__((always_inline))
#endif

namespace {
namespace gs {

constexpr float ALPHA_MIN = 1.0f / 255.0f;
constexpr float ALPHA_MAX = 0.99f;
constexpr float TRANSMITTANCE_MIN = 1e-4f;
constexpr float LOW_PASS = 0.3f;  // px^2
constexpr float LOG2_E = 1.44269504088896341f;
constexpr float HALF_LOG2_E = 0.5f * LOG2_E;
constexpr int TILE = 16;

// A pinhole camera with what is derived from it once per picture.
struct Camera {
  float rotation[9], translation[3], eye[3];  // world to camera, row-major; camera centre in the world
  float fx, fy, cx, cy;                       // px
  float x_low, x_high, y_low, y_high;         // limits of x/z and y/z inside the Jacobian
  float near_plane;
};

// Everything about a projected Gaussian that its gradient needs again.
template <class T>
struct Projection {
  T x, y, z;                 // camera frame; z = 1 behind the near plane
  T inv_z, rx, ry, jx, jy;   // 1/z, x/z, y/z, the latter two clamped for the Jacobian
  T jw[6];                   // J W
  T unit[4], inv_norm;       // unit quaternion, 1/|quat|
  T rotated[6];              // J W R
  T a[6];                    // J W R S
  T xx, xy, yy, determinant; // Sigma (px^2) and its determinant
  T mean_x, mean_y;          // px
};

// Sigma^-1 = L L^T with L = [[xx, 0], [yx, yy]]; whitened offset (u, w) = L^T d = (xx dx + yx dy, yy dy).
template <class T>
struct Whitening {
  T xx, yx, yy;
};

template <class T>
GS_HD T dot3(const T* a, const T* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

template <class T>
GS_HD void rotation_matrix(const T q[4], T r[9]) {  // q: unit (w, x, y, z)
  const T w = q[0], x = q[1], y = q[2], z = q[3];
  r[0] = 1.0f - 2.0f * (y * y + z * z), r[1] = 2.0f * (x * y - w * z), r[2] = 2.0f * (x * z + w * y);
  r[3] = 2.0f * (x * y + w * z), r[4] = 1.0f - 2.0f * (x * x + z * z), r[5] = 2.0f * (y * z - w * x);
  r[6] = 2.0f * (x * z - w * y), r[7] = 2.0f * (y * z + w * x), r[8] = 1.0f - 2.0f * (x * x + y * y);
}

template <class T>
GS_HD Projection<T> project(const Camera& camera, const T mean[3], const T quat[4], const T scale[3]) {
  Projection<T> p;
  const float *w = camera.rotation, *t = camera.translation;
  p.x = w[0] * mean[0] + w[1] * mean[1] + w[2] * mean[2] + t[0];
  p.y = w[3] * mean[0] + w[4] * mean[1] + w[5] * mean[2] + t[1];
  const T z = w[6] * mean[0] + w[7] * mean[1] + w[8] * mean[2] + t[2];
  p.z = z > camera.near_plane ? z : T{} + 1.0f;
  p.inv_z = 1.0f / p.z;
  p.rx = p.x * p.inv_z, p.ry = p.y * p.inv_z;
  p.mean_x = camera.fx * p.rx + camera.cx, p.mean_y = camera.fy * p.ry + camera.cy;
  p.jx = p.rx < camera.x_low ? T{} + camera.x_low : p.rx > camera.x_high ? T{} + camera.x_high : p.rx;
  p.jy = p.ry < camera.y_low ? T{} + camera.y_low : p.ry > camera.y_high ? T{} + camera.y_high : p.ry;
  const T ax = camera.fx * p.inv_z, ay = camera.fy * p.inv_z;
  for (int j = 0; j < 3; ++j) {
    p.jw[j] = ax * (w[j] - p.jx * w[6 + j]);
    p.jw[3 + j] = ay * (w[3 + j] - p.jy * w[6 + j]);
  }
  const T norm2 = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
  p.inv_norm = 1.0f / sqrt(norm2 > 1e-24f ? norm2 : T{} + 1e-24f);
  for (int i = 0; i < 4; ++i) p.unit[i] = quat[i] * p.inv_norm;
  T r[9];
  rotation_matrix(p.unit, r);
  for (int i = 0; i < 6; i += 3) {
    for (int k = 0; k < 3; ++k) {
      p.rotated[i + k] = p.jw[i] * r[k] + p.jw[i + 1] * r[3 + k] + p.jw[i + 2] * r[6 + k];
      p.a[i + k] = p.rotated[i + k] * scale[k];
    }
  }
  const T *a = p.a, *b = p.a + 3;
  const T xx = dot3(a, a), yy = dot3(b, b);
  // Cauchy-Binet: |a x b|^2 instead of xx yy - xy^2, which cancels for needles.
  const T c0 = a[1] * b[2] - a[2] * b[1], c1 = a[2] * b[0] - a[0] * b[2], c2 = a[0] * b[1] - a[1] * b[0];
  p.determinant = c0 * c0 + c1 * c1 + c2 * c2 + LOW_PASS * (xx + yy) + LOW_PASS * LOW_PASS;
  p.xx = xx + LOW_PASS, p.xy = dot3(a, b), p.yy = yy + LOW_PASS;
  return p;
}

// With `scale` = sqrt(log2(e)/2) the whitened offset gives exp(power) = 2^-(u^2 + w^2).
template <class T>
GS_HD Whitening<T> whiten(const Projection<T>& p, float scale) {
  const T inv_yy = 1.0f / sqrt(p.yy), inv_det = 1.0f / sqrt(p.determinant);
  return {scale * (p.yy * inv_yy * inv_det), -scale * (p.xy * inv_yy * inv_det), scale * inv_yy};
}

// Gradient of the loss on one projected Gaussian, from the moments that its pixels summed (v = dL/dpower).
template <class T>
struct Moments {
  T v, u, w, uu, uw, ww;  // sums of v, v u, v w, v u^2, v u w, v w^2, in offsets whitened by whiten(p, 1)
};

// Turns moments and the gradient on camera depth into gradients on mean, quaternion (as given) and scale.
// grad_pixel receives the gradient on the projected centre, px. grad_mean is overwritten.
template <class T>
GS_HD void project_backward(
    const Camera& camera, const Projection<T>& p, const Whitening<T>& l, const T scale[3], const Moments<T>& m, T grad_depth,
    T grad_mean[3], T grad_quat[4], T grad_scale[3], T grad_pixel[2]) {
  grad_pixel[0] = l.xx * m.u;
  grad_pixel[1] = l.yx * m.u + l.yy * m.w;
  // dL/dSigma = 1/2 L M L^T, doubled here because A enters twice.
  const T gxx = l.xx * l.xx * m.uu;
  const T gxy = l.xx * (l.yx * m.uu + l.yy * m.uw);
  const T gyy = l.yx * (l.yx * m.uu + 2.0f * (l.yy * m.uw)) + l.yy * l.yy * m.ww;
  T ga[6];
  for (int k = 0; k < 3; ++k) {
    ga[k] = gxx * p.a[k] + gxy * p.a[3 + k];
    ga[3 + k] = gxy * p.a[k] + gyy * p.a[3 + k];
    grad_scale[k] = ga[k] * p.rotated[k] + ga[3 + k] * p.rotated[3 + k];
    ga[k] = ga[k] * scale[k], ga[3 + k] = ga[3 + k] * scale[k];
  }
  T r[9], gr[9], gjw[6];
  rotation_matrix(p.unit, r);
  for (int j = 0; j < 3; ++j) {
    for (int k = 0; k < 3; ++k) gr[3 * j + k] = p.jw[j] * ga[k] + p.jw[3 + j] * ga[3 + k];
    gjw[j] = dot3(ga, r + 3 * j), gjw[3 + j] = dot3(ga + 3, r + 3 * j);
  }
  const T w = p.unit[0], x = p.unit[1], y = p.unit[2], z = p.unit[3];
  T gq[4];
  gq[0] = 2.0f * (x * (gr[7] - gr[5]) + y * (gr[2] - gr[6]) + z * (gr[3] - gr[1]));
  gq[1] = 2.0f * (w * (gr[7] - gr[5]) + y * (gr[1] + gr[3]) + z * (gr[2] + gr[6]) - 2.0f * (x * (gr[4] + gr[8])));
  gq[2] = 2.0f * (w * (gr[2] - gr[6]) + x * (gr[1] + gr[3]) + z * (gr[5] + gr[7]) - 2.0f * (y * (gr[0] + gr[8])));
  gq[3] = 2.0f * (w * (gr[3] - gr[1]) + x * (gr[2] + gr[6]) + y * (gr[5] + gr[7]) - 2.0f * (z * (gr[0] + gr[4])));
  const T along = w * gq[0] + x * gq[1] + y * gq[2] + z * gq[3];
  for (int i = 0; i < 4; ++i) grad_quat[i] = (gq[i] - p.unit[i] * along) * p.inv_norm;
  // jw row = (f/z) (W row - jx W2): through f/z, through jx (unless clamped), and through the projected centre.
  const float* wv = camera.rotation;
  const T ax = camera.fx * p.inv_z, ay = camera.fy * p.inv_z;
  T g_ax = T{}, g_ay = T{}, g_jx = T{}, g_jy = T{};
  for (int j = 0; j < 3; ++j) {
    g_ax = g_ax + gjw[j] * (wv[j] - p.jx * wv[6 + j]);
    g_ay = g_ay + gjw[3 + j] * (wv[3 + j] - p.jy * wv[6 + j]);
    g_jx = g_jx - gjw[j] * wv[6 + j];
    g_jy = g_jy - gjw[3 + j] * wv[6 + j];
  }
  const T g_rx = camera.fx * grad_pixel[0] + ((p.jx == p.rx) ? ax * g_jx : T{});
  const T g_ry = camera.fy * grad_pixel[1] + ((p.jy == p.ry) ? ay * g_jy : T{});
  const T gx = g_rx * p.inv_z, gy = g_ry * p.inv_z;
  const T gz = grad_depth - p.inv_z * (ax * g_ax + ay * g_ay + g_rx * p.rx + g_ry * p.ry);
  for (int j = 0; j < 3; ++j) grad_mean[j] = wv[j] * gx + wv[3 + j] * gy + wv[6 + j] * gz;
}

// Inria's radius: three standard deviations, not yet rounded up (px).
template <class T>
GS_HD T three_sigma(const Projection<T>& p) {
  const T middle = 0.5f * (p.xx + p.yy), spread = middle * middle - p.determinant;
  return 3.0f * sqrt(middle + sqrt(spread > 0.1f ? spread : T{} + 0.1f));
}

}  // namespace gs
}  // namespace
