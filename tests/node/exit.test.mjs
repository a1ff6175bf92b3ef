// The process ends as asked, whatever runs: the exit code, no message, no
// hang, no crash.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { run } from './support.mjs'

const TIMES = 20

/** Four streams and a call that are being computed. */
const BUSY = `
  const model = await Model.load(MODEL, { threads: 1, contextSize: 512, maxConcurrent: 8 })
  const streams = Array.from({ length: 4 }, () => model.generateStream('x', ENDLESS))
  for (const stream of streams) await stream.next()
`

const LOAD = `const model = await Model.load(MODEL, { threads: 1, contextSize: 512, maxConcurrent: 8, timeoutMs: 0 });`

/** What else may be going on: with promises that nobody handles any more. */
const BUSY_WITH = {
  contexts: `${LOAD}
    const ids = await model.tokenize('Once upon a time')
    const contexts = await Promise.all([1, 2, 3].map(() => Context.create(model)))
    await contexts[0].generateStream(ids, ENDLESS).next()
    const batch = new Batch()
    batch.addSequence(0, Array(400).fill(ids[0]))
    contexts[1].processBatch([batch])
    contexts[1].generateStream(ids, 5).next()
    contexts[2].saveState('/dev/null/nowhere').catch(() => {})
    Context.create(model)`,
  pools: `
    const pool = await ModelPool.create({ modelPath: MODEL, threads: 1, contextSize: 512, timeoutMs: 0 }, 2)
    const leases = [await pool.acquire(), pool.tryAcquire()]
    await leases[0].generateStream('x', ENDLESS).next()
    leases[1].generate('x', ENDLESS)
    for (let i = 0; i < 3; i++) pool.acquire()
    pool.acquire({ timeoutMs: 60_000 })
    pool.resize(3)`,
  tasks: `${LOAD}
    const manager = new TaskManager()
    manager.spawnGenerationWorker()
    manager.spawnMetricsCollector({ intervalMs: 1 })
    manager.spawnWorker('mine', ({ signal }) => model.generate('x', { ...ENDLESS, signal }))
    for (let i = 0; i < 3; i++) manager.submit(model, 'x', ENDLESS)
    manager.spawnWorker('waits', () => new Promise(() => {}))
    while (model.metrics().active < 2) await turn()`,
}

async function exits(code, expected) {
  const { code: exitCode, signal, stdout, stderr } = await run(code)
  assert.deepEqual({ exitCode, signal, stdout, stderr }, { exitCode: 0, signal: null, stdout: '', stderr: '', ...expected })
}

test(`process.exit while streams run, ${TIMES} times`, async () => {
  for (let i = 0; i < TIMES; i++) {
    // After a delay of its own each time, so as to hit different moments.
    await exits(`${BUSY} model.generate('x', ENDLESS).catch(() => {}); setTimeout(() => process.exit(3), ${i})`, { exitCode: 3 })
  }
})

test(`the natural end while streams run, ${TIMES} times`, async () => {
  for (let i = 0; i < TIMES; i++) await exits(BUSY, {})
})

test('process.exit while a model loads', async () => {
  for (let i = 0; i < 5; i++) {
    await exits(`Model.load(MODEL, { useMmap: false }); setTimeout(() => process.exit(4), ${i * 10})`, { exitCode: 4 })
  }
})

test('process.exit while models close', async () => {
  for (let i = 0; i < 5; i++) await exits(`${BUSY} model.close(); setTimeout(() => process.exit(5), ${i})`, { exitCode: 5 })
})

test('an exception ends the process with its own message', async () => {
  const { code, stderr } = await run(`${BUSY} throw new Error('mine')`)
  assert.equal(code, 1)
  assert.match(stderr, /Error: mine/)
  assert.doesNotMatch(stderr, /panic|fatal|GGML|terminate/i)
})

for (const [name, busy] of Object.entries(BUSY_WITH)) {
  test(`process.exit in the midst of ${name}`, async () => {
    for (let i = 0; i < 8; i++) await exits(`${busy}; setTimeout(() => process.exit(6), ${i * 3})`, { exitCode: 6 })
  })

  test(`an exception in the midst of ${name}`, async () => {
    const { code, stderr } = await run(`${busy}; throw new Error('mine')`)
    assert.equal(code, 1)
    assert.match(stderr, /Error: mine/)
    assert.doesNotMatch(stderr, /panic|fatal|GGML|terminate/i)
  })
}

test('process.exit while contexts and pools are made and closed', async () => {
  for (let i = 0; i < 8; i++) {
    await exits(
      `${LOAD} const contexts = await Promise.all([1, 2].map(() => Context.create(model)))
      const pool = await ModelPool.create({ modelPath: MODEL, threads: 1, contextSize: 64 }, 1)
      Context.create(model); ModelPool.create({ modelPath: MODEL, useMmap: false }, 2)
      contexts.forEach((context) => context.close()); pool.close(); new TaskManager().stopAll()
      setTimeout(() => process.exit(7), ${i * 4})`,
      { exitCode: 7 },
    )
  }
})

test('idle contexts, leases, workers and a runtime do not keep the process alive', async () => {
  for (let i = 0; i < 5; i++) {
    await exits(
      `${LOAD} const context = await Context.create(model)
      const stream = context.generateStream([1, 2, 3], ENDLESS)
      await stream.next()
      const pool = await ModelPool.create({ modelPath: MODEL, threads: 1, contextSize: 64 }, 2)
      const lease = await pool.acquire()
      const manager = new TaskManager()
      manager.spawnGenerationWorker()
      manager.spawnMetricsCollector()
      manager.spawnWorker('mine', ({ signal }) => new Promise((resolve) => signal.addEventListener('abort', resolve)))
      await manager.submit(model, 'x', 2)
      await runtime().metrics()`,
      {},
    )
  }
})

test('a wait for a lease and a submitted task do', async () => {
  await exits(
    `const pool = await ModelPool.create({ modelPath: MODEL, threads: 1, contextSize: 64 }, 1)
    const lease = await pool.acquire()
    lease.generate('x', { maxTokens: 20, ignoreEos: true })
    lease.release()
    pool.acquire().then(() => console.log('leased'))`,
    { stdout: 'leased\n' },
  )
  await exits(
    `${LOAD} const manager = new TaskManager()
    manager.spawnGenerationWorker()
    manager.submit(model, 'x', { maxTokens: 20, ignoreEos: true }).then(() => console.log('done'))`,
    { stdout: 'done\n' },
  )
})

test('an idle model does not keep the process alive', async () => {
  await exits('globalThis.model = await Model.load(MODEL, { threads: 1, contextSize: 64, onProgress() {} })', {})
})

test('a pending promise does', async () => {
  await exits(`const model = await Model.load(MODEL, { threads: 1, contextSize: 64 })
    model.generate('x', { maxTokens: 30, ignoreEos: true }).then(() => console.log('done'))`, { stdout: 'done\n' })
  await exits(`Model.load(MODEL, { threads: 1, contextSize: 64 }).then(() => console.log('loaded'))`, { stdout: 'loaded\n' })
})

test('nothing is printed by loading, generating and failing', async () => {
  await exits(`const model = await Model.load(MODEL, { threads: 1, contextSize: 64 })
    await model.generate('x', 3)
    await Model.load('/nowhere').catch(() => {})
    await model.generate('x', { topP: 3 }).catch(() => {})
    await model.close()`, {})
})

test('SIGTERM ends a busy process by that signal', async () => {
  await exits(`${BUSY} process.kill(process.pid, 'SIGTERM'); await new Promise(() => {})`, { exitCode: null, signal: 'SIGTERM' })
})
