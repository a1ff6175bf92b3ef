// Contexts, and the batches that they evaluate.

/// <reference lib="esnext.disposable" />

import type { Model, TokenStream } from './model.js'
import type { ContextOptions, GenerateOptions, SignalOptions } from './options.js'
import type { PooledModel } from './pool.js'
import type { TokenId, TokenList } from './results.js'

/**
 * Tokens for `context.processBatch`. Whether they fit the context is checked
 * there; here only that they are whole numbers.
 */
export class Batch {
  constructor()

  /**
   * Adds one token.
   *
   * @param position its place in each of the sequences; 0 is the first.
   * @param seqIds the sequences it belongs to, from 0 on.
   * @param logits ask for the likeliest token after it. Default false.
   * @throws MullamaError `invalid_input`
   */
  add(token: TokenId, position: number, seqIds: readonly number[], logits?: boolean): void

  /**
   * Adds tokens after all that the sequence holds by then, in the context and
   * earlier in the batch, and asks for the likeliest token after the last one.
   *
   * @throws MullamaError `invalid_input`
   */
  addSequence(seqId: number, tokens: TokenList): void

  /** How many tokens it has. */
  readonly length: number

  /** Whether it has no tokens. */
  isEmpty(): boolean

  /** Takes all tokens out. */
  clear(): void
}

/**
 * A memory of one's own beside a model: what it was given and what it
 * generated stays until it is cleared. It shares the model's weights and has
 * its own KV cache and threads. Its calls run in the order in which they were
 * made. Closing the model closes it. An idle context does not keep the process
 * alive; a pending promise does.
 */
export class Context implements AsyncDisposable {
  private constructor()

  /**
   * Makes an empty context.
   *
   * Rejects with `invalid_input`, `context`, `out_of_memory`, `closed` or `io`
   * (no thread could be started).
   */
  static create(model: Model | PooledModel, options?: ContextOptions | null): Promise<Context>

  /**
   * Appends `tokens` to sequence 0 and generates; what is generated is appended
   * too. No tokens: goes on where it stopped, with the same seed as if it had
   * not. A reader slower than the model pauses the generation, unless another
   * call waits behind it.
   *
   * Whatever goes wrong comes out of the stream: `invalid_input`,
   * `prompt_too_long` (nothing was appended), `generation`, `timeout`,
   * `closed`. A stream that is left early keeps what it was given and what it
   * generated. In its `usage`, `promptTokens` is all that sequence 0 held
   * before the generation, and `cachedTokens` what of it was evaluated already.
   */
  generateStream(tokens: TokenList, options?: number | GenerateOptions | null): TokenStream

  /**
   * Evaluates the batches in order, and gives for each the likeliest token
   * after every token that asked for it, in their order. The tokens become part
   * of their sequences. All batches are checked first; if one is bad, nothing
   * is evaluated. A token follows what its sequences hold by then, and
   * sequences that share one hold the same tokens before it.
   *
   * Rejects with `invalid_input`, `prompt_too_long`, `generation`,
   * `out_of_memory`, `unsupported` (a shared token on a model with recurrent
   * state) or `closed`.
   */
  processBatch(batches: readonly Batch[], options?: SignalOptions | null): Promise<TokenId[][]>

  /**
   * Writes the memory to a file, whole or not at all. Another context over the
   * same model, in this process or another, goes on from it.
   *
   * Rejects with `io`, `out_of_memory` or `closed`.
   */
  saveState(path: string, options?: SignalOptions | null): Promise<void>

  /**
   * Takes the memory from a file that `saveState` wrote. On any error the
   * context is as it was.
   *
   * Load only files from somebody you would load a model from.
   *
   * Rejects with `state` (the file is cut, altered, of another model, of a
   * newer version, or does not fit), `io`, `out_of_memory` or `closed`.
   */
  loadState(path: string, options?: SignalOptions | null): Promise<void>

  /**
   * Forgets all tokens of all sequences.
   *
   * Rejects with `closed`.
   */
  clear(options?: SignalOptions | null): Promise<void>

  /**
   * Keeps the first `n` tokens of sequence 0 alone.
   *
   * Rejects with `invalid_input` if it holds fewer, or `closed`.
   */
  truncate(n: number, options?: SignalOptions | null): Promise<void>

  /** How many tokens sequence 0 holds. Does not wait for calls that run. */
  nPast(): number

  /** Ends what runs, which rejects with `closed`, and frees the memory. Idempotent. */
  close(): Promise<void>

  /** As `close`. */
  [Symbol.asyncDispose](): Promise<void>
}
