// Loading, generating, tokenizing, facts and closing, as JavaScript sees them.
// What the answers are is covered by the conformance cases.

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { after, before, test } from 'node:test'
import { inspect } from 'node:util'
import * as esm from 'mullama'
import { Model, TokenStream } from 'mullama'
import { MODEL, rejection } from './support.mjs'

let model
before(async () => {
  model = await Model.load(MODEL, { threads: 1, contextSize: 512 })
})
after(() => model?.close())

test('import and require give the same classes', () => {
  const cjs = createRequire(import.meta.url)('mullama')
  for (const name of ['Model', 'TokenStream', 'MullamaError']) {
    assert.equal(esm[name], cjs[name])
    assert.equal(typeof esm[name], 'function')
  }
})

test('progress rises to 1 and is silent afterwards', async () => {
  const seen = []
  const loaded = await Model.load(MODEL, { threads: 1, contextSize: 64, onProgress: (f) => seen.push(f) })
  const count = seen.length
  assert.equal(seen.at(-1), 1)
  assert.ok(seen.every((fraction, i) => fraction >= 0 && (i === 0 || fraction > seen[i - 1])), inspect(seen))
  await loaded.close()
  assert.equal(seen.length, count)
})

test('generate takes a number, options or nothing', async () => {
  const greedy = { maxTokens: 8, temperature: 0 }
  assert.equal(typeof (await model.generate('The sky is', 4)), 'string')
  assert.equal(typeof (await model.generate('The sky is')), 'string')
  const [a, b] = await Promise.all([model.generate('The sky is', greedy), model.generateWith('The sky is', greedy)])
  assert.equal(typeof a, 'string')
  assert.equal(typeof b.text, 'string')
  assert.notEqual(b.text, '')
})

test('generateWith reports everything', async () => {
  const result = await model.generateWith('The sky is', { maxTokens: 5, seed: 42, logprobs: 2, ignoreEos: true })
  assert.deepEqual(Object.keys(result).sort(), ['finishReason', 'logprobs', 'seed', 'text', 'timings', 'tokens', 'usage'])
  assert.equal(result.finishReason, 'length')
  assert.equal(result.seed, 42)
  assert.equal(result.tokens.length, 5)
  assert.equal(result.usage.completionTokens, 5)
  assert.ok(result.usage.promptTokens >= 3)
  assert.ok(result.timings.timeToFirstToken > 0)
  assert.ok(result.timings.decode > 0)
  assert.equal(result.logprobs.length, 5)
  for (const [i, place] of result.logprobs.entries()) {
    assert.equal(place.tokenId, result.tokens[i])
    assert.ok(place.logprob <= 0)
    assert.equal(place.top.length, 2)
    assert.equal(typeof place.top[0].text, 'string')
    assert.ok(place.top[0].logprob >= place.top[1].logprob)
  }
})

test('seeds past the safe integers go in and come out as BigInt', async () => {
  const seed = 2n ** 64n - 1n
  const options = { maxTokens: 6, temperature: 2, topK: 0, topP: 1, minP: 0, ignoreEos: true }
  const first = await model.generateWith('Once', { ...options, seed })
  assert.equal(first.seed, seed)
  const fresh = await model.generateWith('Once', options)
  assert.ok(typeof fresh.seed === 'bigint' ? fresh.seed > Number.MAX_SAFE_INTEGER : Number.isSafeInteger(fresh.seed))
})

test('a stop string is reported', async () => {
  const [token] = await model.tokenize(' blue', false)
  const result = await model.generateWith('The sky is', {
    maxTokens: 8,
    stop: ' blue',
    logitBias: new Map([[token, 1000]]),
  })
  assert.equal(result.finishReason, 'stop_string')
  assert.equal(result.stopString, ' blue')
  assert.equal(result.text, '')
})

test('logitBias is an object or a Map', async () => {
  const [token] = await model.tokenize(' blue', false)
  for (const logitBias of [{ [token]: 1000 }, new Map([[token, 1000]])]) {
    const result = await model.generateWith('The sky is', { maxTokens: 3, logitBias })
    assert.deepEqual(result.tokens, [token, token, token])
  }
})

test('undefined and null options have their defaults', async () => {
  const result = await model.generateWith('x', { maxTokens: 2, seed: null, stop: undefined, logprobs: null, signal: null })
  assert.equal(result.logprobs, undefined)
  await (await Model.load(MODEL, { threads: 1, contextSize: 64, timeoutMs: null, signal: null, onProgress: null })).close()
})

test('tokens go to text and back', async () => {
  const text = 'Grüße, 世界! 👋'
  const tokens = await model.tokenize(text, false)
  assert.ok(Array.isArray(tokens) && tokens.every(Number.isInteger))
  assert.equal(await model.detokenize(tokens), text)
  assert.equal(await model.detokenize(Int32Array.from(tokens)), text)
  assert.deepEqual(await model.tokenize(''), await model.tokenize('', true))
  const special = await model.tokenize('<|im_start|>', false, true)
  assert.equal(special.length, 1)
  assert.ok((await model.tokenize('<|im_start|>', false)).length > 1)
})

test('info, metadata, isReady and metrics', async () => {
  const info = await model.info()
  assert.equal(info.architecture, 'llama')
  assert.equal(info.nVocab, 49152)
  assert.ok(info.nParams > 1e8 && info.sizeBytes > 9e7 && info.nCtxTrain === 8192)
  const metadata = await model.metadata()
  assert.equal(metadata['general.architecture'], 'llama')
  assert.equal(await model.isReady(), true)
  const before = model.metrics()
  await model.generate('x', { maxTokens: 3, ignoreEos: true })
  const later = model.metrics()
  assert.equal(later.generatedTokens - before.generatedTokens, 3)
  assert.equal(later.completed - before.completed, 1)
  assert.equal(later.stepTime.counts.length, later.stepTime.bounds.length + 1)
  assert.ok(later.stepTime.sum > 0 && later.threads >= 1)
  assert.equal(later.weightsBytes, info.sizeBytes)
  assert.ok(later.loadTime > 0 && later.cacheSizeBytes > 0)
})

test('a prompt that begins like an earlier one is not computed from its start', async () => {
  const keeping = await Model.load(MODEL, { contextSize: 256, maxConcurrent: 1, prefixCacheBytes: 5e7 })
  try {
    const rules = 'Answer in one short sentence, in English, and use no more than ten words in it. '
    const first = await keeping.generateWith(rules + 'What is rain?', { maxTokens: 3 })
    assert.equal(first.usage.cachedTokens, 0)
    const second = await keeping.generateWith(rules + 'What is snow?', { maxTokens: 3 })
    assert.ok(second.usage.cachedTokens >= 16 && second.usage.cachedTokens < second.usage.promptTokens)
    const metrics = keeping.metrics()
    assert.equal(metrics.cachedTokens, second.usage.cachedTokens)
    assert.ok(metrics.prefixCacheBytes > 0 && metrics.prefixCacheBytes <= 5e7)
    assert.equal(metrics.preemptions, 0)
  } finally {
    await keeping.close()
  }
})

test('a second load of a file shares its weights', async () => {
  const second = await Model.load(MODEL, { contextSize: 64, maxConcurrent: 1 })
  try {
    assert.equal(second.metrics().weightsShared, true)
    assert.equal((await second.generate('x', 3)).length > 0, true)
  } finally {
    await second.close()
  }
})

test('concurrent calls all get their own answer', async () => {
  const tokens = await Promise.all([' red', ' blue', ' green', ' gold', ' dog', ' cat'].map((w) => model.tokenize(w, false)))
  const answers = await Promise.all(
    tokens.map(([token]) => model.generateWith('I like', { maxTokens: 20, logitBias: { [token]: 1000 } })),
  )
  for (const [i, answer] of answers.entries()) assert.deepEqual(answer.tokens, Array(20).fill(tokens[i][0]))
})

test('promises run on the one runtime of mullama', { skip: process.platform !== 'linux' }, async () => {
  const native = createRequire(import.meta.url)('../../bindings/node/lib/native.js')
  const name = await native.workerName()
  assert.match(name, /^mullama-/)
  const threads = readdirSync('/proc/self/task').map((id) => readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim())
  assert.ok(threads.includes(name))
  assert.ok(!threads.some((thread) => /tokio|napi/.test(thread)), threads.join())
})

test('two models work side by side', async () => {
  const [a, b] = await Promise.all([1, 2].map(() => Model.load(MODEL, { threads: 1, contextSize: 128 })))
  const texts = await Promise.all([a, b, a, b].map((m) => m.generate('One, two,', { maxTokens: 6, ignoreEos: true })))
  assert.ok(texts.every((text) => text.length > 0))
  await a.close()
  assert.equal(await b.isReady(), true)
  assert.ok(await b.generate('One, two,', { maxTokens: 6, ignoreEos: true }))
  await b.close()
})

test('close is idempotent and ends what runs', async () => {
  const own = await Model.load(MODEL, { threads: 1, contextSize: 256 })
  const running = own.generate('x', { maxTokens: 10_000, ignoreEos: true })
  const failed = rejection(running)
  await Promise.all([own.close(), own.close()])
  await own.close()
  assert.equal((await failed).code, 'closed')
  assert.equal(await own.isReady(), false)
  assert.equal((await rejection(own.generate('x', 1))).code, 'closed')
  assert.equal((await rejection(own.generateStream('x', 1).next())).code, 'closed')
  assert.match(inspect(own), /closed/)
})

test('asyncDispose closes', async () => {
  const own = await Model.load(MODEL, { threads: 1, contextSize: 64 })
  await own[Symbol.asyncDispose]()
  assert.equal(await own.isReady(), false)
})

test('classes are made by their factories alone, and show what they are', () => {
  assert.throws(() => new Model(), { name: 'MullamaError', code: 'unsupported' })
  assert.throws(() => new TokenStream(), { name: 'MullamaError', code: 'unsupported' })
  assert.match(inspect(model), /^Model \{ '.+', llama, ready \}$/)
})
