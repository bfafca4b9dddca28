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

constexpr int NORM_NUMBERS = 8;  // of a row that a thread keeps

// Layer normalisation of x [rows, width]; a block computes a row. Everything is read at once, as reading takes longest.
__global__ void layer_norm(const float* __restrict__ x, const float* __restrict__ weight,
                           const float* __restrict__ bias, float* __restrict__ y, int width, float epsilon) {
  __shared__ float scratch[32];
  x += (long long)blockIdx.x * width;
  y += (long long)blockIdx.x * width;
  float numbers[NORM_NUMBERS], factors[NORM_NUMBERS], terms[NORM_NUMBERS];
#pragma unroll
  for (int n = 0; n < NORM_NUMBERS; n++) {
    const int i = threadIdx.x + n * blockDim.x;
    if (i < width) numbers[n] = x[i], factors[n] = weight[i], terms[n] = bias[i];
  }
  float sum = 0.0f;
#pragma unroll
  for (int n = 0; n < NORM_NUMBERS; n++)
    if (threadIdx.x + n * blockDim.x < width) sum += numbers[n];
  const float mean = block_sum(sum, scratch) / width;
  float squares = 0.0f;
#pragma unroll
  for (int n = 0; n < NORM_NUMBERS; n++)
    if (threadIdx.x + n * blockDim.x < width) squares = fmaf(numbers[n] - mean, numbers[n] - mean, squares);
  const float inverse = 1.0f / sqrtf(block_sum(squares, scratch) / width + epsilon);
#pragma unroll
  for (int n = 0; n < NORM_NUMBERS; n++) {
    const int i = threadIdx.x + n * blockDim.x;
    if (i < width) y[i] = (numbers[n] - mean) * inverse * factors[n] + terms[n];
  }
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

template <int COUNT> struct alignas(4 * COUNT) Numbers { float at[COUNT]; };

// Attention of single positions, each to the keys and values of its own text.
//
// qkv [rows, 3d], cache [places, 2d], y [rows, d] with d = heads · size. `table` holds the fields of each row, `columns`
// apart: its position, and where its text's keys and values lie in the cache: those of the prompt at `start` and after,
// those of later positions at `own` and then `stride` apart; from position `first` on they are not there yet, but in
// the rows of this pass up to this one. At last the place where its own are to be stored.
//
// A block computes a head of a row; a thread reads VECTOR numbers at once, of which `size` is a multiple.
template <int VECTOR>
__global__ void attend(const float* __restrict__ qkv, float* cache, const long long* __restrict__ table,
                       float* __restrict__ y, int heads, int size, int columns, float scale) {
  extern __shared__ float shared[];
  constexpr int KEYS = 8;    // read at once by each group of threads
  constexpr int LANES = 16;  // threads of a group, which computes the score of a key
  const int head = blockIdx.x, row = blockIdx.y, thread = threadIdx.x, width = heads * size;
  const int position = table[row], start = table[columns + row], prompt = table[2 * columns + row];
  const int own = table[3 * columns + row], stride = table[4 * columns + row], first = table[5 * columns + row];
  const long long stored = table[6 * columns + row];
  const int length = position + 1;
  const float* here = qkv + (long long)row * 3 * width + head * size;  // the query; key and value follow
  auto key_of = [&](int j) -> const float* {
    if (j >= first) return here + width - (long long)(position - j) * 3 * width;
    return cache + 2ll * width * (j < prompt ? start + j : own + (j - prompt) * stride) + head * size;
  };
  float* query = shared;                        // [size]
  float* parts = query + size;                  // [threads, VECTOR]
  float* scores = parts + VECTOR * blockDim.x;  // [length]
  for (int i = thread; i < size; i += blockDim.x) query[i] = here[i] * scale;
  __syncthreads();
  const int group = thread / LANES, lane = thread % LANES, groups = blockDim.x / LANES;
  for (int base = 0; base < length; base += groups * KEYS) {
    const float* key[KEYS];
    float score[KEYS];
#pragma unroll
    for (int n = 0; n < KEYS; n++) {
      key[n] = key_of(min(base + n * groups + group, position));
      score[n] = 0.0f;
    }
    for (int i = VECTOR * lane; i < size; i += VECTOR * LANES) {
      Numbers<VECTOR> numbers[KEYS];
#pragma unroll
      for (int n = 0; n < KEYS; n++) numbers[n] = *reinterpret_cast<const Numbers<VECTOR>*>(key[n] + i);
#pragma unroll
      for (int n = 0; n < KEYS; n++)
#pragma unroll
        for (int c = 0; c < VECTOR; c++) score[n] = fmaf(query[i + c], numbers[n].at[c], score[n]);
    }
#pragma unroll
    for (int n = 0; n < KEYS; n++) {
      for (int step = LANES / 2; step >= 1; step /= 2) score[n] += __shfl_xor_sync(WARP, score[n], step);
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
  const int takers = size / VECTOR, shares = blockDim.x / takers;  // threads for a value, and values at a time
  const int share = thread / takers, i = thread % takers * VECTOR;
  Numbers<VECTOR> total = {};
  if (share < shares) {
#pragma unroll 8
    for (int j = share; j < length; j += shares) {
      const Numbers<VECTOR> value = *reinterpret_cast<const Numbers<VECTOR>*>(key_of(j) + width + i);
#pragma unroll
      for (int c = 0; c < VECTOR; c++) total.at[c] = fmaf(scores[j], value.at[c], total.at[c]);
    }
  }
  __syncthreads();
#pragma unroll
  for (int c = 0; c < VECTOR; c++) parts[VECTOR * thread + c] = total.at[c];
  __syncthreads();
  for (int n = thread; n < size; n += blockDim.x) {
    float value = 0.0f;
    for (int other = 0; other < shares; other++) value += parts[other * size + n];
    y[(long long)row * width + head * size + n] = value / sum;
    cache[2 * width * stored + head * size + n] = here[width + n];
    cache[2 * width * stored + width + head * size + n] = here[2 * width + n];
  }
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
constexpr int CANDIDATES = 4096;
constexpr int AT_ONCE = 8;  // numbers that a thread reads before it looks at any: a single one takes long to come

// Call use(i, x[i]) for each i below count, with all threads of a warp at the same time; beyond, with the last number.
template <typename Use> __device__ __forceinline__ void for_each(const float* x, int count, Use use) {
  for (int base = threadIdx.x; base - (int)threadIdx.x < count; base += AT_ONCE * blockDim.x) {
    float numbers[AT_ONCE];
#pragma unroll
    for (int n = 0; n < AT_ONCE; n++) numbers[n] = x[min(base + n * (int)blockDim.x, count - 1)];
#pragma unroll
    for (int n = 0; n < AT_ONCE; n++) use(base + n * (int)blockDim.x, numbers[n]);
  }
}

// Count a number in its bin. Most fall into a few bins: one addition for all equal ones of a warp.
__device__ __forceinline__ void count_in(unsigned int* histogram, unsigned int bin, bool counts) {
  const unsigned int voters = __ballot_sync(WARP, counts);
  if (!counts) return;
  const unsigned int same = __match_any_sync(voters, bin);
  if (threadIdx.x % 32 == __ffs(same) - 1) atomicAdd(&histogram[bin], __popc(same));
}

__device__ __forceinline__ unsigned int warp_scan(unsigned int x) {
  for (int step = 1; step < 32; step *= 2) {
    const unsigned int other = __shfl_up_sync(WARP, x, step);
    if (threadIdx.x % 32 >= step) x += other;
  }
  return x;
}

// Return the bin of the k-th largest number, and set `before` to how many are in higher bins; by BINS / 2 threads.
__device__ unsigned int find_bin(const unsigned int* histogram, unsigned int k, unsigned int* before) {
  __shared__ unsigned int warps[32];
  __shared__ unsigned int found, higher;
  const int top = BINS - 1 - 2 * threadIdx.x, warp = threadIdx.x / 32;  // the highest bins first
  const unsigned int first = histogram[top], both = first + histogram[top - 1];
  unsigned int to_here = warp_scan(both);
  if (threadIdx.x % 32 == 31) warps[warp] = to_here;
  __syncthreads();
  const unsigned int totals = warp_scan(threadIdx.x % 32 < blockDim.x / 32 ? warps[threadIdx.x % 32] : 0);
  if (warp > 0) to_here += __shfl_sync(WARP, totals, warp - 1);
  const unsigned int above = to_here - both;
  if (above < k && k <= to_here) {
    const bool in_first = above + first >= k;
    found = in_first ? top : top - 1;
    higher = in_first ? above : above + first;
  }
  __syncthreads();
  *before = higher;
  return found;
}

// Return the k-th largest of `count` numbers, radix by radix: 11, 11 and 10 bits of them. `pass(use)` calls use(exists,
// x) for each of them, with all threads of a warp at the same time.
//
// After `rounds` of the three it is exact; after less it is a lower bound.
template <typename Pass>
__device__ float kth_largest(unsigned int* histogram, unsigned int k, int rounds, Pass pass) {
  unsigned int prefix = 0;
  int shift = 32;
  for (int round = 0; round < rounds; round++) {
    const int width = round < 2 ? 11 : 10;
    shift -= width;
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += blockDim.x) histogram[i] = 0;
    __syncthreads();
    pass([&](bool exists, float x) {
      const unsigned int key = ordered(x);
      const bool counts = exists && (round == 0 || key >> (shift + width) == prefix);
      count_in(histogram, key >> shift & ((1u << width) - 1), counts);
    });
    __syncthreads();
    unsigned int before;
    prefix = prefix << width | find_bin(histogram, k, &before);
    k -= before;
  }
  return unordered(prefix << shift);
}

// Draw a token for each block as `torch.multinomial` does after Transformers' temperature and top-k.
//
// logits [., count], noise [., count]. `table` holds the fields of each draw, `columns` apart: the row of its logits,
// the place for the result in `tokens` and in the host's `read`, the row of its noise, top-k (0: all tokens; -1: the
// likeliest token, without noise), and the bits of the float by which logits are multiplied. The result is -1 where a
// logit is not finite.
//
// The largest probability / number wins. It is the largest of exp(logit) / number, so that no sum is needed.
//
// With top-k the k-th largest of the threads' maxima is no more than the k-th largest logit, so only what is not below
// it is looked at again: little more than k logits, unless many are equal.
__global__ void draw(const float* __restrict__ logits, const float* __restrict__ noise,
                     const long long* __restrict__ table, long long* __restrict__ tokens,
                     long long* __restrict__ read, int count, int columns) {
  __shared__ float scratch[32];
  __shared__ float best_of[32];
  __shared__ int index_of[32];
  __shared__ unsigned int histogram[BINS];
  __shared__ int candidates[CANDIDATES];
  __shared__ unsigned int listed;
  const int thread = threadIdx.x, which = blockIdx.x;
  const long long slot = table[columns + which];
  const float* x = logits + table[which] * count;
  const float* numbers = noise + table[2 * columns + which] * count;
  const int top_k = table[3 * columns + which];
  const float scale = __uint_as_float((unsigned int)table[4 * columns + which]);
  if (thread == 0) listed = 0;
  float most = LOWEST;
  bool broken = false;
  for_each(x, count, [&](int i, float logit) {
    broken |= !(fabsf(logit) <= -LOWEST);
    if (i < count) most = fmaxf(most, logit * scale);
  });
  if (__syncthreads_or(broken)) {
    if (thread == 0) tokens[slot] = read[slot] = -1;
    return;
  }
  const float own = most;
  most = block_max(most, scratch);
  float least = LOWEST;  // of what top-k keeps
  bool few = false;      // whether all that it keeps is among the candidates
  if (top_k > 0 && top_k < count) {
    if (top_k <= blockDim.x) {
      least = kth_largest(histogram, top_k, 2, [&](auto use) { use(thread < count, own); });
      for_each(x, count, [&](int i, float logit) {
        if (i >= count || logit * scale < least) return;
        const unsigned int place = atomicAdd(&listed, 1);
        if (place < CANDIDATES) candidates[place] = i;
      });
      __syncthreads();
      few = listed <= CANDIDATES;
    }
    least = kth_largest(histogram, top_k, 3, [&](auto use) {
      if (few)
        for (unsigned int base = 0; base < listed; base += blockDim.x)
          use(base + thread < listed, x[candidates[min(base + thread, listed - 1)]] * scale);
      else
        for_each(x, count, [&](int i, float logit) { use(i < count, logit * scale); });
    });
  }
  float best = LOWEST;
  int index = count;
  auto take = [&](float value, int i) {
    if (value > best || (value == best && i < index)) best = value, index = i;
  };
  auto consider = [&](int i, float logit) {
    if (logit * scale >= least) take(top_k < 0 ? logit : expf(logit * scale - most) / numbers[i], i);
  };
  if (few)
    for (int n = thread; n < listed; n += blockDim.x) consider(candidates[n], x[candidates[n]]);
  else
    for_each(x, count, [&](int i, float logit) {
      if (i < count) consider(i, logit);
    });
  for (int step = 16; step >= 1; step /= 2) {
    const float other = __shfl_xor_sync(WARP, best, step);
    take(other, __shfl_xor_sync(WARP, index, step));
  }
  if (thread % 32 == 0) best_of[thread / 32] = best, index_of[thread / 32] = index;
  __syncthreads();
  if (thread != 0) return;
  for (int i = 1; i < blockDim.x / 32; i++) take(best_of[i], index_of[i]);
  tokens[slot] = read[slot] = index;
}
