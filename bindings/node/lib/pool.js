'use strict'

// ModelPool and its leases.

const { inspect } = require('node:util')
const native = require('./native.js')
const { INTERNAL, MullamaError } = require('./errors.js')
const { load } = require('./load.js')
const { LoadedModel, nativeModel } = require('./model.js')
const { optionsObject } = require('./options.js')
const { settle, settleSync, settleWithSignal } = require('./signal.js')

/** A model on lease; made by a pool. */
class PooledModel extends LoadedModel {
  constructor(key, model) {
    if (key !== INTERNAL) {
      throw new MullamaError('unsupported', 'unsupported: leases are made by pool.acquire()')
    }
    super(model)
  }

  release() {
    nativeModel(this).release()
  }

  /** As `release`: the model itself is the pool's. */
  async close() {
    this.release()
  }
}

class ModelPool {
  /** @type {import('./native.js').NativePool} */
  #native
  /** Calls that wait for a lease, and the end of the last of them. */
  #waiting = 0
  #last

  constructor(key, pool) {
    if (key !== INTERNAL) {
      throw new MullamaError('unsupported', 'unsupported: pools are made by ModelPool.create(options, size)')
    }
    this.#native = pool
  }

  static async create(options, size) {
    const { modelPath, ...others } = optionsObject(options)
    const created = await load(others, (rest, report, cancel) =>
      native.NativePool.create(modelPath, rest, size, report, cancel),
    )
    return new ModelPool(INTERNAL, created)
  }

  async acquire(options) {
    const { signal, ...rest } = optionsObject(options)
    const start = (cancel) => {
      const lease = this.#native.acquire(rest, cancel)
      return this.#waiting > 0 || lease instanceof Promise ? this.#inOrder(lease) : lease
    }
    const discard = (lease) => lease.release()
    return new PooledModel(INTERNAL, await settleWithSignal(signal, start, discard))
  }

  /**
   * The lease, after those of the calls before. They were given in this order,
   * but threads may bring them in another.
   */
  async #inOrder(lease) {
    const before = this.#last
    this.#waiting += 1
    const mine = Promise.resolve(lease)
    // Without a value: it must not keep the lease.
    this.#last = Promise.allSettled([before, mine]).then(() => {
      this.#waiting -= 1
    })
    const given = await mine
    await before
    return given
  }

  tryAcquire() {
    const lease = settleSync(() => this.#native.tryAcquire())
    return lease && new PooledModel(INTERNAL, lease)
  }

  stats() {
    return this.#native.stats()
  }

  async resize(size) {
    await settle(() => this.#native.resize(size))
  }

  async close() {
    await settle(() => this.#native.close())
  }

  // See Model for the second name.
  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    return this.close()
  }

  [inspect.custom]() {
    const { size, available, waiting } = this.#native.stats()
    return `ModelPool { ${available} of ${size} available, ${waiting} waiting }`
  }
}

module.exports = { ModelPool, PooledModel }
