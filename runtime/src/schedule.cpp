// runtime/src/schedule.cpp: how the work of runs is divided, built once for many runs
#include "schedule.hpp"

#include "base/text.hpp"
#include "run.hpp"

namespace attnrt::core {
namespace {

constexpr int64_t kAlignment = 256;  // bytes; plugin.h promises it to build

// Returns "head_dim=64; expected 128" for the first word in which the problems differ.
std::string first_difference(const Problem& found, const Problem& expected) {
  for (const Word& word : vocabulary()) {
    const Value a = value_of(word, found, ""), b = value_of(word, expected, "");
    if (a != b)
      return fmt::format("{}={}; expected {}", word.name, to_text(word, a), to_text(word, b));
  }
  // value_of replaces a scale of 0 by what it stands for.
  return fmt::format("scale={}; expected {}", found.scale, expected.scale);
}

std::string label(const Plan& plan) {
  return fmt::format("{} {} on {}", plan.backend_name(), plan.version(),
                     device_text(plan.device()));
}

// Asks the backend how large the plan's schedules are.
Result<int64_t> bytes_of(const Plan& plan, const attnrt_scheduling& scheduling) {
  int64_t bytes = 0;
  attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_status status = plan.backend().schedule_bytes(scheduling, plan.plugin_plan(),
                                                       plan.device_problem(), &bytes, &error);
  if (status == ATTNRT_OK && bytes < 0) {
    status = attnrt_fail(&error, ATTNRT_INTERNAL, "asks for %lld bytes; expected at least 0",
                         static_cast<long long>(bytes));
  }
  if (status == ATTNRT_OK) return bytes;
  return fail(status, "schedule: {}: {}", plan.backend_name(),
              error.message[0] != '\0' ? error.message : status_name(status));
}

}  // namespace

Result<std::unique_ptr<Schedule>> Schedule::make(const Plan& plan) {
  std::unique_ptr<Schedule> schedule(new Schedule(plan));
  const bool enqueued = plan.device().type != ATTNRT_DEVICE_CPU && plan.staging() == nullptr;
  const attnrt_scheduling* const scheduling = enqueued ? plan.backend().scheduling() : nullptr;
  const auto bytes = scheduling != nullptr ? bytes_of(plan, *scheduling) : Result<int64_t>(0);
  if (!bytes) return tl::unexpected(bytes.error());
  auto memory = DeviceMemory::allocate(plan.shared_backend(), plan.device(),
                                       DeviceMemory::Kind::device, *bytes, kAlignment);
  if (!memory) {
    return fail(memory.error().code, "schedule: {}: {}", plan.backend_name(),
                memory.error().message);
  }
  schedule->memory_ = std::move(*memory);
  if (*bytes > 0) schedule->scheduling_ = scheduling;
  const Services& services = plan.backend().services();
  if (services.logs_info()) {
    services.log(ATTNRT_LOG_INFO, fmt::format("schedule: {}: {} bytes; for {}", label(plan), *bytes,
                                              describe(plan.problem())));
  }
  return schedule;
}

Schedule::Sizes Schedule::sizes_of(const Extents& extents, const attnrt_args& args) {
  return {extents, args.page_table.data != nullptr ? args.page_table.shape[1] : 0};
}

attnrt_status Schedule::build(const attnrt_args& given, attnrt_error* error) {
  attnrt_args args{};
  if (const auto read = read_args(given, &args, "schedule"); !read)
    return fill_error(error, read.error());
  Extents extents;
  if (const attnrt_status status = check_args(plan_.problem(), args, &extents, error, "schedule");
      status != ATTNRT_OK)
    return status;
  if (extents.is_empty()) return ATTNRT_OK;
  if (scheduling_ != nullptr) {
    if (const auto status = check_capture(plan_, args.stream, error, "schedule");
        status != ATTNRT_OK)
      return status;
    args.workspace = nullptr;
    args.workspace_bytes = 0;
    args.schedule = memory_.data();
    args.schedule_bytes = memory_.bytes();
    built_for_.reset();
    attnrt_error found = ATTNRT_ERROR_INIT;
    const attnrt_status status = plan_.backend().build_schedule(
        *scheduling_, plan_.plugin_plan(), plan_.device_problem(), args, &found);
    if (status != ATTNRT_OK) {
      return attnrt_fail(error, status, "schedule: %s: %s", plan_.backend_name().c_str(),
                         found.message[0] != '\0' ? found.message : status_name(status));
    }
  }
  built_for_ = sizes_of(extents, args);
  return ATTNRT_OK;
}

attnrt_status Schedule::check_plan(const Plan& plan, attnrt_error* error) const {
  const Device &mine = plan_.device(), &wanted = plan.device();
  if (mine.type != wanted.type || mine.id != wanted.id ||
      (&plan.backend() != &plan_.backend() && !is_of_other_version(plan))) {
    const std::string found = label(plan_), expected = label(plan);
    if (found == expected) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                         "run: the schedule is of another instance of %s; make it from a new plan",
                         found.c_str());
    }
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                       "run: the schedule is of a plan of %s; expected one of %s", found.c_str(),
                       expected.c_str());
  }
  if (same_problem(plan.problem(), plan_.problem())) return ATTNRT_OK;
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                     "run: the schedule is of another problem: found %s",
                     first_difference(plan_.problem(), plan.problem()).c_str());
}

// Whether the two plans are of different files of one backend. The layers of a model share one
// schedule, and each of them makes a plan: a rollout or a reload may give them different versions.
bool Schedule::is_of_other_version(const Plan& plan) const {
  return plan.backend_name() == plan_.backend_name() &&
         plan.backend().plugin().hash != plan_.backend().plugin().hash;
}

attnrt_status Schedule::give(const Plan& plan, const Extents& extents, attnrt_args& args,
                             attnrt_error* error) const {
  if (const attnrt_status status = check_plan(plan, error); status != ATTNRT_OK) return status;
  if (is_of_other_version(plan)) return ATTNRT_OK;  // the run divides its own work
  if (extents.is_empty()) return ATTNRT_OK;
  if (!built_for_) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                       "run: the schedule is not built; build it for this run's tensors first");
  }
  const Sizes found = sizes_of(extents, args);
  const struct {
    const char* name;
    int64_t found, expected;
  } sizes[] = {
      {"batch", found.extents.batch, built_for_->extents.batch},
      {"seq_q", found.extents.seq_q, built_for_->extents.seq_q},
      {"seq_kv", found.extents.seq_kv, built_for_->extents.seq_kv},
      {"the number of rows of q", found.extents.total_q, built_for_->extents.total_q},
      {"the first dimension of k", found.extents.total_kv, built_for_->extents.total_kv},
      {"the second dimension of page_table", found.page_columns, built_for_->page_columns},
  };
  for (const auto& size : sizes) {
    if (size.found == size.expected) continue;
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                       "run: %s is %lld; the schedule was built for %lld", size.name,
                       static_cast<long long>(size.found), static_cast<long long>(size.expected));
  }
  args.schedule = memory_.data();
  args.schedule_bytes = memory_.bytes();
  return ATTNRT_OK;
}

}  // namespace attnrt::core
