// The runtime of the process, and what llama.cpp runs on.

import type { RuntimeOptions } from './options.js'
import type { BackendInfo, DeviceInfo, RuntimeMetrics } from './results.js'

/**
 * The one runtime that settles all promises of the package, in all threads of
 * the process. It ends with the process and does not keep it alive.
 */
export class MullamaRuntime {
  private constructor()

  /** Its figures, now. */
  metrics(): Promise<RuntimeMetrics>

  /**
   * The same figures and those of every open model, for Prometheus (text
   * exposition format).
   */
  metricsText(): Promise<string>

  /** Whether it runs: always, until the process ends. */
  isRunning(): boolean
}

/**
 * The runtime; started now if nothing did before. Importing the package does
 * not start it.
 *
 * @throws MullamaError `io` if its threads can't be started
 */
export function runtime(): MullamaRuntime

/**
 * Sets how the runtime will be made. Once, before anything has started it: the
 * first call that returns a promise or a stream, a `TaskManager`, or
 * `runtime()`.
 *
 * @throws MullamaError `invalid_input`, or `unsupported` when it is too late
 */
export function configureRuntime(options: RuntimeOptions): void

/**
 * The backends that llama.cpp was built with.
 *
 * @throws MullamaError `unsupported`
 */
export function backends(): BackendInfo[]

/**
 * The devices that were found.
 *
 * @throws MullamaError `unsupported`
 */
export function devices(): DeviceInfo[]
