// The runtime: its settings before the first use, and its figures. Each
// process has one, so most of it is tried in processes of their own.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { MullamaError, MullamaRuntime, backends, configureRuntime, devices, runtime } from 'mullama'
import { ENDLESS, MODEL, run } from './support.mjs'

const PRELUDE = `
  import { readdirSync, readFileSync } from 'node:fs'
  const threads = () => readdirSync('/proc/self/task').map((id) => readFileSync('/proc/self/task/' + id + '/comm', 'utf8').trim())
  const refused = (call) => { try { call() } catch (error) { return error.code + ' ' + error.message } }
`

async function prints(code, expected) {
  const { code: exitCode, stdout, stderr } = await run(PRELUDE + code)
  assert.deepEqual({ exitCode, stdout, stderr }, { exitCode: 0, stdout: expected, stderr: '' })
}

test('there is one runtime, and it runs', async () => {
  const one = runtime()
  assert.equal(runtime(), one)
  assert.ok(one instanceof MullamaRuntime)
  assert.equal(one.isRunning(), true)
  assert.equal(inspect(one), 'MullamaRuntime { running }')
  assert.throws(() => new MullamaRuntime(), { name: 'MullamaError', code: 'unsupported' })
  const metrics = await one.metrics()
  assert.ok(Object.values(metrics).every((figure) => typeof figure === 'number'))
  assert.match(await one.metricsText(), /^# (HELP|TYPE) mullama_/)
})

test('impossible settings are refused by name', () => {
  const wrong = [
    ['workerThreads', 0],
    ['workerThreads', 1.5],
    ['workerThreads', 1_000_000],
    ['maxBlockingThreads', 0],
    ['threadStackSize', 10],
    ['threadStackSize', '2M'],
    ['threadName', ''],
    ['threadName', 5],
    ['shutdownTimeoutMs', -1],
    ['workers', 2],
    ['worker_threads', 2],
  ]
  for (const [field, value] of wrong) {
    assert.throws(() => configureRuntime({ [field]: value }), (error) => {
      assert.ok(error instanceof MullamaError)
      assert.deepEqual({ code: error.code, field: error.field }, { code: 'invalid_input', field })
      return true
    })
  }
  assert.throws(() => configureRuntime(5), { code: 'invalid_input', field: 'options' })
  assert.throws(() => configureRuntime({ worker_threads: 2 }), /'workerThreads'/)
})

test('it is too late once the runtime runs', () => {
  runtime()
  assert.throws(() => configureRuntime({ workerThreads: 2 }), { code: 'unsupported' })
})

test('importing starts no thread; the first use does, as it was configured', { skip: process.platform !== 'linux' }, async () => {
  await prints(
    `
    console.log(threads().some((name) => name.startsWith('mullama')))
    configureRuntime({ workerThreads: 3, threadName: 'my-runtime', threadStackSize: 1 << 20, maxBlockingThreads: 2 })
    console.log(threads().some((name) => name.startsWith('m')))
    const { workerThreads, blockingThreads } = await runtime().metrics()
    console.log(workerThreads, blockingThreads, threads().filter((name) => name === 'my-runtime').length)
    console.log(refused(() => configureRuntime({})))
    `,
    'false\nfalse\n3 0 3\nunsupported unsupported: the shared runtime runs already; configure it before anything else of mullama is used\n',
  )
})

test('it is configured once, and a refusal leaves it open', async () => {
  await prints(
    `
    console.log(refused(() => configureRuntime({ workerThreads: 0 })).slice(0, 13))
    configureRuntime({ workerThreads: 2 })
    console.log(refused(() => configureRuntime({ workerThreads: 3 })))
    console.log((await runtime().metrics()).workerThreads)
    `,
    'invalid_input\nunsupported unsupported: the shared runtime was configured already; that can be done once in a process\n2\n',
  )
})

test('whatever needs the runtime starts it', async () => {
  for (const use of ['runtime()', 'new TaskManager()', "await Model.load('/nowhere').catch(() => {})", "await ModelPool.create({ modelPath: '/nowhere' }, 1).catch(() => {})"]) {
    await prints(`${use}; console.log(refused(() => configureRuntime({})).split(' ')[0])`, 'unsupported\n')
  }
  for (const use of ['new AbortController()', "await Model.load(5).catch(() => {})", 'ModelPool.create({}, 1).catch(() => {})']) {
    await prints(`${use}; configureRuntime({}); console.log('in time')`, 'in time\n')
  }
})

test('the figures are those of the work done', async () => {
  await prints(
    `
    const figures = async () => {
      const { activeTasks, completedTasks, totalGenerations } = await runtime().metrics()
      return [activeTasks, completedTasks, totalGenerations].join()
    }
    /** A task is counted as ended just after its promise is settled. */
    const settled = async (expected) => {
      for (let i = 0; i < 2000 && (await figures()) !== expected; i++) await turn()
      console.log(await figures())
    }
    await settled('0,0,0')
    const model = await Model.load(MODEL, { threads: 1, contextSize: 512, timeoutMs: 0 })
    await settled('0,1,0')
    await model.generate('x', { maxTokens: 3, ignoreEos: true })
    await model.generateWith('x', { maxTokens: 3, ignoreEos: true })
    await settled('0,3,2')
    await model.generate('x', { topP: 9 }).catch(() => {})
    await model.generate(' dog'.repeat(600), 1).catch(() => {})
    await settled('0,5,2')
    for await (const _ of model.generateStream('x', { maxTokens: 40, ignoreEos: true }));
    await settled('0,6,3')
    for await (const _ of model.generateStream('x', ENDLESS)) break
    await settled('0,7,3')
    const stream = model.generateStream('x', ENDLESS)
    const controller = new AbortController()
    const calls = [1, 2].map(() => model.generate('x', { ...ENDLESS, signal: controller.signal }).catch(() => {}))
    await stream.next()
    await settled('3,7,3')
    controller.abort()
    stream.cancel()
    await Promise.all(calls)
    await settled('0,10,3')
    const manager = new TaskManager()
    manager.spawnGenerationWorker()
    manager.spawnWorker('mine', ({ signal }) => new Promise((resolve) => signal.addEventListener('abort', resolve)))
    await manager.submit(model, 'x', { maxTokens: 3, ignoreEos: true })
    await settled('2,10,4')
    await manager.stopAll()
    await settled('0,12,4')
    const { avgGenerationMs, uptimeSeconds, workerThreads } = await runtime().metrics()
    console.log(avgGenerationMs > 0, Number.isInteger(uptimeSeconds), workerThreads)
    await model.close()
    `,
    '0,0,0\n0,1,0\n0,3,2\n0,5,2\n0,6,3\n0,7,3\n3,7,3\n0,10,3\n2,10,4\n0,12,4\ntrue true 1\n',
  )
})

test('the text has the figures of every open model', async () => {
  await prints(
    `
    const model = await Model.load(MODEL, { threads: 1, contextSize: 64 })
    await model.generate('x', { maxTokens: 3, ignoreEos: true })
    const text = await runtime().metricsText()
    console.log(/^mullama_engine_generated_tokens_total\\{.*model="[^"]+".*\\} 3$/m.test(text))
    await model.close()
    `,
    'true\n',
  )
})

test('stopAll waits for a worker that does not end as long as it was told', async () => {
  await prints(
    `
    configureRuntime({ shutdownTimeoutMs: 50 })
    const manager = new TaskManager()
    manager.spawnWorker('stubborn', () => new Promise(() => {}))
    await manager.stopAll().catch((error) => console.log(error.code, error.message))
    `,
    "operation_failed operation failed: worker 'stubborn' still runs; let it end when its signal fires\n",
  )
})

test('backends and devices tell of the processor at least', async () => {
  const cpu = backends().find(({ name }) => name === 'CPU')
  assert.deepEqual(cpu, { name: 'CPU', nDevices: 1 })
  const device = devices().find(({ kind }) => kind === 'cpu')
  assert.deepEqual(Object.keys(device).sort(), ['backend', 'description', 'kind', 'memoryFree', 'memoryTotal', 'name'])
  assert.ok(device.memoryTotal > 0)
})
