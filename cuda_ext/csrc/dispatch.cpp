// Exports the operators and sends each call to the copy compiled for this machine's instructions.
//
// $GAUSSIAN_HEAD_ISA names another copy (gaussian_head_isas); one that this machine cannot run is ignored here and
// refused by cuda_ext/_library.py.
#include <cstdlib>
#include <cstring>

#include "mesh/mesh.h"
#include "motion/motion.h"
#include "rasterize/rasterize.h"
#include "ssim/ssim.h"

namespace {

// One compiled copy.
struct Copy {
  const char* name;
  void* (*workspace_new)();
  void (*workspace_delete)(void*);
  int (*rasterize_forward)(void*, const RasterizeView*, const RasterizeTensors*);
  int (*rasterize_backward)(void*, const RasterizeView*, const RasterizeTensors*);
  int (*l1_ssim_forward)(const SsimImages*);
  int (*l1_ssim_backward)(const SsimImages*);
  int (*place_forward)(const PlaceArguments*);
  int (*place_backward)(const PlaceArguments*);
  int (*deform_forward)(const DeformArguments*);
  int (*deform_backward)(const DeformArguments*);
  int (*mesh_forward)(const MeshArguments*);
  int (*mesh_backward)(const MeshArguments*);
};

}  // namespace

#define COPY(ISA)                                                                     \
  extern "C" {                                                                        \
  void* workspace_new_##ISA();                                                        \
  void workspace_delete_##ISA(void*);                                                 \
  int rasterize_forward_##ISA(void*, const RasterizeView*, const RasterizeTensors*);  \
  int rasterize_backward_##ISA(void*, const RasterizeView*, const RasterizeTensors*); \
  int l1_ssim_forward_##ISA(const SsimImages*);                                       \
  int l1_ssim_backward_##ISA(const SsimImages*);                                      \
  int place_forward_##ISA(const PlaceArguments*);                                     \
  int place_backward_##ISA(const PlaceArguments*);                                    \
  int deform_forward_##ISA(const DeformArguments*);                                   \
  int deform_backward_##ISA(const DeformArguments*);                                  \
  int mesh_forward_##ISA(const MeshArguments*);                                       \
  int mesh_backward_##ISA(const MeshArguments*);                                      \
  }                                                                                   \
  static const Copy ISA = {                                                           \
      #ISA,                     workspace_new_##ISA,   workspace_delete_##ISA,        \
      rasterize_forward_##ISA,  rasterize_backward_##ISA,                             \
      l1_ssim_forward_##ISA,    l1_ssim_backward_##ISA,                               \
      place_forward_##ISA,      place_backward_##ISA,                                 \
      deform_forward_##ISA,     deform_backward_##ISA,                                \
      mesh_forward_##ISA,       mesh_backward_##ISA};
COPY(baseline)
#ifdef WITH_X86
COPY(avx2)
COPY(avx512)
#endif
#undef COPY

namespace {

// The copies that this machine runs, slowest first.
struct Copies {
  const Copy* list[3] = {&baseline};
  const Copy* chosen = &baseline;
  char names[64] = {};
  Copies() {
    int n = 1;
#ifdef WITH_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")) {
      list[n++] = &avx2;
      if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512vl")) {
        list[n++] = &avx512;
      }
    }
#endif
    chosen = list[n - 1];
    const char* wanted = std::getenv("GAUSSIAN_HEAD_ISA");
    for (int i = 0; i < n; ++i) {
      if (wanted != nullptr && std::strcmp(wanted, list[i]->name) == 0) chosen = list[i];
      std::strcat(std::strcat(names, i == 0 ? "" : " "), list[i]->name);
    }
  }
};

const Copies COPIES;

}  // namespace

#define EXPORT __attribute__((visibility("default")))

extern "C" {

// The number that cuda_ext/_library.py expects: raise both whenever a structure or an export changes.
EXPORT int gaussian_head_abi() { return 4; }

EXPORT const char* gaussian_head_isa() { return COPIES.chosen->name; }

// Names that $GAUSSIAN_HEAD_ISA may hold here, with spaces between.
EXPORT const char* gaussian_head_isas() { return COPIES.names; }

EXPORT void* gaussian_head_workspace_new() { return COPIES.chosen->workspace_new(); }

EXPORT void gaussian_head_workspace_delete(void* workspace) { COPIES.chosen->workspace_delete(workspace); }

EXPORT int gaussian_head_rasterize_forward(void* workspace, const RasterizeView* view, const RasterizeTensors* tensors) {
  return COPIES.chosen->rasterize_forward(workspace, view, tensors);
}

EXPORT int gaussian_head_rasterize_backward(void* workspace, const RasterizeView* view, const RasterizeTensors* tensors) {
  return COPIES.chosen->rasterize_backward(workspace, view, tensors);
}

EXPORT int gaussian_head_l1_ssim_forward(const SsimImages* images) { return COPIES.chosen->l1_ssim_forward(images); }

EXPORT int gaussian_head_l1_ssim_backward(const SsimImages* images) { return COPIES.chosen->l1_ssim_backward(images); }

EXPORT int gaussian_head_place_forward(const PlaceArguments* arguments) { return COPIES.chosen->place_forward(arguments); }

EXPORT int gaussian_head_place_backward(const PlaceArguments* arguments) { return COPIES.chosen->place_backward(arguments); }

EXPORT int gaussian_head_deform_forward(const DeformArguments* arguments) { return COPIES.chosen->deform_forward(arguments); }

EXPORT int gaussian_head_deform_backward(const DeformArguments* arguments) { return COPIES.chosen->deform_backward(arguments); }

EXPORT int gaussian_head_mesh_forward(const MeshArguments* arguments) { return COPIES.chosen->mesh_forward(arguments); }

EXPORT int gaussian_head_mesh_backward(const MeshArguments* arguments) { return COPIES.chosen->mesh_backward(arguments); }
}
