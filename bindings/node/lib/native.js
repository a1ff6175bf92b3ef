'use strict'

// Finds and loads the native add-on: a local build first, then the package of
// this platform. Private; the public package is index.js.

const { existsSync } = require('node:fs')
const { join } = require('node:path')
const { isMainThread } = require('node:worker_threads')
const { attach } = require('./delivery.js')
const { MullamaError, fromNative } = require('./errors.js')

function load() {
  const platform = platformName()
  const local = join(__dirname, '..', `mullama.${platform}.node`)
  if (existsSync(local)) return open(local, local)
  const packageName = `mullama-${platform}`
  try {
    require.resolve(packageName)
  } catch (cause) {
    throw new MullamaError(
      'unsupported',
      `unsupported: no native add-on for ${platform}; install the package '${packageName}', or build it with 'npm run build' in a checkout`,
      { cause },
    )
  }
  return open(packageName, `the package '${packageName}'`)
}

function open(path, name) {
  let native
  try {
    native = require(path)
  } catch (cause) {
    throw new MullamaError('unsupported', `unsupported: ${name} could not be loaded: ${cause.message}`, { cause })
  }
  // Before anything of llama.cpp runs: on an older processor it would end the
  // process with an illegal instruction.
  try {
    native.checkProcessor()
  } catch (error) {
    throw fromNative(error)
  }
  attach(native)
  // `process.exit` runs no clean-up hook, and threads that still compute while
  // the process takes its memory down would crash it.
  if (isMainThread) process.on('exit', () => native.closeAll())
  return native
}

/** The name that napi gives a platform, such as `linux-x64-gnu`. */
function platformName() {
  const base = `${process.platform}-${process.arch}`
  if (process.platform === 'win32') return `${base}-msvc`
  if (process.platform !== 'linux') return base
  return isMusl() ? `${base}-musl` : `${base}-gnu`
}

function isMusl() {
  // The report names the version of glibc, if that is what Node runs on; it
  // looks up host names unless told not to.
  const report = /** @type {any} */ (process.report)
  const { excludeNetwork } = report
  report.excludeNetwork = true
  try {
    return report.getReport().header.glibcVersionRuntime === undefined
  } finally {
    report.excludeNetwork = excludeNetwork
  }
}

module.exports = load()
