'use strict'

// Model: the public face of the native one. Arguments pass through; defaults
// and ranges are the core's.

const { inspect } = require('node:util')
const native = require('./native.js')
const { INTERNAL, MullamaError, fromNative, invalidInput, describe } = require('./errors.js')
const { checkSignal, settle, settleWithSignal } = require('./signal.js')
const { TokenStream } = require('./stream.js')

class Model {
  #native

  constructor(key, model) {
    if (key !== INTERNAL) {
      throw new MullamaError('unsupported', 'unsupported: models are made by Model.load(path)')
    }
    this.#native = model
  }

  static async load(path, options) {
    const { signal, onProgress, ...rest } = optionsObject(options)
    const progress = onProgress == null ? undefined : new Progress(onProgress)
    const load = (cancel) => {
      cancel ??= new native.Cancel()
      progress?.attach(cancel)
      return native.NativeModel.load(path, rest, progress?.report, cancel)
    }
    const discard = (loaded) => loaded.close()
    let loaded
    try {
      loaded = await settleWithSignal(signal, load, discard)
    } catch (error) {
      throw progress?.failure ? progress.failure.error : error
    }
    progress?.finish()
    if (progress?.failure) {
      await discard(loaded)
      throw progress.failure.error
    }
    return new Model(INTERNAL, loaded)
  }

  async generate(prompt, options) {
    const { signal, ...rest } = requestOptions(options)
    return await settleWithSignal(signal, (cancel) => this.#native.generate(prompt, rest, cancel))
  }

  async generateWith(prompt, options) {
    const { signal, ...rest } = requestOptions(options)
    return await settleWithSignal(signal, (cancel) => this.#native.generateWith(prompt, rest, cancel))
  }

  generateStream(prompt, options) {
    let signal, rest
    try {
      ;({ signal, ...rest } = requestOptions(options))
      signal = checkSignal(signal)
    } catch (error) {
      return new TokenStream(INTERNAL, undefined, () => {
        throw error
      })
    }
    return new TokenStream(INTERNAL, signal, (cancel) => this.#native.generateStream(prompt, rest, cancel))
  }

  async tokenize(text, addBos = true, parseSpecial = false) {
    return await settle(() => this.#native.tokenize(text, addBos, parseSpecial))
  }

  async detokenize(tokens) {
    const list = ArrayBuffer.isView(tokens) ? Array.from(tokens) : tokens
    return await settle(() => this.#native.detokenize(list))
  }

  async info() {
    return await settle(() => this.#native.info())
  }

  async metadata() {
    return await settle(() => this.#native.metadata())
  }

  async isReady() {
    return await settle(() => this.#native.isReady())
  }

  metrics() {
    try {
      return this.#native.metrics()
    } catch (error) {
      throw fromNative(error)
    }
  }

  async close() {
    await settle(() => this.#native.close())
  }

  // Node 20.4 and older have no Symbol.asyncDispose; `await using` compiled
  // for them brings it along under this name.
  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    return this.close()
  }

  [inspect.custom](depth, options) {
    const { name, architecture } = this.#native.info()
    const state = this.#native.isReady() ? 'ready' : 'closed'
    return `Model { ${inspect(name, options)}, ${architecture}, ${state} }`
  }
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

/** A copy of the options, which are one plain object or left out. */
function optionsObject(options) {
  if (options === undefined || options === null) return {}
  if (typeof options !== 'object' || Array.isArray(options)) {
    throw invalidInput('options', describe(options), 'use a plain object')
  }
  return { ...options }
}

/** As `optionsObject`; anything but an object stands for `maxTokens`. */
function requestOptions(options) {
  const simple = options !== undefined && options !== null && typeof options !== 'object'
  const copy = simple ? { maxTokens: options } : optionsObject(options)
  if (copy.logitBias instanceof Map) copy.logitBias = Object.fromEntries(copy.logitBias)
  return copy
}

module.exports = { Model }
