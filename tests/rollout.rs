//! Rollouts over real sockets: what advances, what is rolled back, and what must not be.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::support::{Client, Gateway, Load, Tested, Upstream};

/// A service under a rollout, its tracks at these addresses and `more` of the rollout's keys.
pub fn rollout(stable: &Tested, canary: &Tested, more: &str, service: &str) -> String {
    versions(stable, ("v1", "v2"), canary, more, service)
}

fn versions(
    stable: &Tested,
    (stable_version, canary_version): (&str, &str),
    canary: &Tested,
    more: &str,
    service: &str,
) -> String {
    format!(
        "services:\n  - name: api\n    tracks:\n      stable: {{ version: {stable_version}, endpoints: \
         ['{}'] }}\n      canary: {{ version: {canary_version}, endpoints: ['{}'] }}\n{service}    rollout:\n      \
         {}\n",
        stable.address(),
        canary.address(),
        more.replace('\n', "\n      ")
    )
}

/// A plan that is over in seconds: no more than the proofs need.
const FAST: &str =
    "stages: [20, 50, 100]\nmin: 1s\njudge: { warmup: 1s, error_budget: 2, slow_budget: 4 }";
/// A plan that stays at 5 %.
const STAYS: &str = "stages: [5, 100]\nmin: 10m\njudge: { warmup: 1s }";

fn nobody(_: u64) -> String {
    String::new()
}

fn tracks() -> (Tested, Tested) {
    (Tested::new("stable"), Tested::new("canary"))
}

fn transitions(gateway: &Gateway) -> Vec<Json> {
    let answer = gateway.admin_get("/api/v1/services/api/history");
    let history: Json = serde_json::from_slice(&answer.body).unwrap();
    history["history"].as_array().unwrap().clone()
}

fn explain(gateway: &Gateway) -> String {
    let answer = gateway.admin_get("/api/v1/services/api/explain");
    let found: Json = serde_json::from_slice(&answer.body).unwrap();
    found["explain"].as_str().unwrap().to_owned()
}

fn requests(rollout: &Json, track: &str) -> u64 {
    rollout["run_evidence"][track]["requests"].as_u64().unwrap()
}

#[test]
fn an_identical_canary_is_promoted_through_every_stage() {
    let (stable, canary) = tracks();
    let gateway = Gateway::start(&rollout(&stable, &canary, FAST, ""));
    let load = Load::start(gateway.address, 800, nobody);
    let promoted = gateway.await_phase("promoted");
    assert_eq!(promoted["weight"], 100.0);
    assert_eq!(promoted["promoted"], true);
    let weights: Vec<f64> =
        transitions(&gateway).iter().map(|one| one["weight"].as_f64().unwrap()).collect();
    assert_eq!(weights, [0.0, 20.0, 50.0, 100.0]);
    for _ in 0..20 {
        assert_eq!(gateway.connect().get("/", "").track(), "canary");
    }
    assert_eq!(load.failed(), 0, "no request is lost by any change");
    let metric = |name: &str, labels: &[&str]| gateway.metric(name, labels);
    assert_eq!(metric("splitway_rollout_info", &["version=\"v2\"", "promoted"]), 1.0);
    assert_eq!(metric("splitway_verdicts_total", &["advance"]), 2.0);
    assert!(metric("splitway_evidence_total", &["canary", "request"]) > 100.0);
    assert_eq!(metric("splitway_rollout_stage", &[]), 3.0);
}

#[test]
fn a_canary_that_turns_bad_at_5_percent_is_gone_within_a_second_and_20_failures() {
    let (stable, canary) = tracks();
    let gateway = Gateway::start(&rollout(&stable, &canary, STAYS, ""));
    let load = Load::start(gateway.address, 1_000, nobody);
    gateway.await_rollout("api", |rollout| requests(rollout, "canary") > 50);
    assert_eq!(load.failed(), 0);
    let died = Instant::now();
    canary.set_errors(1_000);
    let rolled_back = gateway.await_phase("rolled_back");
    let took = died.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(rolled_back["weight"], 0.0);
    // What was drawn before has been answered by now or fails too.
    gateway.await_metric("http_requests_total", &["stable"], |count| count > 1_000.0);
    assert!((1..=20).contains(&load.failed()), "{} requests failed", load.failed());
    let last = transitions(&gateway).pop().unwrap();
    assert_eq!((&last["cause"], &last["to"]), (&"judge".into(), &"rolled_back".into()));
    assert!(last["why"].as_str().unwrap().contains("from errors"), "{last}");
    assert!(explain(&gateway).contains("`retry` starts v2 again"));
}

#[test]
fn a_dead_canary_costs_users_nothing_and_is_rolled_back() {
    let (stable, canary) = tracks();
    let gateway = Gateway::start(&rollout(&stable, &canary, STAYS, ""));
    let load = Load::start(gateway.address, 1_000, nobody);
    gateway.await_rollout("api", |rollout| requests(rollout, "canary") > 50);
    let died = Instant::now();
    drop(canary);
    gateway.await_phase("rolled_back");
    let took = died.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Only what was under way on a connection that broke can fail: stable takes over the rest.
    assert!(load.failed() <= 5, "{} requests failed", load.failed());
    // A request is counted when it ends: none may be under way.
    drop(load);
    let failed_over = gateway.metric("splitway_failed_over_total", &["canary"]);
    assert!(failed_over > 0.0);
    let refused = gateway.metric("http_requests_total", &["canary", "status=\"502\""]);
    assert!(refused >= failed_over, "what stable answered is still the canary's failure");
}

#[test]
fn an_outage_of_both_tracks_never_rolls_back() {
    let (stable, canary) = tracks();
    let gateway = Gateway::start(&rollout(&stable, &canary, STAYS, ""));
    let load = Load::start(gateway.address, 1_000, nobody);
    gateway.await_rollout("api", |rollout| requests(rollout, "canary") > 50);
    stable.set_errors(300);
    canary.set_errors(300);
    let before = load.failed();
    let during = gateway.await_rollout("api", |_| load.failed() > before + 900);
    assert_eq!(during["phase"], "progressing", "{during:#}");
    assert!(during["e"].as_f64().unwrap() < 10.0, "{during:#}");
    stable.set_errors(0);
    canary.set_errors(0);
}

#[test]
fn a_canary_three_times_slower_is_rolled_back_for_it() {
    let (stable, canary) = tracks();
    stable.set_pause(Duration::from_millis(10));
    canary.set_pause(Duration::from_millis(30));
    let plan = STAYS.replace("[5, 100]", "[20, 100]");
    let gateway = Gateway::start(&rollout(&stable, &canary, &plan, ""));
    let _load = Load::start(gateway.address, 500, nobody);
    gateway.await_phase("rolled_back");
    let why = transitions(&gateway).pop().unwrap()["why"].to_string();
    assert!(why.contains("latency"), "{why}");
}

/// A dependency that both use hangs: stable waits for it and times out, the canary fails at once.
#[test]
fn an_outage_in_which_stable_times_out_and_the_canary_fails_fast_does_not_roll_back() {
    let (stable, canary) = tracks();
    let timeouts = "    timeouts: { first_byte: 4s }\n";
    let gateway = Gateway::start(&rollout(&stable, &canary, STAYS, timeouts));
    // Many clients, because a client whose request hangs sends no other.
    let loads: Vec<Load> = (0..8).map(|_| Load::start(gateway.address, 25, nobody)).collect();
    gateway.await_rollout("api", |rollout| requests(rollout, "canary") > 10);
    stable.set_pause(Duration::from_secs(6));
    canary.set_errors(1_000);
    // Long enough for the cohorts of the outage to close by their settle time, twice over.
    let from = gateway.rollout("api")["run_evidence"]["stable"]["errors"].as_u64().unwrap();
    let during = gateway.await_rollout("api", |rollout| {
        let errors = rollout["run_evidence"]["stable"]["errors"].as_u64().unwrap();
        assert_ne!(rollout["phase"], "rolled_back", "{rollout:#}");
        errors > from + 200
    });
    assert_ne!(during["phase"], "rolled_back", "{during:#}");
    stable.set_pause(Duration::from_millis(2));
    drop(loads);
}

/// The header of one of a thousand users, or of one of a few broken ones.
fn users(number: u64, broken: u64, every: u64) -> String {
    if number.is_multiple_of(every) {
        return format!("x-user-id: broken-{}\r\n", number / every % broken);
    }
    format!("x-user-id: user-{}\r\n", number.wrapping_mul(0x9e37_79b9) % 5_000)
}

const STICKY: &str = "    sticky: { header: x-user-id }\n";

#[test]
fn five_broken_sticky_clients_do_not_roll_a_good_canary_back() {
    let (stable, canary) = tracks();
    let broken = ["broken-0", "broken-1", "broken-2", "broken-3", "broken-4"];
    stable.set_broken_users(&broken);
    canary.set_broken_users(&broken);
    let plan = STAYS.replace("[5, 100]", "[50, 100]");
    let gateway = Gateway::start(&rollout(&stable, &canary, &plan, STICKY));
    let load = Load::start(gateway.address, 800, |number| users(number, 5, 20));
    let later = gateway.await_rollout("api", |rollout| {
        assert_ne!(rollout["phase"], "rolled_back", "{rollout:#}");
        requests(rollout, "canary") > 2_500
    });
    assert!(load.failed() > 100, "the broken ones do fail: {}", load.failed());
    assert!(later["e"].as_f64().unwrap() < 10.0, "{later:#}");
    assert!(!later["blamed_users"].as_array().unwrap().is_empty(), "{later:#}");
    assert!(explain(&gateway).contains("sticky users fail"), "{}", explain(&gateway));
}

#[test]
fn one_sticky_user_who_always_fails_does_not_hide_that_the_canary_dies() {
    let (stable, canary) = tracks();
    stable.set_broken_users(&["broken-0"]);
    canary.set_broken_users(&["broken-0"]);
    let gateway = Gateway::start(&rollout(&stable, &canary, STAYS, STICKY));
    let _load = Load::start(gateway.address, 800, |number| users(number, 1, 3));
    let before = gateway.await_rollout("api", |rollout| requests(rollout, "stable") > 2_000);
    assert_eq!(before["phase"], "progressing", "{before:#}");
    let died = Instant::now();
    canary.set_errors(1_000);
    gateway.await_phase("rolled_back");
    assert!(died.elapsed() < Duration::from_secs(5), "{:?}", died.elapsed());
}

#[test]
fn event_streams_on_both_tracks_do_not_hide_a_canary_with_errors() {
    let (stable, canary) = tracks();
    stable.set_streams();
    canary.set_streams().set_errors(100);
    let plan = STAYS.replace("[5, 100]", "[50, 100]");
    let gateway = Gateway::start(&rollout(&stable, &canary, &plan, ""));
    let _load = Load::start(gateway.address, 150, nobody);
    gateway.await_phase("rolled_back");
    let why = transitions(&gateway).pop().unwrap()["why"].to_string();
    assert!(why.contains("from errors"), "{why}");
}

#[test]
fn stale_pooled_connections_roll_nothing_back() {
    let (stable, canary) = tracks();
    stable.set_closes();
    canary.set_closes();
    let plan = STAYS.replace("[5, 100]", "[50, 100]");
    let gateway = Gateway::start(&rollout(&stable, &canary, &plan, ""));
    let load = Load::start(gateway.address, 400, nobody);
    let later = gateway.await_rollout("api", |rollout| requests(rollout, "canary") > 1_000);
    assert_eq!(later["phase"], "progressing", "{later:#}");
    assert!(later["e"].as_f64().unwrap() < 10.0, "{later:#}");
    assert_eq!(load.failed(), 0);
}

#[test]
fn a_canary_that_starts_slowly_is_waited_for_and_not_crashed() {
    let stable = Tested::new("stable");
    let address = Upstream::refusing();
    let canary = |address| format!("canary: {{ version: v2, endpoints: ['{address}'] }}");
    let placeholder = Tested::new("canary");
    let health = "    health: { path: /ready, interval: 100ms }\n";
    let text = rollout(&stable, &placeholder, STAYS, health);
    let text = text.replace(&canary(placeholder.address()), &canary(address));
    let gateway = Gateway::start(&text);
    let waiting = gateway.await_phase("waiting");
    assert_eq!(waiting["weight"], 0.0);
    gateway.await_rollout("api", |rollout| {
        rollout["explain"].as_str().unwrap().contains("0 of 1 canary endpoints are ready")
    });
    let started = Tested::on(std::net::TcpListener::bind(address).unwrap(), "canary");
    // It listens, but says that it is not ready.
    started.set_unready(true);
    gateway.await_rollout("api", |_| started.upstream.requests() > 3);
    assert_eq!(gateway.rollout("api")["phase"], "waiting");
    started.set_unready(false);
    let progressing = gateway.await_phase("progressing");
    assert_eq!(progressing["weight"], 5.0);
}

#[test]
fn a_canary_that_is_never_ready_pauses_and_resume_waits_again() {
    let (stable, canary) = tracks();
    canary.set_unready(true);
    let health = "    health: { path: /ready, interval: 50ms }\n";
    let plan = format!("{STAYS}\nstart: {{ timeout: 1s }}");
    let gateway = Gateway::start(&rollout(&stable, &canary, &plan, health));
    gateway.await_phase("paused");
    assert!(explain(&gateway).contains("0 of 1 canary endpoints were ready within 1 s"));
    assert_eq!(gateway.command("/api/v1/services/api/resume", "").1["phase"], "waiting");
    canary.set_unready(false);
    gateway.await_phase("progressing");
}

#[test]
fn a_canary_that_crashes_four_times_is_rolled_back() {
    let stable = Tested::new("stable");
    let mut canary = Some(Tested::on(Upstream::apart(), "canary"));
    let address = canary.as_ref().unwrap().address();
    let health = "    health: { interval: 200ms }\n";
    // Nothing is sent, so that the crashes alone decide.
    let text = rollout(&stable, canary.as_ref().unwrap(), STAYS, health);
    let gateway = Gateway::start(&text);
    gateway.await_phase("progressing");
    for crash in 1..=4 {
        assert_eq!(gateway.rollout("api")["phase"], "progressing", "after {} crashes", crash - 1);
        drop(canary.take());
        gateway.await_rollout("api", |rollout| rollout["ready_endpoints"]["canary"] == 0);
        let listener = loop {
            // The old socket's last connections let go of the port in their own time.
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            socket.set_reuse_address(true).unwrap();
            if socket.bind(&address.into()).is_ok() {
                socket.listen(128).unwrap();
                break std::net::TcpListener::from(socket);
            }
            std::thread::yield_now();
        };
        let back = Tested::on(listener, "canary");
        // Good probes enough that the rule on readiness is not what speaks.
        gateway.await_rollout("api", |rollout| {
            back.upstream.connections() >= 10 || rollout["phase"] == "rolled_back"
        });
        canary = Some(back);
    }
    gateway.await_phase("rolled_back");
    let last = transitions(&gateway).pop().unwrap();
    assert_eq!(last["cause"], "health");
    assert!(last["why"].as_str().unwrap().contains("crashed 4 times"), "{last}");
}

#[test]
fn readiness_that_fails_on_more_than_half_of_the_probes_rolls_back_unless_stable_fails_too() {
    let (stable, canary) = tracks();
    let health = "    health: { path: /ready, interval: 30ms }\n";
    let gateway = Gateway::start(&rollout(&stable, &canary, STAYS, health));
    gateway.await_phase("progressing");
    stable.set_unready(true);
    canary.set_unready(true);
    let before = canary.upstream.requests();
    gateway.await_rollout("api", |_| canary.upstream.requests() > before + 40);
    assert_eq!(gateway.rollout("api")["phase"], "progressing");
    stable.set_unready(false);
    gateway.await_phase("rolled_back");
    let last = transitions(&gateway).pop().unwrap();
    assert!(last["why"].as_str().unwrap().contains("readiness probes"), "{last}");
}

/// The founding document's plan, unattended, from one file; the times are shortened.
#[test]
fn the_founding_plan_runs_unattended_in_threshold_mode() {
    let (stable, canary) = tracks();
    let plan = "mode: threshold\nstages: [5, 10, 25, 50, 75, 100]\nmin: 1s\nthreshold: { window: 1s, \
                min_requests: 10, min_errors: 5 }\nlimits: { p99_ratio: 20 }";
    let gateway = Gateway::start(&rollout(&stable, &canary, plan, ""));
    let load = Load::start(gateway.address, 800, nobody);
    gateway.await_phase("promoted");
    let weights: Vec<f64> =
        transitions(&gateway).iter().map(|one| one["weight"].as_f64().unwrap()).collect();
    assert_eq!(weights, [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0]);
    assert_eq!(load.failed(), 0);
}

#[test]
fn threshold_mode_rolls_back_for_errors_and_for_latency() {
    let plan = "mode: threshold\nstages: [50, 100]\nmin: 10m\nthreshold: { window: 2s }";
    for (is_slow, expected) in [(false, "errors over 2 s"), (true, "p99 over 2 s")] {
        let (stable, canary) = tracks();
        stable.set_pause(Duration::from_millis(10));
        canary.set_pause(Duration::from_millis(if is_slow { 60 } else { 10 }));
        canary.set_errors(if is_slow { 0 } else { 200 });
        let gateway = Gateway::start(&rollout(&stable, &canary, plan, ""));
        let _load = Load::start(gateway.address, 300, nobody);
        gateway.await_phase("rolled_back");
        let why = transitions(&gateway).pop().unwrap()["why"].to_string();
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn after_a_rollback_rules_lead_to_stable_and_open_streams_end() {
    let (stable, canary) = tracks();
    canary.set_streams();
    let rules =
        "    rules:\n      - match: { headers: { canary: 'true' } }\n        track: canary\n";
    let plan = format!("{STAYS}\nrollback_drain: 1s");
    let gateway = Gateway::start(&rollout(&stable, &canary, &plan, rules));
    gateway.await_phase("progressing");
    let mut open: Client = gateway.connect();
    assert_eq!(open.try_get("/", "canary: true\r\n").unwrap().track(), "canary");
    let started = Instant::now();
    let (status, done) = gateway.command("/api/v1/services/api/rollback", r#"{"actor":"ann"}"#);
    assert_eq!((status, &done["phase"]), (200, &"rolled_back".into()));
    assert_eq!(gateway.connect().get("/", "canary: true\r\n").track(), "stable");
    // A reload changes nothing of that.
    gateway.edit(&rollout(
        &stable,
        &canary,
        &plan,
        &format!("{rules}    timeouts: {{ connect: 3s }}\n"),
    ));
    assert_eq!(gateway.connect().get("/", "canary: true\r\n").track(), "stable");
    open.rest();
    let took = started.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(10)).contains(&took), "{took:?}");
    let last = transitions(&gateway).pop().unwrap();
    assert_eq!(
        (&last["actor"], &last["cause"]),
        (&"peer:127.0.0.1 (says ann)".into(), &"operator".into())
    );
}

#[test]
fn excluded_requests_and_more_error_statuses_are_as_the_file_says() {
    let (stable, canary) = tracks();
    canary.set_errors(1_000);
    let exclude =
        format!("{STAYS}\nevidence: {{ exclude: [{{ path: / }}] }}").replace("5, ", "50, ");
    let gateway = Gateway::start(&rollout(&stable, &canary, &exclude, ""));
    let load = Load::start(gateway.address, 300, nobody);
    gateway.await_phase("progressing");
    let before = load.failed();
    let later = gateway.await_rollout("api", |_| load.failed() > before + 100);
    assert_eq!((&later["phase"], requests(&later, "canary")), (&"progressing".into(), 0));
}

#[test]
fn the_cap_on_excess_failures_holds_where_users_hide_them() {
    let (stable, canary) = tracks();
    canary.set_broken_users(&["broken-0", "broken-1", "broken-2", "broken-3"]);
    let plan = format!("{STAYS}\nlimits: {{ excess_failures: 200 }}").replace("5, ", "50, ");
    let gateway = Gateway::start(&rollout(&stable, &canary, &plan, STICKY));
    let _load = Load::start(gateway.address, 800, |number| users(number, 4, 3));
    gateway.await_phase("rolled_back");
    let why = transitions(&gateway).pop().unwrap()["why"].to_string();
    assert!(why.contains("failures beyond the limits, 200 are allowed"), "{why}");
}

#[test]
fn a_dry_run_judges_and_says_and_moves_nothing() {
    let (stable, canary) = tracks();
    canary.set_errors(500);
    let weights = "    weights: { stable: 80, canary: 20 }\n";
    let plan = format!("{FAST}\ndry_run: true");
    let gateway = Gateway::start(&rollout(&stable, &canary, &plan, weights));
    let _load = Load::start(gateway.address, 300, nobody);
    let said = gateway.await_rollout("api", |rollout| {
        rollout["explain"].as_str().unwrap().contains("Dry run; it would roll back")
    });
    assert_eq!((&said["phase"], &said["weight"]), (&"progressing".into(), &20.0.into()));
    assert_eq!(gateway.metric("splitway_weight_ratio", &["canary"]), 0.2);
}

#[test]
fn a_hold_back_stays_judged_after_promotion() {
    let (stable, canary) = tracks();
    let plan = format!("{FAST}\nhold_back: 20").replace("50, 100", "50");
    let gateway = Gateway::start(&rollout(&stable, &canary, &plan, ""));
    let _load = Load::start(gateway.address, 800, nobody);
    let promoted = gateway.await_phase("promoted");
    assert_eq!(promoted["weight"], 80.0);
    canary.set_errors(500);
    gateway.await_phase("rolled_back");
}

#[test]
fn bake_ends_by_itself_and_rollback_undoes_a_promotion() {
    let (stable, canary) = tracks();
    let plan = "stages: [{ weight: 100, approve: true }]\nmin: 1s\nbake: 1s";
    let gateway = Gateway::start(&rollout(&stable, &canary, plan, ""));
    gateway.await_phase("progressing");
    gateway.await_rollout("api", |rollout| {
        rollout["explain"].as_str().unwrap().contains("waits for approval")
    });
    assert_eq!(gateway.command("/api/v1/services/api/promote", "").1["phase"], "promoted");
    assert_eq!(gateway.connect().get("/", "").track(), "canary");
    gateway.await_phase("idle");
    assert_eq!(gateway.connect().get("/", "").track(), "canary", "idle keeps the weight");
    assert_eq!(gateway.command("/api/v1/services/api/rollback", "").1["phase"], "rolled_back");
    assert_eq!(gateway.connect().get("/", "").track(), "stable");
}
