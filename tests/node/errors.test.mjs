// Every failure is a MullamaError with the core's code, and async methods
// reject rather than throw.

import assert from 'node:assert/strict'
import { closeSync, ftruncateSync, mkdtempSync, openSync, copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Model, MullamaError } from 'mullama'
import { MODEL, ROOT, longPrompt, rejection } from './support.mjs'

const require = createRequire(import.meta.url)
const native = require('../../bindings/node/lib/native.js')
const { fromNative } = require('../../bindings/node/lib/errors.js')

let model
const folder = mkdtempSync(join(tmpdir(), 'mullama-errors-'))
before(async () => {
  model = await Model.load(MODEL, { threads: 1, contextSize: 128, maxConcurrent: 1, maxQueue: 1 })
})
after(async () => {
  rmSync(folder, { recursive: true })
  await model?.close()
})

function typed(error, code) {
  assert.ok(error instanceof MullamaError, String(error))
  assert.ok(error instanceof Error)
  assert.equal(error.name, 'MullamaError')
  assert.equal(error.code, code)
  assert.ok(!error.message.startsWith('{'), error.message)
  return error
}

test('every code of the core survives the way to JavaScript, thrown or rejected', async () => {
  const codes = native.errorCodes()
  assert.ok(codes.length >= 18)
  for (const [i, code] of codes.entries()) {
    typed(fromNative(await rejection(native.rejectWithExample(i))), code)
    assert.throws(
      () => native.throwExample(i),
      (error) => Boolean(typed(fromNative(error), code)),
    )
  }
})

test('the fields of a variant survive too', async () => {
  const byCode = {}
  for (const [i, code] of native.errorCodes().entries()) {
    byCode[code] = { ...fromNative(await rejection(native.rejectWithExample(i))) }
  }
  assert.deepEqual(byCode.invalid_input, { code: 'invalid_input', field: 'example', value: 'example', reason: 'example' })
  assert.deepEqual(byCode.prompt_too_long, { code: 'prompt_too_long', tokens: 9, limit: 7 })
  assert.deepEqual(byCode.timeout, { code: 'timeout', partial: 'example', afterMs: 5 })
  assert.deepEqual(byCode.queue_full, { code: 'queue_full', limit: 3 })
  assert.deepEqual(byCode.model_not_found, { code: 'model_not_found', path: 'example' })
  assert.deepEqual(byCode.invalid_model, { code: 'invalid_model', path: 'example', reason: 'example' })
  assert.deepEqual(byCode.model_load, { code: 'model_load', path: 'example', reason: 'example' })
  assert.deepEqual(byCode.io, { code: 'io', kind: 'permission denied' })
  assert.deepEqual(byCode.cancelled, { code: 'cancelled' })
})

test('the declared codes are those of the core', () => {
  const types = readFileSync(join(ROOT, 'bindings/node/types/errors.d.ts'), 'utf8')
  const union = /export type ErrorCode =([^]*?)\n\n/.exec(types)[1]
  assert.deepEqual(Array.from(union.matchAll(/'(\w+)'/g), (match) => match[1]), native.errorCodes())
})

test('a panic becomes an internal error on either side of the runtime', async () => {
  assert.throws(
    () => native.panicNow(),
    (error) => Boolean(typed(fromNative(error), 'internal')),
  )
  const error = typed(fromNative(await rejection(native.panicLater())), 'internal')
  assert.match(error.message, /asked for by a test/)
})

test('a foreign error becomes internal and keeps its cause', () => {
  for (const cause of [new Error('out of the blue'), new Error('{"a":1}'), new Error('null'), 'text', null]) {
    const error = typed(fromNative(cause), 'internal')
    assert.equal(error.cause, cause)
  }
})

test('files that are no model are refused by kind', async () => {
  const write = (name, content) => {
    const path = join(folder, name)
    writeFileSync(path, content)
    return path
  }
  const cut = join(folder, 'cut.gguf')
  copyFileSync(MODEL, cut)
  const file = openSync(cut, 'r+')
  ftruncateSync(file, 5_000_000)
  closeSync(file)
  const missing = join(folder, 'missing.gguf')
  const error = typed(await rejection(Model.load(missing)), 'model_not_found')
  assert.equal(error.path, missing)
  for (const path of [folder, write('empty.gguf', ''), write('text.gguf', 'hello'.repeat(1000)), cut]) {
    const error = typed(await rejection(Model.load(path)), 'invalid_model')
    assert.equal(error.path, path)
  }
})

test('load refuses wrong options by name', async () => {
  const wrong = [
    ['contextSize', -1],
    ['contextSize', 2.5],
    ['contextSize', 2e9],
    ['contextSize', '4096'],
    ['gpuLayers', -2],
    ['threads', 0],
    ['maxConcurrent', 257],
    ['maxQueue', 0],
    ['batchSize', 1],
    ['timeoutMs', -5],
    ['kvTypeK', 'i32'],
    ['kvTypeV', 8],
    ['prefixCacheBytes', -1],
    ['useMmap', 'yes'],
    ['deterministic', 'yes'],
    ['promptLookup', 'yes'],
    ['flashAttention', 1],
    ['onProgress', 'print'],
    ['signal', {}],
  ]
  for (const [field, value] of wrong) {
    const error = typed(await rejection(Model.load(MODEL, { [field]: value })), 'invalid_input')
    assert.equal(error.field, field)
    assert.match(error.message, new RegExp(`invalid ${field} '`))
  }
  typed(await rejection(Model.load(7)), 'invalid_input')
  typed(await rejection(Model.load()), 'invalid_input')
  typed(await rejection(Model.load(MODEL, 5)), 'invalid_input')
})

test('requests refuse wrong options by name, and the next request works', async () => {
  const wrong = [
    ['maxTokens', -1, '-1'],
    ['maxTokens', 1.5, '1.5'],
    ['maxTokens', NaN, 'NaN'],
    ['maxTokens', '5', '5'],
    ['maxTokens', 2 ** 70, '1.1805916207174113e21'],
    ['temperature', NaN, 'NaN'],
    ['temperature', -1, '-1'],
    ['temperature', 1e300, '1e300'],
    ['temperature', 'hot', 'hot'],
    ['topK', -1, '-1'],
    ['topP', 1.5, '1.5'],
    ['seed', -1n, '-1'],
    ['seed', 2n ** 64n, '18446744073709551616'],
    ['stop', 5, '5'],
    ['stop', [1], '1'],
    ['stop', '', ''],
    ['logprobs', true, 'true'],
    ['logitBias', 5, '5'],
    ['logitBias', { dog: 1 }, 'dog'],
    ['logitBias', { 1: 'a' }, 'a'],
    ['ignoreEos', 'yes', 'yes'],
    ['bufferSize', 0, '0'],
    ['timeoutMs', 1.5, '1.5'],
    ['signal', 'now', 'now'],
  ]
  for (const [field, value, shown] of wrong) {
    const error = typed(await rejection(model.generate('x', { [field]: value })), 'invalid_input')
    assert.equal(error.field, field)
    assert.equal(error.value, shown, field)
  }
  assert.equal(typeof (await model.generate('x', 1)), 'string')
})

test('an unknown option is refused, and the nearest one named', async () => {
  for (const [given, nearest] of [['max_tokens', 'maxTokens'], ['temprature', 'temperature'], ['top_p', 'topP'], ['sginal', 'signal']]) {
    const error = typed(await rejection(model.generate('x', { [given]: 1 })), 'invalid_input')
    assert.equal(error.field, given)
    assert.match(error.message, new RegExp(`'${nearest}'`))
  }
  const error = typed(await rejection(Model.load(MODEL, { context_size: 9 })), 'invalid_input')
  assert.match(error.message, /'contextSize'/)
})

test('wrong arguments reject and never throw', async () => {
  for (const prompt of [undefined, null, 5, {}, Symbol('x')]) {
    assert.equal(typed(await rejection(model.generate(prompt, 1)), 'invalid_input').field, 'prompt')
    assert.equal(typed(await rejection(model.generateWith(prompt, 1)), 'invalid_input').field, 'prompt')
    assert.equal(typed(await rejection(model.generateStream(prompt, 1).next()), 'invalid_input').field, 'prompt')
    assert.equal(typed(await rejection(model.tokenize(prompt)), 'invalid_input').field, 'text')
  }
  typed(await rejection(model.generate('x', [])), 'invalid_input')
  typed(await rejection(model.tokenize('x', 'yes')), 'invalid_input')
  for (const tokens of [undefined, 'x', [1.5], ['1'], [-1], [49152], [2 ** 40], new Float64Array([0.5])]) {
    assert.match(typed(await rejection(model.detokenize(tokens)), 'invalid_input').field, /^tokens?$/, String(tokens))
  }
})

test("what the caller's own code throws comes back as it is", async () => {
  const thrown = new RangeError('mine')
  const options = { get topK() { throw thrown } }
  assert.equal(await rejection(model.generate('x', options)), thrown)
})

test('a prompt that does not fit says by how much', async () => {
  const error = typed(await rejection(model.generate(longPrompt(500), 1)), 'prompt_too_long')
  assert.ok(error.tokens >= 500)
  assert.ok(error.limit > 0 && error.limit < 128)
})

test('a timeout carries the text so far', async () => {
  const roomy = await Model.load(MODEL, { threads: 1, contextSize: 4096 })
  // Long enough for some tokens, on however slow a machine.
  let error
  for (let timeoutMs = 100; !error?.partial && timeoutMs < 60_000; timeoutMs *= 2) {
    error = typed(await rejection(roomy.generate('x', { maxTokens: 4000, ignoreEos: true, timeoutMs })), 'timeout')
    assert.equal(error.afterMs, timeoutMs)
  }
  assert.notEqual(error.partial, '')
  await roomy.close()
})

test('a full queue refuses', async () => {
  const requests = Array.from({ length: 6 }, () => model.generate('x', { maxTokens: 20, ignoreEos: true }))
  const settled = await Promise.allSettled(requests)
  const refused = settled.filter((it) => it.status === 'rejected')
  assert.ok(refused.length >= 1)
  for (const { reason } of refused) assert.equal(typed(reason, 'queue_full').limit, 1)
  assert.ok(settled.some((it) => it.status === 'fulfilled'))
})

test('the stack leads to the caller', async () => {
  async function caller() {
    return await model.generate('x', { topP: 9 })
  }
  async function reader() {
    for await (const _ of model.generateStream('x', { topP: 9 }));
  }
  for (const call of [caller, reader]) {
    const error = await rejection(call())
    assert.match(error.stack, /^MullamaError: invalid topP/)
    assert.match(error.stack, new RegExp(call.name))
  }
})
