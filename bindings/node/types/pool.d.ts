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
   * @param size leases that may be out at once, 1 to 256.
   */
  static create(options: PoolOptions, size: number): Promise<ModelPool>

  /**
   * Waits for a lease. Calls are served in their order; one whose signal fires
   * gives up its place.
   *
   * Rejects with `timeout`, `closed` or `invalid_input`.
   */
  acquire(options?: AcquireOptions | null): Promise<PooledModel>

  /**
   * A lease, if one could be taken at once, and else null.
   *
   * @throws MullamaError `closed`
   */
  tryAcquire(): PooledModel | null

  /** Counts of the pool, now. */
  stats(): PoolStats

  /**
   * Changes how many leases may be out. Growing serves waiting calls at once;
   * leases above a lower size end when they are given back.
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

  /** Gives the lease back, which ends what it runs. Idempotent. */
  release(): void

  /** As `release`. */
  close(): Promise<void>

  /** As `release`. */
  [Symbol.asyncDispose](): Promise<void>
}
