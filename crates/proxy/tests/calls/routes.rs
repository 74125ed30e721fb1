//! Azure, Bedrock, images and audio: where their usage stands, and what a refusal looks like.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use spendfuse_domain::event::{Body, decode};
use spendfuse_domain::{Nanos, UnixMillis};
use spendfuse_pricing::{PriceBook, Pricer, PricingPolicy};

use crate::completion;
use crate::support::{Answer, Bench, bench, text};

/// The data of the only event so far, or of the last of `count`.
async fn told(bench: &Bench, count: usize) -> Value {
    bench.events(count).await[count - 1]["data"].clone()
}

#[tokio::test]
async fn azures_deployment_is_asked_for_and_its_model_is_charged() {
    let bench = bench().await;
    bench.will_answer(Answer::json(200, &completion()));
    let path =
        "/azure/my-resource/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21";
    let headers = [("api-key", "of-azure")];
    let response = bench.post(path, &headers, r#"{"messages":[]}"#).await;
    assert_eq!(response.status(), 200);
    let asked = &bench.asked()[0];
    let wanted =
        "/at-my-resource/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21";
    assert_eq!(asked.path, wanted);
    assert_eq!(asked.headers["api-key"], "of-azure");
    let data = told(&bench, 1).await;
    assert_eq!(
        (&data["request_model"], &data["model"]),
        (&json!("my-gpt"), &json!("gpt-4o-2024-08-06"))
    );
    for path in [
        "/azure/evil.example/openai/v1/chat/completions",
        "/azure/",
        "/bedrock/s3/model/m/converse",
    ] {
        let response = bench.post(path, &[], r#"{"model":"m"}"#).await;
        assert_eq!(response.status(), 400, "{path}");
    }
}

fn frame(payload: &Value) -> Vec<u8> {
    let payload = payload.to_string().into_bytes();
    let length = u32::try_from(payload.len() + 16).unwrap();
    let head = [length.to_be_bytes(), [0; 4], [1, 2, 3, 4]].concat();
    [head, payload, vec![5, 6, 7, 8]].concat()
}

#[tokio::test]
async fn bedrock_is_read_whole_streamed_and_by_its_headers() {
    let bench = bench().await;
    let usage = json!({"inputTokens": 1000, "outputTokens": 100, "totalTokens": 1100});
    let output = json!({"message": {"role": "assistant", "content": [{"text": "Hi"}]}});
    let mut whole = Answer::json(200, &json!({"output": output, "usage": usage}));
    whole.headers.push(("x-amzn-requestid", "req-1".to_owned()));
    bench.will_answer(whole);
    let model = "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0";
    let headers = [("authorization", "Bearer bedrock-key")];
    let path = |end: &str| format!("/bedrock/us-east-1/model/{model}/{end}");
    let response = bench
        .post(&path("converse"), &headers, r#"{"messages":[]}"#)
        .await;
    // A profile of a region costs a tenth more.
    assert_eq!(response.headers()["x-spendfuse-cost-usd"], "0.00495");
    assert_eq!(
        bench.asked()[0].path,
        format!("/at-us-east-1/model/{model}/converse")
    );
    let data = told(&bench, 1).await;
    assert_eq!(
        data["model"],
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    );
    assert_eq!(
        (&data["usage"], &data["region"]),
        (&usage, &json!("us-east-1"))
    );
    assert_eq!(data["usage_format"], "bedrock.converse");

    let frames = [
        frame(&json!({"contentBlockIndex": 0, "delta": {"text": "Hi"}})),
        frame(
            &json!({"metrics": {"latencyMs": 7}, "usage": usage, "serviceTier": {"type": "flex"}}),
        ),
    ]
    .concat();
    let kind = "application/vnd.amazon.eventstream";
    bench.will_answer(Answer::whole(200, kind, frames.clone()));
    let response = bench
        .post(&path("converse-stream"), &headers, r#"{"messages":[]}"#)
        .await;
    use http_body_util::BodyExt as _;
    let seen = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(seen, frames);
    let data = told(&bench, 2).await;
    assert_eq!(
        (&data["usage"], &data["service_tier"]),
        (&usage, &json!("flex"))
    );

    let mut invoked = Answer::json(200, &json!({"generation": "Hi"}));
    for (name, count) in [("input", "7"), ("output", "9")] {
        let name: &'static str = match name {
            "input" => "x-amzn-bedrock-input-token-count",
            _ => "x-amzn-bedrock-output-token-count",
        };
        invoked.headers.push((name, count.to_owned()));
    }
    bench.will_answer(invoked);
    bench
        .post(&path("invoke"), &headers, r#"{"prompt":"x"}"#)
        .await;
    let data = told(&bench, 3).await;
    assert_eq!(data["usage"], json!({"inputTokens": 7, "outputTokens": 9}));

    let usage = json!({"input_tokens": 7, "output_tokens": 9});
    let claude = json!({"id": "msg_1", "type": "message", "model": "claude-haiku-4-5-20251001",
        "content": [], "usage": usage});
    bench.will_answer(Answer::json(200, &claude));
    bench
        .post(&path("invoke"), &headers, r#"{"messages":[]}"#)
        .await;
    let data = told(&bench, 4).await;
    assert_eq!(data["usage"], usage);
    assert_eq!(data["model"], data["request_model"]);
}

#[tokio::test]
async fn a_bedrock_client_gets_errors_that_it_does_not_ask_again_for() {
    let mut bench = bench().await;
    bench.budget("0.00", &json!([{"at": 100, "do": "block"}]));
    let path = "/bedrock/us-east-1/model/m/converse";
    let customer = [("x-spendfuse-customer", "c-42")];
    let signed = [("authorization", "AWS4-HMAC-SHA256 Credential=x")];
    for (headers, wanted) in [(&customer, "budget"), (&signed, "AWS_BEARER_TOKEN_BEDROCK")] {
        let response = bench.post(path, headers, r#"{"messages":[]}"#).await;
        assert_eq!(response.status(), 403);
        assert_eq!(
            response.headers()["x-amzn-errortype"],
            "AccessDeniedException"
        );
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        assert!(body["message"].as_str().unwrap().contains(wanted), "{body}");
    }
    assert!(bench.asked().is_empty());
}

#[tokio::test]
async fn images_are_charged_by_their_usage_or_by_the_piece() {
    let bench = bench().await;
    let path = "/openai/v1/images/generations";
    let usage = json!({"input_tokens": 10, "output_tokens": 1056, "total_tokens": 1066,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 0}});
    bench.will_answer(Answer::json(
        200,
        &json!({"data": [{"b64_json": "x"}], "usage": usage}),
    ));
    bench
        .post(path, &[], r#"{"model":"gpt-image-1","prompt":"x"}"#)
        .await;
    let data = told(&bench, 1).await;
    assert_eq!((&data["usage"], &data["units"]), (&usage, &Value::Null));
    bench.will_answer(Answer::json(
        200,
        &json!({"data": [{"url": "x"}, {"url": "y"}]}),
    ));
    let body = r#"{"model":"dall-e-3","prompt":"x","n":2,"size":"1024x1024","quality":"hd"}"#;
    let response = bench.post(path, &[], body).await;
    let cost = response.headers()["x-spendfuse-cost-usd"].to_str().unwrap();
    assert!(cost.starts_with("0.1"), "{cost}");
    let data = told(&bench, 2).await;
    let wanted = json!({"images": "2", "size": "1024x1024", "quality": "hd"});
    assert_eq!(data["units"], wanted);
}

/// What an event is charged.
fn cost(event: &Value) -> Nanos {
    let event = event.to_string();
    let event = decode(event.as_bytes(), &[], UnixMillis(i64::MAX)).unwrap();
    let Body::Usage(call) = &event.body else {
        panic!("a call is told as usage");
    };
    let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(PricingPolicy::default()));
    let who = &event.attribution;
    let priced = pricer.price(&who.provider, "", call, &who.model, event.time);
    priced.unwrap().parts.total()
}

#[tokio::test]
async fn images_of_an_answer_that_is_not_read_are_charged_as_they_were_asked_for() {
    let bench = bench().await;
    let path = "/openai/v1/images/generations";
    let long = json!({"data": [{"b64_json": "x".repeat(1024 * 1024)}], "usage": null});
    bench.will_answer(Answer::json(200, &long));
    let body =
        r#"{"model":"gpt-image-1","prompt":"x","n":2,"size":"1024x1024","quality":"medium"}"#;
    let response = bench.post(path, &[], body).await;
    assert_eq!(text(response).await, long.to_string());
    let told = &bench.events(1).await[0];
    let data = &told["data"];
    assert_eq!(data["usage_format"], "estimated");
    let wanted = json!({"output_tokens": 2112, "image_output_tokens": 2112});
    assert_eq!(data["usage"], wanted);
    let wanted = json!({"images": "2", "quality": "medium", "size": "1024x1024"});
    assert_eq!(data["units"], wanted);
    assert_eq!(cost(told).to_string(), "0.08448");

    let form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nMODEL\r\n\
        --b\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n3\r\n--b--\r\n";
    let kind = [("content-type", "multipart/form-data; boundary=b")];
    for (count, model) in [(2, "gpt-image-2"), (3, "dall-e-2")] {
        let (mut answer, send) = Answer::pieces(200, "application/json");
        answer.headers.push(("content-length", "100000".to_owned()));
        bench.will_answer(answer);
        send.send(Bytes::from_static(b"{\"data\": [")).unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop(send);
        });
        let body = form.replace("MODEL", model);
        let response = bench.post("/openai/v1/images/edits", &kind, body).await;
        assert_eq!(response.status(), 502);
        let told = &bench.events(count).await[count - 1];
        assert_eq!(told["data"]["usage_format"], "estimated");
        assert_eq!(told["data"]["units"], json!({"images": "3"}));
        assert!(cost(told) > Nanos::ZERO, "{told}");
    }
}

#[tokio::test]
async fn audio_is_charged_by_what_is_told_of_it() {
    let bench = bench().await;
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
         --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\n{}\r\n--b--\r\n",
        "x".repeat(48_000)
    );
    let kind = [("content-type", "multipart/form-data; boundary=b")];
    let path = "/openai/v1/audio/transcriptions";
    let usage = json!({"type": "duration", "seconds": 60});
    bench.will_answer(Answer::json(200, &json!({"text": "Hi", "usage": usage})));
    let response = bench.post(path, &kind, form.clone()).await;
    assert_eq!(response.headers()["x-spendfuse-cost-usd"], "0.006");
    assert_eq!(bench.asked()[0].body, form);
    assert_eq!(told(&bench, 1).await["usage"], usage);
    bench.will_answer(Answer::whole(200, "text/plain", b"Hi\n".to_vec()));
    assert_eq!(text(bench.post(path, &kind, form).await).await, "Hi\n");
    let data = told(&bench, 2).await;
    assert_eq!(
        (&data["usage_format"], &data["units"]),
        (&json!("estimated"), &json!({"audio_seconds": "3"}))
    );

    bench.will_answer(Answer::whole(200, "audio/mpeg", b"\0\n\n\0".to_vec()));
    let body = r#"{"model":"tts-1","voice":"alloy","input":"häl"}"#;
    assert_eq!(
        text(bench.post("/openai/v1/audio/speech", &[], body).await).await,
        "\0\n\n\0"
    );
    let data = told(&bench, 3).await;
    assert_eq!(
        (&data["usage_format"], &data["units"]),
        (&json!("spendfuse"), &json!({"characters": "3"}))
    );
}

#[tokio::test]
async fn pages_that_are_read_and_rankings_by_the_usual_model_are_counted() {
    let bench = bench().await;
    let usage = json!({"pages_processed": 7, "doc_size_bytes": 3_002_783});
    let answer = json!({"pages": [], "model": "mistral-ocr-2505", "usage_info": usage});
    bench.will_answer(Answer::json(200, &answer));
    let body = r#"{"model":"mistral-ocr-latest","document":{}}"#;
    text(bench.post("/openai/v1/ocr", &[], body).await).await;
    let pages = bench.events(1).await[0]["data"].clone();
    assert_eq!(
        (&pages["usage"], &pages["model"]),
        (&usage, &answer["model"])
    );
    assert_eq!(pages["operation"], "ocr");

    let billed = json!({"billed_units": {"search_units": 1}});
    let answer = json!({"id": "r-1", "results": [], "meta": billed});
    bench.will_answer(Answer::json(200, &answer));
    let body = r#"{"query":"q","documents":["d"]}"#;
    let response = bench.post("/openai/v1/rerank", &[], body).await;
    assert_eq!(response.status(), 200);
    text(response).await;
    let ranking = bench.events(2).await[1]["data"].clone();
    assert_eq!(
        (&ranking["usage"], &ranking["model"]),
        (&billed, &json!("rerank-v3.5"))
    );
    // Of others the model is known to the server alone.
    let response = bench.post("/openai/v2/rerank", &[], body).await;
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn images_of_imagen_are_counted_and_what_was_filtered_costs_nothing() {
    let bench = bench().await;
    let path = "/gemini/v1beta/models/imagen-4.0-generate-001:predict";
    let body = r#"{"instances":[{"prompt":"x"}],"parameters":{"sampleCount":3}}"#;
    let filtered = json!({"raiFilteredReason": "no"});
    let image = json!({"mimeType": "image/png", "bytesBase64Encoded": "eA=="});
    for answer in [
        json!({}),
        json!({"predictions": [filtered]}),
        json!({"predictions": [image, filtered, image]}),
    ] {
        bench.will_answer(Answer::json(200, &answer));
        let response = bench.post(path, &[], body).await;
        assert_eq!(text(response).await, answer.to_string());
    }
    let no_json = Answer::whole(200, "application/json", b"images".to_vec());
    bench.will_answer(no_json);
    text(bench.post(path, &[], body).await).await;
    let events = bench.events(2).await;
    assert_eq!(events.len(), 2);
    for (event, images) in events.iter().zip(["2", "3"]) {
        let data = &event["data"];
        assert_eq!(data["units"], json!({"images": images}));
        assert_eq!(data["operation"], "image_generation");
        assert_eq!(data["model"], "imagen-4.0-generate-001");
    }
    let hiding = format!("{path}?fields=predictions.mimeType");
    assert_eq!(bench.post(&hiding, &[], body).await.status(), 400);
}

#[tokio::test]
async fn a_video_is_counted_by_its_seconds_once_it_is_done() {
    let bench = bench().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    // One that has failed costs nothing.
    let failed = json!({"id": "video_0", "status": "failed", "created_at": now, "seconds": "8"});
    bench.will_answer(Answer::json(200, &failed));
    text(bench.get("/openai/v1/videos/video_0").await).await;
    let video = |status: &str| {
        json!({"id": "video_1", "object": "video", "model": "sora-2-pro", "status": status,
            "created_at": now, "seconds": "8", "size": "1024x1792"})
    };
    bench.will_answer(Answer::json(200, &video("queued")));
    let body = r#"{"model":"sora-2-pro","prompt":"x","seconds":"8","size":"1024x1792"}"#;
    let customer = [("x-spendfuse-customer", "c-42")];
    text(bench.post("/openai/v1/videos", &customer, body).await).await;
    for status in ["in_progress", "completed", "completed"] {
        bench.will_answer(Answer::json(200, &video(status)));
        let told = text(bench.get("/openai/v1/videos/video_1").await).await;
        assert_eq!(told, video(status).to_string());
    }
    let events = bench.events(2).await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0], events[1]);
    assert_eq!(cost(&events[0]), Nanos::from_dollars(4));
    let data = &events[0]["data"];
    assert_eq!(data["customer"], "c-42");
    assert_eq!(
        data["units"],
        json!({"video_seconds": "8", "size": "1024x1792"})
    );
    assert_eq!(data["operation"], "video_generation");
}
