// The options of all calls. Times are milliseconds.

import type { TokenId } from './results.js'

/** Options of a call that does nothing but wait. */
export interface SignalOptions {
  /**
   * Ends the native work when it fires, and rejects with its reason. One that
   * has fired already starts nothing.
   */
  signal?: AbortSignal | null
}

/** The number type of a half of the KV cache. */
export type KvType = 'f32' | 'f16' | 'bf16' | 'q8_0'

/** Options of a load. One left out, `undefined` or `null` has its default. */
export interface LoadOptions {
  /** Tokens (prompt and answer) that each request may use; 8 to 16,777,216. Default 2048. */
  contextSize?: number | null
  /** Layers to keep on a GPU; 0 none, -1 all. Default 0. */
  gpuLayers?: number | null
  /** Threads that decode; more than the process may use are not used. Default: as many as it may use. */
  threads?: number | null
  /** Requests that generate at the same time, 1 to 256; more wait their turn. Default 4. */
  maxConcurrent?: number | null
  /** Requests that may wait; one more fails with `queue_full`. Default 4096. */
  maxQueue?: number | null
  /** From submission to the last token, for requests that set no limit of their own; 0 is none. Default 30,000. */
  timeoutMs?: number | null
  /** Whether attention runs as flash attention. Default: llama.cpp decides. */
  flashAttention?: boolean | null
  /** Most tokens evaluated in one step; at least `maxConcurrent` and 16, at most 8192. Default 512. */
  batchSize?: number | null
  /**
   * Tokens that the KV cache holds over all requests; at least `contextSize`.
   * Default: room for `maxConcurrent` full requests. With less, a request may
   * have to wait for others to end; none fails by it.
   */
  cacheSize?: number | null
  /** Number type of the keys in the KV cache. Default `'f16'`. */
  kvTypeK?: KvType | null
  /** Number type of the values in the KV cache; `'q8_0'` needs flash attention. Default `'f16'`. */
  kvTypeV?: KvType | null
  /**
   * Bytes of RAM for what requests have computed, so that later ones with the
   * same beginning need not compute it again; 0 keeps nothing. Requests that
   * are served at the same time share what they have in common in any case.
   * Default: a quarter of the KV cache's bytes, and at most half of the memory
   * that is free after the load. Taken as it fills.
   */
  prefixCacheBytes?: number | null
  /** Map the file instead of reading it into memory. Default true. */
  useMmap?: boolean | null
  /**
   * Whether a request gives the same tokens and log-probabilities whatever
   * runs beside it. Default false. CPU only; keys of type `'f16'` become
   * `'q8_0'`, attention is flash attention, and each request has `contextSize`
   * tokens of its own, so `cacheSize` can't be less than all of them.
   */
  deterministic?: boolean | null
  /**
   * Whether a request that is served alone guesses its next tokens from where
   * its last ones stood before, and evaluates several at once where that is
   * quicker. Default true.
   */
  promptLookup?: boolean | null
  /**
   * Called with the share that is loaded, rising, 1 at the end and nothing
   * after it. What it throws ends the load, which rejects with it.
   */
  onProgress?: ((fraction: number) => void) | null
  /** Ends the load when it fires; the promise rejects with its reason. */
  signal?: AbortSignal | null
}

/** Options of one generation. One left out, `undefined` or `null` has its default. */
export interface GenerateOptions {
  /** Most tokens to generate; 0 evaluates nothing. Default 256. */
  maxTokens?: number | null
  /** 0 takes the likeliest token (greedy); up to 100. Default 0.8. */
  temperature?: number | null
  /** Sample among the `topK` likeliest tokens; 0 is off. Default 40. */
  topK?: number | null
  /** Sample among the likeliest tokens whose probabilities sum to `topP`; 0 to 1, 1 is off. Default 0.95. */
  topP?: number | null
  /** Drop tokens less likely than `minP` times the likeliest; 0 to 1, 0 is off. Default 0.05. */
  minP?: number | null
  /** Locally typical sampling over this mass; 0 to 1, 1 is off. Default 1. */
  typicalP?: number | null
  /** Weakens tokens seen lately; above 0 to 100, 1 is off. Default 1. */
  repeatPenalty?: number | null
  /** How many of the last tokens the penalties look at; 0 turns them off. Default 64. */
  repeatLastN?: number | null
  /** Taken from a token's logit for each time it was seen lately; -100 to 100. Default 0. */
  frequencyPenalty?: number | null
  /** Taken once from the logit of each token seen lately; -100 to 100. Default 0. */
  presencePenalty?: number | null
  /** Seed of the request's random numbers, 0 to 2^64 - 1. Default: a fresh one, which the result reports. */
  seed?: number | bigint | null
  /** Texts that end the answer, none of which is returned; at most 64, none empty. */
  stop?: string | readonly string[] | null
  /** Report log-probabilities, and those of this many likeliest tokens at each place; 0 to 100. */
  logprobs?: number | null
  /** Added to the logits of single tokens; `-Infinity` bans a token. */
  logitBias?: Readonly<Record<TokenId, number>> | ReadonlyMap<TokenId, number> | null
  /** Never end by an end-of-generation token. Default false. */
  ignoreEos?: boolean | null
  /** Tokens that may wait for a slow reader of a stream before its generation pauses. Default 32. */
  bufferSize?: number | null
  /** From submission to the last token; 0 is no limit. Default: the model's limit. */
  timeoutMs?: number | null
  /**
   * Ends the native work when it fires, at any stage, and rejects with its
   * reason. One that has fired already starts nothing.
   */
  signal?: AbortSignal | null
}

/** Options of `ModelPool.create`. */
export interface PoolOptions extends LoadOptions {
  /** Path of the GGUF file. */
  modelPath: string
  /** Ignored: the size of the pool takes its place. */
  maxConcurrent?: number | null
}

/** Options of `pool.acquire`. */
export interface AcquireOptions extends SignalOptions {
  /**
   * Longest wait for a lease; after it the promise rejects with `timeout`. 0
   * does not wait. Default: no limit.
   */
  timeoutMs?: number | null
}

/** Options of `Context.create`. One left out, `undefined` or `null` is the model's own setting. */
export interface ContextOptions extends SignalOptions {
  /** Tokens that all sequences of the context may hold together; 8 to 16,777,216. */
  contextSize?: number | null
  /** Sequences that batches may name, from 0 on; 1 to 256, at most `contextSize`. Default 8. */
  maxSequences?: number | null
  /** Most tokens evaluated in one step; at least `maxSequences` and 16, at most 8192. */
  batchSize?: number | null
  /** Threads that decode; more than the process may use are not used. */
  threads?: number | null
  /** Whether attention runs as flash attention. */
  flashAttention?: boolean | null
  /** Number type of the keys in the KV cache. */
  kvTypeK?: KvType | null
  /** Number type of the values in the KV cache; `'q8_0'` needs flash attention. */
  kvTypeV?: KvType | null
}

/** Options of `configureRuntime`. One left out, `undefined` or `null` has its default. */
export interface RuntimeOptions {
  /**
   * Threads that pass results between models and event loops; they do not
   * decode. 1 to 1024. Default 1.
   */
  workerThreads?: number | null
  /** Most threads for work that blocks, such as long tokenizations; 1 to 16,384. Default 512. */
  maxBlockingThreads?: number | null
  /** Bytes of stack of each thread; 128 KiB to 1 GiB. Default 2 MiB. */
  threadStackSize?: number | null
  /** Name of the threads; not empty. Linux shows the first 15 bytes. Default `'mullama-runtime'`. */
  threadName?: string | null
  /** How long `stopAll` waits for workers of one's own to end. Default 10,000. */
  shutdownTimeoutMs?: number | null
}

/** Options of `manager.spawnMetricsCollector`. */
export interface CollectorOptions {
  /** Time between two samples, 1 or more. Default 1,000. */
  intervalMs?: number | null
  /** Samples that are kept, 1 or more; the oldest go first. Default 3,600. */
  capacity?: number | null
}
