'use strict'

// TaskManager: a queue of generations and the workers that serve it, and
// workers of the caller's own.

const { AsyncLocalStorage } = require('node:async_hooks')
const { inspect } = require('node:util')
const native = require('./native.js')
const { INTERNAL, MullamaError, invalidInput, describe } = require('./errors.js')
const { nativeModel } = require('./model.js')
const { optionsObject, requestOptions } = require('./options.js')
const { settle, settleSync, settleWithSignal } = require('./signal.js')

/** A submitted generation; made by `TaskManager.submit`. */
class GenerationTask {
  #result
  #cancel
  #id = null

  /** `start(options, cancel)` submits; it gives the task's id and result. */
  constructor(key, options, start) {
    if (key !== INTERNAL) {
      throw new MullamaError('unsupported', 'unsupported: tasks are made by manager.submit(model, prompt)')
    }
    this.#result = this.#submit(options, start)
  }

  /** Submits before it returns, so that tasks queue in their order. */
  async #submit(options, start) {
    const { signal, ...rest } = requestOptions(options)
    return await settleWithSignal(signal, (cancel) => {
      this.#cancel = cancel ?? new native.Cancel()
      const { id, result } = start(rest, this.#cancel)
      this.#id = id
      return result
    })
  }

  get id() {
    return this.#id
  }

  cancel() {
    this.#cancel?.cancel()
    // Whoever cancels knows how it ends, and may let go of the task.
    this.#result.catch(() => {})
  }

  then(onFulfilled, onRejected) {
    return this.#result.then(onFulfilled, onRejected)
  }

  catch(onRejected) {
    return this.#result.catch(onRejected)
  }

  finally(onSettled) {
    return this.#result.finally(onSettled)
  }

  get [Symbol.toStringTag]() {
    return 'GenerationTask'
  }

  [inspect.custom]() {
    return `GenerationTask { ${this.#id ?? 'refused'} }`
  }
}

class TaskManager {
  /** @type {import('./native.js').NativeTaskManager} */
  #native = settleSync(() => new native.NativeTaskManager())
  /** The caller's workers that have not ended. */
  #workers = new Set()

  spawnGenerationWorker() {
    return settleSync(() => this.#native.spawnGenerationWorker())
  }

  submit(model, prompt, options) {
    const start = (rest, cancel) => this.#native.submit(nativeModel(model), prompt, rest, cancel)
    return new GenerationTask(INTERNAL, options, start)
  }

  spawnMetricsCollector(options) {
    const given = optionsObject(options)
    return settleSync(() => this.#native.spawnMetricsCollector(given))
  }

  metricsHistory() {
    return this.#native.metricsHistory()
  }

  spawnWorker(name, worker) {
    if (typeof worker !== 'function') throw invalidInput('worker', describe(worker), 'use a function')
    const entry = settleSync(() => this.#native.spawnWorker(name))
    this.#workers.add(new Worker(name, entry, worker, (ended) => this.#workers.delete(ended)))
  }

  workerStatus() {
    return this.#native.workerStatus()
  }

  async stopAll() {
    // A worker that calls this can't be waited for.
    const others = [...this.#workers].filter((worker) => worker !== current.getStore())
    for (const worker of this.#workers) worker.stop()
    const [stopped] = await Promise.allSettled([
      settle(() => this.#native.stopAll()),
      allEnd(others, this.#native.patience),
    ])
    if (stopped.status === 'rejected') throw stopped.reason
    const failed = others.find((worker) => worker.failure)
    if (failed) throw operationFailed(`worker '${failed.name}' failed: ${failed.failure.text}`, failed.failure.error)
    const running = others.find((worker) => this.#workers.has(worker))
    if (running) throw operationFailed(`worker '${running.name}' still runs; let it end when its signal fires`)
  }

  // See Model for the second name.
  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    return this.stopAll()
  }

  [inspect.custom](depth, options) {
    const states = Object.entries(this.workerStatus()).map(([name, { state }]) => [name, state])
    return `TaskManager ${inspect(Object.fromEntries(states), options)}`
  }
}

/** The worker whose code runs. */
const current = new AsyncLocalStorage()

/** A function of the caller's that runs as a worker. */
class Worker {
  /** What it failed with after it was told to stop, as `{ error, text }`. */
  failure
  #stop = new AbortController()

  constructor(name, entry, run, onEnd) {
    this.name = name
    this.ended = current.run(this, () => this.#run(entry, run)).finally(() => onEnd(this))
  }

  stop() {
    this.#stop.abort(new MullamaError('cancelled', 'the operation was cancelled'))
  }

  /** Never rejects: a failure is the worker's status. */
  async #run(entry, run) {
    const { signal } = this.#stop
    try {
      await run({ signal })
      // One that was told to stop is 'stopped', however it ends.
      if (!signal.aborted) entry.end()
    } catch (error) {
      if (!signal.aborted) entry.end(textOf(error))
      else if (error !== signal.reason && error?.name !== 'AbortError') this.failure = { error, text: textOf(error) }
    }
  }
}

/** The longest time that a timer of JavaScript's can wait. */
const LONGEST = 2 ** 31 - 1

/** Waits until workers have ended, as long as `patience` lasts. */
async function allEnd(workers, patience) {
  let timer
  const limit = new Promise((resolve) => (timer = setTimeout(resolve, Math.min(patience, LONGEST))))
  await Promise.race([Promise.all(workers.map((worker) => worker.ended)), limit])
  clearTimeout(timer)
}

function operationFailed(text, cause) {
  return new MullamaError('operation_failed', `operation failed: ${text}`, { cause })
}

/** What a status says of a thrown value. */
function textOf(error) {
  if (error instanceof Error) return String(error.message)
  return typeof error === 'string' ? error : inspect(error)
}

module.exports = { GenerationTask, TaskManager }
