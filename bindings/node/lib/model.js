'use strict'

// Model: the public face of the native one. Arguments pass through; defaults
// and ranges are the core's.

const { inspect } = require('node:util')
const native = require('./native.js')
const { INTERNAL, MullamaError, invalidInput, describe } = require('./errors.js')
const { load } = require('./load.js')
const { requestOptions, tokenList } = require('./options.js')
const { settle, settleSync, settleWithSignal } = require('./signal.js')
const { startStream } = require('./stream.js')

/** The native model of a model or lease. */
let nativeModel

/** What a model and a lease have in common; not public. */
class LoadedModel {
  /** @type {import('./native.js').NativeModel} */
  #native

  static {
    nativeModel = (model) => {
      if (typeof model === 'object' && model !== null && #native in model) return model.#native
      throw invalidInput('model', describe(model), 'use a Model or a PooledModel')
    }
  }

  constructor(model) {
    this.#native = model
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
    return startStream(options, (rest, cancel) => this.#native.generateStream(prompt, rest, cancel))
  }

  async tokenize(text, addBos = true, parseSpecial = false) {
    return await settle(() => this.#native.tokenize(text, addBos, parseSpecial))
  }

  async detokenize(tokens) {
    return await settle(() => this.#native.detokenize(tokenList(tokens)))
  }

  async info() {
    return await settle(() => this.#native.info())
  }

  async metadata() {
    return await settle(() => this.#native.metadata())
  }

  async placement() {
    return await settle(() => this.#native.placement())
  }

  async isReady() {
    return await settle(() => this.#native.isReady())
  }

  metrics() {
    return settleSync(() => this.#native.metrics())
  }

  // Node 20.4 and older have no Symbol.asyncDispose; `await using` compiled
  // for them brings it along under this name.
  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    return /** @type {Model | import('./pool.js').PooledModel} */ (/** @type {unknown} */ (this)).close()
  }

  [inspect.custom](depth, options) {
    const { name, architecture } = this.#native.info()
    const state = this.#native.isReady() ? 'ready' : 'closed'
    return `${this.constructor.name} { ${inspect(name, options)}, ${architecture}, ${state} }`
  }
}

class Model extends LoadedModel {
  constructor(key, model) {
    if (key !== INTERNAL) {
      throw new MullamaError('unsupported', 'unsupported: models are made by Model.load(path)')
    }
    super(model)
  }

  static async load(path, options) {
    const loaded = await load(options, (rest, report, cancel) => native.NativeModel.load(path, rest, report, cancel))
    return new Model(INTERNAL, loaded)
  }

  async close() {
    await settle(() => nativeModel(this).close())
  }
}

module.exports = { LoadedModel, Model, nativeModel }
