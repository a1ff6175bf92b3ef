'use strict'

// Context, a private memory, and Batch, the rows that one evaluates.

const { inspect } = require('node:util')
const native = require('./native.js')
const { INTERNAL, MullamaError, invalidInput, describe } = require('./errors.js')
const { nativeModel } = require('./model.js')
const { optionsObject, tokenList } = require('./options.js')
const { settle, settleSync, settleWithSignal } = require('./signal.js')
const { startStream } = require('./stream.js')

let nativeBatch

class Batch {
  #native = new native.NativeBatch()

  static {
    nativeBatch = (batch) => {
      if (typeof batch === 'object' && batch !== null && #native in batch) return batch.#native
      throw invalidInput('batches', describe(batch), 'use an array of Batch objects')
    }
  }

  add(token, position, seqIds, logits = false) {
    settleSync(() => this.#native.add(token, position, seqIds, logits))
  }

  addSequence(seqId, tokens) {
    settleSync(() => this.#native.addSequence(seqId, tokenList(tokens)))
  }

  get length() {
    return this.#native.length
  }

  isEmpty() {
    return this.#native.isEmpty()
  }

  clear() {
    this.#native.clear()
  }

  [inspect.custom]() {
    return `Batch { ${this.length} tokens }`
  }
}

class Context {
  /** @type {import('./native.js').NativeContext} */
  #native

  constructor(key, context) {
    if (key !== INTERNAL) {
      throw new MullamaError('unsupported', 'unsupported: contexts are made by Context.create(model)')
    }
    this.#native = context
  }

  static async create(model, options) {
    const { signal, ...rest } = optionsObject(options)
    const start = (cancel) => native.NativeContext.create(nativeModel(model), rest, cancel)
    const discard = (late) => late.close()
    return new Context(INTERNAL, await settleWithSignal(signal, start, discard))
  }

  generateStream(tokens, options) {
    return startStream(options, (rest, cancel) => this.#native.generateStream(tokenList(tokens), rest, cancel))
  }

  async processBatch(batches, options) {
    if (!Array.isArray(batches)) throw invalidInput('batches', describe(batches), 'use an array of Batch objects')
    const list = batches.map(nativeBatch)
    return await this.#call(options, (rest, cancel) => this.#native.processBatch(list, rest, cancel))
  }

  async saveState(path, options) {
    await this.#call(options, (rest, cancel) => this.#native.saveState(path, rest, cancel))
  }

  async loadState(path, options) {
    await this.#call(options, (rest, cancel) => this.#native.loadState(path, rest, cancel))
  }

  async clear(options) {
    await this.#call(options, (rest, cancel) => this.#native.clear(rest, cancel))
  }

  async truncate(n, options) {
    await this.#call(options, (rest, cancel) => this.#native.truncate(n, rest, cancel))
  }

  nPast() {
    return this.#native.nPast()
  }

  async close() {
    await settle(() => this.#native.close())
  }

  // See Model for the second name.
  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    return this.close()
  }

  [inspect.custom]() {
    return `Context { ${this.nPast()} tokens }`
  }

  async #call(options, call) {
    const { signal, ...rest } = optionsObject(options)
    return await settleWithSignal(signal, (cancel) => call(rest, cancel))
  }
}

module.exports = { Batch, Context }
