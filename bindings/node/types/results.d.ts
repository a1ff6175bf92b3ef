// What calls give back. Times are milliseconds.

/** An id in the model's vocabulary. */
export type TokenId = number

/** Several token ids, where a call takes them. */
export type TokenList = readonly TokenId[] | Int32Array | Uint32Array

/**
 * Why a generation ended: an end-of-generation token, a stop string,
 * `maxTokens`, all of `contextSize` used, or a cancellation.
 */
export type FinishReason = 'stop' | 'stop_string' | 'length' | 'context_full' | 'cancelled'

/** A token and its log-probability. */
export interface TokenLogprob {
  /** The token. */
  readonly tokenId: TokenId
  /** Its own text; bytes that are no whole characters show as U+FFFD. */
  readonly text: string
  /** Natural logarithm, 0 or less. */
  readonly logprob: number
}

/** One generated token of a stream. */
export interface Token {
  /**
   * The text that became certain with this token: whole characters only, and
   * never part of a stop string. May be empty.
   */
  readonly text: string
  /** The token's id. */
  readonly tokenId: TokenId
  /** 0 for the first generated token. */
  readonly index: number
  /** Present when `logprobs` was asked for. */
  readonly logprob?: number
  /** The likeliest tokens here, likeliest first. Present when `logprobs` was asked for. */
  readonly topLogprobs?: TokenLogprob[]
  /** Whether this is the last token. */
  readonly isFinal: boolean
  /** On the last token alone. */
  readonly finishReason?: FinishReason
  /** The stop string that ended the generation, when `finishReason` is `'stop_string'`. */
  readonly stopString?: string
}

/** Token counts of a request. */
export interface Usage {
  /** Tokens of the prompt. */
  readonly promptTokens: number
  /** Of the prompt's tokens, how many were taken from a cache. */
  readonly cachedTokens: number
  /** Tokens generated, an end-of-generation token included. */
  readonly completionTokens: number
}

/** Where the time of a request went, in milliseconds. */
export interface Timings {
  /** From submission to admission. */
  readonly queued: number
  /** From admission to the first token. */
  readonly prefill: number
  /** From the first token to the last. */
  readonly decode: number
  /** From submission to the first token. */
  readonly timeToFirstToken: number
}

/** The log-probabilities at one place of a generation. */
export interface TokenLogprobs {
  /** The token that was generated. */
  readonly tokenId: TokenId
  /** Its log-probability. */
  readonly logprob: number
  /** The likeliest tokens there, likeliest first. */
  readonly top: TokenLogprob[]
}

/** The whole result of a generation. */
export interface Generation {
  /** Without the stop string that ended it. */
  readonly text: string
  /** The last (end-of-generation) one included. */
  readonly tokens: TokenId[]
  /** Why it ended. */
  readonly finishReason: FinishReason
  /** The stop string that ended it, when `finishReason` is `'stop_string'`. */
  readonly stopString?: string
  /** Token counts. */
  readonly usage: Usage
  /** Where the time went. */
  readonly timings: Timings
  /** The seed used; a BigInt when it is above `Number.MAX_SAFE_INTEGER`. */
  readonly seed: number | bigint
  /** One entry a token. Present when `logprobs` was asked for. */
  readonly logprobs?: TokenLogprobs[]
}

/** Facts about a model. */
export interface ModelInfo {
  /** `general.name` of the file, or the file's name without its ending. */
  readonly name: string
  /** Such as `'llama'`. */
  readonly architecture: string
  /** Parameters. */
  readonly nParams: number
  /** Entries of the vocabulary. */
  readonly nVocab: number
  /** Width of the embeddings. */
  readonly nEmbd: number
  /** Layers. */
  readonly nLayer: number
  /** Attention heads of the first layer. */
  readonly nHead: number
  /** Tokens of context the model was trained for. */
  readonly nCtxTrain: number
  /** Bytes of all tensors together. */
  readonly sizeBytes: number
}

/** A count of durations, in milliseconds. */
export interface Histogram {
  /** Upper bounds of the buckets, ascending; the last bucket has none. */
  readonly bounds: number[]
  /** Observations in each bucket; one more than `bounds`. */
  readonly counts: number[]
  /** Sum of all observations. */
  readonly sum: number
}

/** Live figures of one model. Counts go from the load on. */
export interface EngineMetrics {
  /** Requests that wait, now. */
  readonly queued: number
  /** Requests being served, now. */
  readonly active: number
  /** Requests that ended with a result. */
  readonly completed: number
  /** Requests that ended by cancellation. */
  readonly cancelled: number
  /** Timeouts included. */
  readonly failed: number
  /** Prompt tokens computed. */
  readonly promptTokens: number
  /** Prompt tokens taken from a cache. */
  readonly cachedTokens: number
  /** Tokens generated. */
  readonly generatedTokens: number
  /** Tokens that prompt lookup guessed and evaluated. */
  readonly draftedTokens: number
  /** Those of them that were drawn, and so saved a step. */
  readonly acceptedTokens: number
  /** Decode steps. */
  readonly steps: number
  /** Times of decode steps. */
  readonly stepTime: Histogram
  /** Times from submission to the first token. */
  readonly timeToFirstToken: Histogram
  /** Threads that decode, now. */
  readonly threads: number
  /** Bytes of the KV cache that hold live tokens, now. */
  readonly cacheBytes: number
  /**
   * Bytes of RAM that hold what requests have computed, for later ones that
   * begin alike, now. At most the model's `prefixCacheBytes`.
   */
  readonly prefixCacheBytes: number
  /**
   * How many times a request made room for others: its memory went to RAM, and
   * back when there was room again.
   */
  readonly preemptions: number
  /** Bytes of the whole KV cache, whether tokens lie in it or not. */
  readonly cacheSizeBytes: number
  /** Bytes of the weights. */
  readonly weightsBytes: number
  /**
   * Whether the load found the weights in the process: another model has the
   * same file, loaded with the same `gpuLayers`, `useMmap` and
   * `deterministic`. They are in memory once then.
   */
  readonly weightsShared: boolean
  /** How long the load took, in milliseconds. */
  readonly loadTime: number
}

/** Layers of a model that one device holds; the output layer counts as one. */
export interface LayerPlacement {
  /** The device's name, as in `devices()`. */
  readonly device: string
  /** Layers on it; the output layer counts as one. */
  readonly nLayers: number
}

/** Counts of a pool, now. */
export interface PoolStats {
  /** Leases that may be out at once. */
  readonly size: number
  /** Leases that could be taken at once. */
  readonly available: number
  /** Leases that are out; above `size` for a while after it was lowered. */
  readonly inUse: number
  /** Calls of `acquire` that wait. */
  readonly waiting: number
  /** Leases given out since the pool was made. */
  readonly acquiredTotal: number
  /** Mean wait for a lease, in milliseconds; those that came at once count as 0. */
  readonly waitMsAvg: number
}

/**
 * Live figures of the runtime. Its tasks are the calls that return a promise,
 * streams and workers; what only waits for another, as for the result of a
 * submitted task, is none.
 */
export interface RuntimeMetrics {
  /** Tasks that were started and have not ended. */
  readonly activeTasks: number
  /** Tasks that ended, in whatever way. */
  readonly completedTasks: number
  /** Threads that run tasks. */
  readonly workerThreads: number
  /** Threads for blocking work that exist now; an idle one ends after ten seconds. */
  readonly blockingThreads: number
  /** Generations of the process that ended with a result, neither cancelled nor failed. */
  readonly totalGenerations: number
  /** Their mean time from submission to the last token, in milliseconds; 0 if there was none. */
  readonly avgGenerationMs: number
  /** Whole seconds since the runtime was started. */
  readonly uptimeSeconds: number
}

/** What a worker of a task manager does or how it ended. */
export type WorkerState = 'running' | 'completed' | 'failed' | 'panicked' | 'stopped'

/** How a worker is. */
export interface WorkerStatus {
  /** What it does or how it ended. */
  readonly state: WorkerState
  /** What went wrong, when `state` is `'failed'` or `'panicked'`. */
  readonly message?: string
}

/** A backend that llama.cpp was built with. */
export interface BackendInfo {
  /** Such as `'CPU'` or `'CUDA'`. */
  readonly name: string
  /** Devices of it that were found. */
  readonly nDevices: number
  /** Which of its variants was chosen for this processor, such as `'haswell'`; absent where the build has one only. */
  readonly variant?: string
}

/** What sort of device it is. An accelerator helps the CPU with some operations and holds no layers. */
export type DeviceKind = 'cpu' | 'gpu' | 'integrated_gpu' | 'accelerator'

/** A device that models can run on. */
export interface DeviceInfo {
  /** Such as `'CPU'` or `'CUDA0'`; unique in the process. */
  readonly name: string
  /** What the driver calls it. */
  readonly description: string
  /** Name of its backend. */
  readonly backend: string
  /** What sort of device it is. */
  readonly kind: DeviceKind
  /** Bytes that are free, now; 0 where the backend can't tell. */
  readonly memoryFree: number
  /** Bytes in all; 0 where the backend can't tell. */
  readonly memoryTotal: number
}
