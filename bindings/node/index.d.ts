// The public types of mullama. Times are milliseconds.

/// <reference lib="esnext.disposable" />

/** An id in the model's vocabulary. */
export type TokenId = number

/** The codes of all errors; the same in Rust and Python. */
export type ErrorCode =
  | 'model_not_found'
  | 'invalid_model'
  | 'model_load'
  | 'context'
  | 'prompt_too_long'
  | 'invalid_input'
  | 'tokenization'
  | 'generation'
  | 'cancelled'
  | 'timeout'
  | 'queue_full'
  | 'closed'
  | 'state'
  | 'io'
  | 'unsupported'
  | 'out_of_memory'
  | 'operation_failed'
  | 'internal'

/**
 * Every failure of mullama. Methods that return a promise reject with it and
 * never throw. Two things pass through unchanged instead: the reason of a
 * caller's `AbortSignal`, and what a caller's `onProgress` throws.
 */
export class MullamaError extends Error {
  private constructor()
  readonly name: 'MullamaError'
  /** What kind of failure this is; stable. */
  readonly code: ErrorCode
  /** The failure underneath, where there is one. */
  readonly cause?: unknown
  /** `invalid_input`: the argument or option. */
  readonly field?: string
  /** `invalid_input`: the value as given. */
  readonly value?: string
  /** `invalid_input`, `invalid_model`, `model_load`: what is wrong. */
  readonly reason?: string
  /** `timeout`: the text generated before the deadline; empty while queued. */
  readonly partial?: string
  /** `timeout`: the limit that passed. */
  readonly afterMs?: number
  /** `prompt_too_long`: how many tokens the prompt has. */
  readonly tokens?: number
  /** `prompt_too_long`: how many a prompt may have. `queue_full`: how many requests may wait. */
  readonly limit?: number
  /** `model_not_found`, `invalid_model`, `model_load`: the path as given. */
  readonly path?: string
  /** `io`: the kind of failure that the operating system gave. */
  readonly kind?: string
}

/** The number type of a half of the KV cache. */
export type KvType = 'f32' | 'f16' | 'bf16' | 'q8_0'

/** Options of `Model.load`. One left out, `undefined` or `null` has its default. */
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
  /** Map the file instead of reading it into memory. Default true. */
  useMmap?: boolean | null
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

/**
 * A loaded model. Any number of calls may run at once: `maxConcurrent` of them
 * generate together, the rest wait their turn. An idle model does not keep the
 * process alive; a pending promise does.
 */
export class Model implements AsyncDisposable {
  private constructor()

  /**
   * Loads a GGUF file. Relative paths start from the working directory.
   *
   * Rejects with `model_not_found`, `invalid_model`, `model_load`, `context`,
   * `invalid_input`, `out_of_memory`, `io` or `unsupported`.
   */
  static load(path: string, options?: LoadOptions | null): Promise<Model>

  /**
   * The generated text. A number stands for `{ maxTokens }`.
   *
   * Rejects with `invalid_input`, `prompt_too_long`, `timeout` (whose
   * `partial` is the text so far), `queue_full`, `closed` or `generation`.
   */
  generate(prompt: string, options?: number | GenerateOptions | null): Promise<string>

  /** As `generate`, with tokens, counts, times and the seed. */
  generateWith(prompt: string, options?: number | GenerateOptions | null): Promise<Generation>

  /**
   * Starts a generation and returns its stream at once. Whatever goes wrong
   * comes out of the stream, as `generate` would reject.
   */
  generateStream(prompt: string, options?: number | GenerateOptions | null): TokenStream

  /**
   * @param addBos add the begin-of-text token, if the model has one. Default true.
   * @param parseSpecial take the names of special tokens as those tokens. Default false.
   */
  tokenize(text: string, addBos?: boolean, parseSpecial?: boolean): Promise<TokenId[]>

  /** Rejects with `invalid_input` for an id that is not in the vocabulary. */
  detokenize(tokens: readonly TokenId[] | Int32Array | Uint32Array): Promise<string>

  info(): Promise<ModelInfo>

  /** The metadata of the GGUF file. */
  metadata(): Promise<Record<string, string>>

  /** Whether the model is loaded and not closed. */
  isReady(): Promise<boolean>

  metrics(): EngineMetrics

  /**
   * Ends what runs (those requests reject with `closed`) and frees the memory.
   * Idempotent.
   */
  close(): Promise<void>

  [Symbol.asyncDispose](): Promise<void>
}

/**
 * A generation that is running. Reading it gives one item a token; the texts
 * joined are what `generate` returns. Leaving a `for await` early, by any way
 * out, ends the native work; so does garbage collection. A reader slower than
 * the model pauses its own generation, no other.
 */
export class TokenStream implements AsyncIterableIterator<Token>, AsyncDisposable {
  private constructor()

  [Symbol.asyncIterator](): this
  next(): Promise<IteratorResult<Token, undefined>>
  return(value?: undefined): Promise<IteratorResult<Token, undefined>>
  throw(error?: unknown): Promise<IteratorResult<Token, undefined>>

  /** Ends the stream: nothing more comes, and no error. Idempotent. */
  cancel(): void
  /** As `cancel`. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>

  /** Why the generation ended; null while it runs or when it failed. */
  readonly finishReason: FinishReason | null
  /** The stop string that ended it, if one did. */
  readonly stopString: string | null
  /** Counts so far. */
  readonly usage: Usage
  /** Times so far. */
  readonly timings: Timings
  /** The seed; null until the request was taken. */
  readonly seed: number | bigint | null

  /** The rest of the tokens as a web stream. Cancelling it cancels this. */
  toReadableStream(): ReadableStream<Token>
}
