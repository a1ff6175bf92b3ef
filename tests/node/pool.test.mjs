// Pools as JavaScript sees them: order, signals, release, collection. What the
// figures are is covered by the conformance cases.

import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { after, before, beforeEach, test } from 'node:test'
import { inspect } from 'node:util'
import { ModelPool, PooledModel } from 'mullama'
import { ENDLESS, MODEL, rejection, run, until } from './support.mjs'

const OPTIONS = { modelPath: MODEL, threads: 1, contextSize: 512, timeoutMs: 0 }

let pool
before(async () => {
  pool = await ModelPool.create(OPTIONS, 1)
})
beforeEach(() => until(() => pool.stats().inUse === 0 && pool.stats().waiting === 0, 'the last test is over'))
after(() => pool?.close())

const listeners = (signal) => getEventListeners(signal, 'abort').length

/** All leases of the pool; gives them back after the test. */
async function take(context, n = 1) {
  const leases = await Promise.all(Array.from({ length: n }, () => pool.acquire()))
  context.after(() => leases.forEach((lease) => lease.release()))
  return leases
}

test('calls are served in their order', async (context) => {
  const [lease] = await take(context)
  const order = []
  const waiting = Array.from({ length: 20 }, async (_, i) => {
    const own = await pool.acquire(i % 2 ? undefined : { signal: new AbortController().signal, timeoutMs: 60_000 })
    order.push(i)
    own.release()
  })
  assert.equal(pool.stats().waiting, 20)
  lease.release()
  await Promise.all(waiting)
  assert.deepEqual(order, Array.from({ length: 20 }, (_, i) => i))
})

test('calls that need not wait keep their order too', async (context) => {
  const own = await ModelPool.create({ ...OPTIONS, contextSize: 64 }, 12)
  context.after(() => own.close())
  const { signal } = new AbortController()
  const order = []
  await Promise.all(
    Array.from({ length: 24 }, async (_, i) => {
      const lease = await own.acquire([undefined, { timeoutMs: 60_000 }, { signal }][i % 3])
      order.push(i)
      lease.release()
    }),
  )
  assert.deepEqual(order, Array.from({ length: 24 }, (_, i) => i))
})

test('a call that comes when a lease is given back does not pass those who wait', async (context) => {
  const [lease] = await take(context)
  const order = []
  const first = pool.acquire().then((own) => (order.push('first'), own))
  lease.release()
  assert.equal(pool.tryAcquire(), null)
  const second = pool.acquire().then((own) => (order.push('second'), own.release()))
  ;(await first).release()
  await second
  assert.deepEqual(order, ['first', 'second'])
})

test('a signal that has fired starts nothing', async () => {
  const reason = new Error('too late')
  const before = pool.stats()
  const signal = AbortSignal.abort(reason)
  assert.equal(await rejection(pool.acquire({ signal })), reason)
  assert.equal(await rejection(ModelPool.create({ ...OPTIONS, signal }, 1)), reason)
  assert.deepEqual(pool.stats(), before)
  assert.equal(listeners(signal), 0)
})

test('a wait whose signal fires gives up its place', async (context) => {
  const [lease] = await take(context)
  const controller = new AbortController()
  const aborted = rejection(pool.acquire({ signal: controller.signal }))
  const next = pool.acquire()
  assert.equal(pool.stats().waiting, 2)
  assert.equal(listeners(controller.signal), 1)
  controller.abort('enough')
  assert.equal(await aborted, 'enough')
  assert.equal(listeners(controller.signal), 0)
  await until(() => pool.stats().waiting === 1)
  lease.release()
  ;(await next).release()
})

test('a lease that comes together with the abort goes back', async () => {
  for (let i = 0; i < 20; i++) {
    const lease = await pool.acquire()
    const controller = new AbortController()
    const aborted = rejection(pool.acquire({ signal: controller.signal }))
    lease.release()
    // The lease is on its way now, for some microseconds or milliseconds.
    for (const end = Date.now() + (i % 4); Date.now() < end; );
    controller.abort('enough')
    assert.equal(await aborted, 'enough')
    await until(() => pool.stats().available === 1, 'the lease is back')
  }
})

test('a wait has a limit', async (context) => {
  await take(context)
  const error = await rejection(pool.acquire({ timeoutMs: 20 }))
  assert.deepEqual({ ...error }, { code: 'timeout', partial: '', afterMs: 20 })
  assert.equal(pool.stats().waiting, 0)
})

test('a released lease refuses', async () => {
  const lease = await pool.acquire()
  assert.ok(lease instanceof PooledModel)
  assert.equal(await lease.isReady(), true)
  assert.match(inspect(lease), /^PooledModel \{ '.+', llama, ready \}$/)
  lease.release()
  lease.release()
  await lease.close()
  await lease[Symbol.asyncDispose]()
  assert.equal(pool.stats().available, 1)
  assert.equal(await lease.isReady(), false)
  assert.match(inspect(lease), /closed/)
  for (const call of [
    lease.generate('x', 1),
    lease.generateWith('x', 1),
    lease.generateStream('x', 1).next(),
    lease.tokenize('x'),
    lease.detokenize([1]),
  ]) {
    assert.equal((await rejection(call)).code, 'closed')
  }
  assert.equal((await lease.info()).architecture, 'llama')
  assert.equal(await pool.acquire().then((own) => (own.release(), own.isReady())), false)
})

test('what was called before the release runs to its end', async () => {
  const lease = await pool.acquire()
  const answer = lease.generateWith('x', { maxTokens: 8, ignoreEos: true })
  const tokens = lease.tokenize('x')
  const stream = lease.generateStream('x', { maxTokens: 8, ignoreEos: true })
  lease.release()
  assert.equal((await rejection(lease.generate('x', 1))).code, 'closed')
  const next = await pool.acquire()
  assert.equal((await answer).tokens.length, 8)
  assert.ok((await tokens).length > 0)
  const read = []
  for await (const token of stream) read.push(token)
  assert.equal(read.length, 8)
  next.release()
})

test('an aborted call of a released lease frees its place', async () => {
  const lease = await pool.acquire()
  const controller = new AbortController()
  const aborted = rejection(lease.generate('x', { ...ENDLESS, signal: controller.signal }))
  const stream = lease.generateStream('x', ENDLESS)
  lease.release()
  assert.equal(pool.tryAcquire(), null)
  controller.abort('enough')
  assert.equal(await aborted, 'enough')
  await stream.close()
  ;(await pool.acquire()).release()
})

test('growing serves those who wait', async (context) => {
  const own = await ModelPool.create(OPTIONS, 1)
  context.after(() => own.close())
  const leases = [await own.acquire()]
  const waiting = [own.acquire(), own.acquire()]
  await own.resize(3)
  leases.push(...(await Promise.all(waiting)))
  const answers = await Promise.all(leases.map((lease) => lease.generateWith('x', { maxTokens: 5, ignoreEos: true })))
  assert.deepEqual(answers.map((answer) => answer.tokens.length), [5, 5, 5])
  await own.resize(2)
  assert.deepEqual(
    (({ size, available, inUse }) => ({ size, available, inUse }))(own.stats()),
    { size: 2, available: 0, inUse: 3 },
  )
  leases.forEach((lease) => lease.release())
  await until(() => own.stats().available === 2)
})

test('many calls over a pool that grows and shrinks: nothing is lost', async (context) => {
  const own = await ModelPool.create({ ...OPTIONS, contextSize: 64 }, 4)
  context.after(() => own.close())
  const [token] = await (async () => {
    const lease = await own.acquire()
    const ids = await lease.tokenize(' dog', false)
    lease.release()
    return ids
  })()
  const began = []
  const calls = Array.from({ length: 64 }, async (_, i) => {
    const lease = await own.acquire()
    began.push(i)
    try {
      return (await lease.generateWith('x', { maxTokens: 6, logitBias: { [token]: 1000 } })).tokens
    } finally {
      lease.release()
    }
  })
  await until(() => began.length >= 8)
  await own.resize(8)
  await until(() => began.length >= 30)
  await own.resize(2)
  for (const tokens of await Promise.all(calls)) assert.deepEqual(tokens, Array(6).fill(token))
  assert.deepEqual(began, Array.from({ length: 64 }, (_, i) => i))
  const { size, available, inUse, waiting, acquiredTotal } = own.stats()
  assert.deepEqual({ size, available, inUse, waiting, acquiredTotal }, { size: 2, available: 2, inUse: 0, waiting: 0, acquiredTotal: 65 })
})

test('closing ends what runs and wakes those who wait', async () => {
  const own = await ModelPool.create(OPTIONS, 1)
  const lease = await own.acquire()
  const running = rejection(lease.generate('x', ENDLESS))
  const waiting = rejection(own.acquire())
  await Promise.all([own.close(), own.close()])
  await own.close()
  assert.equal((await running).code, 'closed')
  assert.equal((await waiting).code, 'closed')
  assert.equal((await rejection(own.acquire())).code, 'closed')
  assert.throws(() => own.tryAcquire(), { name: 'MullamaError', code: 'closed' })
  assert.equal((await rejection(own.resize(2))).code, 'closed')
  lease.release()
})

test('asyncDispose closes the pool and releases the lease', async () => {
  const own = await ModelPool.create(OPTIONS, 1)
  const lease = await own.acquire()
  await lease[Symbol.asyncDispose]()
  assert.equal(own.stats().available, 1)
  await own[Symbol.asyncDispose]()
  assert.equal((await rejection(own.acquire())).code, 'closed')
})

test('wrong arguments are refused by name', async () => {
  const cases = [
    [() => ModelPool.create({ modelPath: MODEL }, 0), 'size', '0'],
    [() => ModelPool.create({ modelPath: MODEL }, 257), 'size', '257'],
    [() => ModelPool.create({ modelPath: MODEL }, 1.5), 'size', '1.5'],
    [() => ModelPool.create({ modelPath: MODEL }), 'size', 'undefined'],
    [() => ModelPool.create({}, 1), 'modelPath', 'undefined'],
    [() => ModelPool.create(MODEL, 1), 'options', MODEL],
    [() => ModelPool.create({ ...OPTIONS, contextSize: 1 }, 1), 'contextSize', '1'],
    [() => ModelPool.create({ ...OPTIONS, context_size: 1 }, 1), 'context_size', '1'],
    [() => ModelPool.create({ ...OPTIONS, onProgress: 'print' }, 1), 'onProgress', 'print'],
    [() => pool.acquire({ timeoutMs: -1 }), 'timeoutMs', '-1'],
    [() => pool.acquire({ timeout: 1 }), 'timeout', '1'],
    [() => pool.acquire({ signal: 'now' }), 'signal', 'now'],
    [() => pool.acquire(5), 'options', '5'],
    [() => pool.resize(0), 'size', '0'],
    [() => pool.resize('2'), 'size', '2'],
    [() => pool.resize(), 'size', 'undefined'],
  ]
  for (const [call, field, value] of cases) {
    const error = await rejection(call())
    assert.deepEqual({ code: error.code, field: error.field, value: error.value }, { code: 'invalid_input', field, value })
  }
  assert.equal((await rejection(ModelPool.create({ modelPath: '/nowhere' }, 1))).code, 'model_not_found')
  assert.deepEqual(pool.stats().size, 1)
})

test('a pool tells how far its load is, and ends with its signal', async () => {
  const seen = []
  await (await ModelPool.create({ ...OPTIONS, onProgress: (fraction) => seen.push(fraction) }, 2)).close()
  assert.equal(seen.at(-1), 1)
  const controller = new AbortController()
  const { signal } = controller
  const failed = rejection(ModelPool.create({ ...OPTIONS, useMmap: false, onProgress: () => controller.abort('enough'), signal }, 2))
  assert.equal(await failed, 'enough')
  assert.equal(listeners(signal), 0)
})

test('classes are made by their factories alone, and show what they are', () => {
  assert.throws(() => new ModelPool(), { name: 'MullamaError', code: 'unsupported' })
  assert.throws(() => new PooledModel(), { name: 'MullamaError', code: 'unsupported' })
  assert.equal(PooledModel.load, undefined)
  assert.equal(inspect(pool), 'ModelPool { 1 of 1 available, 0 waiting }')
})

const PRELUDE = `const OPTIONS = ${JSON.stringify(OPTIONS)};`

test('a forgotten lease goes back when it is collected', async () => {
  const { code, stdout, stderr } = await run(
    `${PRELUDE}
    const pool = await ModelPool.create(OPTIONS, 2)
    const forget = async () => { await (await pool.acquire()).tokenize('x'); pool.tryAcquire() }
    await forget()
    if (pool.stats().inUse !== 2) throw new Error('no lease is out')
    while (pool.stats().inUse > 0) { gc(); await turn() }
    console.log('back')
    await pool.close()
    `,
    ['--expose-gc'],
  )
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: 'back\n', stderr: '' })
})

test('collecting a lease does not end its streams and calls', async () => {
  const { code, stdout, stderr } = await run(
    `${PRELUDE}
    const pool = await ModelPool.create(OPTIONS, 1)
    const start = async () => {
      const lease = await pool.acquire()
      return [lease.generateStream('x', { maxTokens: 40, ignoreEos: true }), lease.generateWith('x', { maxTokens: 40, ignoreEos: true })]
    }
    const [stream, answer] = await start()
    let n = 0
    for await (const _ of stream) { gc(); await turn(); n += 1 }
    console.log(n, (await answer).tokens.length)
    while (pool.stats().inUse > 0) { gc(); await turn() }
    await pool.close()
    `,
    ['--expose-gc'],
  )
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: '40 40\n', stderr: '' })
})
