// Compiled, never run: what users write must type-check, and the lines marked
// as errors must not.

import { Model, MullamaError, TokenStream } from 'mullama'
import type { ErrorCode, FinishReason, Generation, Histogram, LoadOptions, ModelInfo, Token, TokenLogprob } from 'mullama'

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
  useMmap: true,
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
await model.close()

{
  await using scoped = await Model.load('model.gguf')
  await using running = scoped.generateStream('prompt')
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
