// The scheduler behind emulation.h, and what tests call: see harness.py.
#include "emulation.h"

#include <numeric>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "launch.h"

#if defined(__x86_64__)
asm(R"(
.text
.hidden emulation_switch
.globl emulation_switch
.type emulation_switch, @function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulation_switch, .-emulation_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.hidden emulation_switch
.globl emulation_switch
.type emulation_switch, %function
emulation_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size emulation_switch, .-emulation_switch
)");
#endif

#if defined(EMULATE_FLOAT32_ONLY)
// For builds that leave out the other types, to be quick.
namespace sc_layers {
const Launcher kFloat64{}, kFloat16{}, kBfloat16{};
}
#endif

namespace emulation {

Machine machine;

void Machine::enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &machine.scheduler_bottom_, &machine.scheduler_size_);
#endif
  try {
    machine.run_(machine.body_);
  } catch (const std::exception& failure) {
    machine.error = failure.what();
    machine.failed_ = true;
  }
  machine.wait(Wait::finished);
  std::abort();  // nothing resumes a finished fiber
}

void Machine::start_fiber(Fiber& fiber, unsigned char* stack) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack, kStack);
#endif
#if defined(__x86_64__)
  auto** top = reinterpret_cast<void**>(stack + kStack) - 1;  // a function starts 8 bytes off a multiple of 16
  *top = nullptr;                                             // the return address of `enter`
  *--top = reinterpret_cast<void*>(&Machine::enter);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  fiber.stack_pointer = top;
#elif defined(__aarch64__)
  auto** top = reinterpret_cast<void**>(stack + kStack - 160);
  std::fill_n(top, 20, nullptr);
  top[11] = reinterpret_cast<void*>(&Machine::enter);  // x30
  fiber.stack_pointer = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, &Machine::enter, 0);
#endif
}

void Machine::to_fiber(Fiber& fiber) {
  current = &fiber;
#if defined(__SANITIZE_ADDRESS__)
  const size_t index = static_cast<size_t>(&fiber - fibers_.data());
  __sanitizer_start_switch_fiber(&sanitizer_stack_, stacks_.get() + index * kStack, kStack);
#endif
#if defined(__x86_64__) || defined(__aarch64__)
  emulation_switch(&scheduler_stack_pointer_, fiber.stack_pointer);
#else
  swapcontext(&scheduler_context_, &fiber.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(sanitizer_stack_, nullptr, nullptr);
#endif
  current = nullptr;
}

void Machine::to_scheduler() {
  Fiber& fiber = *current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fiber.sanitizer_stack, scheduler_bottom_, scheduler_size_);
#endif
#if defined(__x86_64__) || defined(__aarch64__)
  emulation_switch(&fiber.stack_pointer, scheduler_stack_pointer_);
#else
  swapcontext(&fiber.context, &scheduler_context_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.sanitizer_stack, &scheduler_bottom_, &scheduler_size_);
#endif
}

std::vector<int> Machine::ordered(int count) {
  std::vector<int> indices(static_cast<size_t>(count));
  std::iota(indices.begin(), indices.end(), 0);
  if (schedule == Schedule::reverse) std::reverse(indices.begin(), indices.end());
  if (schedule == Schedule::shuffled) std::shuffle(indices.begin(), indices.end(), random);
  return indices;
}

bool Machine::has_ended(int block) const {
  const auto first = fibers_.begin() + block * threads;
  return std::any_of(first, first + threads, [](const Fiber& fiber) { return fiber.wait == Wait::finished; });
}

// Lets the fibers go on if all that have not finished wait for the same thing.
bool Machine::release(Wait what, int first, int count) {
  bool some = false;
  for (int i = first; i < first + count; ++i) {
    const Wait wait = fibers_[static_cast<size_t>(i)].wait;
    if (wait == Wait::finished) continue;
    if (wait != what) return false;
    some = true;
  }
  for (int i = first; some && i < first + count; ++i) {
    Fiber& fiber = fibers_[static_cast<size_t>(i)];
    if (fiber.wait == what) fiber.wait = Wait::none;
  }
  return some;
}

// Runs a warp until all of its lanes wait for other warps; false if they did already.
bool Machine::run_warp(int first) {
  const std::vector<int> lanes = ordered(kWarp);
  bool progress = false;
  for (bool running = true; running;) {
    running = false;
    for (int lane : lanes) {
      Fiber& fiber = fibers_[static_cast<size_t>(first + lane)];
      if (fiber.wait != Wait::none) continue;
      to_fiber(fiber);
      if (failed_) throw Failure(error);
      running = true;
    }
    running = release(Wait::warp, first, kWarp) || running;
    progress = progress || running;
  }
  return progress;
}

// Runs a block to its next barrier, or, but for the shuffled schedule, until it waits for its cluster: blocks of a
// cluster then get as far apart as they may. False if it waited already.
bool Machine::run_block(int block) {
  bool progress = false;
  for (bool running = true; running;) {
    running = false;
    for (int warp : ordered(threads / kWarp)) running = run_warp(block * threads + warp * kWarp) || running;
    running = release(Wait::block, block * threads, threads) || running;
    progress = progress || running;
    if (schedule == Schedule::shuffled) break;
  }
  return progress;
}

void Machine::run_cluster() {
  const int count = cluster * threads;
  if (stack_count_ < static_cast<size_t>(count)) {
    stack_count_ = static_cast<size_t>(count);
    stacks_ = std::make_unique_for_overwrite<unsigned char[]>(stack_count_ * kStack);
  }
  fibers_.assign(static_cast<size_t>(count), Fiber{});
  shared.clear();
  for (int block = 0; block < cluster; ++block) {
    shared.push_back(std::make_unique_for_overwrite<unsigned char[]>(static_cast<size_t>(shared_bytes)));
    std::memset(shared.back().get(), 0xff, static_cast<size_t>(shared_bytes));  // NaN in every floating type
  }
  for (int i = 0; i < count; ++i) {
    Fiber& fiber = fibers_[static_cast<size_t>(i)];
    fiber.thread = i % threads;
    fiber.block = i / threads;
    start_fiber(fiber, stacks_.get() + static_cast<size_t>(i) * kStack);
  }
  failed_ = false;
  for (;;) {
    bool progress = false;
    for (int block : ordered(cluster)) progress = run_block(block) || progress;
    progress = release(Wait::cluster, 0, count) || progress;
    if (progress) continue;
    const bool ended =
        std::all_of(fibers_.begin(), fibers_.end(), [](const Fiber& f) { return f.wait == Wait::finished; });
    if (ended) return;
    throw Failure("deadlock: threads wait at different barriers");
  }
}

}  // namespace emulation

template <typename Size>
static int64_t guarded(Size size) {
  try {
    return static_cast<int64_t>(size());
  } catch (const std::exception& error) {
    emulation::machine.error = error.what();
    return -1;
  }
}

// For harness.py, by ctypes.
extern "C" {

void emulation_reset(int schedule, unsigned seed) {
  emulation::machine.schedule = static_cast<emulation::Schedule>(schedule);
  emulation::machine.random.seed(seed);
  emulation::machine.buffers.clear();
  emulation::machine.launches = emulation::machine.blocks = emulation::machine.largest_shared = 0;
}

void emulation_buffer(const char* name, void* start, uint64_t bytes, int writable) {
  emulation::Buffer buffer{name, static_cast<unsigned char*>(start), bytes, writable != 0, 0, 0, {}, {}};
  buffer.was_read.resize(bytes);
  buffer.was_written.resize(bytes);
  emulation::machine.buffers.push_back(std::move(buffer));
}

// Bytes of a buffer: read and written, every access counted; then those of them that are different.
void emulation_counts(const char* name, uint64_t* counts) {
  for (const emulation::Buffer& buffer : emulation::machine.buffers) {
    if (buffer.name != name) continue;
    counts[0] = buffer.read;
    counts[1] = buffer.written;
    counts[2] = static_cast<uint64_t>(std::count(buffer.was_read.begin(), buffer.was_read.end(), true));
    counts[3] = static_cast<uint64_t>(std::count(buffer.was_written.begin(), buffer.was_written.end(), true));
  }
}

// Launches, blocks of all of them, and the most shared memory of a block.
void emulation_totals(int64_t* totals) {
  totals[0] = emulation::machine.launches;
  totals[1] = emulation::machine.blocks;
  totals[2] = emulation::machine.largest_shared;
}

// Bytes of scratch memory, or -1 and an error.
int64_t emulation_forward_workspace(const sc_layers::Shape* shape, const sc_layers::Device* device) {
  return guarded([&] { return sc_layers::forward_workspace(*shape, *device); });
}
int64_t emulation_backward_workspace(const sc_layers::Shape* shape, const sc_layers::Device* device) {
  return guarded([&] { return sc_layers::backward_workspace(*shape, *device); });
}
const char* emulation_error() { return emulation::machine.error.c_str(); }
const char* emulation_forward(const sc_layers::Forward* call, const sc_layers::Device* device) {
  return sc_layers::launch_forward(*call, *device, nullptr);
}
const char* emulation_backward(const sc_layers::Backward* call, const sc_layers::Device* device) {
  return sc_layers::launch_backward(*call, *device, nullptr);
}

}  // extern "C"
