//! `POST /v1/estimate`: tokens and cost of a call that is not made yet.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{assert_conforms, bench, config};

async fn estimated(question: &Value) -> Value {
    let answer = bench(config(), None)
        .post("/v1/estimate", question.to_string())
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    assert_conforms("estimate-response", &answer.json);
    answer.json
}

#[tokio::test]
async fn a_text_has_no_more_tokens_than_bytes_and_costs_no_more() {
    let text = json!({"model": "gpt-4o-mini", "text": "zwölf", "max_output_tokens": 500});
    let expected = json!({
        "input_tokens": 6, "counted": "bound", "output_tokens": 500, "cost_usd": "0.0003009",
        "priced": "book",
    });
    assert_eq!(estimated(&text).await, expected);
    let counted = json!({"model": "gpt-4o-mini", "input_tokens": 1000});
    let expected = json!({
        "input_tokens": 1000, "counted": "exact", "output_tokens": 4096, "cost_usd": "0.0026076",
        "priced": "book",
    });
    assert_eq!(estimated(&counted).await, expected);
    let nobodys = json!({"model": "nobody-s-model", "input_tokens": 1, "max_output_tokens": 1});
    assert_eq!(estimated(&nobodys).await["priced"], "ceiling");
}

#[tokio::test]
async fn a_request_says_itself_how_long_its_answer_can_be() {
    for (limits, output_tokens) in [
        (json!({"max_tokens": 7}), 7),
        (
            json!({"max_completion_tokens": 7, "max_tokens": 9, "n": 3}),
            21,
        ),
        (json!({"max_output_tokens": 7, "input": "x"}), 7),
        (json!({"generationConfig": {"maxOutputTokens": 7}}), 7),
        (
            json!({"generation_config": {"max_output_tokens": 7, "candidate_count": 4}}),
            28,
        ),
        (
            json!({"prompt": "x", "max_tokens": 5, "n": 2, "best_of": 3}),
            15,
        ),
        (json!({"max_tokens": 5, "best_of": null}), 5),
        (json!({"inferenceConfig": {"maxTokens": 7}}), 7),
        (json!({"n": null}), 4096),
    ] {
        let mut request = limits;
        request["messages"] = json!([{"role": "user", "content": "hello"}]);
        let length = request.to_string().len();
        let answer = estimated(&json!({"model": "gpt-4o", "request": request})).await;
        assert_eq!(answer["output_tokens"], output_tokens, "{request}");
        assert_eq!(
            (&answer["input_tokens"], &answer["counted"]),
            (&json!(length), &json!("bound"))
        );
    }
}

#[tokio::test]
async fn what_cannot_be_estimated_is_refused() {
    let bench = bench(config(), None);
    let deep = format!(
        "{{\"model\": \"m\", \"request\": {}1{}}}",
        "[".repeat(9_000),
        "]".repeat(9_000)
    );
    for wrong in [
        String::new(),
        "{}".to_owned(),
        deep,
        json!({"model": "", "text": "x"}).to_string(),
        json!({"model": "gpt-4o"}).to_string(),
        json!({"model": "gpt-4o", "text": "x", "input_tokens": 1}).to_string(),
        json!({"model": "gpt-4o", "text": 7}).to_string(),
        json!({"model": "gpt-4o", "input_tokens": -1}).to_string(),
        json!({"model": "gpt-4o", "input_tokens": 1_000_000_001}).to_string(),
        json!({"model": "gpt-4o", "request": {"max_tokens": 5, "n": u64::MAX}}).to_string(),
        json!({"model": "gpt-4o", "request": "text"}).to_string(),
    ] {
        let answer = bench.post("/v1/estimate", wrong.clone()).await;
        let start: String = wrong.chars().take(80).collect();
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{start}: {}",
            answer.json
        );
        assert_conforms("error", &answer.json);
    }
    let long = json!({"model": "gpt-4o", "text": "a".repeat(1_000_000), "max_output_tokens": 1});
    assert_eq!(estimated(&long).await["input_tokens"], 1_000_000);
    let nothing_said = json!({"model": "gpt-4o", "text": "x", "provider": null, "account": null});
    assert_eq!(estimated(&nothing_said).await["input_tokens"], 1);
    let longer = json!({"model": "gpt-4o", "text": "a".repeat(1_100_000)}).to_string();
    let answer = bench.post("/v1/estimate", longer).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}
