// Exports the operators and sends each call to the copy compiled for this machine's instructions.
//
// $GAUSSIAN_HEAD_ISA=baseline keeps to the copy that runs everywhere.
#include <cstdlib>
#include <cstring>

#include "motion/motion.h"
#include "rasterize/rasterize.h"
#include "ssim/ssim.h"

extern "C" {
#define DECLARE(ISA)                                                                             \
  void* workspace_new_##ISA();                                                                   \
  void workspace_delete_##ISA(void*);                                                            \
  int rasterize_forward_##ISA(void*, const RasterizeView*, const RasterizeTensors*);             \
  int rasterize_backward_##ISA(void*, const RasterizeView*, const RasterizeTensors*);            \
  int l1_ssim_forward_##ISA(const SsimImages*);                                                  \
  int l1_ssim_backward_##ISA(const SsimImages*);                                                 \
  int place_forward_##ISA(const PlaceArguments*);                                                \
  int place_backward_##ISA(const PlaceArguments*);                                               \
  int deform_forward_##ISA(const DeformArguments*);                                              \
  int deform_backward_##ISA(const DeformArguments*);
DECLARE(baseline)
#ifdef WITH_AVX2
DECLARE(avx2)
#endif
}

namespace {

bool use_avx2() {
#ifdef WITH_AVX2
  const char* forced = std::getenv("GAUSSIAN_HEAD_ISA");
  if (forced != nullptr && std::strcmp(forced, "baseline") == 0) return false;
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

const bool AVX2 = use_avx2();

}  // namespace

#ifdef WITH_AVX2
#define CALL(name, ...) (AVX2 ? name##_avx2(__VA_ARGS__) : name##_baseline(__VA_ARGS__))
#else
#define CALL(name, ...) name##_baseline(__VA_ARGS__)
#endif
#define EXPORT __attribute__((visibility("default")))

extern "C" {

// The number that cuda_ext/_library.py expects: raise both whenever a structure or an export changes.
EXPORT int gaussian_head_abi() { return 2; }

EXPORT const char* gaussian_head_isa() { return AVX2 ? "avx2" : "baseline"; }

EXPORT void* gaussian_head_workspace_new() { return CALL(workspace_new); }

EXPORT void gaussian_head_workspace_delete(void* workspace) { CALL(workspace_delete, workspace); }

EXPORT int gaussian_head_rasterize_forward(void* workspace, const RasterizeView* view, const RasterizeTensors* tensors) {
  return CALL(rasterize_forward, workspace, view, tensors);
}

EXPORT int gaussian_head_rasterize_backward(void* workspace, const RasterizeView* view, const RasterizeTensors* tensors) {
  return CALL(rasterize_backward, workspace, view, tensors);
}

EXPORT int gaussian_head_l1_ssim_forward(const SsimImages* images) { return CALL(l1_ssim_forward, images); }

EXPORT int gaussian_head_l1_ssim_backward(const SsimImages* images) { return CALL(l1_ssim_backward, images); }

EXPORT int gaussian_head_place_forward(const PlaceArguments* arguments) { return CALL(place_forward, arguments); }

EXPORT int gaussian_head_place_backward(const PlaceArguments* arguments) { return CALL(place_backward, arguments); }

EXPORT int gaussian_head_deform_forward(const DeformArguments* arguments) { return CALL(deform_forward, arguments); }

EXPORT int gaussian_head_deform_backward(const DeformArguments* arguments) { return CALL(deform_backward, arguments); }
}
