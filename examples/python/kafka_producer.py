"""An app that speaks Kafka tells its calls itself: no sidecar in between, no SDK.

Run:    python examples/python/kafka_producer.py
Prints:
    10 events are acknowledged
"""

import json
import os
import uuid
from datetime import datetime, timezone

from confluent_kafka import Producer

topic = os.environ.get("SPENDFUSE_TOPIC_PREFIX", "spendfuse.") + "usage"
producer = Producer(
    {
        "bootstrap.servers": os.environ.get("SPENDFUSE_KAFKA_BROKERS", "127.0.0.1:9092"),
        "enable.idempotence": True,  # a retry of the client's is written once
        "partitioner": "murmur2_random",  # by session, as everybody else does
    }
)
acknowledged = []


def delivered(error: object, message: object) -> None:
    if error is not None:
        raise SystemExit(f"not delivered: {error}")
    acknowledged.append(message)


for _ in range(10):
    event = {
        "specversion": "1.0",
        "type": "spendfuse.usage",
        "source": "orders-python",  # a name of its own for each app
        "id": f"chatcmpl-{uuid.uuid4().hex}",  # the provider's response id: the same again is counted once
        "time": datetime.now(timezone.utc).isoformat(),
        "data": {
            "workspace": os.environ.get("SPENDFUSE_WORKSPACE", "acme"),
            "customer": "c-python",
            "session": "order-7",
            "provider": "openai",
            "model": "gpt-4o",
            "usage": {"input_tokens": 1000, "output_tokens": 100},
        },
    }
    producer.produce(topic, json.dumps(event).encode(), key="order-7", on_delivery=delivered)

if left := producer.flush(30):
    raise SystemExit(f"no answer from Kafka: {left} events are not delivered")
print(len(acknowledged), "events are acknowledged")
