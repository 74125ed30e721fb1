//! The providers' own SDKs through a proxy on the real parts: they notice nothing but a refusal, and
//! every call is counted.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use spendfuse_tests::http::{Answer, post_with, read_whole_request};
use spendfuse_tests::lab::run_to_end;
use spendfuse_tests::{Lab, PATIENCE, eventually};

use crate::provider_clients::{installed, repository};
use crate::refusing::{ask_at, start_sidecar};

/// Whom the scripts of tests/clients call for.
const BUDGETS: &str = "budgets:
  - {id: cap, scope: {workspace: acme, customer: c-1}, limit: \"1.00\", window: lifetime, action: block}
  - {id: nothing, scope: {workspace: acme, customer: c-2}, limit: \"0\", window: year, action: block}
  - {id: cut, scope: {workspace: acme, customer: c-4}, limit_calls: 1000, window: lifetime, action: block}
  - {id: cheap-openai, scope: {workspace: acme, customer: d-openai}, limit: \"0.0001\", window: lifetime, steps: [{at: 1, do: downgrade, to: gpt-4o-mini}]}
  - {id: cheap-anthropic, scope: {workspace: acme, customer: d-anthropic}, limit: \"0.0001\", window: lifetime, steps: [{at: 1, do: downgrade, to: claude-haiku-4-5}]}
  - {id: cheap-azure, scope: {workspace: acme, customer: d-azure}, limit: \"0.0001\", window: lifetime, steps: [{at: 1, do: downgrade, to: gpt-4o-mini}]}
  - {id: cheap-gemini, scope: {workspace: acme, customer: d-gemini}, limit: \"0.0001\", window: lifetime, steps: [{at: 1, do: downgrade, to: gemini-2.5-flash-lite}]}
";
/// Each calls twice for customer c-1, with 1,000 tokens in and 100 out: seven with gpt-4o at $2.50 and
/// $10 a million, three with claude-sonnet-4-5 at $3 and $15, two with gemini-2.5-flash at $0.30 and $2.50.
const SPENT: &str = "0.0782";
/// Clients, and whether their calls can be given another model: it stands in the path of others'.
const CLIENTS: [(&str, Option<&str>); 12] = [
    ("openai-python", Some("gpt-4o-mini")),
    ("openai-python-responses", Some("gpt-4o-mini")),
    ("azure-openai-python", None),
    ("anthropic-python", Some("claude-haiku-4-5")),
    ("genai-python", None),
    ("langchain-openai", Some("gpt-4o-mini")),
    ("langchain-anthropic", Some("claude-haiku-4-5")),
    ("litellm", Some("gpt-4o-mini")),
    ("openai-node", Some("gpt-4o-mini")),
    ("anthropic-node", Some("claude-haiku-4-5")),
    ("genai-node", None),
    ("vercel-ai", Some("gpt-4o-mini")),
];
const CASES: [&str; 5] = ["whole", "streamed", "refused", "downgraded", "cut"];
/// What is spent below half of a limit is told within a minute.
const TOLD_PATIENCE: Duration = Duration::from_secs(90);
const CALLS_PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn sdks_are_guarded_and_metered_by_their_base_url() {
    let lab = Lab::empty("proxy");
    lab.create_topics();
    let _processor = lab.processor("1");
    lab.apply_budgets(BUDGETS);
    let (_sidecar, sidecar) = start_sidecar(&lab, "1", &[]);
    let upstream = stub();
    let base_url = |name: &str| format!("proxy.upstreams.{name}.base_url");
    let keys = ["openai", "anthropic", "gemini", "azure"].map(base_url);
    let azure = format!("{upstream}/{{resource}}");
    let mut settings: Vec<(&str, &str)> =
        keys.iter().map(|key| (key.as_str(), &*upstream)).collect();
    settings[3].1 = &azure;
    settings.push(("proxy.listen", "127.0.0.1:0"));
    settings.push(("sidecar.default_workspace", "acme"));
    let proxy = lab.role("proxy", "1", &settings);
    let line = proxy.await_line("the proxy answers", PATIENCE);
    let mut words = line.split_whitespace();
    let address = words.find_map(|word| word.strip_prefix("address="));
    let address: SocketAddr = address.expect("it is said").parse().expect("it is one");
    eventually("the proxy refuses", PATIENCE, || {
        match call(address, "/openai/v1/chat/completions", "c-2").status {
            429 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    for (customer, path) in [
        ("d-openai", "/openai/v1/chat/completions"),
        ("d-anthropic", "/anthropic/v1/messages"),
        (
            "d-azure",
            "/azure/r/openai/deployments/gpt-4o/chat/completions",
        ),
        (
            "d-gemini",
            "/gemini/v1beta/models/gemini-2.5-flash:generateContent",
        ),
    ] {
        eventually("a cheaper model is due", PATIENCE, || {
            let answer = call(address, path, customer);
            match answer.header("x-spendfuse-decision") {
                Some("downgrade") => Ok(()),
                other => Err(format!("{customer}: {other:?}")),
            }
        });
    }

    let seen = seen_by_clients(&lab, &format!("http://{address}"), &upstream);
    assert_eq!(seen.len(), CLIENTS.len() * CASES.len(), "{seen:?}");
    for (client, cheaper) in CLIENTS {
        for case in CASES {
            let one = seen
                .iter()
                .find(|one| one["client"] == client && one["case"] == case);
            let one = one.unwrap_or_else(|| panic!("{client} {case}"));
            println!("{one}");
            assert_cell(case, one, cheaper);
        }
    }
    eventually("the calls are counted", TOLD_PATIENCE, || {
        let of = |customer: &str| {
            let answer = ask_at(
                sidecar,
                &format!("/v1/state?workspace=acme&customer={customer}"),
            );
            serde_json::from_str::<Value>(&answer.body).expect("it is JSON")
        };
        let (whole, cut) = (of("c-1"), of("c-4"));
        let is_counted = whole["budgets"][0]["spent_usd"] == SPENT
            && cut["budgets"][0]["spent_calls"] == CLIENTS.len();
        match is_counted {
            true => Ok(()),
            false => Err(format!("{whole} {cut} {}", proxy.log())),
        }
    });
}

/// What a client has made of one call.
fn assert_cell(case: &str, one: &Value, cheaper: Option<&str>) {
    match case {
        "refused" => {
            let message = one["message"].as_str().unwrap_or_default();
            assert!(message.contains("budget"), "{one}");
            assert_ne!(one["error"], Value::Null, "{one}");
        }
        "downgraded" => {
            assert_eq!(one["text"], "Hello", "{one}");
            let model = one["model"].as_str().unwrap_or_default();
            match cheaper {
                Some(cheaper) => assert_eq!(model, cheaper, "{one}"),
                None => assert!(["gpt-4o", "gemini-2.5-flash"].contains(&model), "{one}"),
            }
        }
        "cut" => {
            let direct = &one["direct"];
            for field in ["error", "text"] {
                assert_eq!(one[field], direct[field], "{one}");
            }
        }
        _ => assert_eq!(one["text"], "Hello", "{one}"),
    }
}

fn seen_by_clients(lab: &Lab, proxy: &str, upstream: &str) -> Vec<Value> {
    let folder = lab.file("sdks");
    std::fs::create_dir(&folder).expect("the folder can be written");
    let python = installed("python-venv", "tests/clients/frameworks.txt", &folder);
    let mut by_python = Command::new(python.join("bin/python"));
    by_python.arg(repository().join("tests/clients/proxied.py"));
    // A module looks for others from where it lies.
    let modules = installed("npm-modules", "tests/clients", &folder);
    std::os::unix::fs::symlink(modules, folder.join("node_modules")).expect("a link can be made");
    let script = folder.join("proxied.mjs");
    std::fs::copy(repository().join("tests/clients/proxied.mjs"), &script)
        .expect("the folder can be written");
    let mut by_node = Command::new("node");
    by_node.arg(&script);
    let mut seen = Vec::new();
    for (mut command, name) in [(by_python, "python"), (by_node, "node")] {
        command.args([proxy, upstream]);
        let said = run_to_end(command, &folder.join(name), CALLS_PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
        let lines = said.stdout.lines();
        seen.extend(lines.map(|line| serde_json::from_str::<Value>(line).expect("lines are JSON")));
    }
    seen
}

/// A call of its own for this customer.
fn call(proxy: SocketAddr, path: &str, customer: &str) -> Answer {
    let stream = TcpStream::connect(proxy).expect("the proxy listens");
    let customer = [("x-spendfuse-customer", customer)];
    let model = if path.contains("messages") {
        "claude-sonnet-4-5"
    } else {
        "gpt-4o"
    };
    let body = json!({"model": model, "max_tokens": 5, "messages": []}).to_string();
    post_with(stream, path, &customer, &body).expect("it answers")
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
    let asked: Value = serde_json::from_str(&body).unwrap_or_default();
    let model = asked["model"].as_str().unwrap_or("gemini-2.5-flash");
    let id = format!("of-call-{number}");
    let pieces = match path {
        path if path.contains("chat/completions") => chat(&id, model, streams),
        path if path.contains("responses") => response(&id, model, streams),
        path if path.contains("messages") => message(&id, model, streams),
        _ => vec![generated(&id)],
    };
    if !streams {
        let body = pieces[0].to_string();
        return write!(
            caller,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    let is_cut = body.contains("\"cut\"");
    let sent = if is_cut {
        (pieces.len() / 2).max(1)
    } else {
        pieces.len()
    };
    // Node takes whatever comes before an announced end of the connection for all of it.
    let connection = if is_cut { "keep-alive" } else { "close" };
    write!(
        caller,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: {connection}\r\n\r\n"
    )?;
    for piece in &pieces[..sent] {
        let event = event(piece);
        write!(caller, "{:x}\r\n{event}\r\n", event.len())?;
    }
    match is_cut {
        true => Ok(()),
        false => write!(caller, "0\r\n\r\n"),
    }
}

fn event(piece: &Value) -> String {
    match piece["type"].as_str() {
        Some(kind) => format!("event: {kind}\ndata: {piece}\n\n"),
        None => format!("data: {piece}\n\n"),
    }
}

fn chat(id: &str, model: &str, streams: bool) -> Vec<Value> {
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100});
    let of = |object: &str, choices: Value, usage: Value| json!({"id": id, "object": object, "created": 1, "model": model, "choices": choices, "usage": usage});
    let text = json!({"role": "assistant", "content": "Hello"});
    if !streams {
        let choices = json!([{"index": 0, "finish_reason": "stop", "message": text}]);
        return vec![of("chat.completion", choices, usage)];
    }
    let choices = json!([{"index": 0, "finish_reason": null, "delta": text}]);
    let end = json!([{"index": 0, "finish_reason": "stop", "delta": {}}]);
    vec![
        of("chat.completion.chunk", choices, Value::Null),
        of("chat.completion.chunk", end, Value::Null),
        of("chat.completion.chunk", json!([]), usage),
    ]
}

fn response(id: &str, model: &str, streams: bool) -> Vec<Value> {
    let of = |status: &str, output: Value, usage: Value| {
        json!({
            "id": id, "object": "response", "created_at": 1, "model": model, "status": status,
            "output": output, "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
            "usage": usage,
        })
    };
    let output = json!([{"type": "message", "id": "m", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}]);
    let usage = json!({"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}});
    let whole = of("completed", output, usage);
    if !streams {
        return vec![whole];
    }
    let begun = of("in_progress", json!([]), Value::Null);
    vec![
        json!({"type": "response.created", "sequence_number": 0, "response": begun}),
        json!({"type": "response.output_text.delta", "sequence_number": 1, "item_id": "m",
            "output_index": 0, "content_index": 0, "delta": "Hello", "logprobs": []}),
        json!({"type": "response.completed", "sequence_number": 2, "response": whole}),
    ]
}

fn message(id: &str, model: &str, streams: bool) -> Vec<Value> {
    let of = |content: Value, stop: Value, output: u32| {
        json!({"id": id, "type": "message", "role": "assistant", "model": model,
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
