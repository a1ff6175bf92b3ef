// Runs the conformance cases (tests/conformance/README.md) through the package.

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { after, describe, test } from 'node:test'
import { inspect } from 'node:util'
import { Run, cleanUp } from './conformance/calls.mjs'
import { mismatch, resolve } from './conformance/values.mjs'
import { ROOT } from './support.mjs'

const CASES = join(ROOT, 'tests/conformance/cases')

const applies = (part) => (part.languages ?? ['node']).includes('node')

for (const name of readdirSync(CASES).sort()) {
  const { cases, model, load = {} } = JSON.parse(readFileSync(join(CASES, name), 'utf8'))
  describe(basename(name, '.json'), () => {
    for (const item of cases.filter(applies)) test(item.name, () => runCase({ model, load, ...item }))
  })
}

after(cleanUp)

async function runCase(item) {
  const run = await Run.start(item)
  try {
    const saved = {}
    for (const [index, step] of item.steps.entries()) {
      if (!applies(step)) continue
      const found = await run.outcome(step.call, resolve(step.with ?? {}, saved))
      checkStep(index + 1, step, found, saved)
    }
  } finally {
    await run.end()
  }
}

function checkStep(number, step, found, saved) {
  const kind = 'error' in step ? 'error' : 'result'
  const show = (value) => inspect(value, { depth: 6, maxStringLength: 500 })
  assert.ok(kind in found, `step ${number}: expected ${kind}, got ${show(found)}`)
  const fault = mismatch(resolve(step.error ?? ('expect' in step ? step.expect : { $and: [] }), saved), found[kind])
  assert.equal(fault, null, `step ${number}: ${kind}${fault}\nin ${show(found[kind])}`)
  if (step.save) saved[step.save] = found[kind]
}
