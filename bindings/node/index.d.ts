// The public types of mullama. Times are milliseconds.

export * from './types/context.js'
export * from './types/errors.js'
export * from './types/model.js'
export * from './types/options.js'
export * from './types/pool.js'
export * from './types/results.js'
export * from './types/runtime.js'
export * from './types/tasks.js'
