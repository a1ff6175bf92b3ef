// The workloads of a Node host, for every system that one can call: what
// `host.py` is for Python. A system's module calls `main` with a function that
// loads it and gives { run(request, answer), close() }; `run` streams a greedy
// request of exactly that many tokens, and ends early on `request.signal`.

import { readFileSync } from 'node:fs'

const TOKENS = 64
const FEWER_TOKENS = 32
const TICK = 10

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

function percentile(values, share) {
  const ordered = [...values].sort((a, b) => a - b)
  return ordered[Math.max(0, Math.ceil(share * ordered.length) - 1)]
}

/** A request under way: when each of its tokens arrived, in milliseconds. */
export class Answer {
  submitted = performance.now()
  times = []
  arrived() {
    this.times.push(performance.now())
  }
  get first() {
    return this.times[0] - this.submitted
  }
}

/** Notes by how many milliseconds each tick of a timer comes late. */
function watchLag(lags) {
  let last = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    lags.push(Math.max(0, now - last - TICK))
    last = now
  }, TICK)
  return () => clearInterval(timer)
}

async function ask(host, prompt, tokens, signal) {
  const answer = new Answer()
  await host.run({ prompt, tokens, signal }, answer)
  return answer
}

async function together(host, prompts, tokens) {
  const start = performance.now()
  const answers = await Promise.all(prompts.map((prompt) => ask(host, prompt, tokens)))
  return { seconds: (performance.now() - start) / 1e3, answers }
}

async function single(host, texts, times) {
  const speeds = []
  for (const prompt of texts.short.slice(0, times)) {
    const { seconds } = await together(host, [prompt], TOKENS)
    speeds.push(TOKENS / seconds)
  }
  return { tokens_per_second: percentile(speeds, 0.5) }
}

async function atOnce(host, texts, count, tokens) {
  const lags = []
  const stop = watchLag(lags)
  const { seconds, answers } = await together(host, texts.short.slice(count, 2 * count), tokens)
  stop()
  return {
    tokens_per_second: (count * tokens) / seconds,
    slowest_first_ms: Math.max(...answers.map((answer) => answer.first)),
    lag_p99_ms: percentile(lags, 0.99),
    lag_max_ms: Math.max(...lags),
  }
}

async function gap(host, texts) {
  const [behind, before, beside, after] = texts.long
  const prefill = ask(host, behind, 4)
  await sleep(300)
  const tiny = await ask(host, texts.tiny, 4)
  await prefill

  const alone = [(await ask(host, before, 4)).first]
  const running = new Answer()
  const end = new AbortController()
  const request = { prompt: texts.short[0], tokens: 1000, signal: end.signal }
  const stream = host.run(request, running).catch(() => {})
  while (running.times.length < 16) await sleep(5)
  const neighbour = await ask(host, beside, 4)
  end.abort()
  await stream
  alone.push((await ask(host, after, 4)).first)

  const until = neighbour.times.at(-1)
  const times = running.times.filter((at) => at >= neighbour.submitted - 100 && at <= until)
  times.push(neighbour.times[0])
  const mean = (alone[0] + alone[1]) / 2
  return {
    longest_gap_ms: Math.max(...times.slice(1).map((at, n) => at - times[n])),
    prefill_beside_ms: neighbour.first,
    prefill_alone_ms: mean,
    prefill_ratio: neighbour.first / mean,
    tiny_first_ms: tiny.first,
  }
}

/** Milliseconds until this process stops computing: see `until_idle` in host.py. */
async function untilIdle() {
  const cpu = () => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1e3
  }
  const start = performance.now()
  const samples = [[start, cpu()]]
  for (;;) {
    await sleep(2)
    const now = [performance.now(), cpu()]
    samples.push(now)
    const earlier = samples.findLast(([at]) => now[0] - at >= 50)
    if (earlier && now[1] - earlier[1] < 0.2 * (now[0] - earlier[0])) return earlier[0] - start
    if (now[0] - start > 60_000) throw new Error('still computing a minute after the cancellation')
  }
}

async function cancel(host, texts, times) {
  const idle = []
  for (let n = 0; n < times; n++) {
    const end = new AbortController()
    const request = { prompt: texts.longer[n % texts.longer.length], tokens: 8, signal: end.signal }
    const asked = host.run(request, new Answer()).catch(() => {})
    await sleep(200 + 37 * n)
    end.abort()
    idle.push(await untilIdle())
    await asked
  }
  return { idle_ms: idle }
}

export async function main(load) {
  const job = JSON.parse(readFileSync(process.argv[2], 'utf8'))
  const texts = JSON.parse(readFileSync(job.texts, 'utf8'))
  const say = (workload, result) => console.log(JSON.stringify({ workload, ...result }))
  const start = performance.now()
  const host = await load(job)
  const seconds = (performance.now() - start) / 1e3
  if (job.workloads.includes('load')) {
    say('load', { seconds, resident_mib: process.memoryUsage.rss() / 2 ** 20 })
  } else {
    await ask(host, 'warm up', 8)
  }
  for (const workload of job.workloads) {
    const [name, count] = workload.split('-')
    // Beside a busy core some systems are too slow for more.
    const tokens = name === 'at_once' && count <= 16 ? TOKENS : FEWER_TOKENS
    if (name === 'single' || name === 'plain') say(workload, await single(host, texts, 3))
    else if (name === 'busy_single') say(workload, await single(host, texts, 1))
    else if (name === 'at_once' || name === 'busy') say(workload, await atOnce(host, texts, Number(count), tokens))
    else if (name === 'gap') say(workload, await gap(host, texts))
    else if (name === 'cancel') say(workload, await cancel(host, texts, Number(count)))
    else if (name !== 'load') throw new Error(`there is no workload '${workload}'`)
  }
  await host.close()
}
