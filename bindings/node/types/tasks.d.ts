// Queued generations, and workers.

/// <reference lib="esnext.disposable" />

import type { Model } from './model.js'
import type { CollectorOptions, GenerateOptions } from './options.js'
import type { PooledModel } from './pool.js'
import type { Generation, RuntimeMetrics, WorkerStatus } from './results.js'

/**
 * A queue of generations and the workers that serve it, and named workers of
 * one's own. An idle manager does not keep the process alive; a task that was
 * submitted does, until it has ended.
 */
export class TaskManager implements AsyncDisposable {
  /** @throws MullamaError `io` if the runtime can't be started */
  constructor()

  /**
   * Starts a worker that serves the queue, one task at a time. Gives its name:
   * `generation-` and the lowest number that no running worker has.
   *
   * @throws MullamaError `closed`
   */
  spawnGenerationWorker(): string

  /**
   * Puts a generation into the queue. It begins when a worker is free, and its
   * time limit counts from then; without workers it waits.
   *
   * The task rejects as `model.generateWith`, with `queue_full` when 4,096 are
   * waiting, and with `cancelled` after `stopAll`.
   */
  submit(model: Model | PooledModel, prompt: string, options?: number | GenerateOptions | null): GenerationTask

  /**
   * Starts a worker that samples the runtime's metrics into a history. Gives
   * its name: `metrics`.
   *
   * @throws MullamaError `invalid_input` (also when it runs already) or `closed`
   */
  spawnMetricsCollector(options?: CollectorOptions | null): string

  /** The samples, the oldest first. They stay when the collector ends. */
  metricsHistory(): RuntimeMetrics[]

  /**
   * Runs a function as a worker, on this thread. It is `completed` when its
   * promise resolves and `failed` when it rejects, which is reported by
   * `workerStatus` and `stopAll` alone. `stopAll` fires the signal; a worker
   * that had not ended by then is `stopped`. It ends with its thread.
   *
   * @throws MullamaError `invalid_input` (also for a name that is taken) or `closed`
   */
  spawnWorker(name: string, worker: (context: WorkerContext) => PromiseLike<unknown> | unknown): void

  /**
   * Ends all workers and waits for them; tasks that are queued or run reject
   * with `cancelled`. One's own workers get as long as `shutdownTimeoutMs` of
   * `configureRuntime`; one that calls this is not waited for. Workers may be
   * started again afterwards.
   *
   * Rejects with `operation_failed` and the first failure of a worker since the
   * last call, or when a worker has not ended in time.
   */
  stopAll(): Promise<void>

  /** How every worker is, or how it ended, by name. */
  workerStatus(): Record<string, WorkerStatus>

  /** As `stopAll`. */
  [Symbol.asyncDispose](): Promise<void>
}

/** What a worker of one's own is given. */
export interface WorkerContext {
  /** Fires when the worker is to end; its reason is a `MullamaError` with code `cancelled`. */
  readonly signal: AbortSignal
}

/**
 * A submitted generation: a promise of its result that can be cancelled.
 * Letting go of it cancels nothing.
 */
export class GenerationTask implements Promise<Generation> {
  private constructor()

  /** Counts up from 0 in each manager; null if the task was refused. */
  readonly id: number | null

  /**
   * Ends the native work; the task rejects with `cancelled`, which need not be
   * handled. Idempotent, and without effect on a task that has ended.
   */
  cancel(): void

  /** As of any promise. */
  then<A = Generation, B = never>(
    onFulfilled?: ((result: Generation) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B>
  /** As of any promise. */
  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<Generation | B>
  /** As of any promise. */
  finally(onSettled?: (() => void) | null): Promise<Generation>

  /** What `Object.prototype.toString` shows. */
  readonly [Symbol.toStringTag]: string
}
