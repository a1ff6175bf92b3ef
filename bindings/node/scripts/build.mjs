// Builds the native add-on with the napi CLI. It also writes the add-on's types,
// lib/native.d.ts, which tests/node/drift.test.mjs holds lib/ against.
//
//   npm run build                              the CPU backend alone
//   npm run build -- --gpu=vulkan              with backends, commas between them
//   npm run build -- --features vulkan         all other options are the CLI's own

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

const manifest = 'bindings/node/Cargo.toml'
const options = ['--platform', '--release', '--manifest-path', manifest]
const outputs = ['--output-dir', 'bindings/node', '--no-js', '--dts', 'lib/native.d.ts']

/** Takes `--gpu` out of the arguments: what it names, and the other arguments. */
function takeGpu(args) {
  const { tokens } = parseArgs({ args, options: { gpu: { type: 'string' } }, strict: false, tokens: true })
  const gpu = tokens.filter((token) => token.kind === 'option' && token.name === 'gpu')
  const taken = new Set(gpu.flatMap(({ index, inlineValue }) => (inlineValue ? [index] : [index, index + 1])))
  const names = gpu.flatMap(({ value }) => (value ?? '').split(',')).map((name) => name.trim())
  return { names: [...new Set(names)], rest: args.filter((_, index) => !taken.has(index)) }
}

/** The backends that the crate has a feature for. */
function knownBackends() {
  const section = /^\[features\]\n((?:[^[\n].*\n|\n)*)/m.exec(readFileSync(manifest, 'utf8'))
  return [...section[1].matchAll(/^(\w+) *=/gm)].map(([, name]) => name)
}

const { names, rest } = takeGpu(process.argv.slice(2))
const known = knownBackends()
const unknown = names.find((name) => !known.includes(name))
if (unknown !== undefined) {
  console.error(`unknown GPU backend '${unknown}'; use one or more of ${known.join(', ')}`)
  process.exit(1)
}
if (names.length > 0) rest.push('--features', names.join(','))

// npm puts the CLI on the PATH of its scripts; on Windows it is a script.
const { status, error } = spawnSync('napi', ['build', ...options, ...outputs, ...rest], {
  stdio: 'inherit',
  shell: process.platform === 'win32',
})
if (error) console.error(`the napi CLI could not be started: ${error.message}`)
process.exit(status ?? 1)
