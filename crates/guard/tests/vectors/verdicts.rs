//! What a call is told, and how that changes with time.

use serde_json::{Value, json};
use spendfuse_guard::ColdStart;

use crate::scene::{END_OF_DAY, Scene, millis_to};

pub fn steps_and_the_strictest() -> Value {
    let mut scene = Scene::new("steps, and the strictest of several budgets");
    let steps = json!([
        {"at": 50, "do": "warn"}, {"at": 80, "do": "downgrade", "to": "gpt-4o-mini"},
        {"at": 90, "do": "downgrade", "to": "gpt-4o-nano"}, {"at": 120, "do": "block"},
    ]);
    scene.budget(
        "steps",
        json!({"workspace": "acme", "customer": "*"}),
        json!({"steps": steps}),
    );
    let other = json!([{"at": 50, "do": "downgrade", "to": "haiku"}, {"at": 100, "do": "warn"}]);
    scene.budget(
        "a-other",
        json!({"workspace": "acme", "feature": "*"}),
        json!({"steps": other}),
    );
    scene.budget(
        "told",
        json!({"workspace": "acme", "user": "*"}),
        json!({"message": "Used up.", "help_url": "https://a.example/more", "window": "lifetime"}),
    );
    for (customer, spent, verdict) in [
        ("ok", "2.49", "ok"),
        ("warn", "2.50", "warn"),
        ("down", "4.00", "downgrade"),
        ("downer", "4.50", "downgrade"),
        ("block", "6.00", "block"),
    ] {
        let scope = format!("acme/customer={customer}");
        scene.entry("steps", &scope, spent, json!({"verdict": verdict}));
    }
    scene.entry(
        "a-other",
        "acme/feature=agent",
        "2.50",
        json!({"verdict": "downgrade"}),
    );
    let lifetime =
        json!({"verdict": "block", "resets_at": null, "expires_at": null, "window": "lifetime"});
    scene.entry("told", "acme/user=u-1", "5.00", lifetime);
    scene.page();
    for customer in ["ok", "warn", "down", "downer", "block"] {
        for model in ["", "gpt-4o", "gpt-4o-mini", "gpt-4o-nano"] {
            scene.call(json!({"customer": customer, "model": model}));
        }
        scene.call(json!({"customer": customer, "feature": "agent", "model": "gpt-4o"}));
        scene.call(json!({"customer": customer, "user": "u-1"}));
    }
    scene.call(json!({"customer": "downer", "feature": "agent", "model": "haiku"}));
    scene.written()
}

pub fn sessions() -> Value {
    let mut scene = Scene::new("sessions, root sessions, and sessions that a detector stopped");
    let of_session = |window: &str| json!({"window": window, "limit": "1.00"});
    scene.budget("run", json!({"workspace": "acme"}), of_session("session"));
    scene.budget(
        "tree",
        json!({"workspace": "acme", "customer": "*"}),
        of_session("root_session"),
    );
    scene.budget(
        "a-day",
        json!({"workspace": "acme", "root_session": "*"}),
        json!({}),
    );
    let told = json!({"window": "session", "limit": "0", "limit_from": "event"});
    scene.budget(
        "told",
        json!({"workspace": "acme", "feature": "told"}),
        told,
    );
    let of_run = |limit: &str, verdict: &str| {
        json!({"verdict": verdict, "limit_usd": limit, "resets_at": null, "window": "session:s",
            "expires_at": "2026-11-22T11:15:00Z"})
    };
    scene.entry("run", "acme/session=s-1", "1.00", of_run("1.00", "block"));
    scene.entry(
        "tree",
        "acme/customer=c-1/root_session=s-2",
        "1.00",
        of_run("1.00", "block"),
    );
    scene.entry(
        "a-day",
        "acme/root_session=s-3",
        "5.00",
        json!({"verdict": "block"}),
    );
    scene.entry(
        "told",
        "acme/feature=told/session=s-4",
        "0.50",
        of_run("2.00", "ok"),
    );
    scene.entry(
        "told",
        "acme/feature=told/session=s-5",
        "2.50",
        of_run("2.00", "block"),
    );
    scene.stopped("acme/session=s-6");
    // A budget may be called as the detector's rule.
    let users = json!({"workspace": "acme", "user": "u-0"});
    scene.budget("loops", users, json!({"limit": "0"}));
    scene.page();
    for session in ["", "s-1", "s-2", "s-3", "s-4", "s-5", "s-6", "s-7"] {
        for root in ["", "s-2", "s-3", "s-6"] {
            scene.call(json!({"session": session, "root_session": root, "customer": "c-1"}));
        }
        scene.call(json!({"session": session, "feature": "told"}));
        scene.call(json!({"workspace": "rival", "session": session}));
    }
    scene.call(json!({"session": "s-6", "user": "u-0"}));
    // The idle limit is over, and the cool-down before it.
    scene.clock = millis_to("2026-11-22T10:25:29.999Z");
    scene.beat();
    scene.page();
    scene.call(json!({"session": "s-6"}));
    scene.clock += 1;
    scene.call(json!({"session": "s-6"}));
    scene.call(json!({"session": "s-1"}));
    scene.clock = millis_to("2026-11-22T11:15:00Z");
    scene.beat();
    scene.page();
    scene.call(json!({"session": "s-1"}));
    scene.written()
}

pub fn windows_that_end() -> Value {
    let mut scene = Scene::new("windows that end while nobody tells of it");
    scene.customers(json!({}));
    scene.budget(
        "zero",
        json!({"workspace": "acme", "feature": "agent"}),
        json!({"limit": "0"}),
    );
    scene.customer("c-1", "5.00", json!({"verdict": "block"}));
    let forever = json!({"verdict": "block", "resets_at": null, "expires_at": null});
    scene.customer("c-2", "5.00", forever);
    scene.page();
    scene.call(json!({"customer": "c-1"}));
    scene.call(json!({"customer": "c-1", "feature": "agent"}));
    scene.call(json!({"customer": "c-2", "feature": "agent"}));
    scene.clock = 1;
    scene.call(json!({"customer": "c-1"}));
    scene.clock = millis_to(END_OF_DAY) - 5000;
    scene.beat();
    scene.page();
    scene.clock = millis_to(END_OF_DAY) - 1;
    scene.call(json!({"customer": "c-1"}));
    scene.clock += 1;
    scene.call(json!({"customer": "c-1"}));
    scene.call(json!({"customer": "c-2"}));
    scene.written()
}

pub fn old_state() -> Value {
    let mut scene = Scene::new("state that grows old, by each budget's on_stale");
    scene.budget(
        "allows",
        json!({"workspace": "acme", "customer": "*"}),
        json!({}),
    );
    let blocks = json!({"on_stale": "block", "where": {"plan": "free"}});
    scene.budget(
        "blocks",
        json!({"workspace": "acme", "feature": "*"}),
        blocks,
    );
    let up_to = json!({"on_stale": {"allow_up_to": "2.00"}});
    scene.budget("up-to", json!({"workspace": "acme", "user": "*"}), up_to);
    let tokens = json!({"limit_tokens": 1000, "on_stale": {"allow_up_to": "2.00"}});
    scene.budget("tokens", json!({"workspace": "acme", "agent": "*"}), tokens);
    scene.entry(
        "allows",
        "acme/customer=c-1",
        "5.00",
        json!({"verdict": "block"}),
    );
    for (user, spent) in [
        ("below", "1.99"),
        ("at", "2.00"),
        ("above", "2.000000001"),
        ("full", "5.00"),
    ] {
        let verdict = if user == "full" { "block" } else { "ok" };
        scene.entry(
            "up-to",
            &format!("acme/user={user}"),
            spent,
            json!({"verdict": verdict}),
        );
    }
    scene.entry(
        "tokens",
        "acme/agent=a",
        "",
        json!({"spent_tokens": 10, "limit_tokens": 1000}),
    );
    scene.page();
    let ask = |scene: &mut Scene| {
        scene.call(json!({"customer": "c-1"}));
        scene.call(json!({"customer": "c-2"}));
        for plan in ["", "free", "pro"] {
            scene.call(json!({"feature": "agent", "plan": plan}));
        }
        for user in ["below", "at", "above", "full", "new"] {
            scene.call(json!({"user": user}));
        }
        scene.call(json!({"agent": "a"}));
        scene.call(json!({"agent": "b"}));
    };
    ask(&mut scene);
    // The last moment in which it is not old, and the next one.
    scene.clock = 10_000 - scene.age();
    ask(&mut scene);
    scene.clock += 1;
    ask(&mut scene);
    // A page says that it is as old as before, and then that it is not.
    scene.page();
    ask(&mut scene);
    scene.beat();
    scene.page();
    ask(&mut scene);
    scene.written()
}

pub fn cold_state(name: &'static str, cold_start: ColdStart) -> Value {
    let mut scene = Scene::cold(name, cold_start);
    scene.customers(json!({"on_stale": "block"}));
    scene.customer("c-1", "5.00", json!({"verdict": "block"}));
    scene.page();
    scene.call(json!({"customer": "c-1"}));
    scene.call(json!({"customer": "c-2"}));
    scene.clock = 60_000;
    scene.call(json!({"customer": "c-2"}));
    let mut scene = scene.live();
    while !scene.page() {}
    scene.call(json!({"customer": "c-1"}));
    scene.call(json!({"customer": "c-2"}));
    scene.written()
}

pub fn changes() -> Value {
    let mut scene = Scene::new("changes of entries and of budgets");
    let customers = json!({"workspace": "acme", "customer": "*"});
    scene.budget("by-customer", customers.clone(), json!({}));
    scene.customer("c-1", "4.00", json!({"verdict": "warn"}));
    scene.page();
    let ask = |scene: &mut Scene| {
        for customer in ["c-1", "c-2", "c-3"] {
            scene.call(json!({"customer": customer}));
        }
    };
    ask(&mut scene);
    scene.customer("c-1", "5.00", json!({"verdict": "block"}));
    scene.customer("c-2", "4.50", json!({"verdict": "warn"}));
    scene.customer("c-3", "0.10", json!({}));
    scene.page();
    ask(&mut scene);
    scene.put("by-customer|acme/customer=c-1", None);
    scene.customer("c-2", "0.00", json!({}));
    scene.page();
    ask(&mut scene);
    // Another limit counts at once, before the ledger has judged by it.
    scene.budget("by-customer", customers.clone(), json!({"limit": "0.10"}));
    while !scene.page() {}
    ask(&mut scene);
    // Nothing at all; then everything that was is forgotten.
    scene.budget(
        "by-customer",
        customers,
        json!({"limit": "0", "message": "No more."}),
    );
    while !scene.page() {}
    ask(&mut scene);
    scene.record += 1;
    scene
        .writer
        .apply_budget("by-customer", None, scene.record)
        .unwrap();
    while !scene.page() {}
    ask(&mut scene);
    scene.written()
}

pub fn ceilings() -> Value {
    let mut scene = Scene::new("spend at a ceiling price only warns");
    let customers = json!({"workspace": "acme", "customer": "*"});
    scene.budget("by-customer", customers, json!({}));
    let users = json!({"workspace": "acme", "user": "*"});
    scene.budget("strict", users, json!({"count_unpriced": "block"}));
    scene.customer("c-1", "9.00", json!({"verdict": "warn"}));
    // Judged by another limit: nobody knows what of it had a price.
    let other = json!({"verdict": "warn", "limit_usd": "10.00"});
    scene.customer("c-2", "9.00", other);
    scene.entry(
        "strict",
        "acme/user=u-1",
        "9.00",
        json!({"verdict": "warn"}),
    );
    scene.page();
    for customer in ["c-1", "c-2", "c-3"] {
        scene.call(json!({"customer": customer}));
    }
    scene.call(json!({"user": "u-1"}));
    scene.written()
}
