// Models and the streams that they give.

/// <reference lib="esnext.disposable" />

import type { GenerateOptions, LoadOptions } from './options.js'
import type {
  EngineMetrics,
  FinishReason,
  Generation,
  LayerPlacement,
  ModelInfo,
  Timings,
  Token,
  TokenId,
  TokenList,
  Usage,
} from './results.js'

/** What models and leases of a pool can do. */
export interface ModelMethods {
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
   * The text's tokens.
   *
   * @param addBos add the begin-of-text token, if the model has one. Default true.
   * @param parseSpecial take the names of special tokens as those tokens. Default false.
   */
  tokenize(text: string, addBos?: boolean, parseSpecial?: boolean): Promise<TokenId[]>

  /** The text of the tokens. Rejects with `invalid_input` for an id that is not in the vocabulary. */
  detokenize(tokens: TokenList): Promise<string>

  /** Facts about the model. */
  info(): Promise<ModelInfo>

  /** The metadata of the GGUF file. */
  metadata(): Promise<Record<string, string>>

  /** Which device holds how many of the model's layers. */
  placement(): Promise<LayerPlacement[]>

  /** Whether the model is loaded and not closed; for a lease also that it was not given back. */
  isReady(): Promise<boolean>

  /** Live figures of the model's engine; never waits. */
  metrics(): EngineMetrics
}

/**
 * A loaded model. Any number of calls may run at once: `maxConcurrent` of them
 * generate together, the rest wait their turn. An idle model does not keep the
 * process alive; a pending promise does.
 */
export interface Model extends ModelMethods {}

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
   * Ends what runs (those requests reject with `closed`) and frees the memory.
   * Idempotent.
   */
  close(): Promise<void>

  /** As `close`. */
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

  /** The stream itself: it is read once. */
  [Symbol.asyncIterator](): this
  /** The next token. Rejects as `generate` does. */
  next(): Promise<IteratorResult<Token, undefined>>
  /** Ends the stream, as `cancel` does; `for await` calls it when it is left early. */
  return(value?: undefined): Promise<IteratorResult<Token, undefined>>
  /** Ends the stream, as `cancel` does, and rejects with the error. */
  throw(error?: unknown): Promise<IteratorResult<Token, undefined>>

  /** Ends the stream: nothing more comes, and no error. Idempotent. */
  cancel(): void
  /** As `cancel`. */
  close(): Promise<void>
  /** As `cancel`. */
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
