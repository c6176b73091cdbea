// kafkajs against one broker: see remote.py and groups.py.
import { lz4Compress, lz4Decompress, snappyCompress, snappyDecompress } from '@platformatic/wasm-utils'
import kafkajs from 'kafkajs'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { chunks, decoded, encoded, main, offsetsOf, Seat, until } from './calls.mjs'

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs
const CODECS = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' }
const named = (codec, compress, decompress) => {
  CompressionCodecs[codec] = () => ({
    compress: async encoder => compress(encoder.buffer),
    decompress: async buffer => decompress(buffer)
  })
}
// kafkajs brings gzip only.
named(CompressionTypes.Snappy, snappyCompress, snappyDecompress)
named(CompressionTypes.LZ4, lz4Compress, lz4Decompress)
named(CompressionTypes.ZSTD, zstdCompressSync, zstdDecompressSync)
process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'

const connect = bootstrap => new Kafka({ clientId: 'ottla-tests', brokers: [bootstrap], logLevel: logLevel.NOTHING })

/** Reads by seeking: kafkajs has members of groups only, so each topic has a group of its own that commits nothing. */
class Reader {
  #wanted = new Map()

  static async open(kafka, topic) {
    const reader = new Reader()
    reader.topic = topic
    reader.consumer = kafka.consumer({ groupId: `${topic}-by-seeking`, maxWaitTimeInMs: 50 })
    await reader.consumer.connect()
    await reader.consumer.subscribe({ topic, fromBeginning: true })
    const joined = new Promise(resolve => reader.consumer.on(reader.consumer.events.GROUP_JOIN, resolve))
    await reader.consumer.run({ autoCommit: false, eachBatch: async payload => reader.take(payload.batch) })
    await joined
    return reader
  }

  take({ partition, messages }) {
    const wanted = this.#wanted.get(partition)
    for (const message of messages) {
      if (wanted && Number(message.offset) === wanted.start + wanted.got.length) wanted.got.push(message)
    }
  }

  async read(partition, start, count) {
    const wanted = { start, got: [] }
    this.#wanted.set(partition, wanted)
    this.consumer.seek({ topic: this.topic, partition, offset: String(start) })
    await until(() => wanted.got.length >= count, () => `${wanted.got.length} of ${count} records`)
    this.#wanted.delete(partition)
    return wanted.got.slice(0, count)
  }
}

function headersOf(headers) {
  const given = {}
  for (const { key, value } of headers) (given[key] ??= []).push(decoded(value))
  return given
}

function listed(headers) {
  return Object.entries(headers ?? {}).flatMap(([key, values]) =>
    [values].flat().map(value => ({ key, value: encoded(value) }))
  )
}

async function calls(bootstrap) {
  const kafka = connect(bootstrap)
  const admin = kafka.admin()
  await admin.connect()
  const readers = new Map()
  const resources = topic => [{ type: ConfigResourceTypes.TOPIC, name: topic }]
  const ends = async (topic, partition) =>
    (await admin.fetchTopicOffsets(topic)).find(found => found.partition === partition)
  const described = async topic => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0]

  return {
    async create({ topic, partitions, configs }) {
      const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
      const about = { topic, numPartitions: partitions, replicationFactor: -1, configEntries }
      const created = await admin.createTopics({ topics: [about], waitForLeaders: false })
      if (!created) throw new Error('the topic exists')
    },
    async produce({ topic, records, codec, idempotent }) {
      const producer = kafka.producer({ idempotent })
      await producer.connect()
      const offsets = []
      for (const chunk of chunks(records)) {
        const messages = chunk.map(({ partition, key, value, headers, timestamp }) => ({
          partition,
          key: decoded(key),
          value: decoded(value),
          headers: headersOf(headers),
          timestamp: String(timestamp)
        }))
        const acked = await producer.send({ topic, messages, acks: -1, compression: CompressionTypes[CODECS[codec]] })
        offsets.push(...offsetsOf(chunk, acked.map(({ partition, baseOffset }) => [partition, Number(baseOffset)])))
      }
      await producer.disconnect()
      return offsets
    },
    async read({ topic, partition, start, count }) {
      if (!readers.has(topic)) readers.set(topic, await Reader.open(kafka, topic))
      const messages = await readers.get(topic).read(partition, start, count)
      return messages.map(({ offset, key, value, headers, timestamp }) => ({
        partition,
        offset: Number(offset),
        key: encoded(key),
        value: encoded(value),
        headers: listed(headers),
        timestamp: Number(timestamp)
      }))
    },
    async time({ topic, partition, timestamp }) {
      const found = (await admin.fetchTopicOffsetsByTimestamp(topic, timestamp)).find(at => at.partition === partition)
      // For a time behind the last record kafkajs gives the end.
      return found.offset === (await ends(topic, partition)).high ? -1 : Number(found.offset)
    },
    async bounds({ topic, partition }) {
      const { low, high } = await ends(topic, partition)
      return [Number(low), Number(high)]
    },
    async 'too large'({ topic, size }) {
      const producer = kafka.producer({ retry: { retries: 0 } })
      await producer.connect()
      try {
        await producer.send({ topic, messages: [{ value: Buffer.alloc(size) }] })
        return false
      } catch (error) {
        if (error.type !== 'MESSAGE_TOO_LARGE') throw error
        return true
      } finally {
        await producer.disconnect()
      }
    },
    grow: ({ topic, partitions }) => admin.createPartitions({ topicPartitions: [{ topic, count: partitions }] }),
    partitions: async ({ topic }) => (await described(topic)).partitions.length,
    alter: ({ topic, name, value }) =>
      admin.alterConfigs({ resources: [{ ...resources(topic)[0], configEntries: [{ name, value }] }] }),
    async config({ topic, name }) {
      const { resources: found } = await admin.describeConfigs({ resources: resources(topic) })
      return found[0].configEntries.find(entry => entry.configName === name).configValue
    },
    async 'delete records'({ topic, partition, before }) {
      // It finds the leader only of a topic that this client has looked at before.
      await admin.fetchTopicOffsets(topic)
      await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(before) }] })
    },
    brokers: async () => (await admin.describeCluster()).brokers.length,
    delete: ({ topic }) => admin.deleteTopics({ topics: [topic] }),
    topics: () => admin.listTopics(),
    groups: async () => (await admin.listGroups()).groups.map(group => group.groupId),
    async describe({ group }) {
      const { state, members } = (await admin.describeGroups([group])).groups[0]
      return [state, members.length]
    },
    async committed({ group, topic, partition }) {
      const [{ partitions }] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
      return Number(partitions.find(found => found.partition === partition).offset)
    },
    'delete group': ({ group }) => admin.deleteGroups([group])
  }
}

async function member({ bootstrap, group, topic, sessionTimeout }) {
  const seat = new Seat()
  const times = { sessionTimeout, heartbeatInterval: 500, maxWaitTimeInMs: 50 }
  const consumer = connect(bootstrap).consumer({ groupId: group, ...times })
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => seat.has(payload.memberAssignment[topic] ?? []))
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    console.error(payload.error)
    process.exit(1)
  })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      if (seat.leaving) throw new Error('it leaves')
      seat.read(partition, message.offset, message.value)
      await consumer.commitOffsets([{ topic, partition, offset: String(BigInt(message.offset) + 1n) }])
    }
  })
  await seat.left
  await consumer.disconnect()
}

await main('kafkajs', calls, member)
