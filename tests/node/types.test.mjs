// The declared types fit what users write, and what the package really has.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { join } from 'node:path'
import * as mullama from 'mullama'
import { ROOT, runNode } from './support.mjs'

test('usage.mts and usage.cts type-check', async () => {
  const compiler = join(ROOT, 'node_modules/typescript/bin/tsc')
  const { code, stdout, stderr } = await runNode([compiler, '-p', join(ROOT, 'tests/node/types')])
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: '', stderr: '' })
})

test('every public member is declared, and every declared one exists', async () => {
  const { readFileSync } = await import('node:fs')
  const types = readFileSync(join(ROOT, 'bindings/node/index.d.ts'), 'utf8')
  for (const name of ['Model', 'TokenStream']) {
    const body = new RegExp(`export class ${name} [^]*?\\n}\\n`).exec(types)[0]
    const declared = Array.from(body.matchAll(/^ {2}(?:static |readonly )?(\w+)[(:?]/gm), (match) => match[1])
    const own = [mullama[name], mullama[name].prototype].flatMap((it) => Object.getOwnPropertyNames(it))
    const existing = own.filter((it) => !['length', 'name', 'prototype', 'constructor'].includes(it))
    assert.deepEqual([...new Set(declared)].sort(), existing.sort(), name)
  }
})
