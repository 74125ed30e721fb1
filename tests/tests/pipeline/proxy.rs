//! The providers' own SDKs through a proxy on the real parts: they notice nothing but a refusal, and
//! every call is counted.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use spendfuse_tests::http::{post_with, read_whole_request};
use spendfuse_tests::lab::run_to_end;
use spendfuse_tests::{Lab, eventually};

use crate::provider_clients::{installed, repository};
use crate::refusing::{PATIENCE, ask_at, start_sidecar};

const BUDGETS: &str = "budgets:
  - {id: cap, scope: {workspace: acme, customer: c-1}, limit: \"0.10\", window: lifetime, action: block}
  - {id: nothing, scope: {workspace: acme, customer: c-2}, limit: \"0\", window: year, action: block}
";
/// Seven calls with 1,000 tokens in and 100 out: three of gpt-4o at $2.50 and $10 a million, two of
/// claude-sonnet-4-5 at $3 and $15, two of gemini-2.5-flash at $0.30 and $2.50.
const SPENT: &str = "0.0206";
const CALLS_PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_providers_own_sdks_are_guarded_and_metered_by_their_base_url() {
    let lab = Lab::empty("proxy");
    lab.create_topics();
    let _processor = lab.processor("1");
    lab.apply_budgets(BUDGETS);
    let (_sidecar, sidecar) = start_sidecar(&lab, "1", &[]);
    let upstream = stub();
    let base_url = |name: &str| format!("proxy.upstreams.{name}.base_url");
    let keys = ["openai", "anthropic", "gemini"].map(base_url);
    let mut settings: Vec<(&str, &str)> =
        keys.iter().map(|key| (key.as_str(), &*upstream)).collect();
    settings.push(("proxy.listen", "127.0.0.1:0"));
    settings.push(("sidecar.default_workspace", "acme"));
    let proxy = lab.role("proxy", "1", &settings);
    let line = proxy.await_line("the proxy answers", PATIENCE);
    let mut words = line.split_whitespace();
    let address = words.find_map(|word| word.strip_prefix("address="));
    let address: SocketAddr = address.expect("it is said").parse().expect("it is one");
    eventually("the proxy refuses", PATIENCE, || {
        let stream = TcpStream::connect(address).expect("the proxy listens");
        let customer = [("x-spendfuse-customer", "c-2")];
        let path = "/openai/v1/chat/completions";
        let answer = post_with(
            stream,
            path,
            &customer,
            r#"{"model":"gpt-4o","messages":[]}"#,
        );
        match answer.expect("it answers") {
            answer if answer.status == 429 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    let folder = lab.file("sdks");
    std::fs::create_dir(&folder).expect("the folder can be written");
    let python = installed("python-venv", "tests/clients/requirements.txt", &folder);
    let mut command = Command::new(python.join("bin/python"));
    command.arg(repository().join("tests/clients/proxied.py"));
    command.arg(format!("http://{address}"));
    let said = run_to_end(command, &folder.join("python"), CALLS_PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?} {}", proxy.log());
    let lines = said.stdout.lines();
    let seen: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).expect("lines are JSON"))
        .collect();
    let (refused, called): (Vec<&Value>, Vec<&Value>) = seen.iter().partition(|one| {
        one["call"]
            .as_str()
            .is_some_and(|call| call.ends_with("-refused"))
    });
    assert_eq!((called.len(), refused.len()), (7, 3), "{seen:?}");
    for one in called {
        assert_eq!(one["text"], "Hello", "{one}");
    }
    let cost = seen.iter().find_map(|one| one["cost"].as_str());
    assert_eq!(cost, Some("0.0035"), "{seen:?}");
    for one in refused {
        println!("{one}");
        let text = one["text"].as_str().unwrap_or_default();
        assert!(
            text.contains("budget") && one["error"] != Value::Null,
            "{one}"
        );
    }
    eventually("the calls are counted", PATIENCE, || {
        let answer = ask_at(sidecar, "/v1/state?workspace=acme&customer=c-1");
        let state: Value = serde_json::from_str(&answer.body).expect("it is JSON");
        match &state["budgets"][0]["spent_usd"] {
            spent if spent == SPENT => Ok(()),
            _ => Err(format!("{state} {}", proxy.log())),
        }
    });
}

/// An upstream that answers as each of the three providers does; where.
fn stub() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for (number, caller) in listener.incoming().flatten().enumerate() {
            thread::spawn(move || answer(caller, number));
        }
    });
    format!("http://{address}")
}

fn answer(mut caller: TcpStream, number: usize) -> io::Result<()> {
    let (head, body) = read_whole_request(&mut caller)?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    let streams = body.contains("\"stream\":true") || path.contains("stream");
    let id = format!("of-call-{number}");
    let pieces = match path {
        path if path.contains("chat/completions") => chat(&id, streams),
        path if path.contains("responses") => vec![response(&id)],
        path if path.contains("messages") => message(&id, streams),
        _ => vec![generated(&id)],
    };
    let (content_type, body) = match streams {
        true => (
            "text/event-stream",
            pieces.iter().map(event).collect::<String>(),
        ),
        false => ("application/json", pieces[0].to_string()),
    };
    write!(
        caller,
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn event(piece: &Value) -> String {
    match piece["type"].as_str() {
        Some(kind) => format!("event: {kind}\ndata: {piece}\n\n"),
        None => format!("data: {piece}\n\n"),
    }
}

fn chat(id: &str, streams: bool) -> Vec<Value> {
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100});
    let of = |object: &str, choices: Value, usage: Value| json!({"id": id, "object": object, "created": 1, "model": "gpt-4o", "choices": choices, "usage": usage});
    let text = json!({"role": "assistant", "content": "Hello"});
    if !streams {
        let choices = json!([{"index": 0, "finish_reason": "stop", "message": text}]);
        return vec![of("chat.completion", choices, usage)];
    }
    let choices = json!([{"index": 0, "finish_reason": null, "delta": text}]);
    vec![
        of("chat.completion.chunk", choices, Value::Null),
        of("chat.completion.chunk", json!([]), usage),
    ]
}

fn response(id: &str) -> Value {
    json!({
        "id": id, "object": "response", "created_at": 1, "model": "gpt-4o", "status": "completed",
        "output": [{"type": "message", "id": "m", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}],
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
        "usage": {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}},
    })
}

fn message(id: &str, streams: bool) -> Vec<Value> {
    let of = |content: Value, stop: Value, output: u32| {
        json!({"id": id, "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
            "content": content, "stop_reason": stop, "stop_sequence": null,
            "usage": {"input_tokens": 1000, "output_tokens": output}})
    };
    if !streams {
        let content = json!([{"type": "text", "text": "Hello"}]);
        return vec![of(content, json!("end_turn"), 100)];
    }
    vec![
        json!({"type": "message_start", "message": of(json!([]), Value::Null, 1)}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": 100}}),
        json!({"type": "message_stop"}),
    ]
}

fn generated(id: &str) -> Value {
    json!({
        "responseId": id, "modelVersion": "gemini-2.5-flash",
        "candidates": [{"index": 0, "finishReason": "STOP",
            "content": {"role": "model", "parts": [{"text": "Hello"}]}}],
        "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1100},
    })
}
