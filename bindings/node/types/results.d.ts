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

export interface Usage {
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
  readonly tokenId: TokenId
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
  readonly finishReason: FinishReason
  /** The stop string that ended it, when `finishReason` is `'stop_string'`. */
  readonly stopString?: string
  readonly usage: Usage
  readonly timings: Timings
  /** The seed used; a BigInt when it is above `Number.MAX_SAFE_INTEGER`. */
  readonly seed: number | bigint
  /** One entry a token. Present when `logprobs` was asked for. */
  readonly logprobs?: TokenLogprobs[]
}

/** Facts about a model. */
export interface ModelInfo {
  readonly name: string
  /** Such as `'llama'`. */
  readonly architecture: string
  readonly nParams: number
  readonly nVocab: number
  readonly nEmbd: number
  readonly nLayer: number
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
  readonly completed: number
  readonly cancelled: number
  /** Timeouts included. */
  readonly failed: number
  /** Prompt tokens computed. */
  readonly promptTokens: number
  readonly cachedTokens: number
  readonly generatedTokens: number
  readonly steps: number
  readonly stepTime: Histogram
  readonly timeToFirstToken: Histogram
  /** Threads that decode, now. */
  readonly threads: number
  /** Bytes of the KV cache that hold live tokens, now. */
  readonly cacheBytes: number
}

/** Layers of a model that one device holds. */
export interface LayerPlacement {
  /** The device's name, as in `devices()`. */
  readonly device: string
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

/** Live figures of the runtime. */
export interface RuntimeMetrics {
  /** Tasks that were started and have not ended. */
  readonly activeTasks: number
  /** Tasks that ended, in whatever way. */
  readonly completedTasks: number
  readonly workerThreads: number
  /** Threads for blocking work that exist now. */
  readonly blockingThreads: number
  /** Generations of the process that ended with a result. */
  readonly totalGenerations: number
  /** Their mean time from submission to the last token, in milliseconds. */
  readonly avgGenerationMs: number
  /** Since the runtime was started. */
  readonly uptimeSeconds: number
}

/** How a worker of a task manager is. */
export type WorkerState = 'running' | 'completed' | 'failed' | 'panicked' | 'stopped'

export interface WorkerStatus {
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
}

export type DeviceKind = 'cpu' | 'gpu' | 'integrated_gpu' | 'accelerator'

/** A device that models can run on. */
export interface DeviceInfo {
  readonly name: string
  readonly description: string
  /** Name of its backend. */
  readonly backend: string
  readonly kind: DeviceKind
  /** Bytes that are free, now; 0 where the backend can't tell. */
  readonly memoryFree: number
  /** Bytes in all; 0 where the backend can't tell. */
  readonly memoryTotal: number
}
