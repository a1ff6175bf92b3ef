// worker_threads: each worker uses the package by itself, and its end is its
// own affair.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { Model } from 'mullama'
import { ENDLESS, ENTRY, MODEL, run, until } from './support.mjs'

let model
before(async () => {
  model = await Model.load(MODEL, { threads: 1, contextSize: 512 })
})
after(() => model?.close())

const PRELUDE = `
  const { parentPort } = require('node:worker_threads')
  const { Model } = require(${JSON.stringify(ENTRY)})
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
