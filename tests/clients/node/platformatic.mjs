// @platformatic/kafka against one broker: see remote.py and groups.py.
import {
  Admin,
  ConfigResourceTypes,
  Consumer,
  findErrorBy,
  IncrementalAlterConfigOperationTypes,
  ListOffsetTimestamps,
  MessagesStreamFallbackModes,
  MessagesStreamModes,
  Producer
} from '@platformatic/kafka'
import { randomUUID } from 'node:crypto'
import { chunks, decoded, encoded, main, offsetsOf, Seat } from './calls.mjs'

const base = bootstrap => ({ clientId: 'ottla-tests', bootstrapBrokers: [bootstrap] })
const LOOK_MS = 10
const undefinedIfNone = text => decoded(text) ?? undefined

async function listOffset(admin, topic, partition, timestamp) {
  const [found] = await admin.listOffsets({
    topics: [{ name: topic, partitions: [{ partitionIndex: partition, timestamp: BigInt(timestamp) }] }]
  })
  return Number(found.partitions[0].offset)
}

/** Reads from an offset on, as the one member of a group that commits nothing. */
async function read(bootstrap, { topic, partition, start, count }) {
  const consumer = new Consumer({ ...base(bootstrap), groupId: `${topic}-${randomUUID()}`, maxWaitTime: 50 })
  const stream = await consumer.consume({
    topics: [topic],
    mode: MessagesStreamModes.MANUAL,
    offsets: [{ topic, partition, offset: BigInt(start) }],
    autocommit: false
  })
  const got = []
  for await (const message of stream) {
    if (message.partition === partition) got.push(message)
    if (got.length === count) break
  }
  await consumer.close(true)
  return got.map(({ offset, key, value, headerEntries, timestamp }) => ({
    partition,
    offset: Number(offset),
    key: encoded(key),
    value: encoded(value),
    headers: headerEntries.map(([name, content]) => ({ key: name.toString(), value: encoded(content) })),
    timestamp: Number(timestamp)
  }))
}

async function calls(bootstrap) {
  const admin = new Admin(base(bootstrap))
  const resource = topic => ({ resourceType: ConfigResourceTypes.TOPIC, resourceName: topic })

  return {
    async create({ topic, partitions, configs }) {
      const named = Object.entries(configs).map(([name, value]) => ({ name, value }))
      await admin.createTopics({ topics: [topic], partitions, replicas: -1, configs: named })
    },
    async produce({ topic, records, codec, idempotent }) {
      const producer = new Producer({ ...base(bootstrap), idempotent })
      const offsets = []
      for (const chunk of chunks(records)) {
        const messages = chunk.map(({ partition, key, value, headers, timestamp }) => ({
          topic,
          partition,
          key: undefinedIfNone(key),
          value: undefinedIfNone(value),
          headers: new Map(headers.map(header => [Buffer.from(header.key), decoded(header.value)])),
          timestamp: BigInt(timestamp)
        }))
        const { offsets: bases } = await producer.send({ messages, acks: -1, compression: codec })
        offsets.push(...offsetsOf(chunk, bases.map(({ partition, offset }) => [partition, Number(offset)])))
      }
      await producer.close()
      return offsets
    },
    read: about => read(bootstrap, about),
    time: ({ topic, partition, timestamp }) => listOffset(admin, topic, partition, timestamp),
    bounds: async ({ topic, partition }) => [
      await listOffset(admin, topic, partition, ListOffsetTimestamps.EARLIEST),
      await listOffset(admin, topic, partition, ListOffsetTimestamps.LATEST)
    ],
    async 'too large'({ topic, size }) {
      const producer = new Producer({ ...base(bootstrap), retries: 0 })
      try {
        await producer.send({ messages: [{ topic, value: Buffer.alloc(size) }], acks: -1 })
        return false
      } catch (error) {
        if (!findErrorBy(error, 'apiId', 'MESSAGE_TOO_LARGE')) throw error
        return true
      } finally {
        await producer.close()
      }
    },
    grow: ({ topic, partitions }) => admin.createPartitions({ topics: [{ name: topic, count: partitions }] }),
    async partitions({ topic }) {
      return (await admin.metadata({ topics: [topic], forceUpdate: true })).topics.get(topic).partitionsCount
    },
    alter: ({ topic, name, value }) =>
      admin.incrementalAlterConfigs({
        resources: [
          { ...resource(topic), configs: [{ name, value, configOperation: IncrementalAlterConfigOperationTypes.SET }] }
        ]
      }),
    async config({ topic, name }) {
      const [{ configs }] = await admin.describeConfigs({ resources: [resource(topic)] })
      return configs.find(config => config.name === name).value
    },
    'delete records': async ({ topic, partition, before }) => {
      await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition, offset: BigInt(before) }] }] })
    },
    brokers: async () => (await admin.metadata({ topics: [] })).brokers.size,
    delete: ({ topic }) => admin.deleteTopics({ topics: [topic] }),
    topics: () => admin.listTopics(),
    groups: async () => [...(await admin.listGroups()).keys()],
    async describe({ group }) {
      const { state, members } = (await admin.describeGroups({ groups: [group] })).get(group)
      return [state, members.size]
    },
    async committed({ group, topic, partition }) {
      const [{ topics }] = await admin.listConsumerGroupOffsets({ groups: [group] })
      const { partitions } = topics.find(found => found.name === topic)
      return Number(partitions.find(found => found.partitionIndex === partition).committedOffset)
    },
    'delete group': ({ group }) => admin.deleteGroups({ groups: [group] })
  }
}

async function member({ bootstrap, group, topic, assignor, instance, sessionTimeout }) {
  const seat = new Seat()
  const classic = {
    protocols: [{ name: assignor, version: assignor === 'cooperative-sticky' ? 3 : 1 }],
    sessionTimeout,
    heartbeatInterval: 500
  }
  const consumer = new Consumer({
    ...base(bootstrap),
    groupId: group,
    ...(instance ? { groupInstanceId: instance } : {}),
    ...(assignor === 'consumer' ? { groupProtocol: 'consumer' } : classic),
    maxWaitTime: 50
  })
  let mine = []
  const next = new Map()
  const look = joined => {
    const now = (consumer.assignments ?? []).flatMap(given => (given.topic === topic ? given.partitions : []))
    if (!joined && String(now) === String(mine)) return
    mine = now
    for (const partition of next.keys()) if (!mine.includes(partition)) next.delete(partition)
    seat.has(mine)
  }
  consumer.on('consumer:group:join', () => look(true))
  // The consumer protocol's assignments come without an event.
  if (assignor === 'consumer') setInterval(look, LOOK_MS, false)
  const stream = await consumer.consume({
    topics: [topic],
    mode: MessagesStreamModes.COMMITTED,
    fallbackMode: MessagesStreamFallbackModes.EARLIEST,
    autocommit: false
  })
  seat.left.then(() => stream.close())
  for await (const message of stream) {
    look(false)
    // After a rebalance the stream still holds what was fetched before, and fetches it again.
    const stale = !mine.includes(message.partition) || message.offset < (next.get(message.partition) ?? 0n)
    if (seat.leaving || stale) continue
    seat.read(message.partition, message.offset, message.value)
    next.set(message.partition, message.offset + 1n)
    await message.commit()
  }
  await consumer.close(true)
}

await main('@platformatic/kafka', calls, member)
