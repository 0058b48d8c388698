// kernels/hip/schedule.hip: the kernel that makes lists of work, for every dtype and head_dim
#include "kernels/hip/schedule.hpp"

namespace kernels::hip {

GPU_KERNEL(kScheduleThreads, 1)
schedule_kernel(const GPU_GRID_CONSTANT ScheduleParams p) { Scheduler(p).run(); }

}  // namespace kernels::hip
