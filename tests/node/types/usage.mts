// Compiled, never run: what users write must type-check, and the lines marked
// as errors must not.

import {
  Batch,
  Context,
  GenerationTask,
  Model,
  ModelPool,
  MullamaError,
  MullamaRuntime,
  PooledModel,
  TaskManager,
  TokenStream,
  backends,
  configureRuntime,
  devices,
  runtime,
} from 'mullama'
import type {
  BackendInfo,
  ContextOptions,
  DeviceInfo,
  DeviceKind,
  ErrorCode,
  FinishReason,
  Generation,
  Histogram,
  LayerPlacement,
  LoadOptions,
  ModelInfo,
  PoolOptions,
  PoolStats,
  RuntimeMetrics,
  RuntimeOptions,
  Token,
  TokenLogprob,
  WorkerState,
  WorkerStatus,
} from 'mullama'

const options: LoadOptions = {
  contextSize: 4096,
  gpuLayers: 0,
  threads: 2,
  maxConcurrent: 8,
  maxQueue: 100,
  timeoutMs: 30_000,
  flashAttention: true,
  batchSize: 512,
  kvTypeK: 'q8_0',
  kvTypeV: 'f16',
  prefixCacheBytes: 1e8,
  useMmap: true,
  deterministic: true,
  promptLookup: true,
  onProgress: (fraction: number) => console.log(fraction),
  signal: new AbortController().signal,
}

const model: Model = await Model.load('model.gguf', options)
await Model.load('model.gguf')
const text: string = await model.generate('prompt', 200)
await model.generate('prompt')
await model.generate('prompt', { maxTokens: 200, temperature: 0.7, topK: 40, topP: 0.9, minP: 0, typicalP: 1 })
await model.generate('prompt', { repeatPenalty: 1.1, repeatLastN: 64, frequencyPenalty: 0, presencePenalty: 0 })
await model.generate('prompt', { seed: 5n, stop: 'x', ignoreEos: true, bufferSize: 8, timeoutMs: 5, signal: AbortSignal.timeout(5) })
await model.generate('prompt', { seed: 5, stop: ['x', 'y'] as const, logitBias: { 5: -Infinity } })
await model.generate('prompt', { logitBias: new Map([[5, 1]]), seed: null })

const result: Generation = await model.generateWith('prompt', { maxTokens: 200, logprobs: 3 })
const reason: FinishReason = result.finishReason
const seed: number | bigint = result.seed
const alternative: TokenLogprob | undefined = result.logprobs?.[0]?.top[0]
const counts: number = result.usage.promptTokens + result.usage.cachedTokens + result.usage.completionTokens
const times: number = result.timings.queued + result.timings.prefill + result.timings.decode + result.timings.timeToFirstToken

const stream: TokenStream = model.generateStream('prompt', { maxTokens: 200 })
for await (const token of stream) process.stdout.write(token.text)
for await (const token of stream.toReadableStream()) {
  const same: Token = token
  const last: boolean = same.isFinal
  const logprob: number | undefined = same.logprob
}
const next: IteratorResult<Token, undefined> = await stream.next()
const why: FinishReason | null = stream.finishReason
stream.cancel()
await stream.close()

const ids: number[] = await model.tokenize('text', true, false)
const back: string = await model.detokenize(ids) + (await model.detokenize(new Int32Array(ids)))
const info: ModelInfo = await model.info()
const metadata: Record<string, string> = await model.metadata()
const ready: boolean = await model.isReady()
const histogram: Histogram = model.metrics().stepTime
const placement: LayerPlacement[] = await model.placement()
await model.close()

const poolOptions: PoolOptions = { modelPath: 'model.gguf', contextSize: 512, signal: AbortSignal.timeout(5), onProgress() {} }
const pool: ModelPool = await ModelPool.create(poolOptions, 4)
const lease: PooledModel = await pool.acquire({ signal: AbortSignal.timeout(5), timeoutMs: 5 })
const leased: string = await lease.generate('prompt', { maxTokens: 5, signal: AbortSignal.timeout(5) })
for await (const token of lease.generateStream('prompt')) process.stdout.write(token.text)
lease.release()
const perhaps: PooledModel | null = pool.tryAcquire()
const stats: PoolStats = pool.stats()
const figures: number = stats.size + stats.available + stats.inUse + stats.waiting + stats.acquiredTotal + stats.waitMsAvg
await pool.resize(8)
await pool.close()

const contextOptions: ContextOptions = { contextSize: 512, maxSequences: 8, batchSize: 64, threads: 2, flashAttention: false }
const context: Context = await Context.create(model, { ...contextOptions, kvTypeK: 'q8_0', kvTypeV: 'f16' })
await Context.create(lease)
const batch: Batch = new Batch()
batch.add(5, 0, [0, 1], true)
batch.add(5, 1, [0])
batch.addSequence(1, ids)
const rows: number = batch.isEmpty() ? 0 : batch.length
batch.clear()
const greedy: number[][] = await context.processBatch([batch], { signal: AbortSignal.timeout(5) })
const continued: TokenStream = context.generateStream(new Int32Array(ids), { maxTokens: 5, stop: 'x' })
context.generateStream([], 5)
await context.saveState('state.bin', { signal: AbortSignal.timeout(5) })
await context.loadState('state.bin')
await context.truncate(5)
await context.clear()
const held: number = context.nPast()
await context.close()

const runtimeOptions: RuntimeOptions = { workerThreads: 2, maxBlockingThreads: 4, threadStackSize: 2 ** 21, threadName: 'name' }
configureRuntime({ ...runtimeOptions, shutdownTimeoutMs: 5 })
const shared: MullamaRuntime = runtime()
const metrics: RuntimeMetrics = await shared.metrics()
const totals: number = metrics.activeTasks + metrics.completedTasks + metrics.workerThreads + metrics.blockingThreads
const generations: number = metrics.totalGenerations + metrics.avgGenerationMs + metrics.uptimeSeconds
const exposition: string = await shared.metricsText()
const runs: boolean = shared.isRunning()

const manager: TaskManager = new TaskManager()
const workerName: string = manager.spawnGenerationWorker()
const task: GenerationTask = manager.submit(model, 'prompt', { maxTokens: 5, signal: AbortSignal.timeout(5) })
manager.submit(lease, 'prompt', 5)
const answer: Generation = await task
const [one, two]: [Generation, string] = await Promise.all([task, task.then((result) => result.text)])
const promise: Promise<Generation> = task
const caught: Generation | null = await task.catch(() => null)
await task.finally(() => {})
const id: number | null = task.id
task.cancel()
manager.spawnMetricsCollector()
const collector: string = manager.spawnMetricsCollector({ intervalMs: 5, capacity: 5 })
const history: RuntimeMetrics[] = manager.metricsHistory()
manager.spawnWorker('mine', async ({ signal }) => signal.throwIfAborted())
manager.spawnWorker('quick', () => 5)
const states: Record<string, WorkerStatus> = manager.workerStatus()
const state: WorkerState | undefined = states['mine']?.state
const message: string | undefined = states['mine']?.message
await manager.stopAll()

const built: BackendInfo[] = backends()
const found: DeviceInfo[] = devices()
const kind: DeviceKind | undefined = found[0]?.kind
const memory: number = (found[0]?.memoryFree ?? 0) + (built[0]?.nDevices ?? 0)
const variant: string | undefined = built[0]?.variant

{
  await using scoped = await Model.load('model.gguf')
  await using running = scoped.generateStream('prompt')
  await using scopedPool = await ModelPool.create({ modelPath: 'model.gguf' }, 2)
  await using scopedLease = await scopedPool.acquire()
  await using scopedContext = await Context.create(scoped)
  await using scopedManager = new TaskManager()
}

try {
  await model.generate('prompt')
} catch (error) {
  if (error instanceof MullamaError) {
    const code: ErrorCode = error.code
    if (error.code === 'timeout') console.log(error.partial, error.afterMs, error.cause)
    // @ts-expect-error there is no such code
    if (error.code === 'timed_out') throw error
  }
}

// @ts-expect-error models are made by Model.load
new Model()
// @ts-expect-error streams are made by generateStream
new TokenStream()
// @ts-expect-error there is no such option
await model.generate('prompt', { max_tokens: 5 })
// @ts-expect-error there is no such option
await Model.load('model.gguf', { ctx: 5 })
// @ts-expect-error not a string
await model.generate(5)
// @ts-expect-error not a KV type
await Model.load('model.gguf', { kvTypeK: 'i32' })
// @ts-expect-error results are not written to
result.text = ''
// @ts-expect-error a token of a stream may have no logprob
const missing: number = (await stream.next()).value!.logprob
// @ts-expect-error leases are made by pool.acquire
new PooledModel()
// @ts-expect-error pools are made by ModelPool.create
new ModelPool()
// @ts-expect-error contexts are made by Context.create
new Context()
// @ts-expect-error the runtime is given by runtime()
new MullamaRuntime()
// @ts-expect-error tasks are made by manager.submit
new GenerationTask()
// @ts-expect-error a pool has a size
await ModelPool.create({ modelPath: 'model.gguf' })
// @ts-expect-error a pool has a model
await ModelPool.create({}, 4)
// @ts-expect-error leases are not loaded
await PooledModel.load('model.gguf')
// @ts-expect-error there is no such option
await pool.acquire({ timeout: 5 })
// @ts-expect-error not a list of batches
await context.processBatch(batch)
// @ts-expect-error sequences are a list
batch.add(5, 0, 0)
// @ts-expect-error the length is not written to
batch.length = 0
// @ts-expect-error there is no such option
configureRuntime({ threads: 5 })
// @ts-expect-error a worker is a function
manager.spawnWorker('mine', Promise.resolve())
