// A pool of leases on one model.

/// <reference lib="esnext.disposable" />

import type { ModelMethods } from './model.js'
import type { AcquireOptions, PoolOptions } from './options.js'
import type { PoolStats } from './results.js'

/**
 * A loaded model that is leased out to at most so many users at a time, first
 * come first served. All leases share one copy of the weights; each has a
 * place of its own in the engine, so its requests never wait for those of
 * another lease. An idle pool does not keep the process alive; a pending
 * promise does.
 */
export class ModelPool implements AsyncDisposable {
  private constructor()

  /**
   * Loads the model of a pool.
   *
   * Rejects as `Model.load`.
   *
   * @param size leases that may be out at once, 1 to 256. Each has its own
   *   `contextSize` tokens of memory.
   */
  static create(options: PoolOptions, size: number): Promise<ModelPool>

  /**
   * Waits for a lease. Calls are served in their order; one whose signal fires
   * gives up its place.
   *
   * Rejects with `timeout` (after `timeoutMs`), `closed` (also when the pool is
   * closed during the wait) or `invalid_input`.
   */
  acquire(options?: AcquireOptions | null): Promise<PooledModel>

  /**
   * A lease if one is free and nobody waits for it, else null. Never waits.
   *
   * @throws MullamaError `closed`
   */
  tryAcquire(): PooledModel | null

  /** Counts of the pool, now. */
  stats(): PoolStats

  /**
   * Changes how many leases may be out, 1 to 256. Growing serves waiting calls
   * as soon as the memory is there; what runs goes on. Leases above a lower
   * size end when they are given back.
   *
   * Rejects with `invalid_input`, `context`, `out_of_memory` or `closed`.
   */
  resize(size: number): Promise<void>

  /**
   * Ends what runs and frees the memory; calls of `acquire` that wait reject
   * with `closed`. Idempotent.
   */
  close(): Promise<void>

  /** As `close`. */
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * A model on lease from a pool. Its requests run one after the other. Calls
 * after it was given back reject with `closed`. One that is forgotten goes
 * back when it is collected, and not before its last call or stream has ended;
 * `await using lease = await pool.acquire()` leaves nothing to chance.
 */
export interface PooledModel extends ModelMethods {}

export class PooledModel implements AsyncDisposable {
  private constructor()

  /**
   * Gives the lease back. Calls and streams that it still runs go on, and its
   * place is free when they have ended. Idempotent.
   */
  release(): void

  /** As `release`. */
  close(): Promise<void>

  /** As `release`. */
  [Symbol.asyncDispose](): Promise<void>
}
