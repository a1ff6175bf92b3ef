// The native module, the JavaScript over it and the declarations say the same.
// `make lint` runs this as well.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import * as mullama from 'mullama'
import { ROOT, runNode } from './support.mjs'

const read = (path) => readFileSync(join(ROOT, path), 'utf8')
const all = (text, pattern) => Array.from(text.matchAll(pattern), (match) => match[1]).sort()

test('lib/ calls the native module as it is, and is what is declared', async () => {
  const compiler = join(ROOT, 'node_modules/typescript/bin/tsc')
  const project = join(ROOT, 'tests/node/types/tsconfig.native.json')
  const { code, stdout, stderr } = await runNode([compiler, '--noEmit', '-p', project])
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: '', stderr: '' })
})

const drift = read('tests/node/types/drift.cts')

test('every result of the native module is held against a declaration', () => {
  const results = all(read('bindings/node/lib/native.d.ts'), /^export interface (\w+)/gm)
  assert.deepEqual(all(drift, /Check<Same<native\.(\w+),/g), results)
})

test('every class and function of the package is held against its declaration', () => {
  const names = Object.keys(mullama).filter((name) => !['default', 'MullamaError'].includes(name))
  const classes = all(drift, /typeof declared\.(\w+)>>,$/gm)
  const functions = all(drift, /^ {2}Check<typeof runtime\.(\w+) extends/gm)
  assert.deepEqual([...classes, ...functions].sort(), names.sort())
})

// The options' names are tables on the native side, which types don't show.
const TABLES = {
  MODEL: 'LoadOptions',
  STREAM: 'GenerateOptions',
  CONTEXT: 'ContextOptions',
  RUNTIME: 'RuntimeOptions',
  ACQUIRE: 'AcquireOptions',
  COLLECTOR: 'CollectorOptions',
}
/** What JavaScript takes out of the options before the native side sees them. */
const OF_JAVASCRIPT = ['onProgress', 'signal']

for (const [table, declaration] of Object.entries(TABLES)) {
  test(`the options of ${declaration} are those that the native side reads`, () => {
    const rows = new RegExp(`^const ${table}: .*?\\];$`, 'ms').exec(read('bindings/node/src/options.rs'))[0]
    const body = new RegExp(`^export interface ${declaration} .*?^}$`, 'ms').exec(read('bindings/node/types/options.d.ts'))[0]
    const declared = all(body, /^ {2}(\w+)\?:/gm).filter((name) => !OF_JAVASCRIPT.includes(name))
    assert.deepEqual(declared, all(rows, /\("(\w+)", \|/g))
  })
}
