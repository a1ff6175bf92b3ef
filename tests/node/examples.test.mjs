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
