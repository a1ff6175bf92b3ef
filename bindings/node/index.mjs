// The same package for `import`; one instance serves both.

import mullama from './index.js'

export const {
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
} = mullama
