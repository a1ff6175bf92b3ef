// Everything at once: node examples/node/all_in_one.mjs model.gguf

import { Model, TaskManager, runtime } from 'mullama'

const model = await Model.load(process.argv[2], { contextSize: 4096, maxConcurrent: 4, timeoutMs: 0 })

// A whole answer.
console.log(await model.generate('What is Rust? Rust is', 60))

// An answer as it is made.
for await (const token of model.generateStream('Once upon a time', { maxTokens: 200, temperature: 0.7 })) {
  process.stdout.write(token.text)
}
console.log()

// Answers in the background, by two workers that share a queue.
const manager = new TaskManager()
manager.spawnGenerationWorker()
manager.spawnGenerationWorker()
manager.spawnMetricsCollector({ intervalMs: 100 })
const tasks = ['Apples', 'Pears', 'Plums'].map((fruit) => manager.submit(model, `${fruit} are`, 20))
for (const { text } of await Promise.all(tasks)) console.log(text.trim())
console.log(Object.entries(manager.workerStatus()).map(([name, { state }]) => `${name}: ${state}`).sort().join(', '))
await manager.stopAll()

const metrics = await runtime().metrics()
console.log(`${metrics.totalGenerations} generations, ${metrics.avgGenerationMs.toFixed(0)} ms each`)
await model.close()
