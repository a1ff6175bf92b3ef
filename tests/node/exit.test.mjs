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
