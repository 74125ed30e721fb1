#!/usr/bin/env bash
# Endless sample events, two a second, as NDJSON: profile `demo` of docker-compose.yml.
set -euo pipefail

customers=(c-1 c-2 c-3 c-4)
features=(chat search agent)
models=(gpt-4o gpt-4o-mini claude-sonnet-4-20250514)
run=$(date +%s)

for ((number = 0; ; number++)); do
  printf '{"specversion":"1.0","type":"spendfuse.usage","source":"sample-traffic","id":"%s-%d","time":"%s","data":{"workspace":"acme","customer":"%s","feature":"%s","session":"s-%s-%d","model":"%s","usage":{"input_tokens":%d,"output_tokens":%d}}}\n' \
    "$run" "$number" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
    "${customers[number % ${#customers[@]}]}" "${features[number % ${#features[@]}]}" \
    "$run" $((number / 10)) "${models[RANDOM % ${#models[@]}]}" \
    $((500 + RANDOM % 4000)) $((50 + RANDOM % 800))
  sleep 0.5
done
