// The examples run as they are written.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { join } from 'node:path'
import { MODEL, ROOT, runNode } from './support.mjs'

async function example(name, ...args) {
  const { code, stdout, stderr } = await runNode([join(ROOT, 'examples/node', name), MODEL, ...args])
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' })
  return stdout
}

test('hello', async () => {
  const answer = await example('hello.mjs', 'Say hello.')
  assert.ok(answer.trim().length > 3, answer)
  assert.doesNotMatch(answer, /<\|im_/)
})

test('concurrent', async () => {
  const lines = (await example('concurrent.mjs')).split('\n')
  for (const country of ['France', 'Japan', 'Egypt', 'Peru', 'Norway', 'Kenya']) {
    assert.ok(lines.some((line) => line.startsWith(`${country}: `)), country)
  }
})

test('cancel', async () => {
  const lines = (await example('cancel.mjs')).trim().split('\n')
  assert.equal(lines.length, 3)
  assert.equal(lines[0], 'left after 5 tokens')
  assert.equal(lines[1], 'aborted: the user went away')
  assert.match(lines[2], /^timed out after 500 ms with \d+ characters$/)
})

test('load', async () => {
  const output = await example('load.mjs')
  assert.match(output, /^[^]+\n.+: llama, \d+ parameters, trained for 8192 tokens\n$/)
})

test('configure', async () => {
  assert.match(await example('configure.mjs'), /\n\d+ tokens, the first after \d+ ms\n$/)
})

test('cancellation', async () => {
  assert.equal(await example('cancellation.mjs'), 'operation failed: Cancelled\n')
})

test('runtime', async () => {
  const lines = (await example('runtime.mjs')).trim().split('\n')
  assert.equal(lines[0], '4 worker threads, running: true')
  assert.equal(lines[1], '4 tasks done, 0 active')
  assert.match(lines[2], /^3 generations of \d+ ms$/)
})

test('pool', async () => {
  const output = await example('pool.mjs')
  assert.match(output, /\n4 available, 0 in use\n/)
  assert.equal(output.match(/^The number \d is/gm).length, 8)
  assert.match(output, /\n9 leases, \d+ ms of waiting for each\n$/)
})

test('tokenize', async () => {
  const lines = (await example('tokenize.mjs')).trim().split('\n')
  assert.match(lines[0], /^\d+( \d+)+$/)
  assert.equal(lines[1], 'Hello, 世界!')
  assert.ok(Number(lines[2]) >= 1)
  const [special, plain] = lines[3].split(' ').map(Number)
  assert.ok(special === 1 && plain > 1, lines[3])
})

test('all_in_one', async () => {
  const output = await example('all_in_one.mjs')
  assert.match(output, /\ngeneration-0: running, generation-1: running, metrics: running\n/)
  assert.match(output, /\n5 generations, \d+ ms each\n$/)
})

test('context', async () => {
  const output = await example('context.mjs')
  const cached = Array.from(output.matchAll(/\((\d+) of (\d+) tokens were there already\)/g), (match) => match.slice(1).map(Number))
  assert.equal(cached.length, 2)
  assert.equal(cached[0][0], 0)
  assert.ok(cached[1][0] > 0 && cached[1][0] < cached[1][1], output)
  const [, loaded, held] = /loaded (\d+) tokens, as many as (\d+)\n/.exec(output)
  assert.equal(loaded, held)
  assert.match(output, /\[ '.+', '.+' \]\n$/)
})
