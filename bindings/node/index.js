'use strict'

// The public package. The work is done in lib/ and, behind it, in Rust.

const { Batch, Context } = require('./lib/context.js')
const { MullamaError } = require('./lib/errors.js')
const { Model } = require('./lib/model.js')
const { ModelPool, PooledModel } = require('./lib/pool.js')
const { MullamaRuntime, backends, configureRuntime, devices, runtime } = require('./lib/runtime.js')
const { TokenStream } = require('./lib/stream.js')
const { GenerationTask, TaskManager } = require('./lib/tasks.js')

module.exports = {
  Batch,
  Context,
  GenerationTask,
  Model,
  ModelPool,
  MullamaError,
  MullamaRuntime,
  PooledModel,
  TaskManager,
  TokenStream,
  backends,
  configureRuntime,
  devices,
  runtime,
}
