// Builds the native add-on with the napi CLI. It also writes the add-on's types,
// lib/native.d.ts, which tests/node/drift.test.mjs holds lib/ against.
//
//   npm run build                              the CPU backend alone, for AVX2
//   npm run build -- --all-variants            its variants for all CPUs, as modules
//   npm run build -- --gpu=vulkan              with backends, commas between them
//   npm run build -- --out=folder              not into bindings/node
//   npm run build -- --features vulkan         all other options are the CLI's own

import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'

const manifest = 'bindings/node/Cargo.toml'
const options = ['--platform', '--release', '--manifest-path', manifest]
const own = { gpu: { type: 'string' }, out: { type: 'string' }, 'all-variants': { type: 'boolean' } }

/** Takes this script's own options out of the arguments. */
function takeOwn(args) {
  const { tokens } = parseArgs({ args, options: own, strict: false, tokens: true })
  const taken = new Set()
  const values = { gpu: [], out: [], 'all-variants': [] }
  for (const { kind, name, value, index, inlineValue } of tokens) {
    if (kind !== 'option' || !(name in own)) continue
    values[name].push(value ?? '')
    taken.add(index)
    if (own[name].type === 'string' && !inlineValue) taken.add(index + 1)
  }
  return {
    gpu: [...new Set(values.gpu.flatMap((names) => names.split(',')).map((name) => name.trim()))],
    out: values.out.at(-1) ?? 'bindings/node',
    allVariants: values['all-variants'].length > 0,
    rest: args.filter((_, index) => !taken.has(index)),
  }
}

/** The backends that the crate has a feature for. */
function knownBackends() {
  const section = /^\[features\]\n((?:[^[\n].*\n|\n)*)/m.exec(readFileSync(manifest, 'utf8'))
  return [...section[1].matchAll(/^(\w+) *=/gm)].map(([, name]) => name)
}

const { gpu, out, allVariants, rest } = takeOwn(process.argv.slice(2))
const known = knownBackends()
const unknown = gpu.find((name) => !known.includes(name))
if (unknown !== undefined) {
  console.error(`unknown GPU backend '${unknown}'; use one or more of ${known.join(', ')}`)
  process.exit(1)
}
const features = allVariants ? [...gpu, 'dynamic-backends'] : gpu
if (features.length > 0) rest.push('--features', features.join(','))
mkdirSync(join(out, 'lib'), { recursive: true })
const backends = resolve(out, 'backends')
// Those of an earlier build in the same folder are not this add-on's.
if (!allVariants) rmSync(backends, { recursive: true, force: true })
const outputs = ['--output-dir', out, '--no-js', '--dts', 'lib/native.d.ts']
// For the binding's build script.
const env = allVariants ? { ...process.env, MULLAMA_BACKENDS_OUT: backends } : process.env

// npm puts the CLI on the PATH of its scripts; on Windows it is a script.
const { status, error } = spawnSync('napi', ['build', ...options, ...outputs, ...rest], {
  stdio: 'inherit',
  env,
  shell: process.platform === 'win32',
})
if (error) console.error(`the napi CLI could not be started: ${error.message}`)
process.exit(status ?? 1)
