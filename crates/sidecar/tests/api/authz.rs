//! `/v1/authz`: what gateways get, and what they may send.

use crate::support::{Answer, Bench, assert_conforms, bench, config};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::json;
use spendfuse_sidecar::{RefusalStatus, SidecarConfig, Token};

#[tokio::test]
async fn gateways_get_429_with_who_what_and_until_when() {
    let bench = Bench::with_a_blocked_customer(config());
    let refused = bench.get("/v1/authz?customer=c-42").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        refused.headers["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 0
    );
    let error = json!({
        "code": "budget_exceeded", "scope": "acme/customer=c-42",
        "message": "customer c-42 has reached its daily budget ($5.00)",
        "budget": "daily", "spent": "$5.000123", "limit": "$5.00",
        "reserved": "$0.00", "pending": "$0.00",
        "resets_at": "2999-01-01T00:00:00Z", "help_url": "https://example.com/upgrade",
    });
    assert_eq!(refused.json["error"], error);
    assert_conforms("authz-error", &refused.json);
    // What the gateway says wins over what its caller says.
    let body = Body::from(json!({"customer": "c-1"}).to_string());
    let request = Request::post("/v1/authz/v1/chat/completions?customer=c-2")
        .header("content-type", "application/json")
        .header("x-spendfuse-customer", "c-42")
        .body(body);
    let refused = bench.ask(request.unwrap()).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let permitted = bench
        .get("/v1/authz?customer=c-1&estimated_cost_usd=4.50")
        .await;
    assert_eq!(permitted.status, StatusCode::OK);
    let over = bench
        .get("/v1/authz?customer=c-1&estimated_cost_usd=5.01")
        .await;
    let message = "this call would take customer c-1 over its daily budget ($5.00)";
    assert_eq!(over.json["error"]["message"], message);
    // It would be over it tomorrow, too.
    assert!(!over.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_downgrade_is_permitted_and_names_the_model() {
    let mut bench = bench(config(), None);
    bench.budget(
        "5.00",
        json!([{"at": 50, "do": "downgrade", "to": "gpt-4o-mini"}]),
    );
    bench.spent("c-42", "3.00", "downgrade");
    let answer = bench.get("/v1/authz?customer=c-42&model=gpt-4o").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["x-spendfuse-decision"], "downgrade");
    assert_eq!(answer.headers["x-spendfuse-downgrade-to"], "gpt-4o-mini");
    assert_eq!(answer.headers["x-spendfuse-budget"], "daily");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.json, json!(null), "gateways read headers only");
}

fn asked(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::get(path);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_refusal_says_in_headers_not_to_try_again_and_why() {
    let bench = Bench::with_a_blocked_customer(config());
    let refused = bench.get("/v1/authz?customer=c-42").await;
    let header = |name: &str| refused.headers[name].to_str().unwrap();
    assert_eq!(header("x-should-retry"), "false");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("x-spendfuse-decision"), "block");
    assert_eq!(header("x-spendfuse-budget"), "daily");
    let line: serde_json::Value = serde_json::from_str(header("x-spendfuse-refusal")).unwrap();
    assert_eq!(line, refused.json);
}

#[tokio::test]
async fn a_gateway_chooses_the_status_of_refusals() {
    let bench = Bench::with_a_blocked_customer(SidecarConfig {
        refusal_status: RefusalStatus::PaymentRequired,
        ..config()
    });
    let status = async |path: &str, headers: &[(&str, &str)]| {
        bench.ask(asked(path, headers)).await.status.as_u16()
    };
    assert_eq!(status("/v1/authz?customer=c-42", &[]).await, 402);
    for wanted in ["401", "402", "403", "429"] {
        let query = format!("/v1/authz?customer=c-42&deny_status={wanted}");
        assert_eq!(status(&query, &[]).await.to_string(), wanted);
        let like_the_header = format!("/v1/authz?customer=c-42&deny-status={wanted}");
        assert_eq!(status(&like_the_header, &[]).await.to_string(), wanted);
        let header = [("x-spendfuse-deny-status", wanted)];
        assert_eq!(
            status("/v1/authz?customer=c-42", &header).await.to_string(),
            wanted
        );
        let permitted = format!("/v1/authz?customer=c-1&deny_status={wanted}");
        assert_eq!(status(&permitted, &[]).await, 200);
        // Nginx would let a call through on any status that it does not know.
        let unreadable = format!("/v1/authz?estimated_cost_usd=x&deny_status={wanted}");
        assert_eq!(status(&unreadable, &[]).await.to_string(), wanted);
    }
    assert_eq!(
        status("/v1/authz?customer=c-1&deny_status=200", &[]).await,
        400
    );
}

#[tokio::test]
async fn the_user_agent_decides_about_the_status_and_nothing_else() {
    let bench = Bench::with_a_blocked_customer(SidecarConfig {
        refusal_status: RefusalStatus::Auto,
        ..config()
    });
    for (agent, refusal) in [("ai/6.0.326 ai-sdk-x", 402), ("OpenAI/Python 3.57.0", 429)] {
        for (customer, status) in [("c-42", refusal), ("c-1", 200)] {
            let path = format!("/v1/authz?customer={customer}");
            let answer = bench.ask(asked(&path, &[("user-agent", agent)])).await;
            assert_eq!(answer.status.as_u16(), status, "{agent} {customer}");
        }
    }
}

#[tokio::test]
async fn subrequests_of_gateways_are_understood_whatever_their_method() {
    let bench = Bench::with_a_blocked_customer(config());
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND",
    ];
    for method in methods {
        for path in [
            "/v1/authz",
            "/v1/authz/",
            "/v1/authz/v1/chat/completions?limit=5&model=x",
        ] {
            let request = Request::builder()
                .method(Method::from_bytes(method.as_bytes()).unwrap())
                .uri(path)
                .header("content-type", "application/json")
                .header("content-length", "0")
                .header("x-spendfuse-customer", "c-42");
            let refused = bench.ask(request.body(Body::empty()).unwrap()).await;
            assert_eq!(
                refused.status,
                StatusCode::TOO_MANY_REQUESTS,
                "{method} {path}"
            );
        }
    }
    let by_body = Request::post("/v1/authz")
        .header("content-type", "Application/JSON; charset=UTF-8")
        .body(Body::from(json!({"customer": "c-42"}).to_string()));
    let refused = bench.ask(by_body.unwrap()).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let by_query = bench
        .get("/v1/authz/v1/models?x-spendfuse-customer=c-42")
        .await;
    assert_eq!(by_query.status, StatusCode::TOO_MANY_REQUESTS);
}

fn warnings(answer: &Answer) -> String {
    let header = answer.headers.get("x-spendfuse-warnings");
    header.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_misspelt_question_is_told_and_refused_where_the_sidecar_is_strict() {
    let lenient = Bench::with_a_blocked_customer(config());
    let strict = Bench::with_a_blocked_customer(SidecarConfig {
        strict: true,
        ..config()
    });
    for (path, headers, said) in [
        (
            "/v1/authz",
            &[("x-spendfuse-custommer", "c-42")][..],
            "did you mean `x-spendfuse-customer`",
        ),
        (
            "/v1/authz",
            &[("x-spenfuse-customer", "c-42")],
            "`x-spenfuse-customer` is unknown and was ignored; did you mean `x-spendfuse-customer`",
        ),
        (
            "/v1/authz",
            &[("spendfuse-tag-team", "growth")],
            "`x-spendfuse-tag-NAME`",
        ),
        (
            "/v1/authz",
            &[("x-spend-fuse-root-session", "s")],
            "did you mean `x-spendfuse-root-session`",
        ),
        (
            "/v1/authz/v1/chat",
            &[("x-spendfuse-root-sesion", "s")],
            "`x-spendfuse-root-session`",
        ),
        (
            "/v1/authz",
            &[("x-spendfuse-estimate-max-tokens", "5")],
            "estimate-max-tokens",
        ),
        ("/v1/authz?custommer=c-42", &[], "did you mean `customer`"),
        ("/v1/authz?customer=c&tags=growth", &[], "`tags.NAME`"),
        ("/v1/authz?customer=c&tag.team=x", &[], "`tags.NAME`"),
        ("/v1/authz?customer=c&tags[team]=x", &[], "`tags.NAME`"),
        ("/v1/authz?customer=c&denystatus=403", &[], "`denystatus`"),
        (
            "/v1/authz?customer=c",
            &[("x-spendfuse-tags-team", "x")],
            "`x-spendfuse-tag-NAME`",
        ),
        ("/v1/authz", &[], "nothing_named"),
    ] {
        let answer = lenient.ask(asked(path, headers)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path} {headers:?}");
        assert!(
            warnings(&answer).contains(said),
            "{path}: {}",
            warnings(&answer)
        );
        let refused = strict.ask(asked(path, headers)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(refused.headers["x-should-retry"], "false");
        assert!(refused.headers.contains_key("x-spendfuse-refusal"));
        assert_conforms("authz-error", &refused.json);
    }
    // Not ours to judge: what gateways add, what callers ask of their provider, what we said before.
    for (path, headers) in [
        (
            "/v1/authz?customer=c-1&page=2&api-version=3&version=1&tag=x",
            &[][..],
        ),
        (
            "/v1/authz/v1/models?custommer=x",
            &[("x-spendfuse-customer", "c-1")],
        ),
        (
            "/v1/authz",
            &[
                ("x-spendfuse-customer", "c-1"),
                ("x-spendfuse-decision", "allow"),
            ],
        ),
        (
            "/v1/authz",
            &[("x-spendfuse-customer", "c-1"), ("x-spendfuse-token", "t")],
        ),
    ] {
        let answer = strict.ask(asked(path, headers)).await;
        assert_eq!(
            (answer.status, &*warnings(&answer)),
            (StatusCode::OK, ""),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_callers_own_request_to_its_provider_is_no_misspelt_question() {
    let strict = Bench::with_a_blocked_customer(SidecarConfig {
        strict: true,
        ..config()
    });
    let own = json!({
        "model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5,
        "provider": {"order": ["azure"]}, "tags": ["a"], "metadata": {"customer": "c-42"},
    });
    let answer = strict.post("/v1/authz", own.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    let question = json!({"custommer": "c-42"});
    let answer = strict.post("/v1/authz", question.to_string()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = strict.post("/v1/authz", "[]").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn over_tcp_a_token_is_demanded_where_there_is_one() {
    let secret = SidecarConfig {
        token: Token::new("s3cret"),
        ..config()
    };
    let bench = bench(secret, None);
    let with = |given: Option<&str>| {
        let request = Request::get("/v1/state?customer=c");
        let request = match given {
            Some(given) => request.header("authorization", given),
            None => request,
        };
        request.body(Body::empty()).unwrap()
    };
    let with_own = |own: &str| {
        asked(
            "/v1/state?customer=c",
            &[
                ("x-spendfuse-token", own),
                ("authorization", "Bearer sk-providers-key"),
            ],
        )
    };
    assert_eq!(bench.ask(with_own("s3cret")).await.status, StatusCode::OK);
    assert_eq!(
        bench.ask(with_own("s3creT")).await.status,
        StatusCode::UNAUTHORIZED
    );
    for wrong in [
        None,
        Some("bearers3cret"),
        Some("Basic s3cret"),
        Some("bear"),
        Some("Bearer s3creT"),
        Some("Bearer s3cret2"),
        Some("s3cret"),
    ] {
        assert_eq!(
            bench.ask(with(wrong)).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    for right in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret"] {
        assert_eq!(bench.ask(with(Some(right))).await.status, StatusCode::OK);
    }
    assert_eq!(bench.get("/healthz").await.status, StatusCode::OK);
    let open = SidecarConfig {
        listen: Some(([0, 0, 0, 0], 4117).into()),
        ..config()
    };
    assert!(open.validate().unwrap_err().to_string().contains("token"));
}
