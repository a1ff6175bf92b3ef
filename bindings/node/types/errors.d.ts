// What goes wrong.

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
  /** Always `'MullamaError'`. */
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
