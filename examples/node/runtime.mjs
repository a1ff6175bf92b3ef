// Settings and figures of the runtime: node examples/node/runtime.mjs model.gguf
//
// The runtime passes results between models and event loops. Its settings can
// be made once, before anything uses it; the defaults suit most programs.

import { Model, configureRuntime, runtime } from 'mullama'

configureRuntime({
  workerThreads: 4,
  maxBlockingThreads: 8,
  threadStackSize: 4 * 1024 * 1024,
  threadName: 'mullama-worker',
})

const model = await Model.load(process.argv[2])
await Promise.all([1, 2, 3].map((n) => model.generate(`Count to ${n}:`, 10)))

const metrics = await runtime().metrics()
console.log(`${metrics.workerThreads} worker threads, running: ${runtime().isRunning()}`)
console.log(`${metrics.completedTasks} tasks done, ${metrics.activeTasks} active`)
console.log(`${metrics.totalGenerations} generations of ${metrics.avgGenerationMs.toFixed(0)} ms`)
await model.close()
