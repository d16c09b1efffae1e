// The scheduler behind emulation.h, and what tests call: see harness.py.
#include "emulation.h"

#include <numeric>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

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

void Machine::run_block() {
  const size_t count = static_cast<size_t>(threads);
  if (stack_count_ < count) {
    stack_count_ = count;
    stacks_ = std::make_unique_for_overwrite<unsigned char[]>(stack_count_ * kStack);
  }
  fibers_.assign(count, Fiber{});
  shared = std::make_unique_for_overwrite<unsigned char[]>(static_cast<size_t>(shared_bytes));
  std::memset(shared.get(), 0xff, static_cast<size_t>(shared_bytes));  // NaN in every floating type
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = fibers_[static_cast<size_t>(i)];
    fiber.thread = i;
    start_fiber(fiber, stacks_.get() + static_cast<size_t>(i) * kStack);
  }
  failed_ = false;
  for (bool progress = true; progress;) {
    progress = false;
    for (int warp : ordered(threads / kWarp)) progress = run_warp(warp * kWarp) || progress;
    progress = release(Wait::block, 0, threads) || progress;
  }
  const bool ended =
      std::all_of(fibers_.begin(), fibers_.end(), [](const Fiber& f) { return f.wait == Wait::finished; });
  if (!ended) throw Failure("deadlock: threads wait at different barriers");
}

}  // namespace emulation

// For harness.py, by ctypes.
extern "C" {

void emulation_reset(int schedule, unsigned seed) {
  emulation::machine.schedule = static_cast<emulation::Schedule>(schedule);
  emulation::machine.random.seed(seed);
  emulation::machine.buffers.clear();
  emulation::machine.launches = emulation::machine.blocks = 0;
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

// Launches, and blocks of all of them.
void emulation_totals(int64_t* totals) {
  totals[0] = emulation::machine.launches;
  totals[1] = emulation::machine.blocks;
}

}  // extern "C"
