'use strict'

// What loads have in common: a signal, and a function that is told how far
// they are.

const native = require('./native.js')
const { invalidInput, describe } = require('./errors.js')
const { optionsObject } = require('./options.js')
const { settleWithSignal } = require('./signal.js')

/**
 * Awaits `start(rest, report, cancel)`, which loads; `rest` are the options
 * but for those that JavaScript handles. What `onProgress` throws ends the
 * load. A result that came too late is closed.
 */
async function load(options, start) {
  const { signal, onProgress, ...rest } = optionsObject(options)
  const progress = onProgress == null ? undefined : new Progress(onProgress)
  const begin = (cancel) => {
    cancel ??= new native.Cancel()
    progress?.attach(cancel)
    return start(rest, progress?.report, cancel)
  }
  const discard = (loaded) => loaded.close()
  let loaded
  try {
    loaded = await settleWithSignal(signal, begin, discard)
  } catch (error) {
    throw progress?.failure ? progress.failure.error : error
  }
  progress?.finish()
  if (progress?.failure) {
    await discard(loaded)
    throw progress.failure.error
  }
  return loaded
}

/** Calls the caller's function with the fractions of a load. */
class Progress {
  /** What the function threw, as `{ error }`. */
  failure
  #call
  #cancel
  #last = -1
  #finished = false

  constructor(call) {
    if (typeof call !== 'function') throw invalidInput('onProgress', describe(call), 'use a function')
    this.#call = call
  }

  attach(cancel) {
    this.#cancel = cancel
  }

  /** Given to the native side, so it must not throw. */
  report = (fraction) => {
    if (this.#finished || fraction <= this.#last) return
    this.#last = fraction
    try {
      this.#call(fraction)
    } catch (error) {
      this.failure = { error }
      this.#finished = true
      this.#cancel.cancel()
    }
  }

  /**
   * Ends the reports: 1 always comes, and nothing after it. The load's promise
   * and its reports come over different channels, so some may be on the way.
   */
  finish() {
    this.report(1)
    this.#finished = true
  }
}

module.exports = { load }
