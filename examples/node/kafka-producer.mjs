// An app that speaks Kafka tells its calls itself: no sidecar in between, no SDK.
//
// Run:    npm --prefix examples/node install && node examples/node/kafka-producer.mjs
// Prints:
//     10 events are acknowledged

import { randomUUID } from 'node:crypto';
import { Kafka, Partitioners, logLevel } from 'kafkajs';

const topic = `${process.env.SPENDFUSE_TOPIC_PREFIX ?? 'spendfuse.'}usage`;
const brokers = (process.env.SPENDFUSE_KAFKA_BROKERS ?? '127.0.0.1:9092').split(',');
const kafka = new Kafka({ clientId: 'orders-node', brokers, logLevel: logLevel.ERROR });
// By session with murmur2, as everybody else does; acknowledged by all replicas, retries written once.
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, idempotent: true });

const event = () => ({
  specversion: '1.0',
  type: 'spendfuse.usage',
  source: 'orders-node', // a name of its own for each app
  id: `chatcmpl-${randomUUID()}`, // the provider's response id: the same again is counted once
  time: new Date().toISOString(),
  data: {
    workspace: process.env.SPENDFUSE_WORKSPACE ?? 'acme',
    customer: 'c-node',
    session: 'order-8',
    provider: 'openai',
    model: 'gpt-4o',
    usage: { input_tokens: 1000, output_tokens: 100 },
  },
});

await producer.connect();
const messages = Array.from({ length: 10 }, () => ({ key: 'order-8', value: JSON.stringify(event()) }));
const written = await producer.send({ topic, messages, acks: -1 });
await producer.disconnect();
if (written.some((partition) => partition.errorCode !== 0)) throw new Error(JSON.stringify(written));
console.log(messages.length, 'events are acknowledged');
