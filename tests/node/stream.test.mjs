// Streams as JavaScript reads them: iteration, backpressure, collection.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Model } from 'mullama'
import { ENDLESS, MODEL, run, until } from './support.mjs'

let model
before(async () => {
  model = await Model.load(MODEL, { threads: 1, contextSize: 1024 })
})
after(() => model?.close())

test('a stream gives one item a token, and the texts are the answer', async () => {
  const options = { maxTokens: 12, seed: 5, ignoreEos: true, logprobs: 1 }
  const stream = model.generateStream('The sky is', options)
  assert.equal(stream.finishReason, null)
  const tokens = []
  for await (const token of stream) tokens.push(token)
  assert.deepEqual(tokens.map((token) => token.index), Array.from({ length: 12 }, (_, i) => i))
  assert.deepEqual(tokens.map((token) => token.isFinal), Array.from({ length: 12 }, (_, i) => i === 11))
  assert.equal(tokens[11].finishReason, 'length')
  assert.ok(tokens.slice(0, 11).every((token) => !('finishReason' in token)))
  assert.ok(tokens.every((token) => token.logprob <= 0 && token.topLogprobs.length === 1))
  assert.equal(stream.finishReason, 'length')
  assert.equal(stream.seed, 5)
  assert.equal(stream.usage.completionTokens, 12)
  assert.ok(stream.timings.timeToFirstToken > 0)
  const again = await model.tokenize(tokens.map((token) => token.text).join(''), false)
  assert.ok(again.length > 0)
})

test('a stop string ends a stream and is reported', async () => {
  const [token] = await model.tokenize(' blue', false)
  const stream = model.generateStream('The sky is', { maxTokens: 8, stop: ['blue blue'], logitBias: { [token]: 1000 } })
  let text = ''
  for await (const item of stream) text += item.text
  assert.equal(text, ' ')
  assert.equal(stream.finishReason, 'stop_string')
  assert.equal(stream.stopString, 'blue blue')
})

test('no tokens asked for, none given', async () => {
  const stream = model.generateStream('x', 0)
  assert.deepEqual(await stream.next(), { value: undefined, done: true })
  assert.equal(stream.finishReason, 'length')
})

test('concurrent calls of next keep the order', async () => {
  const stream = model.generateStream('x', { maxTokens: 10, ignoreEos: true })
  const results = await Promise.all(Array.from({ length: 13 }, () => stream.next()))
  assert.deepEqual(results.slice(0, 10).map((it) => it.value.index), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  assert.ok(results.slice(10).every((it) => it.done))
})

test('a reader that stops reading pauses its own stream alone', async () => {
  const stream = model.generateStream('x', { ...ENDLESS, bufferSize: 4 })
  const { generatedTokens } = model.metrics()
  await stream.next()
  let last = -1
  await until(async () => {
    const now = model.metrics().generatedTokens
    const still = now === last
    last = now
    await new Promise((resolve) => setTimeout(resolve, 60))
    return still
  }, 'the unread stream pauses')
  assert.ok(last - generatedTokens < 50)
  assert.equal((await model.generateWith('x', { maxTokens: 5, ignoreEos: true })).tokens.length, 5)
  assert.equal((await stream.next()).value.index, 1)
  stream.cancel()
})

test('a ReadableStream gives the same tokens', async () => {
  const readable = model.generateStream('x', { maxTokens: 5, ignoreEos: true }).toReadableStream()
  assert.ok(readable instanceof ReadableStream)
  const indexes = []
  for await (const token of readable) indexes.push(token.index)
  assert.deepEqual(indexes, [0, 1, 2, 3, 4])
})

test('an error of a ReadableStream is the error of its stream', async () => {
  const reader = model.generateStream('x', { topP: 7 }).toReadableStream().getReader()
  await assert.rejects(reader.read(), { code: 'invalid_input', field: 'topP' })
})

test('the event loop turns while requests run', async () => {
  let ticks = 0
  const timer = setInterval(() => (ticks += 1), 1)
  await Promise.all(Array.from({ length: 4 }, () => model.generate('x', { maxTokens: 30, ignoreEos: true })))
  clearInterval(timer)
  // A call that held the loop until its end would leave room for one or two.
  assert.ok(ticks > 20, `${ticks} ticks`)
})

test('an abandoned stream ends when it is collected', async () => {
  const { code, stdout, stderr } = await run(
    `
    import { getEventListeners } from 'node:events'
    const model = await Model.load(MODEL, { threads: 1, contextSize: 512 })
    const controller = new AbortController()
    const abandon = async () => {
      model.generateStream('x', { ...ENDLESS, bufferSize: 2 })
      const read = model.generateStream('x', { ...ENDLESS, bufferSize: 2, signal: controller.signal })
      await read.next()
      if (getEventListeners(controller.signal, 'abort').length !== 1) throw new Error('no listener')
    }
    await abandon()
    while (model.metrics().active < 2) await new Promise((resolve) => setTimeout(resolve, 5))
    while (model.metrics().active > 0 || getEventListeners(controller.signal, 'abort').length > 0) {
      gc()
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    console.log('cancelled', model.metrics().cancelled)
    await model.close()
    `,
    ['--expose-gc'],
  )
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: 'cancelled 2\n', stderr: '' })
})

test('an abandoned model is freed when it is collected', async () => {
  const { code, stdout, stderr } = await run(
    `
    const once = async () => { await (await Model.load(MODEL, { threads: 1, contextSize: 256, useMmap: false })).generate('x', 2) }
    const settle = async () => { for (let i = 0; i < 20; i++) { gc(); await new Promise((resolve) => setTimeout(resolve, 10)) } }
    await once(); await settle()
    const first = process.memoryUsage.rss()
    for (let i = 0; i < 4; i++) { await once(); await settle() }
    // Each kept model would add its 98 MB.
    console.log(process.memoryUsage.rss() - first < 150e6)
    `,
    ['--expose-gc'],
  )
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: 'true\n', stderr: '' })
})
