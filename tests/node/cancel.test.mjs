// Cancellation in every form: the native work ends, the place is free, and
// nothing is left behind on the signal.

import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { after, before, test } from 'node:test'
import { Model } from 'mullama'
import { ENDLESS, MODEL, longPrompt, rejection, until } from './support.mjs'

let model
before(async () => {
  model = await Model.load(MODEL, { threads: 1, contextSize: 4608, maxConcurrent: 2 })
})
after(() => model?.close())

/** Fails unless all native work has ended and a new request is served. */
async function idleAgain() {
  await until(() => model.metrics().active === 0 && model.metrics().queued === 0, 'the engine is idle')
  const { steps } = model.metrics()
  await new Promise((resolve) => setTimeout(resolve, 30))
  assert.equal(model.metrics().steps, steps)
  assert.equal(typeof (await model.generate('x', 1)), 'string')
}

const listeners = (signal) => getEventListeners(signal, 'abort').length

test('a signal that has fired starts nothing', async () => {
  const reason = new Error('too late')
  const signal = AbortSignal.abort(reason)
  const before = model.metrics()
  assert.equal(await rejection(model.generate('x', { signal })), reason)
  assert.equal(await rejection(model.generateWith('x', { signal })), reason)
  assert.equal(await rejection(model.generateStream('x', { signal }).next()), reason)
  assert.equal(await rejection(Model.load(MODEL, { signal })), reason)
  assert.equal(listeners(signal), 0)
  assert.deepEqual(model.metrics(), before)
})

test('the reason may be anything', async () => {
  assert.equal(await rejection(model.generate('x', { signal: AbortSignal.abort('a string') })), 'a string')
  assert.equal((await rejection(model.generate('x', { signal: AbortSignal.abort() }))).name, 'AbortError')
})

test('aborting in decode', async () => {
  for (const method of ['generate', 'generateWith']) {
    const controller = new AbortController()
    const { generatedTokens } = model.metrics()
    const failed = rejection(model[method]('Once', { ...ENDLESS, signal: controller.signal }))
    await until(() => model.metrics().generatedTokens > generatedTokens)
    assert.equal(listeners(controller.signal), 1)
    controller.abort('enough')
    assert.equal(await failed, 'enough')
    assert.equal(listeners(controller.signal), 0)
    await idleAgain()
  }
})

test('aborting in prefill', async () => {
  const controller = new AbortController()
  const { promptTokens, generatedTokens } = model.metrics()
  const failed = rejection(model.generate(longPrompt(4000), { ...ENDLESS, signal: controller.signal }))
  await until(() => model.metrics().promptTokens > promptTokens)
  controller.abort('enough')
  assert.equal(await failed, 'enough')
  await idleAgain()
  const metrics = model.metrics()
  assert.ok(metrics.promptTokens - promptTokens < 4000, 'the prompt was not computed to its end')
  assert.equal(metrics.generatedTokens - generatedTokens, 1, 'only the check itself generated')
})

test('aborting in the queue leaves the others alone', async () => {
  const [token] = await model.tokenize(' dog', false)
  const options = { maxTokens: 30, logitBias: { [token]: 1000 } }
  const running = [model.generateWith('x', options), model.generateWith('x', options)]
  const controller = new AbortController()
  const failed = rejection(model.generate('x', { ...ENDLESS, signal: controller.signal }))
  await until(() => model.metrics().queued === 1)
  controller.abort('enough')
  assert.equal(await failed, 'enough')
  await until(() => model.metrics().queued === 0)
  for (const result of await Promise.all(running)) assert.deepEqual(result.tokens, Array(30).fill(token))
  await idleAgain()
})

test('AbortSignal.timeout ends a request', async () => {
  const error = await rejection(model.generate('x', { ...ENDLESS, signal: AbortSignal.timeout(50) }))
  assert.equal(error.name, 'TimeoutError')
  await idleAgain()
})

test('listeners go when a request ends by itself or fails', async () => {
  const { signal } = new AbortController()
  await model.generate('x', { maxTokens: 2, signal })
  await rejection(model.generate('x', { topP: 5, signal }))
  for await (const _ of model.generateStream('x', { maxTokens: 2, signal }));
  for await (const _ of model.generateStream('x', { maxTokens: 20, signal })) break
  await rejection(model.generateStream('x', { topP: 5, signal }).next())
  assert.equal(listeners(signal), 0)
})

test('aborting a stream throws the reason and ends it', async () => {
  const controller = new AbortController()
  const stream = model.generateStream('Once', { ...ENDLESS, signal: controller.signal })
  const seen = []
  const error = await rejection(
    (async () => {
      for await (const token of stream) {
        seen.push(token)
        if (seen.length === 3) controller.abort('enough')
      }
    })(),
  )
  assert.equal(error, 'enough')
  assert.equal(seen.length, 3)
  assert.deepEqual(await stream.next(), { value: undefined, done: true })
  assert.equal(listeners(controller.signal), 0)
  await idleAgain()
  assert.equal(stream.finishReason, 'cancelled')
})

test('aborting while next waits', async () => {
  const controller = new AbortController()
  const stream = model.generateStream(longPrompt(4000), { ...ENDLESS, signal: controller.signal })
  const failed = rejection(stream.next())
  setImmediate(() => controller.abort('enough'))
  assert.equal(await failed, 'enough')
  await idleAgain()
})

for (const [name, leave] of [
  ['break', async (stream) => { for await (const _ of stream) break }],
  ['return', async (stream) => { for await (const _ of stream) return }],
  ['throw', async (stream) => { for await (const _ of stream) throw new Error('mine') }],
  ['cancel()', async (stream) => { await stream.next(); stream.cancel(); stream.cancel() }],
  ['close()', async (stream) => { await stream.next(); await stream.close(); await stream.close() }],
  ['asyncDispose', async (stream) => { await stream[Symbol.asyncDispose]() }],
  ['cancelling the ReadableStream', async (stream) => { for await (const _ of stream.toReadableStream()) break }],
]) {
  test(`leaving a stream by ${name} ends its native work`, async () => {
    const stream = model.generateStream('Once', ENDLESS)
    await leave(stream).catch((error) => assert.equal(error.message, 'mine'))
    assert.deepEqual(await stream.next(), { value: undefined, done: true })
    await idleAgain()
    assert.equal(stream.finishReason, 'cancelled')
  })
}

test('cancelling a stream before it has begun', async () => {
  const stream = model.generateStream('Once', ENDLESS)
  stream.cancel()
  assert.deepEqual(await stream.next(), { value: undefined, done: true })
  await idleAgain()
  assert.equal(stream.finishReason, 'cancelled')
})

test('a load ends when its signal fires', async () => {
  const controller = new AbortController()
  const failed = rejection(Model.load(MODEL, { useMmap: false, onProgress: () => controller.abort('enough'), signal: controller.signal }))
  assert.equal(await failed, 'enough')
  assert.equal(listeners(controller.signal), 0)
  const at_once = new AbortController()
  const second = rejection(Model.load(MODEL, { signal: at_once.signal }))
  at_once.abort('at once')
  assert.equal(await second, 'at once')
})

test('what onProgress throws ends the load', async () => {
  const thrown = new Error('mine')
  let calls = 0
  const onProgress = () => {
    calls += 1
    throw thrown
  }
  assert.equal(await rejection(Model.load(MODEL, { useMmap: false, onProgress })), thrown)
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(calls, 1)
})

test('one signal ends many calls, with one listener and no warning', async () => {
  const controller = new AbortController()
  const { signal } = controller
  const warnings = []
  const warn = (warning) => warnings.push(warning)
  process.on('warning', warn)
  const calls = Array.from({ length: 30 }, () => rejection(model.generate('x', { ...ENDLESS, signal })))
  const streams = Array.from({ length: 30 }, () => rejection(model.generateStream('x', { ...ENDLESS, signal }).next()))
  await model.generate('x', { topP: 5, signal }).catch(() => {})
  assert.equal(listeners(signal), 1)
  controller.abort('enough')
  assert.deepEqual(await Promise.all([...calls, ...streams]), Array(60).fill('enough'))
  assert.equal(listeners(signal), 0)
  await new Promise((resolve) => setImmediate(resolve))
  process.off('warning', warn)
  assert.deepEqual(warnings, [])
  await idleAgain()
})

test('many requests, a third of them cancelled: the others are complete', async () => {
  const [token] = await model.tokenize(' dog', false)
  const results = await Promise.all(
    Array.from({ length: 60 }, async (_, i) => {
      const controller = new AbortController()
      if (i % 3 === 0) setTimeout(() => controller.abort('enough'), i * 3)
      const options = { maxTokens: 6, logitBias: { [token]: 1000 }, signal: controller.signal }
      return model.generateWith('x', options).catch((reason) => {
        assert.equal(reason, 'enough')
        assert.equal(i % 3, 0)
      })
    }),
  )
  for (const [i, result] of results.entries()) {
    if (i % 3 !== 0) assert.deepEqual(result.tokens, Array(6).fill(token))
  }
  await idleAgain()
})
