// Task managers: promises that can be cancelled, and workers of JavaScript's
// own. The queue itself is covered by the conformance cases.

import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, before, test } from 'node:test'
import { inspect } from 'node:util'
import { GenerationTask, Model, ModelPool, MullamaError, TaskManager } from 'mullama'
import { ENDLESS, MODEL, rejection, run, until } from './support.mjs'

let model
before(async () => {
  model = await Model.load(MODEL, { threads: 1, contextSize: 512, timeoutMs: 0 })
})
after(() => model?.close())

const SHORT = { maxTokens: 4, ignoreEos: true }

/** A manager that is stopped after the test. */
function manage(context, workers = 1) {
  const manager = new TaskManager()
  for (let i = 0; i < workers; i++) manager.spawnGenerationWorker()
  context.after(() => manager.stopAll().catch(() => {}))
  return manager
}

const listeners = (signal) => getEventListeners(signal, 'abort').length

test('a task is a promise in every way', async (context) => {
  const manager = manage(context)
  const task = manager.submit(model, 'x', SHORT)
  assert.ok(task instanceof GenerationTask)
  assert.equal(task.id, 0)
  assert.equal(Object.prototype.toString.call(task), '[object GenerationTask]')
  const result = await task
  assert.equal(result.tokens.length, 4)
  assert.equal(await task, result)
  assert.equal(await task.then((it) => it.usage.completionTokens), 4)
  assert.equal(await task.catch(() => null), result)
  let calls = 0
  assert.equal(await task.finally(() => (calls += 1)), result)
  assert.equal(calls, 1)
  const adopted = await (async () => manager.submit(model, 'x', SHORT))()
  assert.equal(adopted.tokens.length, 4)
  const several = [1, 2, 3].map((n) => manager.submit(model, 'x', { maxTokens: n, ignoreEos: true }))
  assert.deepEqual(several.map((it) => it.id), [2, 3, 4])
  assert.deepEqual((await Promise.all(several)).map((it) => it.tokens.length), [1, 2, 3])
})

test('a task that fails rejects and never throws', async (context) => {
  const manager = manage(context)
  const cases = [
    [() => manager.submit(model, 'x', { topP: 9 }), 'invalid_input', 'topP'],
    [() => manager.submit(model, 'x', { top_p: 1 }), 'invalid_input', 'top_p'],
    [() => manager.submit(model, 5), 'invalid_input', 'prompt'],
    [() => manager.submit('model', 'x'), 'invalid_input', 'model'],
    [() => manager.submit(model, 'x', { signal: 5 }), 'invalid_input', 'signal'],
    [() => manager.submit(model, ' dog'.repeat(600)), 'prompt_too_long', undefined],
  ]
  for (const [submit, code, field] of cases) {
    const error = await rejection(submit())
    assert.ok(error instanceof MullamaError)
    assert.deepEqual({ code: error.code, field: error.field }, { code, field })
  }
  const refused = manager.submit(model, 'x', { topP: 9 })
  assert.equal(refused.id, null)
  refused.cancel()
  assert.equal((await rejection(refused)).code, 'invalid_input')
})

test('a cancelled task rejects, in the queue and while it runs', async (context) => {
  const manager = manage(context)
  const running = manager.submit(model, 'x', ENDLESS)
  const queued = manager.submit(model, 'x', SHORT)
  await until(() => model.metrics().active === 1)
  queued.cancel()
  assert.equal((await rejection(queued)).code, 'cancelled')
  running.cancel()
  running.cancel()
  assert.equal((await rejection(running)).code, 'cancelled')
  await until(() => model.metrics().active === 0)
  const done = manager.submit(model, 'x', SHORT)
  await done
  done.cancel()
  assert.equal((await done).tokens.length, 4)
})

test('a signal ends a task with its reason', async (context) => {
  const manager = manage(context)
  const reason = new Error('too late')
  const signal = AbortSignal.abort(reason)
  const refused = manager.submit(model, 'x', { signal })
  assert.equal(await rejection(refused), reason)
  assert.equal(refused.id, null)
  assert.equal(listeners(signal), 0)
  const controller = new AbortController()
  const running = manager.submit(model, 'x', { ...ENDLESS, signal: controller.signal })
  await until(() => model.metrics().active === 1)
  assert.equal(listeners(controller.signal), 1)
  controller.abort('enough')
  assert.equal(await rejection(running), 'enough')
  assert.equal(listeners(controller.signal), 0)
  await until(() => model.metrics().active === 0)
  await manager.submit(model, 'x', { ...SHORT, signal: new AbortController().signal })
})

test('a lease may be submitted, and goes back when the task has ended', async (context) => {
  const pool = await ModelPool.create({ modelPath: MODEL, threads: 1, contextSize: 64 }, 1)
  context.after(() => pool.close())
  const manager = manage(context)
  const lease = await pool.acquire()
  const task = manager.submit(lease, 'x', SHORT)
  lease.release()
  assert.equal((await rejection(manager.submit(lease, 'x', SHORT))).code, 'closed')
  assert.equal((await task).tokens.length, 4)
  ;(await pool.acquire()).release()
})

test('workers of one’s own: how they end is their status', async (context) => {
  const manager = manage(context, 0)
  manager.spawnWorker('done', async () => 5)
  manager.spawnWorker('plain', () => {})
  manager.spawnWorker('failed', async () => {
    await sleep(1)
    throw new Error('disk full')
  })
  manager.spawnWorker('threw', () => {
    throw 'a string'
  })
  manager.spawnWorker('odd', () => Promise.reject({ code: 5 }))
  manager.spawnWorker('runs', ({ signal }) => new Promise((resolve) => signal.addEventListener('abort', resolve)))
  await until(() => Object.values(manager.workerStatus()).filter(({ state }) => state === 'running').length === 1)
  assert.deepEqual(manager.workerStatus(), {
    done: { state: 'completed' },
    plain: { state: 'completed' },
    failed: { state: 'failed', message: 'disk full' },
    threw: { state: 'failed', message: 'a string' },
    odd: { state: 'failed', message: '{ code: 5 }' },
    runs: { state: 'running' },
  })
  const error = await rejection(manager.stopAll())
  assert.equal(error.code, 'operation_failed')
  assert.match(error.message, /^operation failed: worker '(failed|threw|odd)' failed: /)
  assert.equal(manager.workerStatus().runs.state, 'stopped')
  await manager.stopAll()
})

test('stopAll fires the signal and waits for the worker', async (context) => {
  const manager = manage(context, 0)
  const order = []
  let reason
  manager.spawnWorker('mine', async ({ signal }) => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    reason = signal.reason
    await sleep(20)
    order.push('cleaned up')
  })
  manager.spawnWorker('timer', ({ signal }) => sleep(60_000, undefined, { signal }))
  manager.spawnWorker('model', ({ signal }) => model.generate('x', { ...ENDLESS, signal }))
  await until(() => model.metrics().active === 1)
  await Promise.all([manager.stopAll(), manager.stopAll()])
  order.push('stopped')
  assert.deepEqual(order, ['cleaned up', 'stopped'])
  assert.ok(reason instanceof MullamaError)
  assert.equal(reason.code, 'cancelled')
  const stopped = { state: 'stopped' }
  assert.deepEqual(manager.workerStatus(), { mine: stopped, timer: stopped, model: stopped })
  await until(() => model.metrics().active === 0)
})

test('a failure while stopping is reported', async (context) => {
  const manager = manage(context, 0)
  const thrown = new Error('no clean-up')
  manager.spawnWorker('mine', async ({ signal }) => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    throw thrown
  })
  const error = await rejection(manager.stopAll())
  assert.equal(error.code, 'operation_failed')
  assert.equal(error.message, "operation failed: worker 'mine' failed: no clean-up")
  assert.equal(error.cause, thrown)
  await manager.stopAll()
})

test('a worker may stop all others', async (context) => {
  const manager = manage(context)
  manager.spawnWorker('other', ({ signal }) => new Promise((resolve) => signal.addEventListener('abort', resolve)))
  let done = false
  manager.spawnWorker('boss', async () => {
    await sleep(1)
    await manager.stopAll()
    done = true
  })
  await until(() => done)
  assert.deepEqual(manager.workerStatus().other, { state: 'stopped' })
})

test('names are unique while their workers run', async (context) => {
  const manager = manage(context, 0)
  const wait = ({ signal }) => new Promise((resolve) => signal.addEventListener('abort', resolve))
  manager.spawnWorker('mine', wait)
  assert.throws(() => manager.spawnWorker('mine', wait), { code: 'invalid_input', field: 'name', value: 'mine' })
  let ran = false
  assert.throws(() => manager.spawnWorker('', () => (ran = true)), { code: 'invalid_input', field: 'name' })
  assert.throws(() => manager.spawnWorker(5, () => (ran = true)), { code: 'invalid_input', field: 'name', value: '5' })
  assert.throws(() => manager.spawnWorker('other', 5), { code: 'invalid_input', field: 'worker', value: '5' })
  assert.equal(ran, false)
  await manager.stopAll()
  manager.spawnWorker('mine', wait)
  assert.equal(manager.workerStatus().mine.state, 'running')
})

test('a collector keeps figures', async (context) => {
  const manager = manage(context, 0)
  assert.deepEqual(manager.metricsHistory(), [])
  assert.equal(manager.spawnMetricsCollector({ intervalMs: 2, capacity: 3 }), 'metrics')
  assert.throws(() => manager.spawnMetricsCollector(), { code: 'invalid_input', field: 'name' })
  await until(() => manager.metricsHistory().length === 3)
  const names = ['activeTasks', 'avgGenerationMs', 'blockingThreads', 'completedTasks', 'totalGenerations', 'uptimeSeconds', 'workerThreads']
  assert.deepEqual(Object.keys(manager.metricsHistory()[0]).sort(), names)
  await manager.stopAll()
  for (const [field, value] of [['intervalMs', 0], ['intervalMs', 'x'], ['capacity', 0], ['capacity', 1.5], ['interval', 1]]) {
    assert.throws(() => manager.spawnMetricsCollector({ [field]: value }), { code: 'invalid_input', field, value: String(value) })
  }
  manager.spawnMetricsCollector(null)
})

test('asyncDispose stops all, and a manager shows its workers', async () => {
  const manager = new TaskManager()
  manager.spawnGenerationWorker()
  const waiting = rejection(manager.submit(model, 'x', ENDLESS))
  assert.equal(inspect(manager), "TaskManager { 'generation-0': 'running' }")
  const refused = manager.submit(model, 'x', { topP: 9 })
  assert.equal((await rejection(refused)).code, 'invalid_input')
  assert.equal(inspect(refused), 'GenerationTask { refused }')
  await manager[Symbol.asyncDispose]()
  assert.equal((await waiting).code, 'cancelled')
  assert.throws(() => new GenerationTask(), { name: 'MullamaError', code: 'unsupported' })
})

test('a cancelled task may be let go of; one that fails by itself may not', async () => {
  const own = await run(
    `
    const model = await Model.load(MODEL, { threads: 1, contextSize: 64 })
    const manager = new TaskManager()
    manager.submit(model, 'x').cancel()
    const signal = AbortSignal.timeout(1)
    await manager.submit(model, 'x', { signal }).catch(() => {})
    await turn()
    console.log('alive')
    manager.submit(model, 'x', { topP: 9 })
    await turn()
    console.log('never')
    `,
  )
  assert.equal(own.code, 1)
  assert.equal(own.stdout, 'alive\n')
  assert.match(own.stderr, /invalid topP/)
})

test('a task that is lost goes on, and a manager that is lost ends its workers', async () => {
  const { code, stdout, stderr } = await run(
    `
    const model = await Model.load(MODEL, { threads: 1, contextSize: 512 })
    let done = false
    const lose = () => {
      const manager = new TaskManager()
      manager.spawnGenerationWorker()
      manager.submit(model, 'x', { maxTokens: 30, ignoreEos: true }).then(() => (done = true))
    }
    lose()
    while (!done) { gc(); await turn() }
    // The one task that is left is the worker.
    if ((await runtime().metrics()).activeTasks !== 1) throw new Error('no worker')
    while ((await runtime().metrics()).activeTasks > 0) { gc(); await turn() }
    console.log('gone')
    `,
    ['--expose-gc'],
  )
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: 'gone\n', stderr: '' })
})
