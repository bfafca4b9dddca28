// The kernels of GPT-2's passes on CUDA. A row's result has the same bits whatever the other rows are and however
// many there are: every sum has an order of its own, which depends on the row's own length only.

// float16 and bfloat16, without CUDA's headers, which PyTorch does not bring.
struct Half { unsigned short bits; };
struct BFloat16 { unsigned short bits; };

__device__ __forceinline__ float to_float(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
__device__ __forceinline__ float to_float(BFloat16 x) { return __uint_as_float((unsigned int)x.bits << 16); }

__device__ __forceinline__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
template <typename T> __device__ __forceinline__ float4 load4(const T* from) {
  const uint2 raw = *reinterpret_cast<const uint2*>(from);
  return make_float4(to_float(T{(unsigned short)raw.x}), to_float(T{(unsigned short)(raw.x >> 16)}),
                     to_float(T{(unsigned short)raw.y}), to_float(T{(unsigned short)(raw.y >> 16)}));
}

constexpr unsigned int WARP = 0xffffffffu;
constexpr float LOWEST = -3.402823466e+38f;

__device__ __forceinline__ float warp_sum(float x) {
  for (int step = 16; step >= 1; step /= 2) x += __shfl_xor_sync(WARP, x, step);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int step = 16; step >= 1; step /= 2) x = fmaxf(x, __shfl_xor_sync(WARP, x, step));
  return x;
}

// Over all threads of a block, in a fixed order; `scratch` holds a number for each warp.
__device__ float block_sum(float x, float* scratch) {
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = 0.0f;
  for (int i = 0; i < blockDim.x / 32; i++) x += scratch[i];
  return x;
}
__device__ float block_max(float x, float* scratch) {
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  for (int i = 0; i < blockDim.x / 32; i++) x = fmaxf(x, scratch[i]);
  return x;
}

// Transformers' NewGELUActivation.
__device__ __forceinline__ float gelu_new(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

// y = activation(x · weightᵀ + bias) + residual, where bias and residual may be null.
//
// x [rows, in], weight [out, in], y and residual [rows, out]; `in` is a multiple of 4.
//
// A warp computes ROWS × OUTS numbers, a power of two up to 32. Lane l sums over the inputs 4l to 4l + 3, then over
// those 128 further on, and so on; then the lanes' sums are added in a tree. Neither depends on ROWS and OUTS.
template <typename T, int ROWS, int OUTS>
__global__ void linear(const float* __restrict__ x, const T* __restrict__ weight, const float* __restrict__ bias,
                       const float* __restrict__ residual, float* __restrict__ y, int rows, int in, int out,
                       int gelu) {
  constexpr int COUNT = ROWS * OUTS;
  const int lane = threadIdx.x % 32;
  const int first_out = (blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32) * OUTS;
  const int first_row = blockIdx.x * ROWS;
  if (first_out >= out) return;
  const float* inputs[ROWS];
  const T* weights[OUTS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) inputs[r] = x + (long long)min(first_row + r, rows - 1) * in;
#pragma unroll
  for (int o = 0; o < OUTS; o++) weights[o] = weight + (long long)min(first_out + o, out - 1) * in;
  float sums[COUNT];
#pragma unroll
  for (int i = 0; i < COUNT; i++) sums[i] = 0.0f;
  // Several steps' weights are requested before the first is used: one alone takes most of a microsecond to come.
  constexpr int STEPS = ROWS == 1 ? 8 : 4;
  for (int begin = 4 * lane; begin < in; begin += 128 * STEPS) {
    float4 w[STEPS][OUTS];
#pragma unroll
    for (int s = 0; s < STEPS; s++)
#pragma unroll
      for (int o = 0; o < OUTS; o++)
        if (begin + 128 * s < in) w[s][o] = load4(weights[o] + begin + 128 * s);
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
      if (begin + 128 * s >= in) break;
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const float4 a = load4(inputs[r] + begin + 128 * s);
#pragma unroll
        for (int o = 0; o < OUTS; o++) {
          float sum = sums[r * OUTS + o];
          sum = fmaf(a.x, w[s][o].x, sum);
          sum = fmaf(a.y, w[s][o].y, sum);
          sum = fmaf(a.z, w[s][o].z, sum);
          sums[r * OUTS + o] = fmaf(a.w, w[s][o].w, sum);
        }
      }
    }
  }
  // Each step adds what two lanes hold, and leaves each with half of the numbers, so that fewer are moved.
#pragma unroll
  for (int half = COUNT / 2; half >= 1; half /= 2) {
    const int step = 32 * half / COUNT;
    const bool upper = lane & step;
#pragma unroll
    for (int i = 0; i < half; i++) {
      const float sent = upper ? sums[i] : sums[i + half];
      const float kept = upper ? sums[i + half] : sums[i];
      sums[i] = kept + __shfl_xor_sync(WARP, sent, step);
    }
  }
#pragma unroll
  for (int step = 16 / COUNT; step >= 1; step /= 2) sums[0] += __shfl_xor_sync(WARP, sums[0], step);
  if (lane % (32 / COUNT)) return;
  const int mine = lane / (32 / COUNT), row = first_row + mine / OUTS, o = first_out + mine % OUTS;
  if (row >= rows || o >= out) return;
  float value = sums[0];
  if (bias) value += bias[o];
  if (gelu) value = gelu_new(value);
  const long long at = (long long)row * out + o;
  y[at] = residual ? residual[at] + value : value;
}

// Attention of single positions, each to the keys and values of its own text.
//
// qkv [rows, 3d], cache [places, 2d], y [rows, d] with d = heads · size. `table` holds the fields of each row, `columns`
// apart: its position, and where the texts' keys and values lie: those of the prompt at `start` and after, those of
// later positions at `own` and then `stride` apart.
//
// A block computes a head of a row.
__global__ void attend(const float* __restrict__ qkv, const float* __restrict__ cache,
                       const long long* __restrict__ table, float* __restrict__ y, int heads, int size, int columns,
                       float scale) {
  extern __shared__ float shared[];
  constexpr int KEYS = 4;  // read at once by each half of a warp
  const int head = blockIdx.x, row = blockIdx.y, thread = threadIdx.x, width = heads * size;
  const int length = table[row] + 1, prompt = table[2 * columns + row];
  const long long start = table[columns + row], own = table[3 * columns + row], stride = table[4 * columns + row];
  const float* keys = cache + head * size;
  const float* values = keys + width;
  auto offset = [&](int j) { return 2 * width * (j < prompt ? start + j : own + (j - prompt) * stride); };
  float* query = shared;               // [size]
  float* parts = query + size;         // [threads]
  float* scores = parts + blockDim.x;  // [length]
  for (int i = thread; i < size; i += blockDim.x) query[i] = qkv[(long long)row * 3 * width + head * size + i] * scale;
  __syncthreads();
  const int group = thread / 16, lane = thread % 16, groups = blockDim.x / 16;
  for (int base = 0; base < length; base += groups * KEYS) {
    const float* key[KEYS];
    float score[KEYS];
#pragma unroll
    for (int n = 0; n < KEYS; n++) {
      key[n] = keys + offset(min(base + n * groups + group, length - 1));
      score[n] = 0.0f;
    }
#pragma unroll 4
    for (int i = lane; i < size; i += 16)
#pragma unroll
      for (int n = 0; n < KEYS; n++) score[n] = fmaf(query[i], key[n][i], score[n]);
#pragma unroll
    for (int n = 0; n < KEYS; n++) {
      for (int step = 8; step >= 1; step /= 2) score[n] += __shfl_xor_sync(WARP, score[n], step);
      const int j = base + n * groups + group;
      if (lane == 0 && j < length) scores[j] = score[n];
    }
  }
  __syncthreads();
  float most = LOWEST;
  for (int j = thread; j < length; j += blockDim.x) most = fmaxf(most, scores[j]);
  most = block_max(most, parts);
  float sum = 0.0f;
  for (int j = thread; j < length; j += blockDim.x) {
    scores[j] = expf(scores[j] - most);
    sum += scores[j];
  }
  sum = block_sum(sum, parts);  // also makes all scores visible
  const int shares = blockDim.x / size, share = thread / size, i = thread % size;
  float total = 0.0f;
  if (share < shares) {
#pragma unroll 8
    for (int j = share; j < length; j += shares) total = fmaf(scores[j], values[offset(j) + i], total);
  }
  __syncthreads();
  parts[thread] = total;
  __syncthreads();
  if (share != 0) return;
  for (int n = 1; n < shares; n++) total += parts[n * size + i];
  y[(long long)row * width + head * size + i] = total / sum;
}

// Maps numbers to integers of the same order.
__device__ __forceinline__ unsigned int ordered(float x) {
  const unsigned int bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float unordered(unsigned int key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

constexpr int BINS = 2048;

// Return the k-th largest of scale · x, for a block of at least 32 threads: radix selection, from the high bits down.
__device__ float kth_largest(const float* x, int count, float scale, int k) {
  __shared__ unsigned int histogram[BINS];
  __shared__ unsigned int found, left;
  unsigned int prefix = 0;
  const int shifts[] = {21, 10, 0}, widths[] = {11, 11, 10};
  for (int round = 0; round < 3; round++) {
    const int shift = shifts[round], width = widths[round];
    for (int i = threadIdx.x; i < BINS; i += blockDim.x) histogram[i] = 0;
    __syncthreads();
    for (int base = 0; base < count; base += blockDim.x) {
      const int i = base + threadIdx.x;
      const unsigned int key = i < count ? ordered(x[i] * scale) : 0;
      const bool counts = i < count && (round == 0 || key >> (shift + width) == prefix);
      const unsigned int voters = __ballot_sync(WARP, counts);
      if (!counts) continue;
      // Most numbers fall into a few bins: one addition for all equal ones of a warp.
      const unsigned int bin = key >> shift & ((1u << width) - 1), same = __match_any_sync(voters, bin);
      if (threadIdx.x % 32 == __ffs(same) - 1) atomicAdd(&histogram[bin], __popc(same));
    }
    __syncthreads();
    if (threadIdx.x < 32) {  // a lane adds up 64 bins, the highest first
      constexpr int EACH = BINS / 32;
      const int top = BINS - 1 - EACH * threadIdx.x;
      unsigned int sum = 0;
      for (int i = 0; i < EACH; i++) sum += histogram[top - i];
      unsigned int before = 0;
      for (int lane = 0; lane < 31; lane++) {
        const unsigned int other = __shfl_sync(WARP, sum, lane);
        if (lane < threadIdx.x) before += other;
      }
      if (before < k && k <= before + sum) {
        int bin = top;
        while (before + histogram[bin] < k) before += histogram[bin--];
        found = bin;
        left = k - before;
      }
    }
    __syncthreads();
    prefix = prefix << width | found;
    k = left;
    __syncthreads();
  }
  return unordered(prefix);
}

// Draw a token for each block as `torch.multinomial` does after Transformers' temperature and top-k.
//
// logits [., count], noise [., count]. `table` holds the fields of each draw, `columns` apart: the row of its logits,
// the place in `tokens` for the result, the row of its noise, top-k (0: all tokens; -1: the likeliest token, without
// noise), and the bits of the float by which logits are multiplied. The result is -1 where a logit is not finite.
__global__ void draw(const float* __restrict__ logits, const float* __restrict__ noise,
                     const long long* __restrict__ table, long long* __restrict__ tokens, int count, int columns) {
  __shared__ float scratch[32];
  __shared__ float best_of[32];
  __shared__ int index_of[32];
  const int thread = threadIdx.x, which = blockIdx.x;
  const float* x = logits + table[which] * count;
  const float* numbers = noise + table[2 * columns + which] * count;
  const int top_k = table[3 * columns + which];
  const float scale = __uint_as_float((unsigned int)table[4 * columns + which]);
  float most = LOWEST;
  bool broken = false;
  for (int i = thread; i < count; i += blockDim.x) {
    broken |= !(fabsf(x[i]) <= -LOWEST);
    most = fmaxf(most, x[i] * scale);
  }
  if (__syncthreads_or(broken)) {
    if (thread == 0) tokens[table[columns + which]] = -1;
    return;
  }
  most = block_max(most, scratch);
  float best = LOWEST;
  int index = count;
  if (top_k < 0) {
    for (int i = thread; i < count; i += blockDim.x)
      if (x[i] > best) best = x[i], index = i;
  } else {
    const float least = top_k == 0 || top_k >= count ? LOWEST : kth_largest(x, count, scale, top_k);
    float sum = 0.0f;
    for (int i = thread; i < count; i += blockDim.x)
      if (x[i] * scale >= least) sum += expf(x[i] * scale - most);
    sum = block_sum(sum, scratch);
    for (int i = thread; i < count; i += blockDim.x) {
      const float score = x[i] * scale;
      if (score < least) continue;
      const float quotient = expf(score - most) / sum / numbers[i];
      if (quotient > best) best = quotient, index = i;
    }
  }
  for (int step = 16; step >= 1; step /= 2) {
    const float other = __shfl_xor_sync(WARP, best, step);
    const int other_index = __shfl_xor_sync(WARP, index, step);
    if (other > best || (other == best && other_index < index)) best = other, index = other_index;
  }
  if (thread % 32 == 0) best_of[thread / 32] = best, index_of[thread / 32] = index;
  __syncthreads();
  if (thread != 0) return;
  for (int i = 1; i < blockDim.x / 32; i++)
    if (best_of[i] > best || (best_of[i] == best && index_of[i] < index)) best = best_of[i], index = index_of[i];
  tokens[table[columns + which]] = index;
}
