// An app that speaks Kafka tells its calls itself: no sidecar in between, no SDK.
//
// Run:    cd examples/go && go run .
// Prints:
//
//	10 events are acknowledged
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	brokers := strings.Split(setting("SPENDFUSE_KAFKA_BROKERS", "127.0.0.1:9092"), ",")
	topic := setting("SPENDFUSE_TOPIC_PREFIX", "spendfuse.") + "usage"
	// Its defaults are right: idempotent, all replicas, and murmur2 of the key, as everybody else does.
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for range 10 {
		event, _ := json.Marshal(map[string]any{
			"specversion": "1.0",
			"type":        "spendfuse.usage",
			"source":      "orders-go",               // a name of its own for each app
			"id":          "chatcmpl-" + rand.Text(), // the provider's response id: the same again is counted once
			"time":        time.Now().UTC().Format(time.RFC3339Nano),
			"data": map[string]any{
				"workspace": setting("SPENDFUSE_WORKSPACE", "acme"), "customer": "c-go", "session": "order-9",
				"provider": "openai", "model": "gpt-4o",
				"usage": map[string]int{"input_tokens": 1000, "output_tokens": 100},
			},
		})
		record := &kgo.Record{Topic: topic, Key: []byte("order-9"), Value: event}
		if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(10, "events are acknowledged")
}
