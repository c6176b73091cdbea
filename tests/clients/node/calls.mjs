// Lets a client be driven by lines of JSON (see remote.py), and be a member of a group (see groups.py).
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

export const WAIT_MS = 60_000
const CHUNK_BYTES = 500_000

/** The entry of a client's program; `calls` opens the client on a broker and gives a function for each request. */
export async function main(name, calls, member) {
  const [what, ...about] = process.argv.slice(2)
  if (what === 'version') {
    console.log(version(name))
  } else if (what === 'calls') {
    await serve(await calls(about[0]))
  } else if (what === 'member') {
    const [bootstrap, group, topic, assignor, instance] = about
    await member({ bootstrap, group, topic, assignor, instance, sessionTimeout: instance ? 30_000 : 10_000 })
  } else {
    throw new Error(`cannot be run with ${process.argv.slice(2)}`)
  }
  process.exit(0)
}

function version(name) {
  const require = createRequire(import.meta.url)
  const places = require.resolve.paths(name).map(place => `${place}/${name}/package.json`)
  for (const place of places) {
    try {
      return JSON.parse(readFileSync(place)).version
    } catch (error) {
      if (error.code !== 'ENOENT') throw error
    }
  }
  throw new Error(`${name} is in none of ${places}`)
}

async function serve(client) {
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const request = JSON.parse(line)
    let said
    try {
      said = { answer: await client[request.do](request) }
    } catch (error) {
      said = { error: words(error) }
    }
    process.stdout.write(JSON.stringify(said) + '\n')
  }
}

/** What an error says, and those that it stands for. */
export function words(error) {
  const inside = [...(error.errors ?? []), ...(error.cause ? [error.cause] : [])]
  return [error.type ?? error.code ?? error.name, error.message, ...inside.map(words)].join(': ')
}

export const decoded = text => (text === null ? null : Buffer.from(text, 'base64'))
export const encoded = bytes => (bytes === null || bytes === undefined ? null : Buffer.from(bytes).toString('base64'))

/** Records in groups that fit into a request and a batch. */
export function chunks(records) {
  const all = []
  let bytes = Infinity
  for (const record of records) {
    const size = record.value?.length ?? 0
    if (bytes + size > CHUNK_BYTES) {
      all.push([])
      bytes = 0
    }
    all.at(-1).push(record)
    bytes += size
  }
  return all
}

/** Each record's offset, out of the base offset of each partition's batch. */
export function offsetsOf(records, bases) {
  const next = new Map(bases)
  return records.map(({ partition }) => {
    const offset = next.get(partition)
    next.set(partition, offset + 1)
    return offset
  })
}

export async function until(done, what) {
  const deadline = Date.now() + WAIT_MS
  while (!done()) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what()}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

/** What a member has; it must leave when the standard input ends. */
export class Seat {
  leaving = false
  left
  #resolve

  constructor() {
    this.left = new Promise(resolve => (this.#resolve = resolve))
    process.stdin.resume()
    process.stdin.on('end', () => {
      this.leaving = true
      this.#resolve()
    })
  }

  has(partitions) {
    console.log(['ASSIGNED', ...partitions.toSorted((one, other) => one - other)].join(' '))
  }

  read(partition, offset, value) {
    console.log(`READ ${partition} ${offset} ${value}`)
  }
}
