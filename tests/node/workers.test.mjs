// worker_threads: each worker uses the package by itself, and its end is its
// own affair.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { Model, runtime } from 'mullama'
import { ENDLESS, ENTRY, MODEL, run, until } from './support.mjs'

let model
before(async () => {
  model = await Model.load(MODEL, { threads: 1, contextSize: 512 })
})
after(() => model?.close())

const PRELUDE = `
  const { parentPort } = require('node:worker_threads')
  const { Batch, Context, Model, ModelPool, TaskManager, configureRuntime, runtime } = require(${JSON.stringify(ENTRY)})
  const MODEL = ${JSON.stringify(MODEL)}
  const ENDLESS = ${JSON.stringify(ENDLESS)}
`

const start = (code) => new Worker(PRELUDE + code, { eval: true, execArgv: [] })

const STREAMING = `
  ;(async () => {
    const model = await Model.load(MODEL, { threads: 1, contextSize: 256 })
    for await (const token of model.generateStream('x', ENDLESS)) if (token.index === 2) parentPort.postMessage('running')
  })()
`

test('a worker loads, generates and ends', async () => {
  const worker = start(`
    ;(async () => {
      const model = await Model.load(MODEL, { threads: 1, contextSize: 256, onProgress() {} })
      parentPort.postMessage(await model.generateWith('x', { maxTokens: 5, ignoreEos: true }))
      await model.close()
    })()
  `)
  const [result] = await once(worker, 'message')
  assert.equal(result.tokens.length, 5)
  const [code] = await once(worker, 'exit')
  assert.equal(code, 0)
})

test('a worker that ends leaves an open model behind without harm', async () => {
  const worker = start(`
    ;(async () => {
      const model = await Model.load(MODEL, { threads: 1, contextSize: 256 })
      const stream = model.generateStream('x', ENDLESS)
      await stream.next()
    })()
  `)
  const [code] = await once(worker, 'exit')
  assert.equal(code, 0)
  assert.equal((await model.generateWith('x', { maxTokens: 3, ignoreEos: true })).tokens.length, 3)
})

test('terminating workers in the middle of streams leaves the others running', async () => {
  const stream = model.generateStream('x', ENDLESS)
  for (let i = 0; i < 5; i++) {
    const worker = start(STREAMING)
    await once(worker, 'message')
    await worker.terminate()
    assert.equal((await stream.next()).done, false)
  }
  assert.equal(await model.isReady(), true)
  stream.cancel()
  await until(() => model.metrics().active === 0)
})

test('terminating a worker while it loads', async () => {
  for (let i = 0; i < 4; i++) {
    const worker = start(`Model.load(MODEL, { threads: 1, useMmap: false, onProgress() {} }); parentPort.postMessage('loading')`)
    await once(worker, 'message')
    await new Promise((resolve) => setTimeout(resolve, i * 15))
    await worker.terminate()
  }
  assert.equal(await model.isReady(), true)
})

/** What a worker thread may be in the midst of when it ends. */
const MIDST = {
  contexts: `
    const model = await Model.load(MODEL, { threads: 1, contextSize: 512 })
    const contexts = await Promise.all([1, 2].map(() => Context.create(model)))
    await contexts[0].generateStream([1, 2, 3], ENDLESS).next()
    const batch = new Batch()
    batch.addSequence(0, Array(400).fill(5))
    contexts[1].processBatch([batch])
    contexts[0].clear()`,
  pools: `
    const pool = await ModelPool.create({ modelPath: MODEL, threads: 1, contextSize: 256, timeoutMs: 0 }, 2)
    const leases = [await pool.acquire(), await pool.acquire()]
    await leases[0].generateStream('x', ENDLESS).next()
    leases[1].generate('x', ENDLESS)
    pool.acquire()
    pool.acquire({ timeoutMs: 60_000 })`,
  tasks: `
    const model = await Model.load(MODEL, { threads: 1, contextSize: 256, timeoutMs: 0 })
    const manager = new TaskManager()
    manager.spawnGenerationWorker()
    manager.spawnMetricsCollector()
    manager.spawnWorker('mine', ({ signal }) => model.generate('x', { ...ENDLESS, signal }))
    manager.spawnWorker('waits', () => new Promise(() => {}))
    manager.submit(model, 'x', ENDLESS)
    manager.submit(model, 'x', ENDLESS)`,
}

for (const [name, code] of Object.entries(MIDST)) {
  test(`terminating a worker in the midst of ${name} ends what it had`, async () => {
    const { activeTasks } = await runtime().metrics()
    for (let i = 0; i < 4; i++) {
      const worker = start(`;(async () => { ${code}\nparentPort.postMessage('running') })()`)
      await once(worker, 'message')
      await new Promise((resolve) => setTimeout(resolve, i * 10))
      await worker.terminate()
    }
    await until(async () => (await runtime().metrics()).activeTasks === activeTasks, 'its tasks have ended')
    assert.equal((await model.generateWith('x', { maxTokens: 3, ignoreEos: true })).tokens.length, 3)
  })
}

test('a worker that ends by itself leaves workers, leases and contexts behind without harm', async () => {
  const { activeTasks } = await runtime().metrics()
  const worker = start(`
    ;(async () => {
      const model = await Model.load(MODEL, { threads: 1, contextSize: 256 })
      const context = await Context.create(model)
      const pool = await ModelPool.create({ modelPath: MODEL, threads: 1, contextSize: 64 }, 1)
      const lease = await pool.acquire()
      const manager = new TaskManager()
      manager.spawnGenerationWorker()
      manager.spawnWorker('waits', () => new Promise(() => {}))
      await manager.submit(model, 'x', 2)
    })()
  `)
  const [code] = await once(worker, 'exit')
  assert.equal(code, 0)
  await until(async () => (await runtime().metrics()).activeTasks === activeTasks, 'its tasks have ended')
})

test('all threads share one runtime', async () => {
  const before = (await runtime().metrics()).totalGenerations
  const worker = start(`
    ;(async () => {
      let refused
      try { configureRuntime({ workerThreads: 2 }) } catch (error) { refused = error.code }
      const model = await Model.load(MODEL, { threads: 1, contextSize: 64 })
      await model.generate('x', 2)
      parentPort.postMessage([refused, (await runtime().metrics()).totalGenerations])
      await model.close()
    })()
  `)
  const [message] = await once(worker, 'message')
  assert.deepEqual(message, ['unsupported', before + 1])
  assert.equal((await runtime().metrics()).totalGenerations, before + 1)
  await once(worker, 'exit')
})

test('the package may be used by workers alone', async () => {
  const { code, signal, stdout, stderr } = await run(
    `
    import { Worker } from 'node:worker_threads'
    import { once } from 'node:events'
    const PRELUDE = ${JSON.stringify(PRELUDE)}
    for (let i = 0; i < 3; i++) {
      const worker = new Worker(PRELUDE + ${JSON.stringify(STREAMING)}, { eval: true, execArgv: [] })
      await once(worker, 'message')
      await worker.terminate()
    }
    console.log('alive')
    const last = new Worker(PRELUDE + ${JSON.stringify(STREAMING)}, { eval: true, execArgv: [] })
    await once(last, 'message')
    process.exit(3)
    `,
    [],
    '',
  )
  assert.deepEqual({ code, signal, stdout, stderr }, { code: 3, signal: null, stdout: 'alive\n', stderr: '' })
})

test('process.exit in a worker ends that worker alone', async () => {
  const worker = start(`
    ;(async () => {
      const model = await Model.load(MODEL, { threads: 1, contextSize: 256 })
      for await (const token of model.generateStream('x', ENDLESS)) if (token.index === 2) process.exit(7)
    })()
  `)
  const [code] = await once(worker, 'exit')
  assert.equal(code, 7)
  assert.equal(await model.isReady(), true)
})
