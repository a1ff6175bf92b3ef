// The declared types fit what users write, and what the package really has.

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { test } from 'node:test'
import { join } from 'node:path'
import * as mullama from 'mullama'
import { ROOT, runNode } from './support.mjs'

const folder = join(ROOT, 'bindings/node/types')
const files = readdirSync(folder)
const types = files.map((file) => readFileSync(join(folder, file), 'utf8')).join('\n')

test('usage.mts and usage.cts type-check', async () => {
  const compiler = join(ROOT, 'node_modules/typescript/bin/tsc')
  const { code, stdout, stderr } = await runNode([compiler, '-p', join(ROOT, 'tests/node/types')])
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: '', stderr: '' })
})

test('every file of types is part of the package', () => {
  const index = readFileSync(join(ROOT, 'bindings/node/index.d.ts'), 'utf8')
  const exported = Array.from(index.matchAll(/^export \* from '.\/types\/(\w+).js'$/gm), (match) => `${match[1]}.d.ts`)
  assert.deepEqual(exported.sort(), files.sort())
})

test('every public name is declared, and every declared one exists', () => {
  const declared = Array.from(types.matchAll(/^export (class|function) (\w+)/gm), (match) => match[2])
  assert.deepEqual(declared.sort(), Object.keys(mullama).filter((name) => name !== 'default').sort())
})

const classes = Array.from(types.matchAll(/^export class (\w+)/gm), (match) => match[1])

for (const name of classes.filter((name) => name !== 'MullamaError')) {
  test(`every public member of ${name} is declared, and every declared one exists`, () => {
    const body = (head) => new RegExp(`^export ${head}[^]*?\\n}\\n`, 'm').exec(types)?.[0] ?? ''
    const inherited = new RegExp(`^export interface ${name} extends (\\w+) {}$`, 'm').exec(types)?.[1]
    const text = body(`class ${name} `) + (inherited ? body(`interface ${inherited} `) : '')
    const declared = Array.from(text.matchAll(/^ {2}(?:static |readonly )?(\w+)[(:?<]/gm), (match) => match[1])
    const wanted = declared.filter((member) => member !== 'constructor')
    assert.deepEqual([...new Set(wanted)].sort(), members(mullama[name]).sort())
  })
}

/** The names of a class's own and inherited members, static ones included. */
function members(type) {
  const found = Object.getOwnPropertyNames(type).filter((it) => !['length', 'name', 'prototype'].includes(it))
  for (let it = type.prototype; it !== Object.prototype; it = Object.getPrototypeOf(it)) {
    found.push(...Object.getOwnPropertyNames(it).filter((name) => name !== 'constructor'))
  }
  return found
}
