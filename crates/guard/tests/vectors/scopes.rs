//! Whose calls a budget meets.

use serde_json::{Value, json};

use crate::scene::Scene;

pub fn templates_exact_values_and_everything() -> Value {
    let mut scene = Scene::new("templates, exact values and everything");
    scene.budget("all", json!({}), json!({"limit": "100.00"}));
    scene.customers(json!({}));
    scene.budget("any-workspace", json!({"customer": "*"}), json!({}));
    scene.budget(
        "one",
        json!({"workspace": "acme", "customer": "c-1", "feature": "agent"}),
        json!({}),
    );
    scene.budget(
        "by-team",
        json!({"workspace": "acme", "tags.team": "*"}),
        json!({}),
    );
    scene.budget(
        "two-tags",
        json!({"workspace": "*", "tags.a": "1", "tags.b": "*"}),
        json!({}),
    );
    for (budget, scope) in [
        ("by-customer", "acme/customer=c-1"),
        ("any-workspace", "*/customer=c-2"),
        ("one", "acme/customer=c-1/feature=agent"),
        ("by-team", "acme/tags.team=growth"),
        ("two-tags", "acme/tags.a=1/tags.b=2"),
        // Of a scope that the budget does not have.
        ("by-team", "acme/customer=c-3"),
        ("gone", "acme/customer=c-3"),
    ] {
        scene.blocked(budget, scope);
    }
    scene.page();
    for customer in ["", "c-1", "c-2", "c-3", "C-1"] {
        for feature in ["", "agent"] {
            for workspace in ["acme", "rival"] {
                scene.call(
                    json!({"workspace": workspace, "customer": customer, "feature": feature}),
                );
            }
        }
    }
    for tags in [
        json!({"team": "growth"}),
        json!({"team": "other", "a": "1", "b": "2"}),
        json!({"a": "1", "b": "3"}),
        json!({"a": "2", "b": "2"}),
        json!({"a": "1"}),
    ] {
        scene.call(json!({"tags": tags}));
    }
    // Now everything is used up.
    scene.entry(
        "all",
        "*",
        "100.00",
        json!({"verdict": "block", "limit_usd": "100.00"}),
    );
    scene.page();
    scene.call(json!({}));
    scene.call(json!({"workspace": "rival", "customer": "c-9"}));
    scene.written()
}

pub fn names_that_must_be_escaped() -> Value {
    let mut scene = Scene::new("names that must be escaped");
    scene.budget(
        "by-customer",
        json!({"workspace": "*", "customer": "*"}),
        json!({}),
    );
    scene.budget(
        "by-tag",
        json!({"workspace": "acme", "tags.a b/ü": "*"}),
        json!({}),
    );
    scene.budget(
        "zero",
        json!({"workspace": "acme", "feature": "ä/*=%"}),
        json!({"limit": "0"}),
    );
    let names = [
        ("a/b", "a%2Fb"),
        ("a=b|c", "a%3Db%7Cc"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("日本", "%E6%97%A5%E6%9C%AC"),
        ("😀 +", "%F0%9F%98%80%20%2B"),
        // The same to the eye; two names all the same.
        ("é", "%C3%A9"),
        ("*", "%2A"),
        ("a~b-c.d_e", "a~b-c.d_e"),
    ];
    for (_, escaped) in names {
        scene.blocked("by-customer", &format!("acme/customer={escaped}"));
    }
    scene.blocked("by-customer", "%2A/customer=c-1");
    scene.blocked("by-tag", "acme/tags.a%20b%2F%C3%BC=x%26y");
    scene.page();
    for (name, _) in names {
        scene.call(json!({"customer": name}));
    }
    for name in ["a%2Fb", "e\u{301}", "A", "a/b ", "日"] {
        scene.call(json!({"customer": name}));
    }
    scene.call(json!({"workspace": "*", "customer": "c-1"}));
    scene.call(json!({"customer": "c-1"}));
    scene.call(json!({"tags": {"a b/ü": "x&y"}}));
    scene.call(json!({"tags": {"a b/ü": "x"}}));
    scene.call(json!({"feature": "ä/*=%"}));
    scene.written()
}

pub fn conditions() -> Value {
    let mut scene = Scene::new("where: holds, contradicts, and lacks");
    let free = json!({"where": {"plan": "free"}});
    scene.budget(
        "free",
        json!({"workspace": "acme", "customer": "*"}),
        free.clone(),
    );
    let where_ = json!({"where": {"plan": ["free", "pro"], "tags.x": "1", "environment": "prod"}});
    scene.budget("several", json!({"workspace": "acme"}), where_);
    let zero = json!({"limit": "0", "where": {"feature": ["agent", "chat"]}});
    scene.budget("zero", json!({"workspace": "acme", "user": "*"}), zero);
    let of_root = json!({"window": "root_session", "where": {"root_session": "s-1"}, "limit": "0"});
    scene.budget("of-root", json!({"workspace": "acme"}), of_root);
    let free = json!({"verdict": "block", "where": {"plan": "free"}});
    scene.entry("free", "acme/customer=c-1", "5.01", free);
    scene.blocked("several", "acme");
    scene.page();
    for plan in ["", "free", "pro", "Free"] {
        for environment in ["", "prod", "test"] {
            let who = json!({"plan": plan, "environment": environment, "customer": "c-1"});
            scene.call(who.clone());
            let mut tagged = who;
            tagged["tags"] = json!({"x": "1"});
            scene.call(tagged);
        }
    }
    for feature in ["", "agent", "chat", "search"] {
        scene.call(json!({"user": "u-1", "feature": feature}));
    }
    scene.call(json!({"session": "s-1"}));
    scene.call(json!({"session": "s-2", "root_session": "s-1"}));
    scene.call(json!({"session": "s-2"}));
    scene.written()
}

pub fn keys() -> Value {
    let mut scene = Scene::new("what a key imposes, whatever a call says");
    let imposed = [("workspace", "acme"), ("customer", "c-1")];
    scene.imposed = imposed
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    scene.customers(json!({}));
    scene.customer("c-1", "5.00", json!({"verdict": "block"}));
    scene.page();
    scene.call(json!({}));
    scene.call(json!({"workspace": "rival", "customer": "c-2"}));
    scene.written()
}

pub fn every_combination() -> Value {
    let mut scene = Scene::new("every combination of budgets that overlap");
    let zero = json!({"limit": "0", "where": {"plan": "free"}, "window": "month"});
    scene.budget("a", json!({"workspace": "acme", "feature": "agent"}), zero);
    let down =
        json!({"steps": [{"at": 10, "do": "downgrade", "to": "m-1"}, {"at": 100, "do": "block"}]});
    scene.budget("b", json!({"workspace": "acme", "customer": "*"}), down);
    scene.budget(
        "c",
        json!({"workspace": "acme", "customer": "*", "plan": "*"}),
        json!({}),
    );
    let stale = json!({"on_stale": "block", "where": {"feature": "agent"}});
    scene.budget("d", json!({"customer": "c-2"}), stale);
    scene.entry(
        "b",
        "acme/customer=c-1",
        "0.60",
        json!({"verdict": "downgrade"}),
    );
    scene.entry(
        "b",
        "acme/customer=c-2",
        "5.00",
        json!({"verdict": "block"}),
    );
    scene.entry(
        "c",
        "acme/customer=c-1/plan=pro",
        "4.50",
        json!({"verdict": "warn"}),
    );
    scene.entry(
        "c",
        "acme/customer=c-1/plan=free",
        "5.50",
        json!({"verdict": "block"}),
    );
    scene.page();
    for at in [0, 20_000] {
        scene.clock = at;
        for customer in ["", "c-1", "c-2"] {
            for plan in ["", "free", "pro"] {
                for feature in ["", "agent"] {
                    for model in ["m-1", "m-2"] {
                        scene.call(json!({"customer": customer, "plan": plan, "feature": feature, "model": model}));
                    }
                }
            }
        }
    }
    scene.written()
}
