'use strict'

// The one runtime that all promises of the process run on, and what llama.cpp
// runs on.

const { inspect } = require('node:util')
const native = require('./native.js')
const { INTERNAL, MullamaError } = require('./errors.js')
const { optionsObject } = require('./options.js')
const { settle, settleSync } = require('./signal.js')

class MullamaRuntime {
  /** @type {import('./native.js').NativeRuntime} */
  #native

  constructor(key, runtime) {
    if (key !== INTERNAL) {
      throw new MullamaError('unsupported', 'unsupported: the runtime is given by runtime()')
    }
    this.#native = runtime
  }

  async metrics() {
    return await settle(() => this.#native.metrics())
  }

  async metricsText() {
    return await settle(() => this.#native.metricsText())
  }

  isRunning() {
    return this.#native.isRunning()
  }

  [inspect.custom]() {
    return `MullamaRuntime { ${this.isRunning() ? 'running' : 'shut down'} }`
  }
}

let shared

function runtime() {
  shared ??= settleSync(() => new MullamaRuntime(INTERNAL, new native.NativeRuntime()))
  return shared
}

function configureRuntime(options) {
  const given = optionsObject(options)
  settleSync(() => native.configureRuntime(given))
}

function backends() {
  return settleSync(() => native.backends())
}

function devices() {
  return settleSync(() => native.devices())
}

module.exports = { MullamaRuntime, backends, configureRuntime, devices, runtime }
