#include "plan.h"

#include <cmath>
#include <stdexcept>
#include <string>

namespace sc_layers {
namespace {

constexpr int kReservedShared = 1024;  // bytes that the system takes of every block's shared memory
constexpr int kRegisterFile = 65536;   // registers of a multiprocessor
constexpr int kBandBytes = 40 * 1024;  // gates stay in device memory if they need more
constexpr int kMinChunk = 32;          // pixels, unless a plane has fewer
constexpr int kMaxChunk = 8192;
constexpr double kCacheBytes = 24;   // that a multiprocessor gets from the level 2 cache per clock
constexpr int kSmallestSlice = 256;  // pixels, of planes that are not on chip
constexpr int kLargestSlice = 8192;
constexpr int kGateStrip = 2048;
constexpr double kDoubtSecondRead = 1.15;  // reading features twice must look this much cheaper than once
constexpr double kWavesWanted = 2;         // below this, blocks are not made longer

// Latencies of the model: what a block waits for besides throughput.
constexpr double kMemoryLatency = 0.8e-6;   // a round trip to device memory under load
constexpr double kBarrierLatency = 0.1e-6;  // a barrier and the code around it
constexpr double kClusterLatency = 0.7e-6;  // a cluster barrier and reads from other blocks' shared memory
constexpr double kLaunch = 2e-6;            // from one launch to the next one in a stream
constexpr double kSmallKernel = 2e-6;       // shortest run of a launch

int log2_of(int power) {
  int exponent = 0;
  while ((1 << exponent) < power) ++exponent;
  return exponent;
}

int64_t pixels_of(const Shape& shape) { return shape.h * shape.w; }

Layout shared_layout(const Plan& plan, const Shape& shape, bool backward) {
  const int element = scalar_bytes(shape.scalar), accumulator = accumulator_bytes(shape.scalar);
  const int codes = static_cast<int>(shape.k), width = static_cast<int>(shape.w);
  const int bands = plan.bands_on_chip ? static_cast<int>(shape.k * shape.j) * accumulator : 0;
  int offset = 0;
  const auto next = [&offset](int bytes) {
    const int start = offset;
    offset += round_up(bytes, 16);
    return start;
  };
  Layout layout{};
  layout.features = next(plan.batch * plan.stride * element);
  layout.gradients = next(backward ? plan.batch * plan.stride * element : 0);
  layout.weights = next((codes + 1) * plan.chunk * accumulator);
  layout.weight_gradients = next(backward ? plan.parts * (codes + 1) * round_up(plan.slice, 4) * accumulator : 0);
  layout.styles = next(2 * codes * plan.batch * accumulator);
  layout.sums = next(2 * plan.segments * plan.batch * (backward ? codes : 1) * accumulator);
  layout.totals = next(backward ? 2 * codes * plan.batch * accumulator : 0);
  layout.statistics = next((backward ? 4 : 2) * plan.batch * accumulator);
  layout.factors = next(codes * accumulator);
  layout.bands_h = next(bands * plan.band_rows);
  layout.bands_w = next(bands * width);
  layout.span = next(kSpanBytes);
  layout.bytes = next(0);
  return layout;
}

int resident_blocks(const Plan& plan, const Shape& shape, const Device& device) {
  const int registers = kThreads * kRegisters * (shape.scalar == Scalar::f64 ? 2 : 1);
  return std::min({device.shared_per_multiprocessor / (plan.shared.bytes + kReservedShared), kRegisterFile / registers,
                   device.threads_per_multiprocessor / kThreads});
}

// The rest of a plan whose slice, cluster, batch and chunk are set.
void set_details(Plan& plan, const Shape& shape, const Device& device, bool backward, bool bands_on_chip) {
  const int codes = static_cast<int>(shape.k), warps = kThreads / 32;
  plan.chunk_log2 = log2_of(plan.chunk);
  plan.batch_log2 = log2_of(plan.batch);
  plan.row_pair_mask = plan.batch / 2 - 1;
  plan.quad_mask = plan.chunk / 4 - 1;
  plan.together = ceil_divide(codes, ceil_divide(codes, kCodesAtOnce));
  plan.stride = round_up(plan.slice, 8) + (shape.channels_last ? 4 : 0);
  plan.segments = std::max(1, warps / (backward ? plan.batch / 2 : plan.batch));
  plan.parts = std::min(plan.batch, std::max(1, kThreads / (plan.chunk / 4)));
  plan.band_rows = static_cast<int>(std::min<int64_t>(shape.h, (plan.slice + shape.w - 2) / shape.w + 1));
  plan.bands_on_chip = bands_on_chip;
  plan.shared = shared_layout(plan, shape, backward);
  while (plan.parts > 1 && plan.shared.bytes > device.shared_per_block / 2) {
    plan.parts /= 2;
    plan.shared = shared_layout(plan, shape, backward);
  }
  plan.resident = resident_blocks(plan, shape, device);
}

// Fills in what follows from slice, cluster, batch and chunk; false if it does not fit the device.
bool complete(Plan& plan, const Shape& shape, const Device& device, bool backward) {
  plan.slices = static_cast<int>((pixels_of(shape) + plan.slice - 1) / plan.slice);
  if (plan.on_chip && plan.slices != plan.cluster) return false;
  const int64_t accumulator = accumulator_bytes(shape.scalar), element = scalar_bytes(shape.scalar);
  const int64_t tile_bytes = plan.batch * plan.slice * element * (backward ? 2 : 1);
  const int64_t weight_bytes = (shape.k + 1) * (plan.chunk + (backward ? plan.slice : 0)) * accumulator;
  if (tile_bytes + weight_bytes > device.shared_per_block) return false;
  const int64_t rows = std::min<int64_t>(shape.h, (plan.slice + shape.w - 2) / shape.w + 1);
  const bool bands_fit = shape.k * shape.j * (rows + shape.w) * accumulator <= kBandBytes;
  for (int on_chip = bands_fit; on_chip >= 0; --on_chip) {
    set_details(plan, shape, device, backward, on_chip == 1);
    if (plan.shared.bytes <= device.shared_per_block && plan.resident >= 1) return true;
  }
  return false;
}

void set_groups(Plan& plan, const Shape& shape) {
  const int64_t all = (shape.c + plan.batch - 1) / plan.batch;
  plan.groups = static_cast<int>((all + plan.batches - 1) / plan.batches);
  plan.batches = static_cast<int>((all + plan.groups - 1) / plan.groups);
  plan.blocks = shape.n * plan.groups * plan.slices;
}

// A block of the backward pass takes as many batches as leave the device full: its sums over channels are then
// written once for all of them.
void set_batches(Plan& plan, const Shape& shape, const Device& device, bool backward) {
  plan.batches = 1;
  set_groups(plan, shape);
  if (!backward) return;
  const double enough = kWavesWanted * device.multiprocessors * plan.resident;
  plan.batches = std::max(1, static_cast<int>(std::min<double>(plan.groups, plan.blocks / enough)));
  set_groups(plan, shape);
}

// Batches narrower than this would have several blocks read the same sector of channels_last features.
int smallest_batch(const Shape& shape) {
  const int wanted = shape.channels_last ? kSector / scalar_bytes(shape.scalar) : kMinBatch;
  return std::clamp(std::min(wanted, next_power_of_two(shape.c)), kMinBatch, kMaxBatch);
}

Estimate estimate(const Shape& shape, const Device& device, const Plan& plan, bool backward);

// The cheapest of all plans that fit, by the model.
Plan search(const Shape& shape, const Device& device, bool backward) {
  const int64_t pixels = pixels_of(shape);
  const int largest = std::clamp(next_power_of_two(shape.c), kMinBatch, kMaxBatch);
  Plan best{};
  double best_seconds = INFINITY;
  const auto consider = [&](bool on_chip, int64_t slice, int cluster) {
    const int whole = std::clamp(next_power_of_two(slice), 4, kMaxChunk);
    for (int batch = smallest_batch(shape); batch <= largest; batch *= 2) {
      for (int chunk = whole; chunk >= std::min(whole, kMinChunk); chunk /= 2) {
        Plan plan{};
        plan.on_chip = on_chip;
        plan.slice = static_cast<int>(slice);
        plan.cluster = cluster;
        plan.batch = batch;
        plan.chunk = chunk;
        if (!complete(plan, shape, device, backward)) continue;
        set_batches(plan, shape, device, backward);
        const double seconds = estimate(shape, device, plan, backward).seconds * (on_chip ? 1 : kDoubtSecondRead);
        if (seconds >= best_seconds) continue;
        best = plan;
        best_seconds = seconds;
      }
    }
  };
  for (int cluster = 1; cluster <= device.max_cluster; cluster *= 2) {
    const int64_t slice = cluster == 1 ? pixels : ((pixels + cluster - 1) / cluster + 7) / 8 * 8;
    consider(true, slice, cluster);
  }
  for (int64_t slice = kMinChunk; slice < pixels && slice <= kLargestSlice; slice *= 2) {
    if (slice >= kSmallestSlice || best.blocks == 0) consider(false, slice, 1);
  }
  if (best.blocks == 0 && shape.n > 0) {
    throw std::runtime_error("no cut of the work fits into " + std::to_string(device.shared_per_block) +
                             " bytes of shared memory");
  }
  return best;
}

// Costs of one launch.
struct Launch {
  double blocks;  // the rest is of one block
  double feature_bytes, other_bytes, unique_bytes, instructions, latency;
};

// Instructions that the threads of a block issue, per part of the kernels; counted in their machine code (README.md).
double copy_instructions(const Shape& shape, double elements) {
  const double each = shape.channels_last ? 2.5 : 6.0 * scalar_bytes(shape.scalar) / 16;
  return elements * each;
}
double weigh_instructions(const Shape& shape, double pixels) {
  const bool quads = shape.w % 4 == 0;
  const double code = quads ? 2.4 * shape.j + 4.5 : 7.0 * shape.j + 6;
  return pixels * (shape.k * code + (quads ? 10 : 40));
}
double moment_instructions(double elements) { return 6 * elements; }
double blend_instructions(const Shape& shape, double elements) { return elements * (2.8 * shape.k + 7); }
double pixel_sum_instructions(const Shape& shape, const Plan& plan, double elements) {
  const double passes = std::ceil(double(shape.k) / kCodesAtOnce);
  const double values = next_power_of_two(static_cast<int64_t>(4 * std::ceil(shape.k / passes)));
  const double reduction = 4.0 * values * 32 * plan.segments / (2.0 * std::min(plan.chunk, plan.slice));
  return elements * (2.2 * shape.k + (6 + reduction) * passes);
}
double channel_sum_instructions(const Shape& shape, const Plan& plan, double elements) {
  const double busy = std::min(1.0, double(plan.parts) * plan.chunk / 4 / kThreads);
  return elements / busy * (2.5 * shape.k + 7 * std::ceil(double(shape.k) / kCodesAtOnce));
}
double difference_instructions(const Shape& shape, double elements) { return elements * (1.8 * shape.k + 11); }

double band_bytes(const Shape& shape, const Plan& plan) {
  const double staged = double(shape.k) * shape.j * (plan.band_rows + shape.w);
  const double direct = double(shape.k) * shape.j * plan.slice * (shape.w % 4 == 0 ? 1.25 : 2);
  return (plan.bands_on_chip ? staged : direct) * accumulator_bytes(shape.scalar);
}

Launch main_launch(const Shape& shape, const Plan& plan, bool backward, Stage stage) {
  const double accumulator = accumulator_bytes(shape.scalar), element = scalar_bytes(shape.scalar);
  const double pixels = double(pixels_of(shape)) / plan.slices;
  const double channels = double(shape.c) / plan.groups;
  const double rows = double(plan.batch) * plan.batches;  // with those beyond the last channel
  const double elements = pixels * channels, padded = double(round_up(plan.slice, 4)) * rows;
  const int moved = (backward ? 2 : 1) + (stage != Stage::statistics ? 1 : 0);
  const int chunks = ceil_divide(plan.slice, plan.chunk);
  Launch launch{};
  launch.blocks = double(plan.blocks);
  launch.feature_bytes = elements * element * moved;
  launch.instructions = copy_instructions(shape, elements * moved);
  double own_bytes = 2 * channels * accumulator;  // statistics, read or written
  const bool weighs = backward || stage != Stage::statistics;
  if (weighs) {
    const double weighings = chunks == 1 && backward ? 1 : plan.batches * (backward && stage == Stage::whole ? 2 : 1);
    launch.other_bytes += band_bytes(shape, plan) * (plan.bands_on_chip ? 1 : weighings);
    launch.unique_bytes += double(shape.k) * shape.j * (shape.h + shape.w) * accumulator / (plan.groups * plan.slices);
    own_bytes += 2 * shape.k * channels * accumulator;
    launch.instructions += weigh_instructions(shape, padded / rows) * weighings;
  }
  if (backward) {
    own_bytes += 2 * shape.k * channels * accumulator;  // sums
    if (stage != Stage::apply) {
      own_bytes += (shape.k + 1) * pixels * accumulator;
      launch.instructions +=
          pixel_sum_instructions(shape, plan, padded) + channel_sum_instructions(shape, plan, padded);
    }
    if (stage != Stage::statistics) launch.instructions += difference_instructions(shape, padded);
  } else {
    if (stage != Stage::apply) launch.instructions += moment_instructions(padded);
    if (stage != Stage::statistics) launch.instructions += blend_instructions(shape, padded);
  }
  launch.other_bytes += own_bytes;
  launch.unique_bytes += own_bytes;
  const double batch_latency =
      kMemoryLatency + kBarrierLatency * (3 + 2.0 * chunks) + (plan.cluster > 1 ? 2 * kClusterLatency : 0);
  launch.latency = plan.batches * batch_latency + kMemoryLatency;
  return launch;
}

// Adds a launch: blocks run in waves, `resident` at a time on every multiprocessor. Of those, one at a time is limited
// by memory, one by instructions, and a block alone by both and by latencies (bounds of a closed queueing network).
void add_launch(Estimate& total, const Launch& launch, const Device& device, int resident) {
  // What many blocks read comes from the cache, all but the first time.
  const double cached = (launch.feature_bytes + launch.other_bytes) / (kCacheBytes * device.clock);
  const double unique = launch.feature_bytes + launch.unique_bytes;
  const double memory = std::max(unique * device.multiprocessors / device.bandwidth, cached);
  const double issue = launch.instructions / (device.lanes * device.clock);
  const double alone = memory + issue + launch.latency;
  const double slots = double(device.multiprocessors) * resident;
  const double full = std::floor(launch.blocks / slots), rest = launch.blocks - full * slots;
  const double wave = std::max({resident * memory, resident * issue, alone});
  const double last_resident = std::ceil(rest / device.multiprocessors);
  const double last = rest > 0 ? std::max({rest / device.multiprocessors * memory, last_resident * issue, alone}) : 0;
  total.seconds += kLaunch + std::max(kSmallKernel, full * wave + last);
  total.last_wave_seconds += last - rest / slots * wave;
  total.memory_seconds += launch.blocks / device.multiprocessors * memory;
  total.instruction_seconds += launch.blocks / device.multiprocessors * issue;
  total.feature_bytes += launch.blocks * launch.feature_bytes;
  total.other_bytes += launch.blocks * launch.other_bytes;
  total.launches += 1;
}

Launch gate_launch(const Shape& shape) {
  const double bands = double(shape.n) * shape.k * shape.j * 2;
  const double length = (shape.h + shape.w) / 2.0;
  const double bytes = 8 * 3 * length * accumulator_bytes(shape.scalar);
  return {std::ceil(bands / 8), 0, bytes, bytes, 8 * length * 80, 4e-6};
}

Launch gate_gradient_launch(const Shape& shape, const Plan& plan) {
  const double pixels = double(pixels_of(shape)), accumulator = accumulator_bytes(shape.scalar);
  const double planes = (shape.k + 3) / 2.0;  // code k needs those of the codes before it, its own and that of x
  const double per_pixel = shape.k * (4.0 * shape.j + 6) + 4 * planes * plan.groups + 6.0 * shape.j + 60;
  const double sides = double(shape.j) * (shape.h + shape.w);
  const double gradients = planes * plan.groups * pixels * accumulator;
  const double unique = (shape.k + 1.0) / shape.k * plan.groups * pixels * accumulator + 12 * sides * accumulator;
  return {double(shape.n) * shape.k,
          0,
          gradients + (shape.k + 12) * sides * accumulator,
          unique,
          pixels * per_pixel + sides * 200,
          4e-6 + 3 * kBarrierLatency * std::ceil(pixels / kGateStrip)};
}

Estimate estimate(const Shape& shape, const Device& device, const Plan& plan, bool backward) {
  Estimate total{};
  const double features = double(shape.n) * shape.c * pixels_of(shape) * scalar_bytes(shape.scalar);
  total.ideal_seconds = features * (backward ? 3 : 2) / device.bandwidth;
  add_launch(total, gate_launch(shape), device, 4);
  if (plan.on_chip) {
    add_launch(total, main_launch(shape, plan, backward, Stage::whole), device, plan.resident);
  } else {
    add_launch(total, main_launch(shape, plan, backward, Stage::statistics), device, plan.resident);
    const double entries = double(shape.n) * shape.c * (backward ? shape.k : 1);
    const double bytes = 2.0 * kThreads * (plan.slices + 1) * accumulator_bytes(shape.scalar);
    add_launch(total, {std::ceil(entries / kThreads), 0, bytes, bytes, kThreads * (20.0 * plan.slices + 60), 3e-6},
               device, 4);
    add_launch(total, main_launch(shape, plan, backward, Stage::apply), device, plan.resident);
  }
  if (backward) add_launch(total, gate_gradient_launch(shape, plan), device, 2);
  return total;
}

}  // namespace

GatePlan plan_gates(const Shape& shape, const Device& device) {
  const int accumulator = accumulator_bytes(shape.scalar);
  GatePlan plan{};
  plan.strip_columns = static_cast<int>(std::min<int64_t>(shape.w, kGateStrip));
  plan.strip_rows = static_cast<int>(std::min<int64_t>(shape.h, std::max(1, kGateStrip / plan.strip_columns)));
  const int64_t strip = int64_t(plan.strip_rows) * plan.strip_columns + shape.k;
  const int64_t bands = shape.k * shape.j * (shape.h + shape.w);
  plan.bands_on_chip = (strip + bands) * accumulator <= device.shared_per_block;
  plan.shared_bytes = static_cast<int>((strip + (plan.bands_on_chip ? bands : 0)) * accumulator);
  return plan;
}

Plan plan_forward(const Shape& shape, const Device& device) { return search(shape, device, false); }
Plan plan_backward(const Shape& shape, const Device& device) { return search(shape, device, true); }

}  // namespace sc_layers

// For benchmarks and tests, by ctypes. Returns 0, or -1 if nothing fits.
extern "C" __attribute__((visibility("default"))) int sc_layers_cuda_plan(const sc_layers::Shape* shape,
                                                                          const sc_layers::Device* device, int backward,
                                                                          sc_layers::Plan* plan,
                                                                          sc_layers::Estimate* estimate) {
  try {
    *plan = sc_layers::search(*shape, *device, backward != 0);
  } catch (const std::runtime_error&) {
    return -1;
  }
  *estimate = sc_layers::estimate(*shape, *device, *plan, backward != 0);
  return 0;
}
