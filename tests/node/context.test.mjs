// Contexts as JavaScript sees them: order, signals, streams that are left,
// collection, state files. What they compute is covered by the conformance
// cases.

import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, before, test } from 'node:test'
import { inspect } from 'node:util'
import { Batch, Context, Model, ModelPool, MullamaError } from 'mullama'
import { ENDLESS, MODEL, rejection, run, until } from './support.mjs'

const LINUX = process.platform === 'linux'
const folder = mkdtempSync(join(tmpdir(), 'mullama-context-'))
const GREEDY = { temperature: 0, ignoreEos: true }

let model, ids
before(async () => {
  model = await Model.load(MODEL, { threads: 1, contextSize: 4608, timeoutMs: 0, maxConcurrent: 1 })
  ids = await model.tokenize('Once upon a time')
})
after(async () => {
  await model?.close()
  rmSync(folder, { recursive: true })
})

/** A context that is closed after the test. */
async function make(context, options) {
  const made = await Context.create(model, options)
  context.after(() => made.close())
  return made
}

async function read(stream) {
  const tokens = []
  for await (const token of stream) tokens.push(token.tokenId)
  return tokens
}

const listeners = (signal) => getEventListeners(signal, 'abort').length

test('calls run in the order in which they were made', async (t) => {
  const context = await make(t)
  const batch = new Batch()
  batch.addSequence(0, ids)
  const first = context.generateStream(ids, { ...GREEDY, maxTokens: 8 })
  const cut = context.truncate(ids.length + 3)
  const second = context.generateStream([], { ...GREEDY, maxTokens: 5 })
  const save = context.saveState(join(folder, 'order'))
  const clear = context.clear()
  const processed = context.processBatch([batch])
  const load = context.loadState(join(folder, 'order'))
  await load
  assert.equal(context.nPast(), ids.length + 8)
  const tokens = await read(first)
  assert.equal(tokens.length, 8)
  assert.deepEqual(await read(second), tokens.slice(3))
  await Promise.all([cut, save, clear])
  assert.equal((await processed)[0][0], tokens[0])
})

test('a stream that nobody reads pauses, until another call waits for it', async (t) => {
  const context = await make(t)
  const stream = context.generateStream(ids, { ...GREEDY, maxTokens: 60, bufferSize: 4 })
  let last = -1
  await until(async () => {
    const still = context.nPast() === last && last > 0
    last = context.nPast()
    await sleep(100)
    return still
  }, 'the stream pauses')
  assert.ok(last < ids.length + 60, `${last}`)
  await context.truncate(ids.length + 60)
  assert.equal((await read(stream)).length, 60)
})

test('nPast does not wait for what runs', async (t) => {
  const context = await make(t)
  assert.equal(context.nPast(), 0)
  const stream = context.generateStream(ids, ENDLESS)
  await stream.next()
  const { length } = ids
  assert.ok(context.nPast() > length)
  stream.cancel()
})

for (const [name, leave] of [
  ['break', async (stream) => { for await (const _ of stream) break }],
  ['throw', async (stream) => { for await (const _ of stream) throw new Error('mine') }],
  ['cancel()', async (stream) => { await stream.next(); stream.cancel() }],
  ['asyncDispose', async (stream) => { await stream[Symbol.asyncDispose]() }],
]) {
  test(`leaving a stream by ${name} ends its work, and the context goes on`, async (t) => {
    const context = await make(t)
    const stream = context.generateStream(ids, ENDLESS)
    await leave(stream).catch((error) => assert.equal(error.message, 'mine'))
    // The next call comes after the end of the one that was left.
    const more = await read(context.generateStream(ids, { ...GREEDY, maxTokens: 3 }))
    assert.equal(more.length, 3)
    assert.equal(stream.finishReason, 'cancelled')
    assert.ok(context.nPast() < 2000, `${context.nPast()}`)
  })
}

test('a signal that has fired starts nothing', async (t) => {
  const context = await make(t)
  const reason = new Error('too late')
  const signal = AbortSignal.abort(reason)
  const path = join(folder, 'never')
  for (const call of [
    Context.create(model, { signal }),
    context.generateStream(ids, { signal }).next(),
    context.processBatch([new Batch()], { signal }),
    context.saveState(path, { signal }),
    context.loadState(path, { signal }),
    context.clear({ signal }),
    context.truncate(0, { signal }),
  ]) {
    assert.equal(await rejection(call), reason)
  }
  assert.equal(context.nPast(), 0)
  assert.deepEqual(readdirSync(folder).filter((name) => name.startsWith('never')), [])
  assert.equal(listeners(signal), 0)
})

test('a signal that fires ends what runs, and the context goes on', async (t) => {
  const context = await make(t)
  const long = new Batch()
  long.addSequence(0, Array(4000).fill(ids[0]))
  const controller = new AbortController()
  const processing = rejection(context.processBatch([long], { signal: controller.signal }))
  await sleep(20)
  assert.equal(listeners(controller.signal), 1)
  controller.abort('enough')
  assert.equal(await processing, 'enough')
  assert.equal(listeners(controller.signal), 0)
  await context.clear()
  const second = new AbortController()
  const stream = context.generateStream(ids, { ...ENDLESS, signal: second.signal })
  await stream.next()
  second.abort('enough')
  assert.equal(await rejection(stream.next()), 'enough')
  assert.equal(listeners(second.signal), 0)
  assert.equal((await read(context.generateStream(ids, { ...GREEDY, maxTokens: 3 }))).length, 3)
})

test('a call that is aborted in the queue does nothing', async (t) => {
  const context = await make(t)
  const stream = context.generateStream(ids, { ...GREEDY, maxTokens: 40, bufferSize: 1000 })
  const { signal, abort } = (() => {
    const controller = new AbortController()
    return { signal: controller.signal, abort: () => controller.abort('enough') }
  })()
  const path = join(folder, 'aborted')
  const calls = [
    context.clear({ signal }),
    context.truncate(0, { signal }),
    context.saveState(path, { signal }),
    context.generateStream(ids, { signal }).next(),
  ].map(rejection)
  abort()
  assert.deepEqual(await Promise.all(calls), Array(4).fill('enough'))
  assert.equal((await read(stream)).length, 40)
  await context.truncate(ids.length + 40)
  assert.equal(context.nPast(), ids.length + 40)
  assert.deepEqual(readdirSync(folder).filter((name) => name.includes('aborted')), [])
})

test('making a context ends with its signal', async () => {
  for (let i = 0; i < 10; i++) {
    const controller = new AbortController()
    const made = Context.create(model, { signal: controller.signal })
    const outcome = made.then((context) => context.close(), (reason) => assert.equal(reason, 'enough'))
    if (i > 0) await sleep(i)
    controller.abort('enough')
    await outcome
    assert.equal(listeners(controller.signal), 0)
  }
  if (LINUX) await until(() => contextThreads() === 0, 'no context is left')
})

/** Threads of contexts in this process. */
function contextThreads() {
  return readdirSync('/proc/self/task').filter((id) => {
    try {
      return readFileSync(`/proc/self/task/${id}/comm`, 'utf8').startsWith('mullama-ctx')
    } catch {
      // It ended meanwhile.
      return false
    }
  }).length
}

test('closing ends what runs and is idempotent', async () => {
  const context = await Context.create(model)
  const stream = context.generateStream(ids, ENDLESS)
  await stream.next()
  const waiting = rejection(context.clear())
  await Promise.all([context.close(), context.close()])
  await context[Symbol.asyncDispose]()
  const error = await rejection((async () => { for await (const _ of stream); })())
  assert.equal(error.code, 'closed')
  assert.equal((await waiting).code, 'closed')
  const calls = [context.clear(), context.processBatch([]), context.saveState(join(folder, 'x')), context.generateStream(ids).next()]
  for (const error of await Promise.all(calls.map(rejection))) assert.equal(error.code, 'closed')
})

test('closing the model closes its contexts', async () => {
  const own = await Model.load(MODEL, { threads: 1, contextSize: 256 })
  const context = await Context.create(own)
  const stream = context.generateStream(ids, ENDLESS)
  await stream.next()
  await own.close()
  assert.equal((await rejection(context.clear())).code, 'closed')
  assert.equal((await rejection(Context.create(own))).code, 'closed')
  await context.close()
})

test('a lease can have a context, which outlives it', async (t) => {
  const pool = await ModelPool.create({ modelPath: MODEL, threads: 1, contextSize: 64 }, 1)
  t.after(() => pool.close())
  const lease = await pool.acquire()
  const context = await Context.create(lease)
  lease.release()
  assert.equal((await read(context.generateStream(ids, { ...GREEDY, maxTokens: 3 }))).length, 3)
  assert.equal((await rejection(Context.create(lease))).code, 'closed')
  await context.close()
})

test('tokens may come in typed arrays, and a number stands for maxTokens', async (t) => {
  const context = await make(t)
  const plain = await read(context.generateStream(ids, { ...GREEDY, maxTokens: 4 }))
  await context.clear()
  assert.deepEqual(await read(context.generateStream(Int32Array.from(ids), { ...GREEDY, maxTokens: 4 })), plain)
  await context.clear()
  assert.equal((await read(context.generateStream(ids, 2))).length, 2)
})

test('a batch is a list of rows', async (t) => {
  const batch = new Batch()
  assert.equal(batch.isEmpty(), true)
  assert.equal(batch.add(ids[0], 0, [0, 1]), undefined)
  assert.equal(batch.add(ids[0], 1, [0], true), undefined)
  assert.equal(batch.addSequence(1, Int32Array.from(ids)), undefined)
  assert.equal(batch.length, 2 + ids.length)
  assert.equal(inspect(batch), `Batch { ${2 + ids.length} tokens }`)
  const context = await make(t)
  const processed = context.processBatch([batch, new Batch()])
  batch.clear()
  assert.equal(batch.isEmpty(), true)
  assert.deepEqual((await processed).map((tokens) => tokens.length), [2, 0])
  assert.equal(context.nPast(), 2)
  for (const [add, field, value] of [
    [() => batch.add('x', 0, [0], true), 'token', 'x'],
    [() => batch.add(1.5, 0, [0], true), 'token', '1.5'],
    [() => batch.add(1, -1, [0], true), 'position', '-1'],
    [() => batch.add(1, 0, 0, true), 'seqIds', '0'],
    [() => batch.add(1, 0, ['a'], true), 'seqIds', 'a'],
    [() => batch.add(1, 0, [0], 1), 'logits', '1'],
    [() => batch.addSequence('a', [1]), 'seqId', 'a'],
    [() => batch.addSequence(0, 1), 'tokens', '1'],
    [() => batch.addSequence(0), 'tokens', 'undefined'],
  ]) {
    assert.throws(add, (error) => {
      assert.ok(error instanceof MullamaError)
      assert.deepEqual({ ...error, reason: '' }, { code: 'invalid_input', field, value, reason: '' })
      return true
    })
  }
  assert.equal(batch.isEmpty(), true)
})

test('wrong arguments are refused by name and never throw', async (t) => {
  const context = await make(t)
  const cases = [
    [() => Context.create(), 'model', 'undefined'],
    [() => Context.create({}), 'model', 'an object'],
    [() => Context.create(model, 5), 'options', '5'],
    [() => Context.create(model, { contextSize: 0 }), 'contextSize', '0'],
    [() => Context.create(model, { contextSize: '5' }), 'contextSize', '5'],
    [() => Context.create(model, { maxSequences: 0 }), 'maxSequences', '0'],
    [() => Context.create(model, { kvTypeK: 'i32' }), 'kvTypeK', 'i32'],
    [() => Context.create(model, { context_size: 5 }), 'context_size', '5'],
    [() => Context.create(model, { onProgress() {} }), 'onProgress', 'a function'],
    [() => Context.create(model, { signal: 5 }), 'signal', '5'],
    [() => context.generateStream('x').next(), 'tokens', 'x'],
    [() => context.generateStream([1.5]).next(), 'tokens', '1.5'],
    [() => context.generateStream([-1]).next(), 'tokens', '-1'],
    [() => context.generateStream([]).next(), 'tokens', undefined],
    [() => context.generateStream(ids, { topP: 9 }).next(), 'topP', '9'],
    [() => context.generateStream(ids, { top_p: 1 }).next(), 'top_p', '1'],
    [() => context.processBatch(new Batch()), 'batches', 'an object'],
    [() => context.processBatch([{}]), 'batches', 'an object'],
    [() => context.processBatch([], { sginal: 5 }), 'sginal', '5'],
    [() => context.saveState(5), 'path', '5'],
    [() => context.loadState(), 'path', 'undefined'],
    [() => context.truncate(1), 'n', '1'],
    [() => context.truncate(-1), 'n', '-1'],
    [() => context.truncate('0'), 'n', '0'],
    [() => context.clear(5), 'options', '5'],
  ]
  for (const [call, field, value] of cases) {
    const error = await rejection(call())
    assert.ok(error instanceof MullamaError, String(error))
    assert.deepEqual({ code: error.code, field: error.field }, { code: 'invalid_input', field })
    if (value !== undefined) assert.equal(error.value, value)
  }
  assert.match((await rejection(context.clear({ sginal: 5 }))).message, /the nearest is 'signal'/)
  assert.equal(context.nPast(), 0)
})

test('files that are no states are refused, and the context is as it was', async (t) => {
  const context = await make(t, { contextSize: 64 })
  await read(context.generateStream(ids, { ...GREEDY, maxTokens: 3 }))
  const held = context.nPast()
  const garbage = join(folder, 'garbage')
  writeFileSync(garbage, 'hello'.repeat(1000))
  assert.equal((await rejection(context.loadState(garbage))).code, 'state')
  assert.equal((await rejection(context.loadState(join(folder, 'missing')))).code, 'io')
  assert.equal((await rejection(context.saveState(join(folder, 'missing', 'state')))).code, 'io')
  assert.equal(context.nPast(), held)
})

test('contexts are made by their factory alone, and show what they hold', async (t) => {
  assert.throws(() => new Context(), { name: 'MullamaError', code: 'unsupported' })
  assert.equal(inspect(await make(t)), 'Context { 0 tokens }')
})

const PRELUDE = `
  import { readFileSync, readdirSync } from 'node:fs'
  const threads = () => readdirSync('/proc/self/task').filter((id) => {
    try { return readFileSync('/proc/self/task/' + id + '/comm', 'utf8').startsWith('mullama-ctx') } catch { return false }
  }).length
  const model = await Model.load(MODEL, { threads: 1, contextSize: 512 })
  const ids = await model.tokenize('Once upon a time')
`

async function prints(code, expected) {
  const { code: exitCode, stdout, stderr } = await run(PRELUDE + code, ['--expose-gc'])
  assert.deepEqual({ exitCode, stdout, stderr }, { exitCode: 0, stdout: expected, stderr: '' })
}

test('a state goes on in another process as it would have here', async (t) => {
  const path = join(folder, 'story')
  const context = await make(t, { contextSize: 512 })
  await read(context.generateStream(ids, { maxTokens: 10, seed: 7, ignoreEos: true }))
  await context.saveState(path)
  const here = await read(context.generateStream([], { maxTokens: 10, seed: 7, ignoreEos: true }))
  await prints(
    `
    const context = await Context.create(model)
    await context.loadState(${JSON.stringify(path)})
    const tokens = []
    for await (const { tokenId } of context.generateStream([], { maxTokens: 10, seed: 7, ignoreEos: true })) tokens.push(tokenId)
    console.log(tokens.join())
    await context.close()
    `,
    `${here.join()}\n`,
  )
})

test('an abandoned context is freed when it is collected', { skip: !LINUX }, async () => {
  await prints(
    `
    const abandon = async () => { await (await Context.create(model)).clear(); (await Context.create(model)).generateStream(ids, ENDLESS) }
    await abandon()
    console.log(threads())
    while (threads() > 0) { gc(); await turn() }
    console.log('freed')
    `,
    '2\nfreed\n',
  )
})

test('a stream and a pending call keep their context', async () => {
  await prints(
    `
    let n = 0
    for await (const _ of (await Context.create(model)).generateStream(ids, { maxTokens: 20, ignoreEos: true })) { gc(); await turn(); n += 1 }
    console.log(n)
    const pending = (async () => { const own = await Context.create(model); own.generateStream(ids, 30); return own.truncate(0) })()
    gc()
    await pending
    console.log('done')
    `,
    '20\ndone\n',
  )
})

test('an abandoned stream ends when it is collected, and the context goes on', async () => {
  await prints(
    `
    const context = await Context.create(model)
    const abandon = async () => { await context.generateStream(ids, { ...ENDLESS, bufferSize: 2 }).next() }
    await abandon()
    while ((await runtime().metrics()).activeTasks > 0) { gc(); await turn() }
    const next = context.generateStream([], { maxTokens: 3, ignoreEos: true })
    let n = 0
    for await (const _ of next) n += 1
    console.log(n)
    await context.close()
    `,
    '3\n',
  )
})
