//! Prices that are read again from an address, and what a row says of them.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, PATIENCE, eventually};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

/// A price file in LiteLLM's form behind an address.
struct Source {
    address: String,
    file: Arc<Mutex<String>>,
}

impl Source {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/prices.json", listener.local_addr().unwrap());
        let file = Arc::new(Mutex::new(String::new()));
        let served = Arc::clone(&file);
        thread::spawn(move || {
            for mut caller in listener.incoming().flatten() {
                let _ = caller.read(&mut [0; 4096]);
                let body = served.lock().unwrap().clone();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = caller.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { address, file }
    }

    /// Two models, with the input of the first at this price.
    fn say(&self, input: f64) {
        let model = |input: f64| {
            json!({"litellm_provider": "openai", "mode": "chat",
                "input_cost_per_token": input, "output_cost_per_token": 0.00001})
        };
        let file = json!({"gpt-9": model(input), "gpt-9-mini": model(0.000_000_1)});
        *self.file.lock().unwrap() = file.to_string();
    }

    fn sync(&self, lab: &Lab, more: &[&str], code: i32) -> Value {
        let mut arguments = vec!["prices", "sync", "--from", &self.address, "--json"];
        arguments.extend(more);
        let said = lab.run(&arguments);
        assert_eq!(said.code, Some(code), "{said:?}");
        serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
    }
}

#[test]
fn prices_are_read_from_an_address_and_rows_say_what_explain_prints() {
    let lab = Lab::new("price_sources");
    let source = Source::new();
    source.say(0.000_001);
    // The program's own book has thousands of models that this source does not have.
    let first = source.sync(&lab, &[], 1);
    assert_eq!(first["published"], false, "{first:#}");
    assert!(first["lost_models"].as_u64() > Some(1000), "{first:#}");
    let taken = source.sync(&lab, &["--accept"], 0);
    assert_eq!(taken["published"], true, "{taken:#}");
    let same = source.sync(&lab, &[], 0);
    assert_eq!(same["published"], false, "{same:#}");

    source.say(0.000_002);
    let doubled = source.sync(&lab, &[], 0);
    assert_eq!(doubled["published"], true, "{doubled:#}");
    source.say(0.000_02);
    let jump = source.sync(&lab, &[], 1);
    assert_eq!(jump["published"], false, "{jump:#}");
    assert_eq!(jump["waiting"][0]["model"], "gpt-9", "{jump:#}");
    assert_eq!(jump["version"], doubled["version"], "{jump:#}");
    let configured = format!("pricing.sync_from={}", source.address);
    let doctor = || lab.run(&["doctor", "--json", "--set", &configured]).stdout;
    assert!(doctor().contains("1 price jumps by more than three times and waits"));
    let accepted = source.sync(&lab, &["--accept"], 0);
    assert!(doctor().contains("nothing waits for prices sync --accept"));
    assert_ne!(accepted["version"], doubled["version"], "{accepted:#}");

    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let data = json!({"workspace": "acme", "customer": "c-1", "provider": "openai", "model": "gpt-9",
        "usage_format": "openai.chat", "service_tier": "batch",
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "holo_tokens": 3}});
    let event = json!({"specversion": "1.0", "type": "spendfuse.usage", "source": "s", "id": "one",
        "time": now().to_string(), "data": data});
    let file = lab.file("event.ndjson");
    std::fs::write(&file, format!("{event}\n")).unwrap();
    let file = file.to_str().unwrap();
    lab.must(&["ingest", file]);
    let explained = lab.must(&["prices", "explain", file, "--json"]).stdout;
    let explained: Value = serde_json::from_str(&explained).unwrap();
    let book = explained["book"].as_str().unwrap();
    assert!(book.starts_with("in force at "), "{book}");
    eventually("the row is there", PATIENCE, || {
        let sql = "SELECT price_detail, toString(cost), price_version FROM spend";
        let rows = lab.warehouse().rows(sql)?;
        let [row] = &rows[..] else {
            return Err(format!("{} rows", rows.len()));
        };
        assert_eq!(explained["price_detail"], row[0].as_str(), "{explained:#}");
        assert_eq!(accepted["version"], row[2].as_str(), "{explained:#}");
        assert!(row[0].contains("not read: usage.holo_tokens"), "{row:?}");
        Ok(())
    });
}
