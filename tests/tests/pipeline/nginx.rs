//! nginx's recipe, as docs/gateways.md prints it, with the nginx of the system.

use serde_json::Value;
use spendfuse_tests::http::{Answer, ask, read_request};
use spendfuse_tests::{PATIENCE, Role, eventually};
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use crate::refusing::{REFUSED, Refusing};

/// Where Debian puts it, which is not in everybody's `PATH`.
const DEBIANS_FOLDER: &str = "/usr/sbin";

#[test]
fn behind_nginx_a_refusal_arrives_whole_and_a_dead_sidecar_lets_calls_through() {
    let refusing = Refusing::new("nginx", &[("sidecar.refusal_status", "402")]);
    let provider = provider();
    let nginx = Nginx::start(&refusing, provider);

    let refused = nginx.call("key-of-c-42", &[]);
    let direct = refusing.ask(&format!("/v1/authz?{REFUSED}"));
    assert_eq!((refused.status, direct.status), (429, 402));
    let json = |answer: &Answer| serde_json::from_str::<Value>(&answer.body).expect("it is JSON");
    assert_eq!(json(&refused), json(&direct));
    assert_eq!(refused.header("content-type"), Some("application/json"));
    for name in [
        "x-should-retry",
        "x-spendfuse-decision",
        "x-spendfuse-budget",
        "cache-control",
    ] {
        assert_eq!(refused.header(name), direct.header(name), "{name}");
    }
    let seconds = refused
        .header("retry-after")
        .and_then(|value| value.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "{refused:?}");

    let deaf = nginx.call(
        "key-of-c-42",
        &[("User-Agent", "ai/6.0.326 ai-sdk/provider-utils/4")],
    );
    assert_eq!((deaf.status, &deaf.body), (402, &refused.body));

    // A caller cannot name another customer, and the provider's own refusal is its own.
    let forged = nginx.call("key-of-c-42", &[("x-spendfuse-customer", "c-2")]);
    assert_eq!(forged.status, 429);
    let permitted = nginx.call("key-of-c-43", &[("x-spendfuse-customer", "c-1")]);
    assert_eq!(permitted.status, 403);
    assert_eq!(permitted.body, "the provider's own refusal");
    assert_eq!(permitted.header("x-spendfuse-decision"), Some("allow"));

    refusing.sidecar.kill();
    let open = nginx.call("key-of-c-42", &[]);
    assert_eq!(
        (open.status, &*open.body),
        (403, "the provider's own refusal")
    );
}

/// A provider that refuses everything in its own words.
fn provider() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for mut caller in listener.incoming().flatten() {
            let body = "the provider's own refusal";
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            if read_request(&mut caller).is_ok() {
                // A caller that has gone needs no answer.
                let _ = caller.write_all(answer.as_bytes());
            }
        }
    });
    address
}

struct Nginx {
    socket: PathBuf,
    _process: Role,
}

impl Nginx {
    fn start(refusing: &Refusing, provider: SocketAddr) -> Self {
        let folder = refusing.lab.file("nginx");
        fs::create_dir(&folder).expect("the folder can be written");
        let socket = folder.join("socket");
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration(&folder, refusing.address, provider))
            .expect("the folder can be written");
        let arguments = [
            // Before it has read its configuration, it would write to a file of root's.
            "-e",
            "stderr",
            "-p",
            &folder.to_string_lossy(),
            "-c",
            &file.to_string_lossy(),
        ]
        .map(str::to_owned)
        .to_vec();
        let process = Role::start("nginx", executable(), arguments, folder.join("log"));
        let nginx = Self {
            socket,
            _process: process,
        };
        eventually("nginx listens", PATIENCE, || {
            UnixStream::connect(&nginx.socket)
                .map_err(|error| format!("{error}: {}", nginx._process.log()))
        });
        nginx
    }

    /// A call with this key.
    fn call(&self, key: &str, headers: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {key}");
        let mut all = vec![
            ("Authorization", &*bearer),
            ("Content-Type", "application/json"),
            ("Content-Length", "0"),
        ];
        all.extend(headers);
        let stream = UnixStream::connect(&self.socket).expect("nginx listens");
        ask(stream, "POST", "/v1/chat/completions", &all).expect("nginx answers")
    }
}

/// The recipe with this test's addresses in it.
fn configuration(folder: &Path, sidecar: SocketAddr, provider: SocketAddr) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gateways.md");
    let page = fs::read_to_string(page).expect("the page is there");
    let mut recipe = page.split("```nginx\n").skip(1).map(|rest| {
        let (block, _) = rest.split_once("```").expect("a block ends");
        block
            .replace("http://127.0.0.1:4117", &format!("http://{sidecar}"))
            .replace("https://api.openai.com", &format!("http://{provider}"))
            // The budget that is in force is for c-1.
            .replace(" c-42;", " c-1;")
    });
    let http = recipe.next().expect("the page has a block for http");
    let server = recipe.next().expect("the page has a block for a server");
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};"))
        .join(" ");
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{}}
http {{
access_log off; {temporary}
{http}
server {{
listen unix:{folder}/socket;
{server}
}}
}}
"
    )
}

fn executable() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from(DEBIANS_FOLDER)])
        .map(|folder| folder.join("nginx"))
        .find(|candidate| candidate.is_file())
        .expect("nginx is installed: apt install nginx-light, or brew install nginx")
}
