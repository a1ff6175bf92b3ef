// Packs what `npm publish` would upload: the package, and the package of the
// platform that it was built on, which holds the native add-on and, where it
// was built with all variants of the CPU backend, their modules.
//
//   node bindings/node/scripts/pack.mjs [folder]     default: dist
//     --from=folder     where the add-on is; default: bindings/node

import { execFileSync } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const { values, positionals } = parseArgs({
  options: { from: { type: 'string', default: join(root, 'bindings/node') } },
  allowPositionals: true,
})
const out = resolve(positionals[0] ?? join(root, 'dist'))
const from = resolve(values.from)
const backends = join(from, 'backends')
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const { name, version, license, description, engines, files } = manifest

const built = readdirSync(from).filter((file) => file.endsWith('.node'))
if (built.length === 0) throw new Error(`no native add-on in '${from}'; run 'npm run build' first`)

mkdirSync(out, { recursive: true })
const staging = mkdtempSync(join(tmpdir(), 'mullama-pack-'))
try {
  const platforms = built.map(stagePlatform)
  stageMain(platforms)
  for (const folder of ['main', ...platforms]) {
    const args = ['pack', '--silent', '--ignore-scripts', '--pack-destination', out]
    console.log(join(out, execFileSync('npm', args, { cwd: join(staging, folder), encoding: 'utf8' }).trim()))
  }
} finally {
  rmSync(staging, { recursive: true })
}

/** The package of the platform that `binary` is for; gives its name. */
function stagePlatform(binary) {
  const platform = binary.split('.')[1]
  const [os, cpu, abi] = platform.split('-')
  const folder = stage(`${name}-${platform}`, {
    name: `${name}-${platform}`,
    version,
    description: `${description} (${platform})`,
    license,
    engines,
    os: [os],
    cpu: [cpu],
    ...(os === 'linux' && { libc: [abi === 'musl' ? 'musl' : 'glibc'] }),
    main: binary,
    files: [binary, 'backends/*', 'LICENSE-*'],
  })
  copyFileSync(join(from, binary), join(folder, binary))
  if (existsSync(backends)) cpSync(backends, join(folder, 'backends'), { recursive: true })
  return `${name}-${platform}`
}

/** The package itself: nothing to build, its platforms optional. */
function stageMain(platforms) {
  // The checkout's own manifest is private: published as it is, it would lack
  // the platforms.
  const { private: _, devDependencies, scripts, napi, ...published } = manifest
  const optionalDependencies = Object.fromEntries(platforms.map((platform) => [platform, version]))
  const folder = stage('main', { ...published, optionalDependencies })
  for (const pattern of files.filter((pattern) => pattern.startsWith('bindings/'))) {
    const source = dirname(pattern)
    mkdirSync(join(folder, source), { recursive: true })
    for (const file of readdirSync(join(root, source))) {
      const wanted = pattern.includes('*') ? file.endsWith(pattern.split('*')[1]) : pattern === `${source}/${file}`
      if (wanted) cpSync(join(root, source, file), join(folder, source, file))
    }
  }
}

function stage(folder, content) {
  const path = join(staging, folder)
  mkdirSync(path)
  writeFileSync(join(path, 'package.json'), `${JSON.stringify(content, null, 2)}\n`)
  for (const file of readdirSync(root)) {
    if (/^(README|LICENSE)/.test(file)) copyFileSync(join(root, file), join(path, file))
  }
  return path
}
