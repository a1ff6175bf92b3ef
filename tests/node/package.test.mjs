// What npm would publish: exactly the files meant, and an install that works
// in an empty project, without a network or a compiler.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { MODEL, ROOT, runNode } from './support.mjs'

const exec = promisify(execFile)
const { version } = createRequire(import.meta.url)('../../package.json')

const folder = mkdtempSync(join(tmpdir(), 'mullama-package-'))
let tarballs
before(async () => {
  await exec(process.execPath, [join(ROOT, 'bindings/node/scripts/pack.mjs'), folder])
  tarballs = readdirSync(folder).map((file) => join(folder, file)).sort()
})
after(() => rmSync(folder, { recursive: true }))

test('there is a package and one for the platform', () => {
  assert.equal(tarballs.length, 2)
  assert.equal(tarballs[0], join(folder, `mullama-${version}.tgz`))
  assert.match(tarballs[1], new RegExp(`mullama-${process.platform}-${process.arch}[a-z-]*-${version}.tgz$`))
})

test('they hold the files meant, no more', async () => {
  const list = async (tarball) => {
    const { stdout } = await exec('tar', ['tzf', tarball])
    return stdout.trim().split('\n').filter((file) => !/^package\/(README|LICENSE)/.test(file)).sort()
  }
  assert.deepEqual(await list(tarballs[0]), [
    'package/bindings/node/index.d.mts',
    'package/bindings/node/index.d.ts',
    'package/bindings/node/index.js',
    'package/bindings/node/index.mjs',
    ...['context', 'delivery', 'errors', 'load', 'model', 'native', 'options', 'pool', 'runtime', 'signal', 'stream', 'tasks'].map(
      (name) => `package/bindings/node/lib/${name}.js`,
    ),
    ...['context', 'errors', 'model', 'options', 'pool', 'results', 'runtime', 'tasks'].map(
      (name) => `package/bindings/node/types/${name}.d.ts`,
    ),
    'package/package.json',
  ])
  const [binary, manifest, ...rest] = await list(tarballs[1])
  assert.match(binary, /^package\/mullama\.[\w-]+\.node$/)
  assert.equal(manifest, 'package/package.json')
  assert.deepEqual(rest, [])
})

test('an empty project installs and uses them', async () => {
  const project = mkdtempSync(join(tmpdir(), 'mullama-project-'))
  try {
    writeFileSync(join(project, 'package.json'), '{}')
    await exec('npm', ['install', '--offline', '--no-audit', '--no-fund', ...tarballs], { cwd: project })
    const installed = JSON.parse(readFileSync(join(project, 'node_modules/mullama/package.json'), 'utf8'))
    for (const key of ['private', 'scripts', 'devDependencies', 'napi']) assert.ok(!(key in installed), key)
    assert.deepEqual(Object.values(installed.optionalDependencies), [version])
    const use = `const model = await Model.load(${JSON.stringify(MODEL)}, { contextSize: 64 })
      console.log((await model.generateWith('x', { maxTokens: 3, ignoreEos: true })).tokens.length)`
    writeFileSync(join(project, 'esm.mjs'), `import { Model } from 'mullama'\n${use}`)
    writeFileSync(join(project, 'cjs.cjs'), `const { Model } = require('mullama')\n;(async () => {${use}})()`)
    for (const file of ['esm.mjs', 'cjs.cjs']) {
      const { code, stdout, stderr } = await runNode([join(project, file)])
      assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: '3\n', stderr: '' })
    }
  } finally {
    rmSync(project, { recursive: true })
  }
})

test('without the add-on the import says what to do', async () => {
  const project = mkdtempSync(join(tmpdir(), 'mullama-bare-'))
  try {
    await exec('tar', ['xzf', tarballs[0], '-C', project])
    cpSync(join(project, 'package'), join(project, 'node_modules/mullama'), { recursive: true })
    const file = join(project, 'main.mjs')
    writeFileSync(file, `await import('mullama').catch((error) => console.log(error.name, error.code, error.message))`)
    const { stdout } = await runNode([file])
    assert.match(stdout, /^MullamaError unsupported unsupported: no native add-on for [\w-]+; install the package 'mullama-/)
    writeFileSync(join(project, 'node_modules/mullama/bindings/node', `mullama.${platform()}.node`), 'no library')
    const broken = await runNode([file])
    assert.match(broken.stdout, /^MullamaError unsupported unsupported: .* could not be loaded/)
  } finally {
    rmSync(project, { recursive: true })
  }
})

function platform() {
  return basename(tarballs[1], `-${version}.tgz`).replace('mullama-', '')
}
